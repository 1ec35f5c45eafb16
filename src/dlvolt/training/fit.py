"""Train a network on labelled traces."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from sklearn.metrics import precision_recall_curve

from dlvolt.evaluation import best_threshold as best_event_threshold
from dlvolt.evaluation import rate_scores, sample_scores, threshold_sweep
from dlvolt.networks import MelSVM, RateNetwork, TraceNetwork, trace_probability, trace_rate
from dlvolt.networks.inference import hop_and_kept
from dlvolt.networks.rate import RESOLUTION_S

from .labels import targets
from .windows import split_in_time, windows

FRACTIONS = (0.7, 0.15, 0.15)  # of time, or of cells: training, validation, test
SWEPT = np.geomspace(0.01, 0.99, 60)  # thresholds of detections that are tried
CERTAIN = (1e-7, 1 - 1e-7)  # probabilities are clipped to these, which keeps log odds finite

Model = TraceNetwork | MelSVM


def fit(
    model: TraceNetwork | MelSVM,
    traces: np.ndarray | Sequence[ArrayLike],
    labels: np.ndarray | Sequence[ArrayLike],
    *,
    sampling_frequency: float,
    kind: str = "auto",
    cells: Sequence[Hashable] | None = None,
    seed: int = 0,
    verbose: bool = False,
) -> TraceNetwork | MelSVM:
    """Train a network on labelled traces, choose its threshold, and test it.

    Each trace is split in time: 70 % to train on, 15 % to choose when to stop and the thresholds with the best F1, and
    the last 15 % to test on. If the cell of each trace is given, cells are split in these proportions instead, and all
    traces of a cell stay together. A model that is trained already starts afresh, unless it was made with
    ``warm_start=True``.

    Parameters
    ----------
    model : TraceNetwork or MelSVM
        From `dlvolt.networks.create` or `dlvolt.networks.load`; it is trained in place.
    traces : array, shape (T,) or (T, N), or list of arrays, shapes (T,)
        One trace per cell. Lengths in a list may differ.
    labels : array or list of arrays
        Spike times in seconds, spike frames, or 0/1 traces, one array per trace; see `targets`.
    sampling_frequency : float
        Sampling frequency of the traces, in Hz.
    kind : {"auto", "seconds", "frames", "trace"}
        What the labels are; see `targets`.
    cells : sequence, optional
        The cell of each trace, by any name; at least three different ones.
    seed : int
        Same seed, same result.
    verbose : bool
        Print the losses of every epoch, and a progress bar.

    Returns
    -------
    TraceNetwork or MelSVM
        The model, with its ``threshold`` (best F1 of samples) and ``detection_threshold`` (best F1 of events found
        within 5 ms; a run of ones is one event) set, and with ``test_scores_``: ``precision``, ``recall`` and ``f1``
        of the samples of the test parts, ``event_precision``, ``event_recall`` and ``event_f1`` of their events, and
        ``num_spike_samples``. Where the validation parts hold no spike, the threshold is 0.5 for both. A `RateNetwork`
        is calibrated instead; its ``test_scores_`` are those of `dlvolt.evaluation.rate_scores` in bins of 40 ms, the
        mean over traces, and ``count_ratio``, the estimated number of spikes by the true one.

    Raises
    ------
    ValueError
        If traces are shorter than a window, constant or not finite; if labels do not fit them, or hold no spike in the
        training parts; if the sampling frequency is not the model's.

    Examples
    --------
    >>> import numpy as np
    >>> from dlvolt.networks import create
    >>> from dlvolt.training import fit
    >>> trace = np.random.default_rng(0).normal(size=2000)
    >>> trace[30::40] += 20
    >>> model = create("fcn", channels=(8,), batch_size=8, max_epochs=20, lr=0.01)
    >>> fit(model, trace, np.arange(0.03, 2.0, 0.04), sampling_frequency=1000.0).test_scores_["f1"] > 0.9
    True
    """
    training, validation, test = prepare(model, traces, labels, sampling_frequency, kind, cells, seed)
    model.set_params(sampling_frequency=float(sampling_frequency), seed=seed, verbose=int(verbose))
    X, y = training.windows(model)
    return fit_parts(model, X, y, validation, test)


@dataclass(frozen=True)
class Part:
    """Traces and labels of the training, validation or test part."""

    traces: list[np.ndarray]
    labels: list[np.ndarray]

    def windows(self, model: Model) -> tuple[np.ndarray, np.ndarray]:
        """Return windows as the model takes them, X and y of shape (B, T)."""
        return windows(self.traces, self.labels, model.window_samples, model.overlap_samples)

    def probability(self, model: Model) -> np.ndarray:
        """Return the spike probability of all samples, one trace after the other."""
        return np.concatenate([over_trace(trace_probability, model, trace) for trace in self.traces])

    @property
    def truth(self) -> np.ndarray:
        """The labels of all samples, one trace after the other."""
        return np.concatenate(self.labels)


def prepare(
    model: Model,
    traces: np.ndarray | Sequence[ArrayLike],
    labels: np.ndarray | Sequence[ArrayLike],
    sampling_frequency: float,
    kind: str = "auto",
    cells: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> tuple[Part, Part, Part]:
    """Check traces and labels, and return training, validation and test part; see `fit`."""
    if not (isinstance(sampling_frequency, float | Real) and 0 < sampling_frequency < np.inf):
        raise ValueError(f"sampling_frequency must be positive, in Hz, not {sampling_frequency!r}")
    own = model.sampling_frequency
    if own is not None and not np.isclose(own, sampling_frequency, rtol=1e-3):
        raise ValueError(
            f"sampling_frequency: the model works at {own:g} Hz but the traces come at {sampling_frequency:g} Hz; "
            f"resample them, or train a new model (dlvolt.networks.create({model.architecture!r}))"
        )
    hop_and_kept(model)
    traces = checked_traces(traces, model.window_samples)
    spikes = targets(labels, [len(trace) for trace in traces], sampling_frequency, kind, isinstance(model, RateNetwork))
    if not any(map(np.any, spikes)):
        raise ValueError("labels: there is not a single spike in them; label some")
    if cells is not None:
        which = split_by_cell(cells, len(traces), seed)
        training, validation, test = (Part([traces[n] for n in part], [spikes[n] for n in part]) for part in which)
    else:
        training, validation, test = map(Part, split_in_time(traces, FRACTIONS), split_in_time(spikes, FRACTIONS))
    if not training.truth.any():
        part = "the first 70 % of any trace" if cells is None else "the traces of the first 70 % of the cells"
        raise ValueError(f"labels: no spike lies in {part}, which are trained on; label some there")
    return training, validation, test


def split_by_cell(cells: Sequence[Hashable], num_traces: int, seed: int) -> list[list[int]]:
    """Return the indices of the traces of training, validation and test part; cells are drawn by the seed."""
    names = list(dict.fromkeys(cells))
    if len(cells) != num_traces or len(names) < len(FRACTIONS):
        raise ValueError(
            f"cells: {len(cells)} traces of {len(names)} cells are named, but there are {num_traces} traces; name the "
            "cell of each, three different ones at least, or leave cells out"
        )
    drawn = np.random.default_rng(seed).permutation(len(names))
    held_out = [max(1, round(fraction * len(names))) for fraction in FRACTIONS[1:]]
    parts = np.split(drawn, np.cumsum([len(names) - sum(held_out), held_out[0]]))
    return [[n for n, cell in enumerate(cells) if names.index(cell) in part] for part in parts]


def checked_traces(traces: np.ndarray | Sequence[ArrayLike], window_samples: int) -> list[np.ndarray]:
    """Return a list of traces (T,), float32, each finite, not constant, and at least a window long."""
    if isinstance(traces, np.ndarray) and traces.dtype != object:
        if traces.ndim not in (1, 2):
            raise ValueError(f"traces must have the shape (T,) or (T, N), not {traces.shape}")
        traces = [traces] if traces.ndim == 1 else list(traces.T)
    checked = [np.ascontiguousarray(trace, dtype="float32") for trace in traces]
    if not checked:
        raise ValueError("traces: there is none")
    for index, trace in enumerate(checked):
        name = f"traces: trace {index}"
        if trace.ndim != 1:
            raise ValueError(f"{name} of the list has the shape {trace.shape}; give each trace as (T,)")
        if len(trace) < window_samples:
            raise ValueError(
                f"{name} has {len(trace)} samples, fewer than a window ({window_samples}); "
                "leave it out, or create the model with smaller window_samples and overlap_samples"
            )
        if not np.isfinite(trace).all():
            raise ValueError(f"{name} has samples that are NaN or infinite; fill them (dlvolt.preprocessing.fill_nan)")
        if np.ptp(trace) == 0:
            raise ValueError(f"{name} is constant, so there is nothing to learn from it; leave it out")
    return checked


def fit_parts(model: Model, X: np.ndarray, y: np.ndarray, validation: Part, test: Part) -> Model:
    """Train on windows (B, T), choose thresholds on the validation part, and score on the test part."""
    model.fit(X, y, validation=validation.windows(model))
    if isinstance(model, RateNetwork):
        model.test_scores_ = rates_scored(model, test)
        return model
    probability = validation.probability(model)
    threshold = best_threshold(validation.truth, probability)
    detection_threshold = best_detection_threshold(model, validation.truth, probability)
    model.set_params(threshold=threshold, detection_threshold=detection_threshold)
    probability = test.probability(model)
    model.test_scores_ = scores(model, test.truth, probability, threshold, detection_threshold or threshold)
    return model


def rates_scored(model: RateNetwork, test: Part) -> dict[str, float]:
    """Return the scores of estimated rates, averaged over traces, and the ratio of estimated to true spikes."""
    size = max(1, round(RESOLUTION_S * model.sampling_frequency))
    rates = [over_trace(trace_rate, model, trace) for trace in test.traces]
    ratio = sum(map(np.sum, rates)) / model.sampling_frequency / max(test.truth.sum(), 1)
    return {**rate_scores(test.labels, rates, size).mean(), "count_ratio": float(ratio)}


def over_trace(answer: Callable, model: Model, trace: np.ndarray) -> np.ndarray:
    """Return `trace_probability` or `trace_rate` of a trace (T,)."""
    return answer(model, lambda start, end: trace[start:end, None], len(trace))[:, 0]


def best_detection_threshold(model: Model, truth: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the threshold with the best F1 of events within 5 ms, or None if there is no spike."""
    if not truth.any():
        return None
    return best_event_threshold(event_sweep(model, truth, probability, SWEPT))


