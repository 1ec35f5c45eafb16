"""Spike probabilities and rates of long traces, window by window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SAMPLES_PER_CALL = 2**21  # samples of the windows that are in memory at once


def trace_probability(
    model: Any, read: Callable[[int, int], np.ndarray], num_samples: int, start: int = 0, end: int | None = None
) -> np.ndarray:
    """Return the spike probability at every sample of a stretch of a recording.

    Each value is the mean over all windows that hold the sample and do not prune it. Windows lie on one grid over the
    whole recording, so values do not depend on the stretch that is asked for. Beyond either end of the recording,
    traces are continued by their mirror image.

    Parameters
    ----------
    model : TraceNetwork or MelSVM
        Fitted, with its ``window_samples`` (W), ``overlap_samples`` and ``prune_samples``.
    read : callable
        ``read(start, end)`` returns the traces (T, N) of these samples, at ``model.sampling_frequency``. It is never
        asked beyond the ends of the recording.
    num_samples : int
        Length of the recording.
    start, end : int
        First sample of the stretch, and its last sample plus one; by default the whole recording.

    Returns
    -------
    np.ndarray, shape (end - start, N), float32
        Probabilities.

    Raises
    ------
    ValueError
        If the range lies outside the recording, or traces are NaN or infinite.
    """
    return _over_windows(model, model.predict_proba, read, num_samples, start, end)


def trace_rate(
    model: Any, read: Callable[[int, int], np.ndarray], num_samples: int, start: int = 0, end: int | None = None
) -> np.ndarray:
    """Return the estimated spikes per second at every sample of a stretch of a recording, shape (end - start, N).

    As `trace_probability`, for a `RateNetwork`.
    """
    return _over_windows(model, model.predict, read, num_samples, start, end)


def _over_windows(
    model: Any,
    predict: Callable[[np.ndarray], np.ndarray],
    read: Callable[[int, int], np.ndarray],
    num_samples: int,
    start: int,
    end: int | None,
) -> np.ndarray:
    """Return the mean prediction for each sample over all windows that hold it; see `trace_probability`."""
    end = num_samples if end is None else end
    if not 0 <= start <= end <= num_samples:
        raise ValueError(f"start and end must lie within 0 and {num_samples}, not be {start} and {end}")
    width, prune = model.window_samples, model.prune_samples
    hop, kept = hop_and_kept(model)
    last = max(0, -((kept - num_samples) // hop))  # the first window that reaches the end of the recording
    first_window = max(0, (start - kept) // hop + 1)
    end_window = min(last, max(end - 1, 0) // hop) + 1

    num_channels = read(0, min(1, num_samples)).shape[1]
    total = np.zeros((end - start, num_channels), dtype="float32")
    count = np.zeros((end - start, 1), dtype="float32")
    per_call = max(1, SAMPLES_PER_CALL // (width * max(1, num_channels)))
    for first in range(first_window, end_window if end > start else first_window, per_call):
        window_starts = hop * np.arange(first, min(first + per_call, end_window))
        samples = mirror(np.arange(window_starts[0] - prune, window_starts[-1] - prune + width), num_samples)
        lowest = samples.min()
        traces = read(int(lowest), int(samples.max()) + 1)
        if not np.isfinite(traces).all():
            raise ValueError("traces: some samples are NaN or infinite; fill them (dlvolt.preprocessing.fill_nan)")
        traces = traces[samples - lowest]  # T×N
        windows = np.lib.stride_tricks.sliding_window_view(traces, width, axis=0)[::hop]  # B×N×W
        answer = predict(windows.reshape(-1, width)).reshape(windows.shape)
        for position, window in zip(window_starts, answer[..., prune : width - prune], strict=True):
            low, high = max(position, start), min(position + kept, end)
            total[low - start : high - start] += window[:, low - position : high - position].T
            count[low - start : high - start] += 1
    return total / count


def hop_and_kept(model: Any) -> tuple[int, int]:
    """Check a model's windows, and return the distance of neighbouring ones and how many samples of each are used."""
    if not hasattr(model, "overlap_samples"):
        raise ValueError(
            f"model: {model.architecture!r} is for snippets, not for traces; take dlvolt.electrodes.classify_peaks"
        )
    hop = model.window_samples - model.overlap_samples
    kept = model.window_samples - 2 * model.prune_samples
    if not 1 <= hop <= kept or model.prune_samples < 0 or model.overlap_samples < 0:
        raise ValueError(
            f"overlap_samples ({model.overlap_samples}) must be at least twice prune_samples ({model.prune_samples}) "
            f"and less than window_samples ({model.window_samples}), or windows leave samples out"
        )
    return hop, kept


def mirror(samples: np.ndarray, num_samples: int) -> np.ndarray:
    """Return samples with those beyond either end of a recording mirrored into it (… 1 0 | 0 1 … n-1 | n-1 …)."""
    folded = samples % (2 * num_samples)
    return np.minimum(folded, 2 * num_samples - 1 - folded)
