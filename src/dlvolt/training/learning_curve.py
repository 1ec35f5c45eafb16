"""The scores of a network as a function of the amount of training data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import clone
from tqdm.auto import tqdm

from dlvolt.networks import MelSVM, TraceNetwork

from .fit import fit_parts, prepare

TENTHS = tuple(np.arange(1, 11) / 10)


def learning_curve(
    model: TraceNetwork | MelSVM,
    traces: np.ndarray | Sequence[ArrayLike],
    labels: np.ndarray | Sequence[ArrayLike],
    *,
    sampling_frequency: float,
    fractions: Sequence[float] = TENTHS,
    kind: str = "auto",
    seed: int = 0,
    verbose: bool = False,
) -> pd.DataFrame:
    """Train on growing shares of the training windows, and test on the same test parts each time.

    Windows are drawn at random, and each draw contains all smaller draws.

    Parameters
    ----------
    model : TraceNetwork or MelSVM
        Model whose settings are trained with; it is not changed itself.
    traces, labels, sampling_frequency, kind, seed
        As for `dlvolt.training.fit`.
    fractions : sequence of float
        Shares of the training windows.
    verbose : bool
        Show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per fraction, with the columns fraction, num_windows, the scores of `dlvolt.training.fit`, and
        threshold.

    Raises
    ------
    ValueError
        As `dlvolt.training.fit`; if a fraction is not above 0 and at most 1, or its windows hold no spike.
    """
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions must lie above 0 and not above 1, not be {tuple(fractions)}")
    training, validation, test = prepare(model, traces, labels, sampling_frequency, kind)
    X, y = training.windows(model)
    order = np.random.default_rng(seed).permutation(len(X))
    draws = [order[: max(1, round(fraction * len(X)))] for fraction in fractions]
    for fraction, draw in zip(fractions, draws, strict=True):
        if not y[draw].any():
            raise ValueError(f"fractions: {fraction:g} of the training windows hold no spike; start higher")
    rows = []
    for fraction, draw in zip(tqdm(fractions, disable=not verbose), draws, strict=True):
        fresh = clone(model).set_params(sampling_frequency=float(sampling_frequency), seed=seed)
        fit_parts(fresh, X[draw], y[draw], validation, test)
        rows.append(dict(fraction=fraction, num_windows=len(draw), **fresh.test_scores_, threshold=fresh.threshold))
    return pd.DataFrame(rows)
