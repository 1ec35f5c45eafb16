"""The sorter: ``si.run_sorter("dlvolt", recording)``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.core.job_tools import fix_job_kwargs
from spikeinterface.sorters.internal.si_based import ComponentsBasedSorter

from dlvolt.parameters import SorterParameters


class DlvoltSorter(ComponentsBasedSorter):
    """Spike sorting by MAP deconvolution with low-rank templates."""

    sorter_name = "dlvolt"
    sorter_description = (
        "dlvolt models a recording as the sum of its units, each an amplitude train convolved with a low-rank "
        "template, and finds amplitudes and templates by coordinate ascent on the posterior."
    )
    installation_mesg = "\npip install dlvolt"
    requires_locations = False  # told with the mend, in _check_params, where it is really needed
    gpu_capability = "nvidia-optional"
    handle_multi_segment = True
    _default_params = SorterParameters.defaults()
    _params_description = SorterParameters.descriptions()

    @classmethod
    def get_sorter_version(cls) -> str:
        """Return dlvolt's version."""
        from dlvolt import __version__

        return __version__

    @classmethod
    def _check_params(cls, recording: BaseRecording, output_folder: Path, params: dict[str, Any]) -> dict[str, Any]:
        SorterParameters(**params)
        if not recording.has_probe():
            raise ValueError(
                "recording: dlvolt needs channel locations; give them with recording.set_probe(…), or with "
                "recording.set_dummy_probe_from_locations(…)"
            )
        return params

    @classmethod
    def _run_from_folder(cls, sorter_output_folder: Path, params: dict[str, Any], verbose: bool) -> None:
        recording = cls.load_recording_from_folder(Path(sorter_output_folder).parent, with_warnings=False)
        sorting = sort(recording, SorterParameters(**params), verbose=verbose)
        sorting.save(folder=Path(sorter_output_folder) / "sorting")


def sort(recording: BaseRecording, parameters: SorterParameters, verbose: bool = False) -> NumpySorting:
    """Sort the spikes of an extracellular recording.

    Parameters
    ----------
    recording : BaseRecording
        N channels with locations; raw traces.
    parameters : SorterParameters
        Parameters.
    verbose : bool
        Say what is done, and show progress bars.

    Returns
    -------
    NumpySorting
        Units 0, 1, …, by depth, with properties ``snr``, ``amplitude`` (both in noise standard deviations),
        ``main_channel_id``.
    """
    from dlvolt import stages  # torch and scikit-learn wait until there is something to sort

    p = parameters
    job_kwargs = fix_job_kwargs(p.job_kwargs)
    job_kwargs["pool_engine"] = "thread"  # torch, scipy and numpy let go of the interpreter lock
    job_kwargs["progress_bar"] = job_kwargs["progress_bar"] and verbose
    say = print if verbose else lambda *_: None

    whitened = stages.preprocess(recording, p)
    sample = stages.take_sample(whitened, p.learning_duration_s, job_kwargs)
    peaks, features, basis, neighbours = stages.detect(whitened, sample, p, job_kwargs)
    say(f"dlvolt: {len(peaks)} peaks")
    waveforms = stages.cluster(whitened, peaks, features, basis, neighbours, p)
    say(f"dlvolt: {len(waveforms)} clusters")
    waveforms = stages.learn(whitened, sample, waveforms, p, job_kwargs)
    say(f"dlvolt: {len(waveforms)} units")
    spikes = stages.deconvolve(whitened, waveforms, p, job_kwargs)
    say(f"dlvolt: {len(spikes)} spikes")
    return stages.collect(whitened, waveforms, spikes)
