"""What plots have in common: axes or a figure to draw on, an open frame, checked tables, round scale bars."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def figure_or_new(figure: Figure | None, width: float, height: float) -> Figure:
    """Return the figure that was given, or else a new one of pyplot of this size in inches."""
    return figure or plt.figure(figsize=(width, height), layout="constrained")


def axes_or_new(axes: Axes | None, width: float = 6, height: float = 4) -> Axes:
    """Return the axes that were given, or else those of a new figure, with an open frame."""
    axes = axes or figure_or_new(None, width, height).subplots()
    open_frame(axes)
    return axes


def open_frame(axes: Axes, *more: str) -> None:
    """Hide the lines of the frame at the top and to the right of axes, and those at `more` sides ("left", "bottom")."""
    axes.spines[["top", "right", *more]].set_visible(False)


def check_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise ValueError if a table lacks one of these columns."""
    if missing := [name for name in names if name not in table]:
        raise ValueError(f"table: has no {', '.join(missing)}; its columns are {', '.join(names)}.")


def round_number(value: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, 50, … that is not above a positive value."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(power * max(step for step in (1, 2, 5) if step * power <= value))
