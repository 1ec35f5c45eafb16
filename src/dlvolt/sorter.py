"""The sorter: ``si.run_sorter("dlvolt", recording)``."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from spikeinterface.core import BaseRecording, BaseSorting, load
from spikeinterface.core.core_tools import extractor_dict_iterator
from spikeinterface.core.job_tools import ensure_chunk_size, job_keys
from spikeinterface.sorters.internal.si_based import ComponentsBasedSorter

import dlvolt  # its parts are imported lazily, when there is something to sort
from dlvolt import moved
from dlvolt.parameters import SorterParameters

MIN_SAMPLING_FREQUENCY = 6000.0  # Hz; at lower ones templates have too few samples to be shifted by parts of one
MIN_SEGMENT_S = 0.01


class DlvoltSorter(ComponentsBasedSorter):
    """Spike sorting by MAP deconvolution with low-rank templates; for ROIs, spike detection with a neural network."""

    sorter_name = "dlvolt"
    sorter_description = (
        "dlvolt models a recording of electrodes as the sum of its units, each an amplitude train convolved with a "
        "low-rank template, and finds amplitudes and templates by coordinate ascent on the posterior. In recordings of "
        "ROIs (voltage imaging) it finds the spikes of each with a neural network."
    )
    installation_mesg = "\npip install dlvolt"
    gpu_capability = "nvidia-optional"
    handle_multi_segment = True
    _default_params = SorterParameters.defaults()
    _params_description = SorterParameters.descriptions()

    @classmethod
    def get_sorter_version(cls) -> str:
        """Return dlvolt's version."""
        return dlvolt.__version__

    @classmethod
    def initialize_folder(
        cls, recording: BaseRecording, output_folder: Path | str | None, verbose: bool, remove_existing_folder: bool
    ) -> Path:
        """Make the folder of a run and return it; a recording that exists only in memory is saved in it.

        An older folder that it replaces is set aside until parameters and recording are checked.
        """
        if isinstance(recording, BaseRecording):
            _check_size(recording)
        folder = Path(output_folder or f"{cls.sorter_name}_output").absolute()
        on_disk = not isinstance(recording, BaseRecording) or _can_be_loaded_again(recording)
        if remove_existing_folder and folder.is_dir():
            if on_disk and _lies_in(recording, folder):
                raise ValueError(f"folder: the recording lies in {folder}, which would be removed; give another one")
            shutil.rmtree(_set_aside(folder), ignore_errors=True)  # of a run that was killed
            folder.replace(_set_aside(folder))
        try:
            if on_disk:
                return super().initialize_folder(recording, folder, verbose, remove_existing_folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".dlvolt-", dir=folder.parent) as beside:
                kwargs = dict(verbose=False, n_jobs=1, progress_bar=False, chunk_memory="100M")
                saved = _save(recording, Path(beside) / "recording", **kwargs)
                super().initialize_folder(saved, folder, verbose, remove_existing_folder)
                shutil.move(Path(beside) / "recording", folder / "recording")
            load(folder / "recording").dump(folder / "spikeinterface_recording.json")
            return folder
        except Exception:
            _put_back(folder)
            raise

    @classmethod
    def set_params_to_folder(
        cls, recording: BaseRecording, output_folder: Path, new_params: dict[str, Any], verbose: bool
    ) -> dict[str, Any]:
        """Check parameters and recording, store the parameters, and return them; if they are wrong, undo everything."""
        try:
            params = super().set_params_to_folder(recording, output_folder, new_params, verbose)
        except Exception:
            shutil.rmtree(output_folder)
            _put_back(output_folder)
            raise
        shutil.rmtree(_set_aside(output_folder), ignore_errors=True)
        return params

    @classmethod
    def _check_params(cls, recording: BaseRecording, output_folder: Path, params: dict[str, Any]) -> dict[str, Any]:
        check(recording, SorterParameters(**params))
        return params

    @classmethod
    def _run_from_folder(cls, sorter_output_folder: Path, params: dict[str, Any], verbose: bool) -> None:
        recording = cls.load_recording_from_folder(Path(sorter_output_folder).parent, with_warnings=False)
        parameters = SorterParameters(**params)
        modality = choose_modality(recording, parameters.modality)
        if verbose:
            print(f"dlvolt: {modality} mode, as {_reason(recording, parameters.modality)}")
        sort = dlvolt.rois.sort_rois if modality == "optical" else dlvolt.electrodes.sort_electrodes
        _save(sort(recording, parameters, verbose=verbose), Path(sorter_output_folder) / "sorting")


def __getattr__(name: str) -> Any:
    """Return what an old name of this module now is, see `dlvolt.moved`."""
    return moved.attribute(__name__, name)


def check(recording: BaseRecording, p: SorterParameters) -> None:
    """Raise if a recording cannot be sorted with these parameters, before any work.

    Parameters
    ----------
    recording : BaseRecording
        Recording of electrodes or ROIs.
    p : SorterParameters
        Parameters.

    Raises
    ------
    FileNotFoundError, ValueError
        If it cannot; the message names what is wrong and how to mend it.
    """
    _check_size(recording)
    _check_device(p.device)
    _check_job_kwargs(recording, p.job_kwargs or {})
    if choose_modality(recording, p.modality) == "optical":
        from dlvolt.rois.recipe import check as check_rois

        check_rois(recording, p)
    else:
        _check_electrodes(recording, p)


