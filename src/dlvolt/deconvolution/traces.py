"""What the models of single traces, of voltage and of calcium, have in common."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import rfft


def without_trend(x: np.ndarray, num_samples: int) -> np.ndarray:
    """Return a trace (T,) less the line between the means of so many samples at either end."""
    return x - np.linspace(x[:num_samples].mean(), x[-num_samples:].mean(), len(x))


def noise_spectrum(x: np.ndarray, num_samples: int, *, centred: bool) -> np.ndarray:
    """Return the power spectrum of noise x (T,) by Welch's method; it is 1 everywhere if noise is white, variance 1.

    Segments have `num_samples`, an even number of at most T, and overlap by half. If `centred`, the mean of each is
    subtracted.
    """
    window = np.hanning(num_samples + 1)[:-1]
    segments = sliding_window_view(x, num_samples)[:: num_samples // 2]
    if centred:
        segments = segments - segments.mean(axis=1, keepdims=True)
    return np.mean(np.abs(rfft(segments * window)) ** 2, axis=0) / (window @ window)
