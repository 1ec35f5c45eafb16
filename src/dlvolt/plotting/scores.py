"""How good models are: by threshold, by how much they learnt from, and one beside the other."""

from __future__ import annotations

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes

from dlvolt.evaluation import best_threshold
from dlvolt.plotting.canvas import BLUE, COLOURS, DARK, GREY, ORANGE, axes_or_new, check_columns

LARGEST = 900  # area of the mark of the model with the most parameters, in square points


def plot_threshold_sweep(sweep: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw precision, recall and F1 against the threshold, and mark the best one.

    Parameters
    ----------
    sweep : DataFrame
        The table of `dlvolt.evaluation.threshold_sweep`.
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    axes = axes_or_new(axes)
    _draw_scores(axes, sweep.index, sweep)
    best = best_threshold(sweep)
    axes.axvline(best, color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set(title=f"Best F1 {sweep['f1'].max():.3f} at {best:g}", xlabel="threshold on the spike probability")
    axes.set_xlim(0, 1)
    return axes


def plot_learning_curve(curve: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw precision, recall and F1 of the test part against how much of the training data was used.

    Parameters
    ----------
    curve : DataFrame
        The table of `dlvolt.training.learning_curve`.
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    axes = axes_or_new(axes)
    _draw_scores(axes, 100 * curve["fraction"], curve)
    axes.set(title="Learning curve", xlabel="training data used (%)", xlim=(0, 105))
    return axes


def plot_model_comparison(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw the F1 of models against their speed; the area of each mark grows with the number of parameters.

    Parameters
    ----------
    table : DataFrame
        A row for each model, its name in the index, with ``f1``, ``samples_per_second`` and ``parameters``.
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    check_columns(table, ("f1", "samples_per_second", "parameters"))
    axes = axes_or_new(axes)
    largest = table["parameters"].max()
    for (name, row), colour in zip(table.iterrows(), cycle(COLOURS)):
        size = LARGEST * row["parameters"] / largest
        at = row["samples_per_second"], row["f1"]
        axes.scatter(*at, s=size, color=colour, alpha=0.4, linewidths=0)
        axes.scatter(*at, s=12, color=colour, label=f"{name}, {row['parameters']:,.0f} parameters")
    axes.margins(0.15)
    axes.legend(frameon=False, fontsize="small")
    axes.set(title="Models; area: number of parameters", xlabel="speed (samples per second)", ylabel="F1", xscale="log")
    return axes


def _draw_scores(axes: Axes, x: pd.Series | pd.Index, scores: pd.DataFrame) -> None:
    for column, name, colour in (("precision", "precision", BLUE), ("recall", "recall", ORANGE), ("f1", "F1", DARK)):
        axes.plot(x, scores[column], "o-", color=colour, markersize=4, label=name)
    axes.set(ylabel="score", ylim=(0, 1.02))
    axes.legend(frameon=False)
