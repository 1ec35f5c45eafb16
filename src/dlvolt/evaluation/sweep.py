"""Which threshold on the spike probability serves best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from dlvolt.detection import shadow
from dlvolt.evaluation.events import EventScores, event_scores

THRESHOLDS = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2))


def threshold_sweep(
    true: np.ndarray | Sequence[ArrayLike],
    probability: ArrayLike,
    sampling_frequency: float,
    thresholds: Sequence[float] | np.ndarray = THRESHOLDS,
    *,
    tolerance_s: float = 0.005,
    shadow_ms: float = 2.0,
) -> pd.DataFrame:
    """Score the events that each threshold on the probability would give.

    Parameters
    ----------
    true : array_like, shape (E,), or a list of N such arrays
        Spike times in seconds, ascending; one array for each trace if there are several.
    probability : array_like, shape (T,) or (T, N)
        Spike probability of each sample.
    sampling_frequency : float
        Samples per second.
    thresholds : sequence of float
        Thresholds in (0, 1].
    tolerance_s : float, default: 0.005
        How far a found event may be from the true one, in seconds.
    shadow_ms : float, default: 2.0
        A detection suppresses less confident ones that are at most so close, as in
        `dlvolt.detection.NetworkPeakDetector`.

    Returns
    -------
    DataFrame
        A row for each ``threshold``, in ascending order (the index), with ``precision``, ``recall``, ``f1`` and the
        counts ``num_true``, ``num_found``, ``num_matched``, which are summed over the traces.
    """
    probability = np.asarray(probability, dtype=float)
    if probability.ndim == 1:
        true, probability = [true], probability[:, None]
    if len(true) != probability.shape[1]:
        raise ValueError(f"true: holds spike times of {len(true)} traces for {probability.shape[1]} of probability.")
    thresholds = np.unique(thresholds)
    if not len(thresholds) or not (0 < thresholds[0] <= thresholds[-1] <= 1):
        raise ValueError("thresholds: must be one or more numbers above 0 and at most 1.")

    # No detection is suppressed by a less confident one. So the detections of a higher threshold are those of the
    # lowest threshold whose confidence reaches it.
    frames, channels = shadow(probability, thresholds[0], round(shadow_ms / 1000 * sampling_frequency))
    confidence = probability[frames, channels]
    scores = []
    for threshold in thresholds:
        found = [frames[(channels == n) & (confidence >= threshold)] / sampling_frequency for n in range(len(true))]
        of_traces = [event_scores(*pair, tolerance_s) for pair in zip(true, found, strict=True)]
        scores.append(sum(of_traces, EventScores()))
    names = ("precision", "recall", "f1", "num_true", "num_found", "num_matched")
    rows = [{name: getattr(score, name) for name in names} for score in scores]
    return pd.DataFrame(rows, index=pd.Index(thresholds, name="threshold"))


def best_threshold(sweep: pd.DataFrame) -> float:
    """Return the threshold with the highest F1 in the table of a `threshold_sweep`; of equal ones the middle one."""
    best = sweep.index[sweep["f1"] == sweep["f1"].max()]
    return float(best[len(best) // 2])