def event_sweep(
    model: Model, truth: np.ndarray, probability: np.ndarray, thresholds: Sequence[float] | np.ndarray
) -> pd.DataFrame:
    """Score the events that each threshold gives, found within 5 ms; see `threshold_sweep`."""
    fs = model.sampling_frequency
    assert fs is not None  # `fit` has set it
    return threshold_sweep(event_times(truth, fs), probability, fs, thresholds, shadow_ms=model.shadow_ms)


def event_times(truth: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return the middle of each run of ones, in seconds."""
    starts, stops = (np.flatnonzero(np.diff(truth, prepend=0, append=0) == step) for step in (1, -1))
    return (starts + stops - 1) / 2 / sampling_frequency


def best_threshold(truth: np.ndarray, probability: np.ndarray) -> float:
    """Return the threshold with the best F1 per sample, or 0.5 if there is no spike.

    All thresholds between two neighbouring probabilities give the same F1; the one half way in log odds is taken. So
    if spikes are well separated from other samples, the threshold lies between them and not at the weakest spike.
    """
    if not truth.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(truth, probability)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    best = int(np.argmax(f1[:-1]))
    neighbours = np.clip(thresholds[[max(best - 1, 0), best]].astype("float64"), *CERTAIN)
    return float(expit(logit(neighbours).mean()))


def scores(
    model: Model, truth: np.ndarray, probability: np.ndarray, threshold: float, detection_threshold: float
) -> dict[str, float]:
    """Return precision, recall and F1 per sample, and of the events found within 5 ms."""
    samples = sample_scores(truth, probability, threshold)
    events = event_sweep(model, truth, probability, [detection_threshold]).iloc[0]
    per_sample = dict(precision=samples.precision, recall=samples.recall, f1=samples.f1)
    per_event = {f"event_{name}": float(events[name]) for name in per_sample}
    return {**per_sample, "num_spike_samples": int(truth.sum()), **per_event}
