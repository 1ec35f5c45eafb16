"""Traces and labels from arrays and plain files: ``.npy``, ``.npz``, ``.csv`` and ``.mat``."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import h5py
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from spikeinterface.core import BaseRecording, BaseRecordingSegment, NumpyRecording

TRACE_SUFFIXES = (".npy", ".npz", ".csv", ".mat")

Value = Literal["fluorescence", "delta_f_over_f"]


def traces_to_recording(
    traces: ArrayLike | str | Path,
    sampling_frequency: float,
    *,
    stream_name: str | None = None,
    roi_ids: Sequence[int | str] | None = None,
    positions_um: ArrayLike | None = None,
    value: Value | None = None,
    indicator: str | None = None,
    t_start: float | None = None,
) -> BaseRecording:
    """Make a recording of traces of regions of interest (ROIs).

    Parameters
    ----------
    traces : array of shape (T,) or (T, N), or path
        A column for each ROI, or the file that holds them, see `dlvolt.io.read_trace_file`. NaN is allowed.
    sampling_frequency : float
        Samples per second.
    stream_name : str, optional
        Which array of an ``.npz`` file or variable of a ``.mat`` file; needed only where there are several.
    roi_ids : sequence of int or str, optional
        The names of the N ROIs. By default as the columns of the file are named, else 0, 1, …
    positions_um : array of shape (N, 2), optional
        Where the ROIs are: x and y of their centroids, µm.
    value : {"fluorescence", "delta_f_over_f"}, optional
        What the numbers are.
    indicator : str, optional
        The name of the indicator.
    t_start : float, optional
        Time of the first sample, s.

    Returns
    -------
    BaseRecording
        A channel for each ROI, in the number type of the traces. Traces of a file are read when they are asked for;
        such a recording can be saved as JSON. The annotations are ``modality="optical"``, ``imaging_rate_hz``, and
        ``value`` and ``indicator`` where given. Positions become the property ``centroid`` and the probe.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the traces are no numbers, of another shape, empty or transposed, or if another argument does not fit.
    """
    check_value(value)
    rois = dict(roi_ids=roi_ids, positions_um=positions_um, value=value, indicator=indicator)
    if isinstance(traces, (str, Path)):
        return TraceFileRecording(traces, sampling_frequency, stream_name, t_start, rois)
    if stream_name is not None:
        raise ValueError("stream_name: is for files; leave it out.")
    check_sampling_frequency(sampling_frequency)
    columns = _columns(traces)
    traces = _as_traces(np.asarray(traces), "traces: the array")
    channel_ids = _channel_ids(columns, roi_ids, traces.shape[1])
    t_starts = None if t_start is None else [t_start]
    recording = NumpyRecording([traces], sampling_frequency, t_starts=t_starts, channel_ids=channel_ids)
    _describe_traces(recording, rois)
    return recording


def read_trace_file(
    path: str | Path, sampling_frequency: float | None, *, stream_name: str | None = None
) -> TraceFileRecording:
    """Open traces in a plain file, whatever they are of.

    Parameters
    ----------
    path : path
        A ``.npy`` or ``.npz`` file with an array of shape (T,) or (T, N), a ``.csv`` file with a column for each
        trace, with or without a line of names, or a ``.mat`` file of any version with a matrix of a column for each
        trace, or a vector.
    sampling_frequency : float
        Samples per second, which such files do not tell.
    stream_name : str, optional
        Which array of an ``.npz`` file or variable of a ``.mat`` file; needed only where there are several.

    Returns
    -------
    TraceFileRecording
        N channels, named as the columns of the file are, else 0, 1, … The traces of ``.npy`` files and of ``.mat``
        files of version 7.3 are read when they are asked for; other files are held in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, holds no traces or several arrays, or if `sampling_frequency` is not positive.

    See Also
    --------
    traces_to_recording : The same for traces of ROIs, with what is known of these.
    """
    return TraceFileRecording(path, sampling_frequency, stream_name)


class TraceFileRecording(BaseRecording):
    """Traces in a plain file, see `read_trace_file` and `traces_to_recording`.

    Parameters
    ----------
    file_path : path
    sampling_frequency : float
    stream_name : str, optional
    t_start : float, optional
        Time of the first sample, s.
    rois : dict, optional
        Where the traces are of ROIs, what is known of these: the arguments ``roi_ids``, ``positions_um``, ``value``
        and ``indicator`` of `traces_to_recording`.
    """

    def __init__(
        self,
        file_path: str | Path,
        sampling_frequency: float | None,
        stream_name: str | None = None,
        t_start: float | None = None,
        rois: dict[str, Any] | None = None,
    ) -> None:
        path = Path(file_path)
        if sampling_frequency is None:
            raise ValueError(
                f"sampling_frequency: {path} does not tell how many samples there are per second; give it."
            )
        check_sampling_frequency(sampling_frequency)
        table = _load(path, "source")
        if stream_name is not None and not isinstance(table, dict):
            raise ValueError(f"stream_name: {path} holds one array; leave it out.")
        picked = _pick(table, path, stream_name) if isinstance(table, dict) else table
        traces = _as_traces(picked, f"source: {path}")
        channel_ids = _channel_ids(_columns(picked), (rois or {}).get("roi_ids"), traces.shape[1])

        BaseRecording.__init__(self, sampling_frequency, channel_ids, traces.dtype.newbyteorder("="))
        self.add_recording_segment(TraceFileSegment(traces, sampling_frequency, t_start))
        if rois is not None:
            rois = {name: _plain(item) for name, item in rois.items()}
            _describe_traces(self, rois)
        self._kwargs = dict(
            file_path=str(path.absolute()),
            sampling_frequency=sampling_frequency,
            stream_name=stream_name,
            t_start=t_start,
            rois=rois,
        )


class TraceFileSegment(BaseRecordingSegment):
    """The one segment of a `TraceFileRecording`."""

    def __init__(self, traces: np.ndarray | _MatlabMatrix, sampling_frequency: float, t_start: float | None) -> None:
        BaseRecordingSegment.__init__(self, sampling_frequency=sampling_frequency, t_start=t_start)
        self.traces = traces

    def get_num_samples(self) -> int:
        """Return T."""
        return self.traces.shape[0]

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the traces, shape (T, N), in the byte order of this machine."""
        chunk = self.traces[start_frame:end_frame]
        chunk = np.asarray(chunk, dtype=chunk.dtype.newbyteorder("="))
        return chunk if channel_indices is None else chunk[:, channel_indices]


