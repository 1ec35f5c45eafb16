"""How long scale bars are."""

import numpy as np


def round_number(value: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, 50, … that is not above a positive value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value))
