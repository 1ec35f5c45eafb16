"""Snippets: what they look like, where they lie in an embedding, and how they were classified."""

from __future__ import annotations

from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from mpl_toolkits.mplot3d import Axes3D
from sklearn.metrics import ConfusionMatrixDisplay

from dlvolt.plotting.canvas import COLOURS, GREY, RED, axes_or_new, figure_or_new

DRAWN = 300  # so many snippets of each class are drawn; more would hide each other
CLASSES = ("noise", "spike")


def plot_snippets(
    snippets: np.ndarray, labels: np.ndarray, sampling_frequency: float = 30_000.0, axes: Axes | None = None
) -> Axes:
    """Draw up to 300 snippets of each class on top of each other, noise grey and spikes red, and the medians.

    Parameters
    ----------
    snippets : np.ndarray, shape (P, D)
        The snippets, in µV.
    labels : np.ndarray, shape (P,)
        1 for spikes, 0 for noise.
    sampling_frequency : float, default: 30,000
        Samples per second.
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    snippets, labels = np.asarray(snippets), np.asarray(labels)
    if snippets.ndim != 2 or labels.shape != (len(snippets),):
        raise ValueError(f"labels: {labels.shape} do not fit snippets {snippets.shape}; give one for each of (P, D)")
    axes = axes_or_new(axes, 5, 4)
    rng = np.random.default_rng(0)
    time = np.arange(snippets.shape[1]) / sampling_frequency * 1000
    for label, (name, colour) in enumerate(zip(CLASSES, (GREY, RED), strict=True)):
        members = np.flatnonzero(labels == label)
        if len(members) == 0:
            continue
        drawn = rng.choice(members, min(DRAWN, len(members)), replace=False)
        axes.plot(time, snippets[drawn].T, color=colour, alpha=0.1, linewidth=0.5)
        median = np.median(snippets[members], axis=0)
        axes.plot(time, median, color=colour, linewidth=2, label=f"{name} ({len(members):,})")
    axes.set(xlabel="time (ms)", ylabel="voltage (µV)")
    axes.legend(frameon=False)
    return axes


def plot_embedding(points: np.ndarray, labels: np.ndarray, axes: Axes3D | None = None) -> Axes3D:
    """Draw embedded snippets in three dimensions, coloured by cluster; those in none are grey.

    Parameters
    ----------
    points : np.ndarray, shape (P, 3)
        The embedding, from `dlvolt.electrodes.clustering.embed`.
    labels : np.ndarray, shape (P,)
        The number of each snippet's cluster, from 0 on, or -1 if it is in none.
    axes : Axes3D, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    if points.ndim != 2 or points.shape[1] != 3 or labels.shape != (len(points),):
        raise ValueError(f"points: {points.shape} and labels {labels.shape} must be of shapes (P, 3) and (P,)")
    if axes is None:
        axes = figure_or_new(None, 5.5, 5).add_subplot(projection="3d")
    colours = {-1: GREY, **dict(zip(np.unique(labels[labels >= 0]), cycle(COLOURS), strict=False))}
    for label in np.unique(labels):
        members = points[labels == label]
        name = f"cluster {label}" if label >= 0 else "in none"
        axes.scatter(*members.T, s=3, color=colours[label], linewidths=0, label=f"{name} ({len(members):,})")
    axes.set(xlabel="1", ylabel="2", zlabel="3")
    axes.set_box_aspect(None, zoom=0.85)  # so that the third label is seen
    axes.legend(frameon=False, markerscale=3)
    return axes


def plot_confusion(truth: np.ndarray, predicted: np.ndarray, axes: Axes | None = None) -> Axes:
    """Draw the confusion matrix: how many snippets of either class were classified as either.

    Parameters
    ----------
    truth, predicted : np.ndarray, shape (P,)
        What snippets are and what they were classified as, 1 for spikes and 0 for noise.
    axes : Axes, optional
        Where to draw, and what is returned; by default the axes of a new figure.
    """
    axes = axes or figure_or_new(None, 3.5, 3.2).subplots()
    ConfusionMatrixDisplay.from_predictions(
        truth, predicted, labels=[0, 1], display_labels=CLASSES, cmap="Blues", colorbar=False, ax=axes
    )
    axes.set(xlabel="classified as", ylabel="labelled as")
    return axes