def describe_rois(
    recording: BaseRecording,
    *,
    centroid: np.ndarray | None = None,
    centroid_unit: Literal["um", "pixels"] = "um",
    num_pixels: Sequence[int] | None = None,
    **annotations: Any,
) -> None:
    """Note on a recording that its N channels are ROIs, and what is known of them; None is not known.

    Centroids, (N, 2) as x and y, become the probe where they are in µm and no two are the same, which probes forbid.
    """
    annotations = {name: item for name, item in annotations.items() if item is not None}
    recording.annotate(modality="optical", imaging_rate_hz=float(recording.sampling_frequency), **annotations)
    if num_pixels is not None:
        recording.set_property("num_pixels", np.asarray(num_pixels))
    if centroid is not None:
        recording.set_property("centroid", centroid)
        recording.set_property("centroid_unit", np.full(len(centroid), centroid_unit))
        if centroid_unit == "um" and len(np.unique(centroid, axis=0)) == len(centroid):
            recording.set_dummy_probe_from_locations(centroid)


def check_roi_ids(roi_ids: Sequence[int | str], num_rois: int) -> list[int | str]:
    """Return ROI ids as a list, if they are as many as the ROIs and differ."""
    roi_ids = np.asarray(roi_ids).tolist()
    if not isinstance(roi_ids, list) or len(roi_ids) != num_rois or len(set(roi_ids)) != num_rois:
        raise ValueError(f"roi_ids: must be a different name for each of the {num_rois} ROIs, not {roi_ids!r}.")
    return roi_ids


