"""What all simulations draw their properties with."""

from __future__ import annotations

from typing import overload

import numpy as np

Range = tuple[float, float]


@overload
def log_uniform(rng: np.random.Generator, bounds: Range) -> float: ...


@overload
def log_uniform(rng: np.random.Generator, bounds: Range, size: int) -> np.ndarray: ...


def log_uniform(rng: np.random.Generator, bounds: Range, size: int | None = None) -> np.ndarray | float:
    """Draw from a distribution whose logarithm is uniform between the bounds."""
    low, high = np.log(bounds)
    return np.exp(rng.uniform(low, high, size))
