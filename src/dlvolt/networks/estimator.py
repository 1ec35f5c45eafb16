"""The face of torch networks towards scikit-learn; skorch keeps the training loop."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.base import ClassifierMixin
from sklearn.metrics import f1_score
from skorch import NeuralNet
from skorch.callbacks import EarlyStopping, ProgressBar
from skorch.dataset import Dataset
from torch import nn

Labelled = tuple[np.ndarray, np.ndarray]  # windows or snippets, and their targets

SAMPLES_PER_BATCH = {"cpu": 2**15, "cuda": 2**20}  # what fits into the cache of a core, or keeps a GPU busy


class WindowClassifier(ClassifierMixin):
    """Predictions and scores that follow from the probabilities of a model of traces."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return 1 where the probability reaches the threshold, else 0, shape (B, T)."""
        return (self.predict_proba(X) >= self.threshold).astype(int)

    def score(self, X: np.ndarray, y: np.ndarray, sample_weight: None = None) -> float:
        """Return F1 over all samples of all windows."""
        return f1_score(np.ravel(y), self.predict(X).ravel(), zero_division=0.0)


class Network(NeuralNet):
    """Base of all torch networks: how they are made, trained, stopped and stored; see `TraceNetwork`.

    A subclass checks what it is trained and validated on in its method `_checked`.
    """

    def __init__(
        self,
        module: type[nn.Module],
        *,
        sampling_frequency: float | None = None,
        window_samples: int = 500,
        threshold: float | str = 0.5,
        rate_range_hz: tuple[float, float] | None = None,
        name: str = "",
        version: str = "",
        lr: float = 1e-3,
        max_epochs: int = 50,
        batch_size: int = 32,
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
        self.threshold = threshold
        self.rate_range_hz = rate_range_hz
        self.name = name
        self.version = version
        self.patience = patience
        self.positive_weight = positive_weight
        self.seed = seed

    @property
    def architecture(self) -> str:
        """Name of the architecture, as `dlvolt.networks.create` knows it."""
        return self.module.architecture

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        best = EarlyStopping(patience=self.patience, load_best=True)
        bar = [("progress_bar", ProgressBar())] if self.verbose else []
        return [*super()._default_callbacks, ("early_stopping", best), *bar]

    def initialize_module(self) -> Network:
        """Make the torch module, and tell it the sampling frequency and the length of a window if it takes them."""
        settings = self.get_params_for("module")
        wanted = inspect.signature(self.module).parameters
        if "window_samples" in wanted:
            settings["window_samples"] = self.window_samples
        if "sampling_frequency" in wanted:
            if self.sampling_frequency is None:
                raise ValueError(
                    f"sampling_frequency: the filters of {self.architecture!r} need one; "
                    f"create({self.architecture!r}, sampling_frequency=…)"
                )
            settings["sampling_frequency"] = self.sampling_frequency
        self.module_ = self.module(**settings)
        return self

    def initialize(self) -> Network:
        """Make module, loss and optimizer; the seed draws the initial weights."""
        with seeded(self.seed, self.device):
            return super().initialize()

    def fit(self, X: np.ndarray, y: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None = None) -> Network:
        """Train, and keep the weights with the lowest validation loss.

        Parameters
        ----------
        X : array, shape (B, T) or (B, D)
            Windows of traces, or snippets in µV.
        y : array, shape (B, T) or (B,)
            1 where there is a spike, else 0; of windows, targets in between are allowed. For a `RateNetwork`, spikes
            per sample.
        validation : tuple of arrays (X, y), optional
            Windows or snippets that say when to stop; ideally snippets of a channel that is not trained on. By default
            the last fifth of the windows (all of them where there are fewer than five), or a fifth of the snippets.

        Returns
        -------
        Network
            Itself.

        Raises
        ------
        ValueError
            If shapes do not match, something is not finite, or all labels are the same.
        """
        (X, y), validation = self._checked(X, y, validation)
        self._train(X, y, validation)
        return self

    def _train(self, X: np.ndarray, y: np.ndarray, validation: Labelled) -> None:
        """Train on checked windows with weighted spikes; then take the weight off the log odds again."""
        self.classes_ = np.arange(2 if y.ndim == 1 else y.shape[1])
        weight = (1 / float(y.mean()) - 1) ** 0.5 if self.positive_weight == "sqrt" else self.positive_weight
        if not (isinstance(weight, Real) and float(weight) > 0):
            raise ValueError(f"positive_weight must be positive or 'sqrt', not {self.positive_weight!r}")
        log_odds = float(np.log(float(weight)))
        self.loss_weight_ = float(weight)
        if self.warm_start and self.initialized_:
            self._shift_log_odds(log_odds)
        self._train_unweighted(X, y, validation)
        self._shift_log_odds(-log_odds)

    def _train_unweighted(self, X: np.ndarray, y: np.ndarray, validation: Labelled) -> None:
        """Run skorch's training loop on checked windows."""
        self.validation_ = Dataset(*validation)
        with seeded(self.seed, self.device):
            super().fit(X, y)
        del self.validation_
        self.module_.eval()

    def _shift_log_odds(self, log_odds: float) -> None:
        with torch.no_grad():
            self.module_.head.bias[-1] += log_odds  # where there are two outputs, the last is that of spikes

    def get_split_datasets(self, X: Any, y: Any = None, **kwargs: Any) -> tuple[Dataset, Dataset]:
        """Return the data that skorch trains on, and those that it validates on."""
        return self.get_dataset(X, y), self.validation_

    def get_loss(self, y_pred: torch.Tensor, y_true: torch.Tensor, X: Any = None, training: bool = False) -> Any:
        """Return the weighted cross-entropy per sample."""
        weight = y_pred.new_tensor(self.loss_weight_)
        return F.binary_cross_entropy_with_logits(y_pred, y_true.to(y_pred), pos_weight=weight)

    def _outputs(self, X: np.ndarray) -> torch.Tensor:
        """Return the outputs of the module for checked windows (B, T), on the CPU."""
        self.check_is_fitted()
        self.module_.eval()
        size = max(1, SAMPLES_PER_BATCH[torch.device(self.device).type] // X.shape[1])
        with torch.inference_mode():
            return torch.cat([self.module_(batch.to(self.device)).cpu() for batch in torch.from_numpy(X).split(size)])

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights, by name."""
        self.check_is_fitted()
        return {key: value.cpu().contiguous() for key, value in self.module_.state_dict().items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> Network:
        """Load weights, as `state` returns them, or say which of them have another shape."""
        self.initialize()
        check_shapes(state, {key: tuple(value.shape) for key, value in self.module_.state_dict().items()})
        self.module_.load_state_dict(state)
        self.module_.eval()
        return self


class TraceNetwork(WindowClassifier, Network):
    """A network that gives every sample of a window the probability of a spike, as a scikit-learn classifier.

    In scikit-learn's terms it is a multilabel classifier: a sample is a window of a trace, and its labels are "spike
    at time t". Hence ``clone``, ``GridSearchCV`` and ``scoring="f1_micro"`` work. Make one with
    `dlvolt.networks.create`.

    Spikes are rare, so their part of the cross-entropy is weighted by the square root of the imbalance, √(negatives /
    positives) in the training labels. Without a weight, the first epochs only learn that there is never a spike; with
    the full ratio, precision is lost. A weight w raises the learnt log odds by log w, which is subtracted from the bias
    of the head after training, so that 0.5 means as likely as not. With ``warm_start=True``, training continues from
    the weights of a trained network.

    Parameters
    ----------
    module : type
        The architecture, a `torch.nn.Module` whose last layer is ``head``.
    sampling_frequency : float, optional
        Sampling frequency of the traces, in Hz.
    window_samples, overlap_samples, prune_samples : int
        Length of a window, overlap of neighbouring windows, and samples left unused at either end of each.
    threshold : float
        Least probability of a sample that `predict` calls a spike.
    detection_threshold : float or "auto", optional
        Least probability of a detection; "auto" lets the detector choose for each trace. By default `threshold`.
    shadow_ms : float
        A detection suppresses less confident ones within this time (see `dlvolt.detection.NetworkPeakDetector`).
    rate_range_hz : tuple of float, optional
        Lowest and highest sampling frequency of recordings that are resampled for the network; by default from a fifth
        of its own on.
    spike_polarity : {"any", "positive"}
        "positive": made for upward spikes, so callers flip traces whose spikes go down. "any": traces are used as
        they are.
    name, version : str
        What the weights are called; shown to users and kept with results.
    lr, max_epochs, batch_size
        Learning rate, largest number of epochs, and windows per batch of the training with Adam.
    patience : int
        Number of epochs without a lower validation loss after which training stops, and goes back to the best one.
    positive_weight : float or "sqrt"
        Weight of the samples with a spike.
    seed : int
        Seed of the initial weights, the order of windows, and dropout. Same seed, same result.
    device : str
        "auto" takes CUDA where there is one.
    verbose : int
        1 prints the losses of every epoch, and a progress bar.
    **kwargs
        Other parameters of skorch: ``module__…`` for the architecture, ``optimizer__…``, ``callbacks``, …

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained or loaded module.
    history : skorch.history.History
        Losses by epoch.
    """

    threshold: float

    def __init__(
        self,
        module: type[nn.Module],
        *,
        overlap_samples: int = 50,
        prune_samples: int = 0,
        detection_threshold: float | str | None = None,
        shadow_ms: float = 2.0,
        spike_polarity: str = "any",
        **kwargs: Any,
    ) -> None:
        super().__init__(module, **kwargs)
        self.overlap_samples = overlap_samples
        self.prune_samples = prune_samples
        self.detection_threshold = detection_threshold
        self.shadow_ms = shadow_ms
        self.spike_polarity = spike_polarity

    def _checked(self, X: np.ndarray, y: np.ndarray, validation: Labelled | None) -> tuple[Labelled, Labelled]:
        """Return checked windows to train on and to validate on."""
        (X, y), validation = check_parts(X, y, validation)
        if not y.any():
            raise ValueError("y: there is not a single spike in the training windows; label some")
        if y.all():
            raise ValueError("y: every sample of the training windows is a spike; label the samples of spikes only")
        return (X, y), validation

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of a spike at every sample of windows (B, T), shape (B, T), float32."""
        return self._outputs(check_windows(X)).sigmoid().numpy()


def choose_device(device: str) -> str:
    """Return the torch device that a name stands for; "auto" is CUDA where there is one, else the CPU."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed torch and NumPy, and restore their former state afterwards."""
    former = np.random.get_state()  # noqa: NPY002  (torch's samplers and skorch's splits know no generator)
    with torch.random.fork_rng([] if device == "cpu" else [device]):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(former)  # noqa: NPY002


def check_parts(
    X: np.ndarray, y: np.ndarray, validation: Labelled | None, highest: float = 1.0
) -> tuple[Labelled, Labelled]:
    """Return checked windows to train on, and to validate on: those given, or the last fifth as `Network.fit` says."""
    X, y = check_labelled(X, y, highest=highest)
    if validation is not None:
        return (X, y), check_labelled(*validation, highest=highest, prefix="validation: ")
    num_held_out = len(X) // 5
    validation = X[-num_held_out:], y[-num_held_out:]  # X[-0:] is all of X
    return ((X[:-num_held_out], y[:-num_held_out]) if num_held_out else (X, y)), validation


def check_windows(X: np.ndarray, prefix: str = "") -> np.ndarray:
    """Return finite windows (B, T) as float32; messages of errors begin with `prefix`."""
    X = np.require(X, dtype="float32", requirements=["C", "W"])
    if X.ndim != 2 or X.size == 0:
        raise ValueError(f"{prefix}X must be windows of shape (B, T), not {X.shape}; see dlvolt.training.windows")
    if not np.isfinite(X).all():
        raise ValueError(f"{prefix}X has samples that are NaN or infinite; fill them")
    return X


def check_labelled(X: np.ndarray, y: np.ndarray, highest: float = 1.0, prefix: str = "") -> Labelled:
    """Return finite windows (B, T), and targets of the same shape between 0 and `highest`, as float32."""
    X = check_windows(X, prefix)
    y = np.require(y, dtype="float32", requirements=["C", "W"])
    if y.shape != X.shape:
        raise ValueError(f"{prefix}y must have one value per sample of X, shape {X.shape}, not {y.shape}")
    if not ((y >= 0) & (y <= highest)).all():
        wanted = "1 where there is a spike and 0 elsewhere" if highest == 1 else "spikes per sample, 0 or more"
        raise ValueError(f"{prefix}y must be {wanted}")
    return X, y


def check_shapes(state: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise a ValueError that names the first weights whose shape is not the expected one."""
    found = {key: tuple(value.shape) for key, value in state.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise ValueError(f"{key} should be {expected.get(key, 'absent')} but is {found.get(key, 'absent')}")