def check_sampling_frequency(sampling_frequency: float, argument: str = "sampling_frequency") -> None:
    """Raise unless a rate is positive."""
    if not 0 < sampling_frequency < np.inf:
        raise ValueError(f"{argument}: must be positive, in Hz, not {sampling_frequency}.")


def check_value(value: Value | None) -> None:
    """Raise unless it is known what the numbers of a recording are."""
    if value not in (None, "fluorescence", "delta_f_over_f"):
        raise ValueError(f"value: must be 'fluorescence', 'delta_f_over_f' or None, not {value!r}.")


def _describe_traces(recording: BaseRecording, rois: dict[str, Any]) -> None:
    num_rois = recording.get_num_channels()
    centroid = rois["positions_um"]
    if centroid is not None:
        centroid = np.asarray(centroid, dtype=float)
        if centroid.shape != (num_rois, 2) or not np.isfinite(centroid).all():
            raise ValueError(f"positions_um: must be x and y of each ROI in µm, of shape ({num_rois}, 2).")
    describe_rois(recording, centroid=centroid, value=rois["value"], indicator=rois["indicator"])


def _plain(item: Any) -> Any:
    """Return what JSON can hold."""
    return item if item is None or isinstance(item, str) else np.asarray(item).tolist()


def _columns(table: Any) -> list[str] | None:
    return list(table.columns) if isinstance(table, pd.DataFrame) else None


def _channel_ids(columns: list | None, roi_ids: Sequence[int | str] | None, num_traces: int) -> Sequence[int | str]:
    if roi_ids is not None:
        return check_roi_ids(roi_ids, num_traces)
    return range(num_traces) if columns is None else columns


def _as_traces(traces: Any, where: str) -> np.ndarray | _MatlabMatrix:
    """Return traces of shape (T, N), without reading them if they lie in a file."""
    if not isinstance(traces, _MatlabMatrix):
        traces = np.asanyarray(traces)  # memory maps stay maps
    if traces.dtype.kind not in "iuf" or traces.ndim not in (1, 2) or 0 in traces.shape:
        raise ValueError(f"{where} must hold numbers of shape (T,) or (T, N), not {_described(traces)}.")
    if traces.ndim == 1:
        return traces.reshape(-1, 1)
    if traces.shape[1] > traces.shape[0]:
        raise ValueError(f"{where} has {traces.shape[1]} traces of {traces.shape[0]} samples; transpose it.")
    return traces


