"""What the models of single traces, of voltage and of calcium, have in common."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft


def without_trend(x: np.ndarray, num_samples: int) -> np.ndarray:
    """Return a trace (T,) less the line between the means of so many samples at either end."""
    return x - np.linspace(x[:num_samples].mean(), x[-num_samples:].mean(), len(x))


def noise_spectrum(x: np.ndarray, num_samples: int, *, centred: bool) -> np.ndarray:
    """Return the power spectrum of noise by Welch's method; it is 1 everywhere if noise is white with variance 1.

    Parameters
    ----------
    x : np.ndarray, shape (T,)
        Noise, T ≥ `num_samples`.
    num_samples : int
        Length of the segments, even; they overlap by half.
    centred : bool
        Whether the mean of each segment is subtracted.

    Returns
    -------
    np.ndarray, shape (num_samples / 2 + 1,)
        Variance per sample at each frequency.
    """
    window = np.hanning(num_samples + 1)[:-1]
    segments = sliding_window_view(x, num_samples)[:: num_samples // 2]
    if centred:
        segments = segments - segments.mean(axis=1, keepdims=True)
    return np.mean(np.abs(rfft(segments * window)) ** 2, axis=0) / (window @ window)
