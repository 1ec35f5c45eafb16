"""Split traces in time, and cut them into windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dlvolt.networks.inference import mirror


def windows(
    traces: Sequence[np.ndarray], labels: Sequence[np.ndarray], size: int, overlap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut traces and labels into overlapping windows.

    The last window of a trace ends where the trace ends, so no sample is left out. A trace shorter than a window is
    continued by its mirror image.

    Parameters
    ----------
    traces, labels : sequences of arrays, shapes (T,)
        Traces, and their labels of the same lengths.
    size, overlap : int
        Length of a window, and how many samples it shares with the next.

    Returns
    -------
    X, y : np.ndarray, shape (B, size), float32 and int8
        Windows of traces, and of labels.

    Raises
    ------
    ValueError
        If `overlap` is not smaller than `size`.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be at least 0 and less than the window of {size} samples, not {overlap}")
    X, y = [], []
    for trace, label in zip(traces, labels, strict=True):
        index = window_samples(len(trace), size, overlap)  # B×size
        X.append(trace[index])
        y.append(label[index])
    return np.concatenate(X).astype("float32"), np.concatenate(y).astype("int8")


def window_samples(num_samples: int, size: int, overlap: int) -> np.ndarray:
    """Return the samples of each window of a trace, shape (B, size)."""
    if num_samples < size:
        return mirror(np.arange(size), num_samples)[None]
    starts = np.arange(0, num_samples - size + 1, size - overlap)
    if starts[-1] + size < num_samples:
        starts = np.append(starts, num_samples - size)
    return starts[:, None] + np.arange(size)


def split_in_time(
    arrays: Sequence[np.ndarray], fractions: Sequence[float] = (0.7, 0.15, 0.15)
) -> tuple[list[np.ndarray], ...]:
    """Split each array along time into consecutive parts: training, validation, test.

    Parameters
    ----------
    arrays : sequence of arrays, shapes (T,)
        Traces, or labels.
    fractions : sequence of float
        Share of the time of each part; their sum is 1.

    Returns
    -------
    tuple of lists of arrays
        One list per fraction, with a part of each array.

    Raises
    ------
    ValueError
        If fractions are not positive or do not sum to 1, or an array is too short for each part to have a sample.

    Examples
    --------
    >>> import numpy as np
    >>> [part[0].tolist() for part in split_in_time([np.arange(10)], (0.7, 0.2, 0.1))]
    [[0, 1, 2, 3, 4, 5, 6], [7, 8], [9]]
    """
    if min(fractions) <= 0 or not np.isclose(sum(fractions), 1):
        raise ValueError(f"fractions must be positive with the sum 1, not {tuple(fractions)}")
    parts = []
    for array in arrays:
        borders = np.rint(np.cumsum(fractions)[:-1] * len(array)).astype(int)
        parts.append(np.split(array, borders))
        if min(map(len, parts[-1])) == 0:
            raise ValueError(f"traces: {len(array)} samples are too few for {len(fractions)} parts; give longer ones")
    return tuple(map(list, zip(*parts, strict=True)))