def _check_job_kwargs(recording: BaseRecording, job_kwargs: dict[str, Any]) -> None:
    if unknown := set(job_kwargs) - set(job_keys):
        raise ValueError(f"job_kwargs has no {', '.join(sorted(unknown))}; SpikeInterface knows {', '.join(job_keys)}")
    if job_kwargs.get("n_jobs", 1) == 0:
        raise ValueError("job_kwargs: n_jobs must be a number of threads, a part of the cores, or -1 for all, not 0")
    try:
        chunk_kwargs = {key: value for key, value in job_kwargs.items() if key.startswith(("chunk", "total_memory"))}
        ensure_chunk_size(recording, **chunk_kwargs)
    except Exception as error:  # SpikeInterface raises many kinds
        raise ValueError(f"job_kwargs: {chunk_kwargs} do not tell how long chunks are: {error}") from error


def _check_device(device: str) -> None:
    import torch

    try:
        known = device == "auto" or torch.device(device).type == "cpu"
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', not {device!r}") from error
    if not known and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but there is no CUDA here; take 'auto' or 'cpu'")


def choose_modality(recording: BaseRecording, modality: str = "auto") -> str:
    """Return what the channels of a recording are: "optical" (ROIs) or "extracellular" (electrodes).

    Parameters
    ----------
    recording : BaseRecording
        Its annotation ``modality``, which the readers of dlvolt make, tells. Without one, channels are ROIs if the
        sampling frequency is below 6 kHz, unless there is a probe and traces are in µV, as with electrodes.
    modality : str, default: "auto"
        What the channels are, if that is known; "auto" looks at the recording.

    Raises
    ------
    ValueError
        If the annotation is neither of these nor "calcium", which is optical, too.
    """
    if modality != "auto":
        return modality
    if (annotated := recording.get_annotation("modality")) is not None:
        if annotated not in ("optical", "calcium", "extracellular"):
            raise ValueError(
                f"recording: its annotation modality={annotated!r} must be 'optical', 'calcium' or 'extracellular'; "
                "change it with recording.annotate(modality=…), or give the parameter modality"
            )
        return "optical" if annotated == "calcium" else annotated
    in_microvolts = recording.has_probe() and recording.has_scaleable_traces()
    return "extracellular" if recording.sampling_frequency >= MIN_SAMPLING_FREQUENCY or in_microvolts else "optical"


def _reason(recording: BaseRecording, modality: str) -> str:
    """Return why `choose_modality` chooses as it does, to follow "as"."""
    if modality != "auto":
        return "asked for"
    if recording.get_annotation("modality"):
        return "the recording's annotation says"
    return f"the recording is sampled at {recording.sampling_frequency:g} Hz"


def _check_size(recording: BaseRecording) -> None:
    if recording.get_num_channels() == 0:
        raise ValueError("recording: it has no channels")
    for segment in range(recording.get_num_segments()):
        num_samples = recording.get_num_samples(segment)
        if num_samples < MIN_SEGMENT_S * recording.sampling_frequency:
            raise ValueError(
                f"recording: segment {segment} has {num_samples} samples only; segments must last "
                f"{1000 * MIN_SEGMENT_S:g} ms, so leave it out with recording.select_segments(…)"
            )


def _check_electrodes(recording: BaseRecording, p: SorterParameters) -> None:
    from dlvolt.electrodes.motion import why_not

    if recording.sampling_frequency < MIN_SAMPLING_FREQUENCY:
        raise ValueError(
            f"recording: it is sampled at {recording.sampling_frequency} Hz; extracellular spikes need at least "
            f"{MIN_SAMPLING_FREQUENCY} Hz; if channels are ROIs, say so: modality='optical'"
        )
    if not recording.has_probe():
        raise ValueError(
            "recording: dlvolt needs channel locations; give them with recording.set_probe(…) or "
            "recording.set_dummy_probe_from_locations(…), or modality='optical' if channels are ROIs"
        )
    nyquist_hz = recording.sampling_frequency / 2
    if not p.freq_min < nyquist_hz:
        raise ValueError(f"freq_min must be below half the sampling frequency, {nyquist_hz} Hz, not {p.freq_min}")
    if p.peak_model != "none":
        try:
            dlvolt.electrodes.check_peak_model(recording, p.peak_model, p.device)
        except (ValueError, FileNotFoundError) as error:
            message = str(error)  # its parameter is called model there
            raise type(error)(f"peak_{message}" if message.startswith("model") else message) from error
    if p.motion_correction is True and (reason := why_not(recording)):
        raise ValueError(f"motion_correction is True, but motion cannot be estimated, as {reason}; take 'auto'")


def _can_be_loaded_again(recording: BaseRecording) -> bool:
    return recording.check_serializability("json") or recording.check_serializability("pickle")


def _save(extractor: BaseRecording | BaseSorting, folder: Path, **kwargs: Any) -> BaseRecording | BaseSorting:
    """Save a recording or a sorting in a folder, without a warning that its provenance is not saved with it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The extractor is not serializable")
        return extractor.save(folder=folder, **kwargs)


def _lies_in(recording: BaseRecording, folder: Path) -> bool:
    """Return whether any of a recording's files is in a folder."""
    return any(
        Path(element.value).resolve().is_relative_to(folder.resolve())
        for element in extractor_dict_iterator(recording.to_dict(recursive=True))
        if "path" in str(element.name) and isinstance(element.value, str | Path)
    )


def _set_aside(folder: Path) -> Path:
    """Return where a folder that is replaced waits until parameters and recording are checked."""
    return folder.with_name(f".{folder.name}-replaced")


def _put_back(folder: Path) -> None:
    """Put the folder that was set aside back in its place, if this is free."""
    if _set_aside(folder).is_dir() and not folder.exists():
        _set_aside(folder).replace(folder)
