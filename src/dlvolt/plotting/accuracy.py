"""How right sorters are, against how long they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from dlvolt.plotting.canvas import COLOURS, GREY, check_columns, grid_of_panels

MARKERS = "os^DvPX"
COLUMNS = 3  # recordings in a row, at most
WIDE = 100  # if the longest time is so many times the shortest, there is room for the labels of decades only


def plot_accuracy_against_time(
    table: pd.DataFrame | Sequence[Mapping[str, Any]], figure: Figure | None = None
) -> Figure:
    """Draw the mean accuracy of sorters against the seconds they took; the best are at the upper left.

    Parameters
    ----------
    table : DataFrame or sequence of dict
        A row for each sorter, or for each sorter and recording, as from `dlvolt.evaluation.compare_sorters`:
        ``sorter``, ``accuracy``, ``seconds``; ``dataset``, the name of the recording, where there are several; and
        ``realtime``, recorded seconds per second, if a line is to show how long the recording is. Rows without
        accuracy or seconds are left out.
    figure : Figure, optional
        An empty figure to draw into; by default a new one of pyplot.

    Returns
    -------
    Figure
        A panel for each recording, all with the same axes; each sorter has its marker and colour.

    Raises
    ------
    ValueError
        If a column is missing, or nothing is left to draw.
    """
    table = pd.DataFrame(table)
    check_columns(table, ("sorter", "accuracy", "seconds"))
    runs = table.dropna(subset=["accuracy", "seconds"])
    if runs.empty:
        raise ValueError("table: no sorter has both accuracy and seconds.")
    recordings = dict(list(runs.groupby("dataset", sort=False))) if "dataset" in runs else {"": runs}
    styles = dict(zip(dict.fromkeys(runs["sorter"]), zip(cycle(MARKERS), cycle(COLOURS)), strict=False))
    is_narrow = runs["seconds"].max() < WIDE * runs["seconds"].min()

    figure, panels = grid_of_panels(
        figure, len(recordings), COLUMNS, panel=(3, 2.5), rest=(1.5, 1.2), sharex=True, sharey=True
    )
    handles = {}
    for axes, (name, of_recording) in zip(panels, recordings.items(), strict=True):
        axes.set(title=name, xscale="log", xmargin=0.15, ymargin=0.15)
        for run in of_recording.itertuples():
            marker, colour = styles[run.sorter]
            (handles[run.sorter],) = axes.plot(run.seconds, run.accuracy, marker, color=colour, linestyle="")
        if "realtime" in of_recording:
            recorded_s = (of_recording["seconds"] * of_recording["realtime"]).median()
            handles["as long as recorded"] = axes.axvline(recorded_s, color=GREY, linewidth=1, linestyle="--", zorder=0)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_narrow else (1,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    figure.supxlabel("time of the whole call (s)")
    figure.supylabel("mean accuracy over the true units")
    names = sorted(handles, key=lambda name: name not in styles)  # sorters first, then the line
    figure.legend([handles[name] for name in names], names, loc="outside right upper", frameon=False)
    return figure
