"""Labels of all kinds as one array per trace: 1 at samples with a spike and 0 at others, or numbers of spikes."""

from __future__ import annotations

from collections.abc import Sequence
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
        What the labels are. "auto" decides trace by trace: an array as long as the trace that holds nothing but 0 and 1
        is a 0/1 trace, other integers are frames, and other numbers are seconds.
    counted : bool
        Return the number of spikes from each sample to the next. Labels may then be traces of such numbers: "auto"
        takes an array as long as the trace for one, unless it ascends.

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
        _target(each, length, sampling_frequency, kind, counted, f"labels[{index}]")
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


def _target(
    label: np.ndarray, num_samples: int, sampling_frequency: float, kind: str, counted: bool, name: str
) -> np.ndarray:
    """Return the 0/1 trace, or the numbers of spikes, of one trace's labels."""
    binary = np.isin(label, (0, 1)).all()
    if kind == "auto":
        as_long = len(label) == num_samples
        if binary and not as_long and len(label) > 2 and not counted:
            raise ValueError(f"{name} has {len(label)} values 0 and 1, but the trace has {num_samples} samples")
        if as_long and (not np.all(np.diff(label) > 0) if counted else binary):
            kind = "trace"
        else:
            kind = "frames" if label.dtype.kind in "iu" else "seconds"
    if kind == "trace":
        possible, what = (np.arange(128), "numbers of spikes") if counted else ((0, 1), "values 0 or 1")
        if len(label) != num_samples or not np.isin(label, possible).all():
            raise ValueError(f"{name} must be {num_samples} {what}, as many as the trace has samples")
        return label.astype("int8")
    rounded = np.floor if counted else np.rint
    frames = label if kind == "frames" else rounded(label * sampling_frequency)
    outside = (frames < 0) | (frames >= num_samples)
    if outside.any():
        unit, extent = ("s", num_samples / sampling_frequency) if kind == "seconds" else ("", num_samples)
        raise ValueError(
            f"{name}: the spike at {label[outside][0]:g} {unit} lies outside the trace (0 to {extent:g} {unit}); "
            "floats are taken for seconds and integers for frames, unless kind says otherwise"
        )
    counts = np.bincount(frames.astype(int), minlength=num_samples)
    return (counts if counted else counts > 0).astype("int8")
