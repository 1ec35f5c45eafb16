"""Inside the signal-to-signal network: what its layers make of a trace, what its filters pass, what settings do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlvolt.networks import S2S, RateNetwork
from dlvolt.plotting.canvas import (
    BLUE,
    COLOURS,
    DARK,
    ORANGE,
    axes_or_new,
    check_columns,
    figure_or_new,
    open_frame,
)

NUM_FREQUENCIES = 513


def plot_layers(model: RateNetwork, trace: np.ndarray, figure: Figure | None = None) -> Figure:
    """Draw a trace, what comes out of each layer of `dlvolt.networks.S2S`, and the estimate.

    For a layer the sum over its filters is drawn, and each frame is drawn at its first sample.

    Parameters
    ----------
    model : RateNetwork
        A fitted model of the architecture "s2s".
    trace : np.ndarray, shape (T,)
        Fluorescence at the model's sampling frequency, finite.
    figure : Figure, optional
        An empty figure to draw into; by default a new one of pyplot.

    Returns
    -------
    Figure
        A panel for the trace, each layer, and the estimate.
    """
    module = _module(model)
    trace = np.asarray(trace, dtype="float32")
    if trace.ndim != 1 or not np.isfinite(trace).all():
        raise ValueError(f"trace: must have the shape (T,) and be finite; its shape is {trace.shape}.")
    with torch.inference_mode():
        *layers, estimate = (layer.numpy()[0] for layer in module.layers(torch.from_numpy(trace)[None]))
    beyond = module.analysis.kernel_size[0] - 1
    names = ["analysis", *(f"hidden layer {n}" for n in range(1, len(layers)))]
    sums = [(name, layer.sum(axis=0)[beyond:], BLUE) for name, layer in zip(names, layers, strict=True)]
    rows = [("fluorescence", trace, DARK), *sums, ("estimate", estimate, ORANGE)]
    figure = figure_or_new(figure, 8, 1.2 * len(rows))
    time = np.arange(len(trace)) / model.sampling_frequency
    for axes, (name, values, colour) in zip(figure.subplots(len(rows), sharex=True), rows, strict=True):
        axes.plot(time, values, color=colour, linewidth=0.8)
        axes.set_title(name, loc="left", fontsize="small")
        axes.set_yticks([])
        open_frame(axes, "left")
    axes.set_xlabel("time (s)")
    return figure


def plot_filters(model: RateNetwork, axes: Axes | None = None) -> Axes:
    """Draw the cumulative frequency response of the analysis and the synthesis filters of `dlvolt.networks.S2S`.

    The sum over filters of the magnitudes of their Fourier transforms is drawn, scaled to a maximum of 1.

    Parameters
    ----------
    model : RateNetwork
        A fitted model of the architecture "s2s".
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    module = _module(model)
    axes = axes_or_new(axes)
    frequencies = np.linspace(0, model.sampling_frequency / 2, NUM_FREQUENCIES)
    for name, layer, colour in (("analysis", module.analysis, BLUE), ("synthesis", module.synthesis, ORANGE)):
        filters = layer.weight.detach().reshape(-1, layer.kernel_size[0]).numpy()
        response = np.abs(np.fft.rfft(filters, 2 * (NUM_FREQUENCIES - 1))).sum(axis=0)
        axes.plot(frequencies, response / response.max(), color=colour, label=name)
    axes.set(xlabel="frequency (Hz)", ylabel="cumulative response", ylim=(0, 1.05))
    axes.legend(frameon=False)
    return axes


def plot_rate_scores(table: pd.DataFrame, axes: Axes | None = None) -> Axes:
    """Draw correlation, rank and AUC against a setting: number of hidden layers, width of the target, or the model.

    Parameters
    ----------
    table : DataFrame
        A row for each value of the setting, which is the index, and a column for each score, as in
        `dlvolt.evaluation.rate_scores`.
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    scores = ["correlation", "rank", "auc"]
    check_columns(table, scores)
    axes = axes_or_new(axes)
    width = 1 / (len(scores) + 1)
    for n, (name, colour) in enumerate(zip(scores, COLOURS, strict=False)):
        axes.bar(np.arange(len(table)) + (n - 1) * width, table[name], width, color=colour, label=name)
    axes.set_xticks(np.arange(len(table)), table.index)
    axes.set(ylabel="score on unseen cells", ylim=(0, 1), xlabel=table.index.name or "")
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return axes


def _module(model: RateNetwork) -> S2S:
    if model.architecture != "s2s":
        raise ValueError(f"model: must be of the architecture 's2s', not {model.architecture!r}.")
    return model.module_.cpu()
