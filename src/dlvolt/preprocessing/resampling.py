"""Ratios and filters that bring traces to the sampling frequency of a model."""

from __future__ import annotations

from fractions import Fraction
from itertools import count

import numpy as np

RATE_TOLERANCE = 0.01  # error of a sampling frequency that does no harm, so that the ratio is simple and fast


def resampling_ratio(wanted_hz: float, sampling_frequency: float) -> Fraction:
    """Return the simplest ratio of a wanted sampling frequency to a present one, within one percent."""
    wanted = wanted_hz / sampling_frequency
    return next(
        Fraction(round(wanted * down), down)
        for down in count(1)
        if abs(round(wanted * down) / down / wanted - 1) <= RATE_TOLERANCE
    )


def resampling_filter(up: int, down: int) -> tuple[np.ndarray, int]:
    """Return the taps (2 L + 1,) of the filter for resampling by up / down, and its reach in samples of the trace.

    It is SciPy's (`scipy.signal.resample_poly`), but each of its `up` phases passes a constant unchanged. Otherwise the
    brightness of a trace, a hundred times its noise or more, comes through as a ripple. The reach is a multiple of
    `down`.
    """
    from scipy.signal import firwin  # slow, and SpikeInterface imports this module with its own

    if up == down:
        return np.ones(1), 0
    half_length = 10 * max(up, down)
    taps = firwin(2 * half_length + 1, 1 / max(up, down), window=("kaiser", 5.0))
    for phase in range(up):
        taps[phase::up] /= up * taps[phase::up].sum()
    return taps, -(-half_length // (up * down)) * down
