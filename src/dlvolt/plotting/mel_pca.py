"""How well the mel bands of a trace tell spikes from the rest."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from sklearn.decomposition import PCA

from dlvolt.networks import MelSVM
from dlvolt.plotting.canvas import GREY, RED, axes_or_new

MAX_SAMPLES = 20_000  # drawn at most: more would hide each other


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
