"""A support vector machine on the mel spectrogram around each sample.

References
----------
C. Cortes, V. Vapnik, "Support-vector networks", Machine Learning, 1995.
J. Platt, "Probabilistic outputs for support vector machines", Advances in Large Margin Classifiers, 1999.
C. Pradeep, D. Agarwal, R. Advani, "Neuronal voltage activity detection from line mappings", Columbia University, 2024
(settings, and F1 0.670 on line scans at 3,328 Hz).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC
from sklearn.utils import resample
from sklearn.utils.validation import check_is_fitted

from .estimator import SAMPLES_PER_BATCH, WindowClassifier, check_labelled, check_shapes, check_windows, choose_device
from .features import normalise
from .mel import mel_spectrogram

KERNEL_ENTRIES = 2**18  # samples × support vectors that are computed at once; they fit into a cache
FOLDS = 5
STATE = ("support_vectors", "dual_coefficients", "intercept", "gamma", "sigmoid")


@dataclass(kw_only=True, eq=False, repr=False)
class MelSVM(WindowClassifier, BaseEstimator):
    """Radial basis function SVM on the log power in mel bands, in a few frames around each sample.

    A multilabel classifier of windows like `TraceNetwork`. The published work balances the classes, so a decision value
    of zero does not mean that a spike is as likely as not. A sigmoid fitted by cross-validation (Platt) turns decision
    values into probabilities.

    Parameters
    ----------
    sampling_frequency, window_samples, overlap_samples, prune_samples, threshold, detection_threshold, shadow_ms
        As for `TraceNetwork`.
    rate_range_hz, spike_polarity, name, version
        As for `TraceNetwork`.
    C, gamma, class_weight
        Parameters of `sklearn.svm.SVC`.
    frame : int
        Length of a frame of the spectrogram, in samples; there is one at each sample.
    num_bands : int
        Number of mel bands.
    num_frames : int
        Number of frames whose bands describe a sample, odd.
    max_samples : int
        Largest number of samples to train on, as time and memory grow with its square. Of more samples, this number is
        drawn, with the same share of spikes.
    seed : int
        Seed of that draw. Same seed, same result.
    device : str
        Device of prediction; "auto" takes CUDA where there is one.
    verbose : int
        Not used.

    Attributes
    ----------
    state_ : dict of torch.Tensor
        Support vectors (S, num_bands * num_frames), dual coefficients (S,), intercept, gamma, and slope and offset
        of the sigmoid.
    """

    architecture = "mel_svm"

    sampling_frequency: float | None = None
    window_samples: int = 500
    overlap_samples: int = 50
    prune_samples: int = 0
    threshold: float = 0.5
    detection_threshold: float | str | None = None
    shadow_ms: float = 2.0
    rate_range_hz: tuple[float, float] | None = None
    spike_polarity: str = "any"
    name: str = ""
    version: str = ""
    C: float = 100.0
    gamma: str | float = "scale"
    class_weight: str | None = "balanced"
    frame: int = 12
    num_bands: int = 7
    num_frames: int = 3
    max_samples: int = 100_000
    seed: int = 0
    device: str = "auto"
    verbose: int = 0

    def features(self, X: np.ndarray) -> torch.Tensor:
        """Return the features of each sample of windows (B, T), shape (B T, num_bands * num_frames), float32."""
        if self.sampling_frequency is None:
            raise ValueError("sampling_frequency: mel bands need one; create('mel_svm', sampling_frequency=…)")
        x = normalise(torch.from_numpy(X).to(choose_device(self.device)))
        bands = mel_spectrogram(x, self.sampling_frequency, self.frame, self.num_bands).log1p()  # B×M×T
        margin = self.num_frames // 2
        around = F.pad(bands, (margin, margin), mode="replicate").unfold(-1, self.num_frames, 1)  # B×M×T×frames
        return around.transpose(1, 2).flatten(2).flatten(0, 1)

    def fit(self, X: np.ndarray, y: np.ndarray, validation: object = None) -> MelSVM:
        """Train on windows (B, T) and their 0/1 labels (B, T), two of each at least; `validation` is not used."""
        X, y = check_labelled(X, y)
        labels = y.ravel() > 0.5
        rarer = min(labels.sum(), (~labels).sum())
        if rarer < 2:
            raise ValueError("y: an SVM needs two samples with a spike and two without; label more")
        chosen = np.ones(y.size, dtype=bool)
        if y.size > self.max_samples:
            every, seed = np.arange(y.size), self.seed
            drawn = resample(every, replace=False, n_samples=self.max_samples, stratify=labels, random_state=seed)
            chosen = np.isin(every, drawn)
        rows = []
        for batch, first in self._batches(X):
            rows.append(self.features(batch)[chosen[first : first + batch.size]].cpu().numpy())
        features, labels = np.concatenate(rows).astype("float64"), labels[chosen]
        machine = SVC(C=self.C, gamma=self.gamma, class_weight=self.class_weight, cache_size=1000)
        folds = int(min(FOLDS, labels.sum(), (~labels).sum()))
        calibrated = CalibratedClassifierCV(machine, cv=folds, ensemble=False).fit(features, labels)
        (fitted,) = calibrated.calibrated_classifiers_
        machine, (sigmoid,) = fitted.estimator, fitted.calibrators
        self.state_ = {
            "support_vectors": torch.from_numpy(machine.support_vectors_),  # S×F
            "dual_coefficients": torch.from_numpy(machine.dual_coef_[0]),  # S
            "intercept": torch.tensor(machine.intercept_[0]),
            "gamma": torch.tensor(machine._gamma, dtype=torch.float64),
            "sigmoid": torch.tensor([sigmoid.a_, sigmoid.b_], dtype=torch.float64),
        }
        self.classes_ = np.arange(y.shape[1])
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Return Σ α exp(-γ ‖x - s‖²) + b at every sample of windows (B, T), shape (B, T), float64."""
        check_is_fitted(self, "state_")
        X = check_windows(X)
        return np.concatenate([self._decide(self.features(batch)) for batch, _ in self._batches(X)]).reshape(X.shape)

    def _decide(self, features: torch.Tensor) -> np.ndarray:
        features = features.double()
        vectors, alpha, intercept, gamma, _ = (self.state_[key].to(features) for key in STATE)
        values = []
        for x in features.split(max(1, KERNEL_ENTRIES // len(vectors))):
            squares = -(x**2).sum(dim=1, keepdim=True) - (vectors**2).sum(dim=1)
            kernel = torch.addmm(squares, x, vectors.T, alpha=2).mul_(gamma).exp_()  # T×S
            values.append(kernel @ alpha + intercept)
        return torch.cat(values).cpu().numpy()

    @staticmethod
    def _batches(X: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Yield some windows at a time, and the place of their first sample among all."""
        size = max(1, SAMPLES_PER_BATCH["cpu"] // X.shape[1])
        for first in range(0, len(X), size):
            yield X[first : first + size], first * X.shape[1]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of a spike at every sample of windows (B, T), shape (B, T), float32."""
        slope, offset = self.state()["sigmoid"].numpy()
        return (1 / (1 + np.exp(slope * self.decision_function(X) + offset))).astype("float32")

    def state(self) -> dict[str, torch.Tensor]:
        """Return the support vectors, their coefficients and the sigmoid, by name."""
        check_is_fitted(self, "state_")
        return {key: self.state_[key].contiguous() for key in STATE}

    def load_state(self, state: dict[str, torch.Tensor]) -> MelSVM:
        """Load support vectors, as `state` returns them, or say which part has another shape."""
        num_vectors = len(state["dual_coefficients"]) if "dual_coefficients" in state else 0
        num_features = self.num_bands * self.num_frames
        shapes = [(num_vectors, num_features), (num_vectors,), (), (), (2,)]
        check_shapes(state, dict(zip(STATE, shapes, strict=True)))
        self.state_ = dict(state)
        return self
