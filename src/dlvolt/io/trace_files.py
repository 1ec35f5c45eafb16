"""Traces and labels from arrays and plain files: ``.npy``, ``.npz``, ``.csv`` and ``.mat``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.io import loadmat
from spikeinterface.core import BaseRecording, NumpyRecording

from dlvolt.io.errors import reading
from dlvolt.io.lazy import LazySegment
from dlvolt.io.rois import Value, check_roi_ids, check_sampling_frequency, check_value, describe_rois
from dlvolt.io.streams import choose_stream

TRACE_SUFFIXES = (".npy", ".npz", ".csv", ".mat")
TIME_NAMES = ("time", "times", "timestamp", "timestamps", "t", "s", "sec", "second", "seconds", "ms", "milliseconds")
TIME_NAMES += ("frame", "frames", "sample", "samples", "index")


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
        x and y of the centroids of the ROIs, µm.
    value : {"fluorescence", "delta_f_over_f"}, optional
        What the numbers are.
    indicator : str, optional
        The name of the indicator.
    t_start : float, optional
        Time of the first sample, s.

    Returns
    -------
    BaseRecording
        A channel for each ROI, in the number type of the traces. That of a file can be saved as JSON. The annotations
        are ``modality="optical"``, ``imaging_rate_hz``, and ``value`` and ``indicator`` where given. Positions become
        the property ``centroid`` and the probe.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the traces are no numbers, of another shape, empty or transposed, or if a table begins with a column of
        times.

    Examples
    --------
    >>> import numpy as np
    >>> from dlvolt import traces_to_recording
    >>> recording = traces_to_recording(np.zeros((1500, 2)), 500.0, roi_ids=["soma", "dendrite"])
    >>> recording.get_total_duration(), list(map(str, recording.channel_ids))
    (3.0, ['soma', 'dendrite'])
    """
    check_value(value)
    rois = dict(roi_ids=roi_ids, positions_um=positions_um, value=value, indicator=indicator)
    if isinstance(traces, (str, Path)):
        return TraceFileRecording(traces, sampling_frequency, stream_name, t_start, rois, argument="traces")
    if stream_name is not None:
        raise ValueError("stream_name: is for files; leave it out.")
    check_sampling_frequency(sampling_frequency)
    is_table = isinstance(traces, pd.DataFrame)
    where = f"traces: the {'table' if is_table else 'array'}"
    traces, channel_ids = _traces_and_ids(traces if is_table else np.asarray(traces), where, roi_ids)
    t_starts = None if t_start is None else [t_start]
    recording = NumpyRecording([traces], sampling_frequency, t_starts=t_starts, channel_ids=channel_ids)
    _describe_traces(recording, rois)
    return recording


def read_trace_file(
    path: str | Path, sampling_frequency: float | None, *, stream_name: str | None = None
) -> TraceFileRecording:
    """Open traces in a plain file, of ROIs or anything else.

    Parameters
    ----------
    path : path
        A ``.npy``, ``.npz`` or ``.mat`` file (of any version) with an array of shape (T,) or (T, N), or a ``.csv``
        file with a column for each trace, with or without a first line of names.
    sampling_frequency : float
        Samples per second, which such files do not tell.
    stream_name : str, optional
        Which array of an ``.npz`` file or variable of a ``.mat`` file; needed only where there are several.

    Returns
    -------
    TraceFileRecording
        N channels, named as the columns of the file are, else 0, 1, … The traces of ``.npy`` files are read when they
        are asked for; other files are held in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, holds no traces or several arrays, or begins with a column of times.

    See Also
    --------
    traces_to_recording : The same for traces of ROIs, with what is known of these.
    """
    return TraceFileRecording(path, sampling_frequency, stream_name)


class TraceFileRecording(BaseRecording):
    """Traces in a plain file, see `read_trace_file` and `traces_to_recording`.

    Of ROIs, `rois` are the arguments ``roi_ids``, ``positions_um``, ``value`` and ``indicator`` of
    `traces_to_recording`. Errors name the `argument` that gave the file.
    """

    def __init__(
        self,
        file_path: str | Path,
        sampling_frequency: float | None,
        stream_name: str | None = None,
        t_start: float | None = None,
        rois: dict[str, Any] | None = None,
        argument: str = "path",
    ) -> None:
        path = Path(file_path)
        if sampling_frequency is None:
            raise ValueError(
                f"sampling_frequency: {path} does not tell how many samples there are per second; give it."
            )
        check_sampling_frequency(sampling_frequency)
        table = _load(path, argument)
        if isinstance(table, dict):
            table = table[choose_stream(stream_name, _listed(table), path, "several arrays")]
        elif stream_name is not None:
            raise ValueError(f"stream_name: {path} holds one array; leave it out.")
        traces, channel_ids = _traces_and_ids(table, f"{argument}: {path}", (rois or {}).get("roi_ids"))

        BaseRecording.__init__(self, sampling_frequency, channel_ids, traces.dtype.newbyteorder("="))
        read = partial(_read_rows, traces)
        self.add_recording_segment(
            LazySegment(traces.shape[0], read, sampling_frequency=sampling_frequency, t_start=t_start)
        )
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


def _read_rows(traces: np.ndarray, start: int, end: int, channels: Sequence[int] | slice) -> np.ndarray:
    """Return some samples of some traces, in the byte order of this machine."""
    rows = traces[start:end]
    return np.asarray(rows, dtype=rows.dtype.newbyteorder("="))[:, channels]


def _describe_traces(recording: BaseRecording, rois: dict[str, Any]) -> None:
    num_rois = recording.get_num_channels()
    centroid = rois["positions_um"]
    if centroid is not None:
        centroid = np.asarray(centroid, dtype=float)
        if centroid.shape != (num_rois, 2) or not np.isfinite(centroid).all():
            raise ValueError(f"positions_um: must be x and y of each ROI in µm, of shape ({num_rois}, 2).")
    describe_rois(recording, centroid=centroid, value=rois["value"], indicator=rois["indicator"])


