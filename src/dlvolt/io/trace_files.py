"""Traces and labels from plain files: ``.npy``, ``.npz`` and ``.csv``."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from spikeinterface.core import NumpyRecording

TRACE_SUFFIXES = (".npy", ".npz", ".csv")


def read_trace_file(
    path: str | Path, sampling_frequency: float | None, *, stream_name: str | None = None
) -> NumpyRecording:
    """Open traces in a plain file.

    Parameters
    ----------
    path : path
        A ``.npy`` or ``.npz`` file with an array of shape (T,) or (T, N), or a ``.csv`` file with a column for each
        trace, with or without a line of names.
    sampling_frequency : float
        Samples per second, which such files do not tell.
    stream_name : str, optional
        Which array of an ``.npz`` file; needed only where there are several.

    Returns
    -------
    NumpyRecording
        N channels, named as the columns of the file are, else 0, 1, …

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, holds no traces or several arrays, or if `sampling_frequency` is not positive.
    """
    path = Path(path)
    if sampling_frequency is None:
        raise ValueError(f"sampling_frequency: {path} does not tell how many samples there are per second; give it.")
    if not 0 < sampling_frequency < np.inf:
        raise ValueError(f"sampling_frequency: must be positive, in Hz, not {sampling_frequency}.")
    table = _load(path, "source")
    traces = _pick(table, path, stream_name) if isinstance(table, dict) else table
    names = list(traces.columns) if isinstance(traces, pd.DataFrame) else None
    if stream_name is not None and not isinstance(table, dict):
        raise ValueError(f"stream_name: {path} holds one array; leave it out.")
    traces = np.asarray(traces)
    if traces.dtype.kind not in "iuf" or traces.ndim not in (1, 2) or traces.size == 0:
        raise ValueError(f"source: {path} must hold numbers of shape (T,) or (T, N), not {_described(traces)}.")
    traces = traces.reshape(len(traces), -1)
    if traces.shape[1] > traces.shape[0]:
        raise ValueError(f"source: {path} has {traces.shape[1]} traces of {len(traces)} samples; transpose it.")
    return NumpyRecording([traces], sampling_frequency, channel_ids=names)


def read_label_file(path: str | Path, num_traces: int) -> np.ndarray | list[np.ndarray]:
    """Read labels from a plain file.

    Parameters
    ----------
    path : path
        Either a table of spikes: a ``.csv`` file with the columns ``channel`` (0 is the first trace) and ``time_s``,
        or an ``.npz`` file with these two arrays. Or an array, ``.npy``, ``.npz`` or ``.csv``: 0/1 traces of the
        shape of the traces, or the spike times of a single trace, s.
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


def _load(path: Path, argument: str) -> np.ndarray | dict[str, np.ndarray] | pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: there is no file {path}.")
    if path.suffix not in TRACE_SUFFIXES:
        raise ValueError(f"{argument}: {path} must be one of {', '.join(TRACE_SUFFIXES)}.")
    try:
        if path.suffix == ".csv":
            return _read_csv(path)
        loaded = np.load(path)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return dict(loaded)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
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
