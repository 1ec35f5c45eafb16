"""The face towards scikit-learn of networks that estimate the rate of spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import RegressorMixin
from torch import nn

from .estimator import Labelled, TraceNetwork, check_labelled, check_parts, check_windows
from .s2s import mean_correlation

DEFAULTS: dict[str, Any] = dict(
    sampling_frequency=100.0, window_samples=4096, overlap_samples=256, prune_samples=128, batch_size=20, patience=6
)
RESOLUTION_S = 0.04  # bins in which estimates are calibrated, as in the spikefinder challenge
QUANTILES = np.linspace(0, 0.95, 20)  # of the estimate: the offsets that are tried
TOLERATED = 1e-3  # loss of correlation that is accepted for an estimate of zero where there are no spikes


class RateNetwork(RegressorMixin, TraceNetwork):
    """A network that estimates the rate of spikes at every sample of a window, as a scikit-learn regressor.

    Make one with `dlvolt.networks.create`. The module defines its own loss. Its output may have any scale, as Pearson's
    correlation does not depend on it, so it is calibrated on the validation windows by a straight line, clipped at
    zero; see `calibrate`.

    Parameters
    ----------
    module : type
        The architecture, a `torch.nn.Module` with a method ``loss(estimate, counts)``.
    gain, offset : float
        The line: spikes per sample are gain · (estimate - offset), or zero. Set by `fit`.
    **kwargs
        As for `TraceNetwork`. Defaults are 100 Hz, windows of 4096 samples that overlap by 256 and of which 128 are
        left unused at either end, batches of 20, and a patience of 6.
    """

    sampling_frequency: float

    def __init__(self, module: type[nn.Module], *, gain: float = 1.0, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(module, **(DEFAULTS | kwargs))
        self.gain = gain
        self.offset = offset

    def _checked(self, X: np.ndarray, y: np.ndarray, validation: Labelled | None) -> tuple[Labelled, Labelled]:
        """Return checked windows to train on, and to validate and calibrate on."""
        (X, y), validation = check_parts(X, y, validation, highest=np.inf)
        for name, counts in (("y", y), ("validation", validation[1])):
            if not counts.any():
                raise ValueError(f"{name}: there is not a single spike in the windows, to correlate with; label some")
        return (X, y), validation

    def _train(self, X: np.ndarray, y: np.ndarray, validation: Labelled) -> None:
        """Train with the module's own loss, and calibrate."""
        self._train_unweighted(X, y, validation)
        self.calibrate(*validation)

    def calibrate(self, X: np.ndarray, y: np.ndarray) -> RateNetwork:
        """Choose gain and offset on windows (B, T) and the spikes per sample in them.

        Estimates below the offset stand for no spikes. The offset is the highest quantile of the estimate that lowers
        the correlation of the rate with the spikes, in bins of 40 ms, by less than 0.001. The gain makes the sum of the
        rate the number of spikes. If the estimate does not rise with the spikes, this is an error.
        """
        size = max(1, round(RESOLUTION_S * self.sampling_frequency))
        estimate, counts = self._outputs(check_windows(X)), torch.as_tensor(np.asarray(y, dtype="float32"))

        def correlation(offset: float) -> float:
            rate, spikes = (F.avg_pool1d(each[:, None], size)[:, 0] for each in ((estimate - offset).relu(), counts))
            return mean_correlation(rate, spikes).item()

        offsets = np.quantile(estimate.numpy(), QUANTILES)
        correlations = np.array([correlation(offset) for offset in offsets])
        if not correlations.max() > 0:
            raise ValueError("y: the estimate does not rise with the spikes of the validation windows; train longer")
        self.offset = float(offsets[correlations > correlations.max() - TOLERATED].max())
        self.gain = float(counts.sum(dtype=torch.float64) / (estimate - self.offset).relu().sum(dtype=torch.float64))
        return self

    def get_loss(self, y_pred: torch.Tensor, y_true: torch.Tensor, X: Any = None, training: bool = False) -> Any:
        """Return the module's loss."""
        return self.module_.loss(y_pred, y_true.to(y_pred))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the estimated spikes per second of windows (B, T), shape (B, T), float32; 0 for a constant window."""
        X = check_windows(X)
        rate = self.sampling_frequency * self.gain * np.maximum(self._outputs(X).numpy() - self.offset, 0)
        return np.where(np.ptp(X, axis=1, keepdims=True) > 0, rate, 0).astype("float32")

    def score(self, X: np.ndarray, y: np.ndarray, sample_weight: None = None) -> float:
        """Return minus the loss: for `S2S` the mean correlation of windows with the smoothed spikes."""
        X, y = check_labelled(X, y, highest=np.inf)
        return -float(self.module_.loss(self._outputs(X), torch.from_numpy(y)))
