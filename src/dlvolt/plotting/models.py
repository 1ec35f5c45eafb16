"""How good models are, what they go by, and what is inside them."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA

from dlvolt.evaluation import best_threshold
from dlvolt.networks import S2S, MelSVM, RateNetwork
from dlvolt.plotting.canvas import (
    BLUE,
    COLOURS,
    DARK,
    GREY,
    ORANGE,
    RED,
    axes_or_new,
    check_columns,
    figure_or_new,
    open_frame,
)

LARGEST = 900  # area of the mark of the model with the most parameters, in square points
MAX_SAMPLES = 20_000  # drawn in a scatter plot at most: more would hide each other
NUM_FREQUENCIES = 513


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


def plot_mel_pca(traces: ArrayLike, labels: ArrayLike, sampling_frequency: float, *, axes: Axes | None = None) -> Axes:
    """Draw the first two principal components of the log power in mel bands around each sample.

    These are the features of `dlvolt.networks.MelSVM` with one frame. Where the two colours lie apart, an SVM will do.
    Of more than 20,000 samples, so many are drawn, chosen at random.

    Parameters
    ----------
    traces : array_like, shape (T,) or (T, N)
        Raw traces.
    labels : array_like, the same shape, bool or 0/1
        1 where there is a spike.
    sampling_frequency : float
        Samples per second.
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    traces, labels = np.asarray(traces, dtype="float32"), np.asarray(labels)
    if traces.shape != labels.shape or traces.ndim not in (1, 2):
        raise ValueError(f"labels: have shape {labels.shape}, the traces {traces.shape}; both must be (T,) or (T, N).")
    windows = np.atleast_2d(traces.T)  # a window is a whole trace
    features = MelSVM(sampling_frequency=sampling_frequency, num_frames=1, device="cpu").features(windows).numpy()
    spike = np.ravel(labels.T) > 0.5
    if len(features) > MAX_SAMPLES:
        drawn = np.random.default_rng(0).choice(len(features), MAX_SAMPLES, replace=False)
        features, spike = features[drawn], spike[drawn]
    pca = PCA(n_components=2).fit(features)
    points = pca.transform(features)  # samples × 2

    axes = axes_or_new(axes, 5.5, 5)
    for chosen, colour, name in ((~spike, GREY, "no spike"), (spike, RED, "spike")):
        x, y = points[chosen].T
        axes.scatter(x, y, s=4, c=colour, linewidths=0, label=f"{name} ({chosen.sum():,} samples)")
    first, second = 100 * pca.explained_variance_ratio_
    axes.set(title="Mel bands", xlabel=f"PC 1 ({first:.0f} % of variance)", ylabel=f"PC 2 ({second:.0f} % of variance)")
    axes.legend(frameon=False, markerscale=3)
    return axes


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