def read_label_file(path: str | Path, num_traces: int) -> np.ndarray | list[np.ndarray]:
    """Read labels from a plain file.

    Parameters
    ----------
    path : path
        Either a table of spikes: a ``.csv`` file with the columns ``channel`` (0 is the first trace) and ``time_s``,
        or an ``.npz`` or ``.mat`` file with these two arrays. Or an array in any of the files that hold traces: 0/1
        traces of the shape of the traces, or the spike times of a single trace, s.
    num_traces : int
        N.

    Returns
    -------
    np.ndarray or list of np.ndarray
        The array, or the spike times of each trace, s, as `dlvolt.training.fit` takes them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, or has spikes on channels that are not there.
    """
    path = Path(path)
    table = _load(path, "labels")
    if isinstance(table, (dict, pd.DataFrame)) and {"channel", "time_s"} <= set(table):
        channel, time_s = np.asarray(table["channel"]), np.asarray(table["time_s"])
        if channel.shape != time_s.shape or channel.ndim != 1:
            raise ValueError(f"labels: 'channel' and 'time_s' in {path} must be two lists of one length.")
        if unknown := sorted(set(channel.tolist()) - set(range(num_traces))):
            raise ValueError(
                f"labels: {path} has spikes on channel {unknown[0]}; the traces are 0 to {num_traces - 1}."
            )
        return [np.sort(time_s[channel == index]) for index in range(num_traces)]
    labels = np.asarray(_pick(table, path, None, "labels") if isinstance(table, dict) else table)
    if labels.dtype.kind not in "biuf":
        raise ValueError(
            f"labels: {path} must hold the columns channel and time_s, or 0 and 1 for each sample, "
            f"not {_described(labels)}."
        )
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _load(path: Path, argument: str) -> np.ndarray | dict[str, np.ndarray | _MatlabMatrix] | pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: there is no file {path}.")
    if path.suffix not in TRACE_SUFFIXES:
        raise ValueError(f"{argument}: {path} must be one of {', '.join(TRACE_SUFFIXES)}.")
    try:
        if path.suffix == ".csv":
            return _read_csv(path)
        if path.suffix == ".mat":
            return _read_mat(path)
        loaded = np.load(path, mmap_mode="r")
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except (ValueError, OSError, EOFError, BadZipFile, MatReadError, zlib.error) as error:
        raise ValueError(f"{argument}: {path} cannot be read as {path.suffix}: {error}") from error


def _read_csv(path: Path) -> pd.DataFrame | np.ndarray:
    """Return a table if the first line holds names, else an array."""
    with path.open(encoding="utf-8") as file:
        first = file.readline()
    try:
        np.array(first.split(","), dtype=float)
    except ValueError:
        return pd.read_csv(path)
    return pd.read_csv(path, header=None).to_numpy()


def _read_mat(path: Path) -> dict[str, np.ndarray | _MatlabMatrix]:
    """Return the variables of a MATLAB file; those with one row or column, as MATLAB has it, with one axis."""
    if not h5py.is_hdf5(path):  # up to version 7.2
        variables = {name: item for name, item in loadmat(path).items() if isinstance(item, np.ndarray)}
        return {name: item.ravel() if 1 in item.shape else item for name, item in variables.items()}
    with h5py.File(path) as file:
        return {
            name: _matlab_array(path, name, item)
            for name, item in file.items()
            if isinstance(item, h5py.Dataset) and item.attrs.get("MATLAB_class") not in (b"char", b"cell")
        }


def _matlab_array(path: Path, name: str, dataset: h5py.Dataset) -> np.ndarray | _MatlabMatrix:
    if "MATLAB_empty" in dataset.attrs:  # then the numbers are those of its shape
        return np.empty(tuple(dataset))
    return dataset[()].ravel() if 1 in dataset.shape else _MatlabMatrix(path, name, dataset)


class _MatlabMatrix:
    """A matrix in a MATLAB file of version 7.3 (HDF5, axes in reverse order), whose rows are read when asked for."""

    def __init__(self, path: Path, name: str, dataset: h5py.Dataset) -> None:
        self.path, self.name = path, name
        self.shape = dataset.shape[::-1]
        self.dtype, self.ndim = dataset.dtype, len(self.shape)

    def __getitem__(self, rows: slice) -> np.ndarray:
        with h5py.File(self.path) as file:  # not held open, so that processes and threads do not share it
            return file[self.name][..., rows].T

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


def _pick(arrays: dict[str, np.ndarray], path: Path, name: str | None, argument: str = "stream_name") -> np.ndarray:
    """Return the array of a name, or the only one."""
    listed = ", ".join(f"'{key}' {array.shape}" for key, array in arrays.items()) or "nothing"
    if name is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if name is None:
        mend = "choose one" if argument == "stream_name" else "leave one, or 'channel' and 'time_s'"
        raise ValueError(f"{argument}: {path} holds {listed}; {mend}.")
    if name not in arrays:
        raise ValueError(f"{argument}: there is no '{name}' in {path}; it holds {listed}.")
    return arrays[name]


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
