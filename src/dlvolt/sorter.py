"""The sorter: ``si.run_sorter("dlvolt", recording)``."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.core.job_tools import fix_job_kwargs, job_keys
from spikeinterface.sorters.internal.si_based import ComponentsBasedSorter
from threadpoolctl import threadpool_limits

from dlvolt.parameters import SorterParameters

MIN_SAMPLING_FREQUENCY = 6000.0  # Hz; slower, and a template has too few samples to be shifted by parts of one

MIN_SEGMENT_S = 0.01


class DlvoltSorter(ComponentsBasedSorter):
    """Spike sorting by MAP deconvolution with low-rank templates."""

    sorter_name = "dlvolt"
    sorter_description = (
        "dlvolt models a recording as the sum of its units, each an amplitude train convolved with a low-rank "
        "template, and finds amplitudes and templates by coordinate ascent on the posterior."
    )
    installation_mesg = "\npip install dlvolt"
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
    def initialize_folder(
        cls, recording: BaseRecording, output_folder: Path | str | None, verbose: bool, remove_existing_folder: bool
    ) -> Path:
        """Check the recording, before any folder is made or removed, then make the folder."""
        if isinstance(recording, BaseRecording):
            _check_recording(recording)
        return super().initialize_folder(recording, output_folder, verbose, remove_existing_folder)

    @classmethod
    def set_params_to_folder(
        cls, recording: BaseRecording, output_folder: Path, new_params: dict[str, Any], verbose: bool
    ) -> dict[str, Any]:
        """Check the parameters and store them; take the new folder away again if they are wrong."""
        try:
            return super().set_params_to_folder(recording, output_folder, new_params, verbose)
        except ValueError:
            shutil.rmtree(output_folder)
            raise

    @classmethod
    def _check_params(cls, recording: BaseRecording, output_folder: Path, params: dict[str, Any]) -> dict[str, Any]:
        SorterParameters(**params)
        _check_device(params["device"])
        if unknown := set(params["job_kwargs"] or ()) - set(job_keys):
            raise ValueError(
                f"job_kwargs has no {', '.join(sorted(unknown))}; SpikeInterface knows {', '.join(job_keys)}"
            )
        if not params["freq_min"] < recording.sampling_frequency / 2:
            raise ValueError(
                f"freq_min must be below half the sampling frequency, {recording.sampling_frequency / 2} Hz, "
                f"not {params['freq_min']}"
            )
        return params

    @classmethod
    def _run_from_folder(cls, sorter_output_folder: Path, params: dict[str, Any], verbose: bool) -> None:
        recording = cls.load_recording_from_folder(Path(sorter_output_folder).parent, with_warnings=False)
        sorting = sort(recording, SorterParameters(**params), verbose=verbose)
        with warnings.catch_warnings():  # the sorting is all there is to save; where it came from is known
            warnings.filterwarnings("ignore", message="The extractor is not serializable")
            sorting.save(folder=Path(sorter_output_folder) / "sorting")


def _check_device(device: str) -> None:
    import torch

    try:
        known = device == "auto" or torch.device(device).type == "cpu"
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', not {device!r}") from error
    if not known and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but there is no CUDA here; take 'auto' or 'cpu'")


def _check_recording(recording: BaseRecording) -> None:
    if recording.get_num_channels() == 0:
        raise ValueError("recording: it has no channels")
    if not recording.has_probe():
        raise ValueError(
            "recording: dlvolt needs channel locations; give them with recording.set_probe(…) or "
            "recording.set_dummy_probe_from_locations(…)"
        )
    if recording.sampling_frequency < MIN_SAMPLING_FREQUENCY:
        raise ValueError(
            f"recording: it is sampled at {recording.sampling_frequency} Hz; extracellular spikes need at least "
            f"{MIN_SAMPLING_FREQUENCY} Hz"
        )
    for segment in range(recording.get_num_segments()):
        num_samples = recording.get_num_samples(segment)
        if num_samples < MIN_SEGMENT_S * recording.sampling_frequency:
            raise ValueError(
                f"recording: segment {segment} has {num_samples} samples only; segments must last "
                f"{1000 * MIN_SEGMENT_S:g} ms, so leave it out with recording.select_segments(…)"
            )


@threadpool_limits.wrap(limits=1)  # the parallel parts have workers; threads within those only get in the way
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
    return stages.collect(whitened, waveforms, spikes, p)
