"""The face towards scikit-learn of networks that say of whole snippets whether they are spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.signal import butter, find_peaks, sosfiltfilt
from scipy.special import expit, logit
from sklearn.base import ClassifierMixin
from sklearn.metrics import f1_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from torch import nn

from .estimator import Network, check_windows, choose_device

ENOUGH = 200  # snippets of a channel, from which on they tell its threshold
COMPONENTS = range(2, 5)  # of a channel's log odds: spikes, and one or more for the rest
AT_MOST = 2_000  # of them are looked at
LOWEST = -6.0  # log odds of a threshold
CERTAIN = 1e-8  # log odds end here
BAND_HZ = (300.0, 8000.0)  # of the noise that is held against a network
NOISE_SAMPLES, NOISE_SEED = 2_000_000, 0  # a minute of it
CROSSING = 3.0  # standard deviations that its peaks reach
PASSING = 0.01  # of them is the risk that is taken


class SnippetNetwork(ClassifierMixin, Network):
    """A network that gives every snippet the probability of being a spike, as a scikit-learn classifier.

    Probabilities are those of each snippet by itself. Where a cluster of spikes ends is another matter: labels drawn
    by hand around a cluster depend on what else there is on the channel. So with ``threshold="auto"`` `predict` takes
    the snippets that it is given for those of one channel, and chooses a threshold that suits them
    (`channel_threshold`). Training is that of `TraceNetwork`, a label for each snippet instead of each sample. Make
    one with `dlvolt.networks.create`.

    Parameters
    ----------
    module : type
        The architecture, a `torch.nn.Module` whose last layer is ``head``.
    sampling_frequency : float
        Of the snippets, in Hz.
    window_samples : int
        D, length of a snippet.
    num_before : int
        Sample of its peak.
    noise_uv : float
        Noise of the channels it was trained on, standard deviation in µV. `dlvolt.detection.classify_peaks` scales
        snippets of other recordings to it, and tells them from noise by `noise_threshold`.
    threshold : float or "auto"
        Probability from which on `predict` says spike; "auto" chooses it for each channel.
    rate_range_hz : tuple of float, optional
        Lowest and highest sampling frequency of recordings that it serves, by resampling.
    name, version, lr, max_epochs, batch_size, patience, positive_weight, seed, device, verbose, **kwargs
        As for `TraceNetwork`.

    Attributes
    ----------
    module_ : torch.nn.Module
        Once fitted or loaded.
    history : skorch.history.History
        Losses by epoch.
    """

    def __init__(
        self,
        module: type[nn.Module],
        *,
        sampling_frequency: float = 30_000.0,
        window_samples: int = 42,
        num_before: int = 14,
        noise_uv: float = 50.0,
        threshold: float | str = "auto",
        rate_range_hz: tuple[float, float] | None = None,
        name: str = "",
        version: str = "",
        lr: float = 1e-3,
        max_epochs: int = 50,
        batch_size: int = 128,
        patience: int = 10,
        positive_weight: float | str = "sqrt",
        seed: int = 0,
        device: str = "auto",
        verbose: int = 0,
        criterion: type[nn.Module] = nn.BCEWithLogitsLoss,
        optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
        train_split: Any = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("iterator_train__shuffle", True)
        super().__init__(
            module,
            criterion=criterion,
            optimizer=optimizer,
            lr=lr,
            max_epochs=max_epochs,
            batch_size=batch_size,
            train_split=train_split,
            device=choose_device(device),
            verbose=verbose,
            **kwargs,
        )
        self.sampling_frequency = sampling_frequency
        self.window_samples = window_samples
        self.num_before = num_before
        self.noise_uv = noise_uv
        self.threshold = threshold
        self.rate_range_hz = rate_range_hz
        self.name = name
        self.version = version
        self.patience = patience
        self.positive_weight = positive_weight
        self.seed = seed

    def fit(
        self, X: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None = None
    ) -> SnippetNetwork:
        """Train on snippets.

        Parameters
        ----------
        X : array, shape (B, D)
            Snippets in µV.
        y : array, shape (B,)
            1 for spikes, else 0.
        validation : tuple of arrays (X, y), optional
            Snippets that say when to stop, best of a channel that is not trained on; by default a fifth of `X`.

        Returns
        -------
        SnippetNetwork
            Itself.

        Raises
        ------
        ValueError
            If shapes do not match, something is not finite, or there is one class only.
        """
        X, y = self._check(X, y)
        if validation is None:
            drawn = train_test_split(X, y, test_size=0.2, stratify=y, random_state=self.seed)
            X, y, validation = drawn[0], drawn[2], (drawn[1], drawn[3])
        else:
            validation = self._check(*validation)
        self.classes_ = np.arange(2)
        return self._train(X, y, validation)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of being a spike of each snippet (B, D), in µV, shape (B,), float32."""
        X, _ = self._check(X)
        return self._outputs(X).sigmoid().numpy() if len(X) else np.zeros(0, dtype="float32")

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return 1 for spikes and 0 for the rest, of snippets (B, D), in µV, shape (B,).

        With ``threshold="auto"`` they must be the snippets of one channel: the label of one depends on the others,
        though not on their order. Fewer than 200 are held against 0.5.
        """
        return self.label(self.predict_proba(X))

    def label(self, probability: np.ndarray) -> np.ndarray:
        """Return 1 where the probabilities of the snippets of a channel reach its threshold, else 0, shape (B,)."""
        threshold = channel_threshold(probability) if self.threshold == "auto" else self.threshold
        return (probability >= threshold).astype(int)

    def noise_threshold(self) -> float:
        """Return the probability that one in a hundred peaks of noise reaches.

        The noise is Gaussian, from 300 to 8000 Hz, and as large as that of the channels the network was trained on; its
        peaks go beyond three standard deviations. What is above is no noise of this kind, however faint or far away its
        neuron.
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

    def _check(self, X: np.ndarray, y: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != self.window_samples:
            raise ValueError(
                f"X must be snippets of shape (B, {self.window_samples}), not {X.shape}; cut them so long at "
                f"{self.sampling_frequency:g} Hz, or let dlvolt.detection.classify_peaks do it"
            )
        X = check_windows(X)[0] if len(X) else X
        if y is None:
            return X, None
        y = np.asarray(y, dtype="float32")
        if y.shape != (len(X),):
            raise ValueError(f"y must have one label per snippet, shape ({len(X)},), not {y.shape}")
        if not np.isin(y, (0, 1)).all():
            raise ValueError("y must be 1 for spikes and 0 for the rest")
        if min(y.sum(), (1 - y).sum()) < 2:
            raise ValueError("y: there must be two spikes and two others at least; label more of both classes")
        return X, y


def channel_threshold(probability: np.ndarray) -> float:
    """Return the probability from which on the snippets of a channel are spikes.

    The log odds of a channel's snippets are a mixture: a heap of noise, the slope of what is small or far away, and
    spikes. Gaussians are fitted to them, as many as Schwarz's criterion wants, and spikes are what more likely belongs
    to the highest. But what is rather a spike than not stays one, and a channel of noise has no spikes: log odds of
    0 and `LOWEST` bound the threshold.

    Parameters
    ----------
    probability : np.ndarray, shape (B,)
        Of the snippets of one channel.

    Returns
    -------
    float
        0.5 where there are too few snippets to tell, or all are alike.
    """
    if len(probability) < ENOUGH or np.ptp(probability) == 0:
        return 0.5
    log_odds = np.sort(logit(np.clip(probability.astype("float64"), CERTAIN, 1 - CERTAIN)))
    log_odds = log_odds[:: -(-len(log_odds) // AT_MOST), None]  # some quantiles tell as much
    floor = 1e-3 * log_odds.var()  # of a variance
    mixtures = [GaussianMixture(k, random_state=0, reg_covar=floor).fit(log_odds) for k in COMPONENTS]
    mixture = min(mixtures, key=lambda mixture: mixture.bic(log_odds))
    is_highest = mixture.predict(log_odds) == mixture.means_.argmax()
    return float(expit(np.clip(log_odds[is_highest].min(initial=np.inf), LOWEST, 0.0)))
