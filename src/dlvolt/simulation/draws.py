"""What all simulations draw their properties with."""

from __future__ import annotations

import numpy as np

Range = tuple[float, float]


def log_uniform(rng: np.random.Generator, bounds: Range, size: int | None = None) -> np.ndarray | float:
    """Draw from a distribution whose logarithm is uniform between the bounds."""
    return np.exp(rng.uniform(*np.log(bounds), size))
