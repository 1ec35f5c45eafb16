"""What is computed of sorted units before they are written: waveforms, quality metrics, locations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer, create_sorting_analyzer
from spikeinterface.core.job_tools import fix_job_kwargs

from dlvolt.electrodes.stages import filter_and_reference, set_aside
from dlvolt.parameters import SorterParameters

QUALITY_METRICS = ("num_spikes", "firing_rate", "snr", "isi_violation", "rp_violation", "amplitude_median", "sd_ratio")
PRESENCE_BIN_S = 60.0  # of SpikeInterface; a shorter recording has no presence ratio


def analyze(
    sorting: BaseSorting,
    recording: BaseRecording,
    parameters: SorterParameters,
    *,
    folder: str | Path | None = None,
    preprocessed: bool = False,
    job_kwargs: dict[str, Any] | None = None,
) -> SortingAnalyzer:
    """Compute waveforms, quality metrics and locations of sorted units.

    Parameters
    ----------
    sorting : BaseSorting
        The K units; K may be 0.
    recording : BaseRecording
        The recording that was sorted. It is filtered and referenced as in the sorter, but not whitened.
    parameters : SorterParameters
        The parameters of the sorter.
    folder : path, optional
        A new folder for the result; by default it is kept in memory.
    preprocessed : bool, default: False
        Whether the recording is filtered and referenced already.
    job_kwargs : dict, optional
        SpikeInterface's job keyword arguments.

    Returns
    -------
    SortingAnalyzer
        A sparse analyzer with templates (average and std), spike amplitudes, quick quality metrics and unit locations,
        in µV if the recording knows its gains. Without units it has templates only.
    """
    job_kwargs = fix_job_kwargs({"pool_engine": "thread"} | (job_kwargs or {}))
    duration_s = recording.get_total_duration()
    metric_names = [*QUALITY_METRICS, "presence_ratio"] if duration_s >= PRESENCE_BIN_S else list(QUALITY_METRICS)
    if not preprocessed:
        recording = filter_and_reference(set_aside(recording, parameters, job_kwargs), parameters)

    analyzer = create_sorting_analyzer(
        sorting,
        recording,
        format="memory" if folder is None else "binary_folder",
        folder=folder,
        sparse=True,
        return_in_uV=recording.has_scaleable_traces(),
        seed=parameters.seed,
        job_kwargs=job_kwargs,
    )
    extensions: dict[str, dict] = {
        "random_spikes": {"seed": parameters.seed},
        "waveforms": {"ms_before": parameters.ms_before, "ms_after": parameters.ms_after},
        "templates": {"operators": ["average", "std"]},
    }
    if len(sorting.unit_ids) > 0:  # the other extensions need at least one spike
        extensions |= {
            "noise_levels": {"random_slices_kwargs": {"seed": parameters.seed}},
            "spike_amplitudes": {},
            "unit_locations": {},
            "quality_metrics": {"metric_names": metric_names},
        }
    analyzer.compute(extensions, **job_kwargs)
    return analyzer
