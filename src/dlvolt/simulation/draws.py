"""What all simulations share: the check of what is asked for, and the distribution that properties are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np

Range = tuple[float, float]
POLARITIES = ("positive", "negative")


def check_traces(num_traces: int, polarity: str | None = None) -> None:
    """Raise a ValueError if no trace is asked for, or a polarity that does not exist."""
    if num_traces < 1:
        raise ValueError(f"num_traces: must be 1 or more, not {num_traces}")
    if polarity not in (None, *POLARITIES):
        raise ValueError(f'polarity: must be "positive", "negative" or None, not {polarity!r}')


def num_frames(duration_s: float, sampling_frequency: float) -> int:
    """Return the number of frames of a trace; raise a ValueError if there is none."""
    if not sampling_frequency > 0:
        raise ValueError(f"sampling_frequency: must be positive, not {sampling_frequency}")
    frames = round(duration_s * sampling_frequency)
    if frames < 1:
        raise ValueError(f"duration_s: {duration_s} s at {sampling_frequency} Hz holds no sample; give a longer one")
    return frames


def log_uniform(rng: np.random.Generator, bounds: Range, size: int | None = None) -> Any:
    """Draw a float, or an array of `size`, whose logarithm is uniform between the bounds."""
    low, high = np.log(bounds)
    return np.exp(rng.uniform(low, high, size))
