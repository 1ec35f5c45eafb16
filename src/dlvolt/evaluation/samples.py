"""Probabilities against labels, sample by sample."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support


class SampleScores(NamedTuple):
    """Precision, recall, F1 and average precision of samples.

    `precision` is 1 if no sample was found, `recall` is 1 if none is true, and `f1` is 1 if there is neither.
    `average_precision`, the mean precision over all recalls, needs no threshold; it is NaN if no sample is true.
    """

    precision: float
    recall: float
    f1: float
    average_precision: float


def sample_scores(labels: ArrayLike, probability: ArrayLike, threshold: float = 0.5) -> SampleScores:
    """Score the spike probabilities of samples against their labels.

    Parameters
    ----------
    labels : array_like, any shape, bool or 0/1
        The true labels, 1 where there is a spike.
    probability : array_like, the same shape
        Spike probabilities, in [0, 1].
    threshold : float, default: 0.5
        A sample counts as found from this probability on.

    Returns
    -------
    SampleScores
        Scores of the samples of all traces together.
    """
    labels, probability = _checked(labels, probability)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, probability >= threshold, average="binary", zero_division=1.0
    )
    average_precision = average_precision_score(labels, probability) if labels.any() else np.nan
    return SampleScores(*map(float, (precision, recall, f1, average_precision)))


def confusion_table(labels: ArrayLike, probability: ArrayLike, threshold: float = 0.5) -> pd.DataFrame:
    """Count samples by what they are and what they were taken for.

    Parameters
    ----------
    labels, probability, threshold
        As for `sample_scores`.

    Returns
    -------
    DataFrame
        Rows are the truth, columns the model's answer, each "spike" and "no spike".
    """
    labels, probability = _checked(labels, probability)
    names = ["spike", "no spike"]
    counts = confusion_matrix(labels, probability >= threshold, labels=[True, False])
    return pd.DataFrame(counts, index=pd.Index(names, name="true"), columns=pd.Index(names, name="predicted"))


def _checked(labels: ArrayLike, probability: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    labels, probability = np.asarray(labels), np.asarray(probability, dtype=float)
    if labels.shape != probability.shape:
        raise ValueError(f"labels: have shape {labels.shape}, the probabilities {probability.shape}; they must agree.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels: must be 0 or 1 at every sample.")
    if not np.all((probability >= 0) & (probability <= 1)):
        raise ValueError("probability: must lie between 0 and 1 at every sample.")
    return labels.ravel().astype(bool), probability.ravel()
