"""What plots have in common: colours, axes or a figure to draw on and to save, checked tables, round scale bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlvolt.whole import written_whole

# The colours of Okabe and Ito, which all eyes can tell apart, and two greys.
BLUE, ORANGE, GREEN, PINK, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PINK, RED, SKY)
DARK, GREY = "#333333", "#999999"


def figure_or_new(figure: Figure | None, width: float, height: float) -> Figure:
    """Return the figure that was given, or else a new one of pyplot of this size in inches."""
    return figure or plt.figure(figsize=(width, height), layout="constrained")


def axes_or_new(axes: Axes | None, width: float = 6, height: float = 4) -> Axes:
    """Return the axes that were given, or else those of a new figure, with an open frame."""
    axes = axes or figure_or_new(None, width, height).subplots()
    open_frame(axes)
    return axes


def grid_of_panels(
    figure: Figure | None,
    num_panels: int,
    max_columns: int,
    *,
    panel: Sequence[float],
    rest: Sequence[float],
    **shared: Any,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row; `panel` and `rest` are the sizes of a panel and of what is around."""
    num_columns = min(max_columns, num_panels)
    num_rows = -(-num_panels // num_columns)
    figure = figure_or_new(figure, rest[0] + panel[0] * num_columns, rest[1] + panel[1] * num_rows)
    panels = figure.subplots(num_rows, num_columns, squeeze=False, **shared).ravel()
    for axes in panels[num_panels:]:
        axes.remove()
    for axes in panels[:num_panels]:
        open_frame(axes)
    for axes in panels[num_panels - num_columns : num_panels]:
        axes.tick_params(labelbottom=True)
    return figure, list(panels[:num_panels])


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all, in the format that the file's ending tells."""
    with written_whole(path) as made:
        figure.savefig(made, dpi=150)


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