def _plain(item: Any) -> Any:
    """Return an argument as JSON can hold it."""
    return item if item is None or isinstance(item, str) else np.asarray(item).tolist()


def _traces_and_ids(
    table: pd.DataFrame | np.ndarray, where: str, roi_ids: Sequence[int | str] | None
) -> tuple[np.ndarray, Sequence[int | str]]:
    """Return traces of shape (T, N), without reading them if they lie in a file, and the ids of their channels."""
    names = roi_ids
    if isinstance(table, pd.DataFrame):
        first, values = table.columns[0], table.iloc[:, 0].to_numpy()
        is_named_time = re.split("[^a-z]+", str(first).lower())[0] in TIME_NAMES
        if is_named_time and values.dtype.kind in "iuf" and np.all(np.diff(values) > 0):
            raise ValueError(f"{where} has the column '{first}', which is no trace; leave it out.")
        names = list(table.columns) if roi_ids is None else roi_ids
    traces = np.asanyarray(table)  # memory maps stay maps
    if traces.dtype.kind not in "iuf" or traces.ndim not in (1, 2) or 0 in traces.shape:
        raise ValueError(f"{where} must hold numbers of shape (T,) or (T, N), not {_described(traces)}.")
    if traces.ndim == 1:
        traces = traces.reshape(-1, 1)
    if traces.shape[1] > traces.shape[0]:
        raise ValueError(f"{where} has {traces.shape[1]} traces of {traces.shape[0]} samples; transpose it.")
    num_traces = traces.shape[1]
    return traces, range(num_traces) if names is None else check_roi_ids(names, num_traces)


def read_label_file(path: str | Path, num_traces: int) -> np.ndarray | list[np.ndarray]:
    """Read labels for `dlvolt.training.fit` from a plain file.

    Parameters
    ----------
    path : path
        Either a ``.csv``, ``.npz`` or ``.mat`` file with the columns or arrays ``channel`` (0 is the first trace) and
        ``time_s`` of spikes; or, in any of the files that hold traces, an array of 0 and 1 of the shape of the traces,
        or the spike times of a single trace, s.
    num_traces : int
        The number of traces N.

    Returns
    -------
    np.ndarray or list of np.ndarray
        The array, or from a table the spike times of each trace, s.

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
    if isinstance(table, dict):
        if len(table) != 1:
            listed = ", ".join(_listed(table).values())
            raise ValueError(f"labels: {path} holds {listed}; leave one, or 'channel' and 'time_s'.")
        [table] = table.values()
    labels = np.asarray(table)
    if labels.dtype.kind not in "biuf":
        raise ValueError(
            f"labels: {path} must hold the columns channel and time_s, or 0 and 1 for each sample, "
            f"not {_described(labels)}."
        )
    if isinstance(table, pd.DataFrame) and labels.shape[1] > 1 and not np.isin(labels, (0, 1)).all():
        raise ValueError(
            f"labels: {path} has the columns {', '.join(map(str, table.columns))}; it must have channel and time_s, or "
            "0 and 1 for each sample."
        )
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _load(path: Path, argument: str) -> np.ndarray | dict[str, np.ndarray] | pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: there is no file {path}.")
    suffix = path.suffix.lower()
    if suffix not in TRACE_SUFFIXES:
        raise ValueError(f"{argument}: {path} must be one of {', '.join(TRACE_SUFFIXES)}.")
    with reading(path, argument):
        if suffix == ".csv":
            return _read_csv(path)
        if suffix == ".npy":
            return np.load(path, mmap_mode="r")
        if suffix == ".mat":
            arrays = _read_mat(path)
        else:
            with np.load(path) as loaded:
                arrays = dict(loaded)
    if not arrays:
        raise ValueError(f"{argument}: {path} holds no arrays of one or two axes.")
    return arrays


def _read_csv(path: Path) -> pd.DataFrame | np.ndarray:
    """Return a CSV file as a table if its first line holds names, else as an array."""
    settings = dict(encoding="utf-8-sig", skipinitialspace=True)
    first = pd.read_csv(path, header=None, nrows=1, **settings)
    is_number = [pd.api.types.is_numeric_dtype(dtype) for dtype in first.dtypes]  # also where a cell is empty or NA
    if all(is_number):
        return pd.read_csv(path, header=None, **settings).to_numpy()
    if any(is_number):
        raise ValueError("its first line has both names and numbers or gaps; name all columns or none")
    table = pd.read_csv(path, **settings)
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError("it has more columns than names; name all columns or none")
    table.columns = first.iloc[0].tolist()  # pandas would rename those that are there twice
    return table


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    """Return the variables of a MATLAB file; vectors, which MATLAB keeps as one row or column, have one axis."""
    if not h5py.is_hdf5(path):  # up to version 7.2
        variables = {name: item for name, item in loadmat(path).items() if isinstance(item, np.ndarray)}
    else:  # HDF5, with the axes in reverse order; a movie of three axes would not be traces, and is not read
        with h5py.File(path) as file:
            variables = {
                # Of an empty array the dataset holds the shape.
                name: np.empty(tuple(item)) if "MATLAB_empty" in item.attrs else item[()].T
                for name, item in file.items()
                if isinstance(item, h5py.Dataset)
                and item.ndim <= 2
                and item.attrs.get("MATLAB_class") not in (b"char", b"cell")
            }
    return {name: item.ravel() if 1 in item.shape else item for name, item in variables.items()}


def _listed(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: f"'{name}' {array.shape}" for name, array in arrays.items()}


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
