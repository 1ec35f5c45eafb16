"""Estimated spike rates against the true spike counts, as the spikefinder challenge scores them.

References
----------
P. Berens et al., "Community-based benchmarking improves spike rate inference from two-photon calcium imaging data",
PLoS Computational Biology, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

CHALLENGE_BIN = 4  # samples at 100 Hz: the challenge compares at 25 Hz


def rate_scores(
    counts: np.ndarray | Sequence[ArrayLike], rate: np.ndarray | Sequence[ArrayLike], bin_samples: int = CHALLENGE_BIN
) -> pd.DataFrame:
    """Score estimated spike rates, cell by cell; ``rate_scores(…).mean()`` is the challenge's mean over cells.

    Parameters
    ----------
    counts : array_like, shape (T,) or (T, N), or a list of N arrays
        Spikes per sample, one trace for each cell. Samples that are NaN, such as those with which a table of cells of
        different lengths is padded, do not count.
    rate : as counts
        The estimated rate, in any unit: the scores do not depend on its scale.
    bin_samples : int, default: 4
        Samples that are summed to a bin; an incomplete bin at the end of a trace is dropped. At 100 Hz, 4 give the
        25 Hz of the challenge, and 1 compares sample by sample.

    Returns
    -------
    DataFrame
        A row for each cell: ``correlation`` (Pearson's, the challenge's primary score), ``rank`` (Spearman's) and
        ``auc`` (area under the ROC curve of bins with a spike). All are NaN, and left out of means, for a cell without
        a spike or with spikes in every bin alike. An estimate that never changes has 0, 0 and 0.5.

    Raises
    ------
    ValueError
        If cells or samples differ in number, or there is not one bin of known samples in a cell.

    Examples
    --------
    >>> from dlvolt.evaluation import rate_scores
    >>> rate_scores([0, 0, 1, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]).loc[0].round(6).to_dict()
    {'correlation': 1.0, 'rank': 1.0, 'auc': 1.0}
    """
    if bin_samples < 1:
        raise ValueError(f"bin_samples: must be 1 or more, not {bin_samples}.")
    counts, rate = _cells(counts), _cells(rate)
    if len(counts) != len(rate):
        raise ValueError(f"rate: there are {len(rate)} cells, but {len(counts)} with counts; give one for each.")
    scores = [_scores(*_binned(counts[n], rate[n], bin_samples, f"of cell {n}")) for n in range(len(counts))]
    return pd.DataFrame(scores, columns=["correlation", "rank", "auc"])


def _cells(traces: np.ndarray | Sequence[ArrayLike]) -> list[np.ndarray]:
    """Return a list of traces (T,)."""
    if not isinstance(traces, np.ndarray) and len(traces) and np.ndim(traces[0]):
        return [np.asarray(trace, dtype=float) for trace in traces]
    table = np.asarray(traces, dtype=float)
    if table.ndim not in (1, 2):
        raise ValueError(f"counts and rate: must have the shape (T,) or (T, N), not {table.shape}.")
    return [table] if table.ndim == 1 else list(table.T)


def _binned(counts: np.ndarray, rate: np.ndarray, size: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return counts and rate summed over bins of `size` samples; samples with unknown counts are left out."""
    if counts.shape != rate.shape or counts.ndim != 1:
        raise ValueError(f"rate: {name} has the shape {rate.shape}, its counts {counts.shape}; both must be (T,).")
    known = ~np.isnan(counts)
    counts, rate = counts[known], rate[known]
    if not np.isfinite(rate).all():
        raise ValueError(f"rate: {name} is NaN or infinite where counts are known; estimate every sample.")
    if np.any(counts < 0):
        raise ValueError(f"counts: {name} are negative somewhere; give spikes per sample.")
    if (num_bins := len(counts) // size) == 0:
        raise ValueError(f"counts: {name} hold {len(counts)} known samples, no bin of {size}; leave the cell out.")
    return tuple(trace[: num_bins * size].reshape(-1, size).sum(axis=1) for trace in (counts, rate))


def _scores(counts: np.ndarray, rate: np.ndarray) -> tuple[float, float, float]:
    """Return correlation, rank correlation and area under the ROC curve of bins."""
    spikes = counts > 0
    auc = float(roc_auc_score(spikes, rate)) if spikes.any() and not spikes.all() else np.nan
    return _correlation(counts, rate), _correlation(rankdata(counts), rankdata(rate)), auc


def _correlation(counts: np.ndarray, rate: np.ndarray) -> float:
    """Return Pearson's correlation, NaN if the counts never change, and 0 if the rate never does."""
    if np.ptp(counts) == 0:
        return np.nan
    return 0.0 if np.ptp(rate) == 0 else float(np.corrcoef(counts, rate)[0, 1])
