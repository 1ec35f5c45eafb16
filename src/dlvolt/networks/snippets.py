"""The face towards scikit-learn of networks that tell spikes from other snippets."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt
from scipy.special import expit, logit
from sklearn.base import ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.metrics import f1_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from torch import nn

from .estimator import Labelled, Network, check_windows

DEFAULTS: dict[str, Any] = dict(sampling_frequency=30_000.0, window_samples=42, threshold="auto", batch_size=128)
ENOUGH = 200  # fewest snippets of a channel from which its threshold is chosen
WIDTH = 0.6  # width of the kernel that smooths B log odds, in their standard deviations times B^(-1/5)
FINE = 6  # grid points per width of the kernel
SIGNIFICANT = 2.5  # least depth of a valley, in standard deviations of counts
AS_DEEP = 0.8  # the first valley is taken that has this share of the depth of the deepest
ASCENT = 0.1  # spikes begin this share of the way up from the valley to their mode
CERTAIN = 1e-8  # least distance of probabilities from 0 and 1, which keeps log odds finite
AVERAGED = 3  # neighbouring samples that are averaged to outline a snippet
NUM_COMPONENTS, NUM_OTHERS = 3, 3  # principal components of a channel's snippets, and Gaussians of other snippets
FEWEST = 20  # fewest spikes, and fewest other snippets, to which Gaussians are fitted
ROUNDS = 3
BAND_HZ = (300.0, 8000.0)  # of the simulated noise that the network is tested on
NOISE_SAMPLES, NOISE_SEED = 2_000_000, 0  # about a minute of that noise
CROSSING = 3.0  # standard deviations of the noise that its peaks exceed
PASSING = 0.01  # share of these peaks that may pass for spikes


class SnippetNetwork(ClassifierMixin, Network):
    """A network that gives every snippet the probability of being a spike, as a scikit-learn classifier.

    The probability of a snippet does not depend on other snippets, but labels drawn by hand around a cluster do depend
    on what else there is on the channel. So with ``threshold="auto"``, `predict` takes the given snippets for those of
    one channel, chooses a threshold that suits their probabilities (`channel_threshold`), and learns from the snippets
    above it what the channel's spikes are like (`settled`). Training is that of `TraceNetwork`, with one label per
    snippet instead of one per sample. Make one with `dlvolt.networks.create`.

    Parameters
    ----------
    module : type
        The architecture, a `torch.nn.Module` whose last layer is ``head``.
    sampling_frequency : float, default: 30_000.0
        Sampling frequency of the snippets, in Hz.
    window_samples : int, default: 42
        Length D of a snippet.
    num_before : int
        Sample of the peak in a snippet.
    noise_uv : float
        Standard deviation in µV of the noise of the channels it was trained on. `dlvolt.electrodes.classify_peaks`
        scales snippets of other recordings to it, and tells them from noise by `noise_threshold`.
    threshold : float or "auto", default: "auto"
        Least probability of a snippet that `predict` calls a spike; "auto" chooses it for each channel.
    rate_range_hz, name, version, lr, max_epochs, batch_size, patience, positive_weight, seed, device, verbose, **kwargs
        As for `TraceNetwork`, as are the attributes ``module_`` and ``history``.
    """

    sampling_frequency: float

    def __init__(self, module: type[nn.Module], *, num_before: int = 14, noise_uv: float = 50.0, **kwargs: Any) -> None:
        super().__init__(module, **(DEFAULTS | kwargs))
        self.num_before = num_before
        self.noise_uv = noise_uv

    def _checked(self, X: np.ndarray, y: np.ndarray, validation: Labelled | None) -> tuple[Labelled, Labelled]:
        """Return checked snippets to train on and to validate on; by default a fifth is drawn to validate."""
        X, y = self._check_labelled(X, y)
        if validation is not None:
            return (X, y), self._check_labelled(*validation)
        X, X_validation, y, y_validation = train_test_split(X, y, test_size=0.2, stratify=y, random_state=self.seed)
        return (X, y), (X_validation, y_validation)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability that each snippet (B, D), in µV, is a spike, shape (B,), float32."""
        X = self._check(X)
        return self._outputs(X).sigmoid().numpy() if len(X) else np.zeros(0, dtype="float32")

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return 1 for spikes and 0 for the rest, of snippets (B, D), in µV, shape (B,).

        With ``threshold="auto"`` they must be the snippets of one channel: the label of one depends on the others,
        though not on their order. For fewer than 200 snippets the threshold is 0.5.
        """
        return self.label(self.predict_proba(X), outlines(np.asarray(X)))

    def label(self, probability: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """Do as `predict`, from the probabilities (B,) and the `outlines` (B, F) of the snippets of a channel."""
        if self.threshold != "auto":
            return (probability >= self.threshold).astype(int)
        threshold, told_by = channel_threshold(probability)
        spikes = probability >= threshold
        return (settled(shapes, spikes) if told_by == "valley" else spikes).astype(int)

    def noise_threshold(self) -> float:
        """Return the probability that one in a hundred peaks of noise reaches.

        The noise is Gaussian, from 300 to 8000 Hz, and as large as that of the channels the network was trained on;
        peaks are those beyond three standard deviations. Snippets with a higher probability are not noise of this kind.
        """
        nyquist = self.sampling_frequency / 2
        band = butter(5, np.minimum(BAND_HZ, 0.9 * nyquist) / nyquist, "bandpass", output="sos")
        noise = sosfiltfilt(band, np.random.default_rng(NOISE_SEED).normal(size=NOISE_SAMPLES))
        noise *= self.noise_uv / noise.std()
        window = np.arange(self.window_samples) - self.num_before
        peaks, _ = find_peaks(-noise[self.window_samples : -self.window_samples], CROSSING * self.noise_uv)
        snippets = noise[self.window_samples + peaks[:, None] + window]
        return float(np.quantile(self.predict_proba(snippets), 1 - PASSING))

    def score(self, X: np.ndarray, y: np.ndarray, sample_weight: None = None) -> float:
        """Return macro-F1, the mean of F1 for spikes and F1 for the rest."""
        return f1_score(y, self.predict(X), average="macro", zero_division=0.0)

    def _check(self, X: np.ndarray) -> np.ndarray:
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != self.window_samples:
            raise ValueError(
                f"X must be snippets of shape (B, {self.window_samples}), not {X.shape}; cut them so long at "
                f"{self.sampling_frequency:g} Hz, or let dlvolt.electrodes.classify_peaks do it"
            )
        return check_windows(X) if len(X) else X

    def _check_labelled(self, X: np.ndarray, y: np.ndarray) -> Labelled:
        X, y = self._check(X), np.asarray(y, dtype="float32")
        if y.shape != (len(X),):
            raise ValueError(f"y must have one label per snippet, shape ({len(X)},), not {y.shape}")
        if not np.isin(y, (0, 1)).all():
            raise ValueError("y must be 1 for spikes and 0 for the rest")
        if min(y.sum(), (1 - y).sum()) < 2:
            raise ValueError("y: there must be two spikes and two others at least; label more of both classes")
        return X, y


class ChannelThreshold(NamedTuple):
    """The least probability of a channel's spikes, and how it was chosen.

    It lies beside the valley between the log odds of spikes and of other snippets. It is 0.5 if there is no valley
    ("one mode"), or if there are fewer than 200 snippets ("too few").
    """

    threshold: float
    told_by: Literal["valley", "one mode", "too few"]


def channel_threshold(probability: np.ndarray) -> ChannelThreshold:
    """Choose the least probability of a spike, from the probabilities (B,) of all snippets of a channel.

    If their log odds have a valley that is deeper than counts vary by chance, noise is the mode
    below it and spikes are the mode above it. Of several valleys the deepest is taken, or the first of those about as
    deep. The threshold is a tenth of the way up from the valley to the mode of the spikes. It may be far from 0.5, as
    the valley lies elsewhere for every channel.
    """
    if len(probability) < ENOUGH:
        return ChannelThreshold(0.5, "too few")
    log_odds = logit(np.clip(probability.astype("float64"), CERTAIN, 1 - CERTAIN))
    width = WIDTH * log_odds.std() * len(log_odds) ** -0.2
    if width == 0:
        return ChannelThreshold(0.5, "one mode")
    edges = np.arange(log_odds.min() - 4 * width, log_odds.max() + 4 * width, width / FINE)
    within = 2 * np.sqrt(np.pi) * FINE  # width of the window that is equivalent to the kernel
    counts = within * gaussian_filter1d(np.histogram(log_odds, edges)[0].astype("float64"), FINE)
    from_left, from_right = np.maximum.accumulate(counts), np.maximum.accumulate(counts[::-1])[::-1]
    lower = np.minimum(from_left, from_right)  # height of the lower mode beside each point
    valleys = find_peaks(-counts)[0]
    top, bottom = lower[valleys], counts[valleys]
    depth = np.where(top - bottom > SIGNIFICANT * np.sqrt(top + bottom + 1), 1 - bottom / top, 0.0)
    if depth.any():
        valley = valleys[np.argmax(depth >= AS_DEEP * depth.max())]
        begin = counts[valley] + ASCENT * (counts[valley:].max() - counts[valley])
        first = valley + np.argmax(counts[valley:] >= begin)
        return ChannelThreshold(float(expit(edges[first : first + 2].mean())), "valley")
    return ChannelThreshold(0.5, "one mode")


def outlines(snippets: np.ndarray) -> np.ndarray:
    """Return the shapes of snippets (B, D): means of three samples each, shape (B, D // 3)."""
    count = snippets.shape[1] // AVERAGED
    return snippets[:, : count * AVERAGED].reshape(len(snippets), count, AVERAGED).mean(axis=2)


def settled(shapes: np.ndarray, spikes: np.ndarray) -> np.ndarray:
    """Refine a guess (B,) of which snippets of a channel are spikes, from their `outlines` (B, F).

    On the channel's first three principal components, one Gaussian is fitted to spikes and three to other snippets;
    snippets that are more likely of the former are the spikes of the next round, of three. Where there are too few of
    either kind, the guess stays.
    """
    points = PCA(NUM_COMPONENTS, random_state=0).fit_transform(shapes.astype("float64"))
    floor = 1e-3 * points.var() + 1e-12  # least variance of a Gaussian
    for _ in range(ROUNDS):
        if min(spikes.sum(), (~spikes).sum()) < FEWEST:
            break
        of_spikes = GaussianMixture(1, reg_covar=floor).fit(points[spikes]).score_samples(points)
        of_others = GaussianMixture(NUM_OTHERS, reg_covar=floor, random_state=0).fit(points[~spikes])
        spikes = of_spikes + np.log(spikes.mean()) > of_others.score_samples(points) + np.log(1 - spikes.mean())
    return spikes
