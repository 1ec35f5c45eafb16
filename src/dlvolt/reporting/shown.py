"""What reports of electrodes and of ROIs have in common: the table of the units, and the choice among many spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def table_shown(table: pd.DataFrame, headings: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Return the rows of a table and those columns that have a heading, in the order of the headings.

    Each column's heading is a title and what it means.
    """
    shown = {name: heading for name, heading in headings.items() if name in table}
    return {
        "columns": [dict(name=name, title=title, meaning=meaning) for name, (title, meaning) in shown.items()],
        "rows": table[list(shown)].astype(object).to_numpy().tolist(),
    }


def some_of(values: np.ndarray, most: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return ascending values, or `most` of them chosen at random, ascending; without `rng` always the same ones."""
    if len(values) <= most:
        return values
    return np.sort((rng or np.random.default_rng(0)).choice(values, most, replace=False))
