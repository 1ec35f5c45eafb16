"""Labels of all kinds become one: 1 at samples with a spike, 0 at the others; or how many spikes there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

KINDS = ("auto", "seconds", "frames", "trace")


def targets(
    labels: np.ndarray | Sequence[ArrayLike],
    num_samples: Sequence[int],
    sampling_frequency: float,
    kind: str = "auto",
    counted: bool = False,
) -> list[np.ndarray]:
    """Return 0/1 traces for labels of any kind, or spike counts.

    Parameters
    ----------
    labels : array or list of arrays
        One array per trace: spike times in seconds, spike frames, or a 0/1 trace. For a single trace the array alone
        will do, and for traces of shape (T, N) an array (T, N) of 0 and 1.
    num_samples : sequence of int
        Length of each trace.
    sampling_frequency : float
        In Hz.
    kind : {"auto", "seconds", "frames", "trace"}
        What labels are. "auto" takes, trace by trace, an array as long as the trace that holds nothing but 0 and 1
        for a 0/1 trace (no spike train has two spikes at 0 or 1, so that is what it is), other integers for frames,
        and other numbers for seconds.
    counted : bool
        Give the number of spikes from each sample to the next, and take traces of such numbers, too: "auto" takes an
        array as long as the trace for one, unless it ascends.

    Returns
    -------
    list of np.ndarray, shapes (T,), int8
        One per trace.

    Raises
    ------
    ValueError
        If there is not one array per trace, a 0/1 trace is not as long as its trace, or a spike lies outside it.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r}")
    per_trace = _one_per_trace(labels, num_samples)
    for index, each in enumerate(per_trace):
        if each.ndim != 1 or each.dtype.kind not in "biuf" or not np.isfinite(each.astype(float)).all():
            raise ValueError(f"labels[{index}] must be a list of finite numbers: spike times, frames, or a 0/1 trace")
    return [
        (_counts if counted else _target)(each, length, sampling_frequency, kind, f"labels[{index}]")
        for index, (each, length) in enumerate(zip(per_trace, num_samples, strict=True))
    ]


def _one_per_trace(labels: np.ndarray | Sequence[ArrayLike], num_samples: Sequence[int]) -> list[np.ndarray]:
    """Return a list with the labels of each trace."""
    table = isinstance(labels, np.ndarray) and labels.ndim == 2
    if isinstance(labels, np.ndarray) and labels.shape == (num_samples[0], len(num_samples)):
        return list(labels.T)
    alone = isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype != object
    alone = alone or (isinstance(labels, Sequence) and all(isinstance(each, Real) for each in labels))
    if len(num_samples) == 1 and alone:
        return [np.asarray(labels)]
    if alone or table or len(labels) != len(num_samples):
        shape = f"shape {labels.shape}" if isinstance(labels, np.ndarray) else f"{len(labels)}"
        raise ValueError(
            f"labels: there are {len(num_samples)} traces, so give a list of {len(num_samples)} arrays "
            f"or 0/1 of the shape of the traces, not {shape}"
        )
    return [np.asarray(each) for each in labels]


def _target(label: np.ndarray, num_samples: int, sampling_frequency: float, kind: str, name: str) -> np.ndarray:
    """Return the 0/1 trace of one trace's labels."""
    binary = ((label == 0) | (label == 1)).all()
    if kind == "auto":
        if binary and len(label) == num_samples:
            kind = "trace"
        elif binary and len(label) > 2:
            raise ValueError(f"{name} has {len(label)} values 0 and 1, but the trace has {num_samples} samples")
        else:
            kind = "frames" if label.dtype.kind in "iu" else "seconds"
    if kind == "trace":
        if not binary or len(label) != num_samples:
            raise ValueError(f"{name} must be {num_samples} values 0 or 1, as many as the trace has samples")
        return label.astype("int8")
    target = np.zeros(num_samples, dtype="int8")
    target[_frames(label, np.rint, num_samples, sampling_frequency, kind, name)] = 1
    return target


def _counts(label: np.ndarray, num_samples: int, sampling_frequency: float, kind: str, name: str) -> np.ndarray:
    """Return how many spikes each sample of one trace has."""
    if kind == "trace" or (kind == "auto" and len(label) == num_samples and not np.all(np.diff(label) > 0)):
        if label.shape != (num_samples,) or not np.isin(label, np.arange(128)).all():
            raise ValueError(f"{name} must be {num_samples} numbers of spikes, as many as the trace has samples")
        return label.astype("int8")
    if kind == "auto":
        kind = "frames" if label.dtype.kind in "iu" else "seconds"
    frames = _frames(label, np.floor, num_samples, sampling_frequency, kind, name)
    return np.bincount(frames, minlength=num_samples).astype("int8")


def _frames(
    label: np.ndarray, whole: Callable, num_samples: int, sampling_frequency: float, kind: str, name: str
) -> np.ndarray:
    """Return the samples of spikes given as frames or seconds."""
    frames = label if kind == "frames" else whole(label * sampling_frequency)
    outside = (frames < 0) | (frames >= num_samples)
    if outside.any():
        unit, extent = ("s", num_samples / sampling_frequency) if kind == "seconds" else ("", num_samples)
        raise ValueError(
            f"{name}: the spike at {label[outside][0]:g} {unit} lies outside the trace (0 to {extent:g} {unit}); "
            "floats are taken for seconds and integers for frames, unless kind says otherwise"
        )
    return frames.astype(int)
