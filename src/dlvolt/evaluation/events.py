"""Spike times against the true ones: each true spike is found at most once, each found one explains at most one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

ROUNDING_S = 1e-9  # two frames 5 ms apart are within 5 ms, whatever their times were rounded to


@dataclass(frozen=True)
class EventScores:
    """Counts of events and the scores they give; those of several traces can be added, starting with `EventScores()`.

    `precision` is 1 if no event was found, `recall` is 1 if there is no true event, and `f1` is 1 if there is neither.
    """

    num_true: int = 0
    num_found: int = 0
    num_matched: int = 0

    @property
    def precision(self) -> float:
        """The part of the found events that is true."""
        return self.num_matched / self.num_found if self.num_found else 1.0

    @property
    def recall(self) -> float:
        """The part of the true events that was found."""
        return self.num_matched / self.num_true if self.num_true else 1.0

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.num_true + self.num_found
        return 2 * self.num_matched / total if total else 1.0

    def __add__(self, other: EventScores) -> EventScores:
        return EventScores(
            self.num_true + other.num_true, self.num_found + other.num_found, self.num_matched + other.num_matched
        )


def event_scores(true: ArrayLike, found: ArrayLike, tolerance_s: float = 0.005) -> EventScores:
    """Score the events found in a trace against the true ones.

    Parameters
    ----------
    true, found : array_like, shapes (E,) and (F,)
        Times of the events in seconds, ascending.
    tolerance_s : float, default: 0.005
        How far a found event may be from the true one, in seconds, this distance included.

    Returns
    -------
    EventScores
        The counts, with ``precision``, ``recall`` and ``f1``.

    Examples
    --------
    >>> from dlvolt.evaluation import event_scores
    >>> scores = event_scores(true=[0.1, 0.2, 0.3], found=[0.102, 0.25, 0.301])
    >>> scores.precision == scores.recall == 2 / 3
    True
    """
    return EventScores(np.size(true), np.size(found), len(match_events(true, found, tolerance_s)))


def match_events(true: ArrayLike, found: ArrayLike, tolerance_s: float = 0.005) -> np.ndarray:
    """Pair true with found events, as many as possible, each at most once.

    One walk through both sorted lists is enough: the two earliest events that are left are paired if they are within
    the tolerance; if not, the earlier of the two is too far from all that are left.

    Parameters
    ----------
    true, found, tolerance_s
        As for `event_scores`.

    Returns
    -------
    np.ndarray, shape (M, 2), int
        Indices into `true` and `found` of each of the M pairs, ascending in both.

    Raises
    ------
    ValueError
        If times are not finite or not ascending, or if the tolerance is negative.
    """
    true, found = _checked(true, "true"), _checked(found, "found")
    if not tolerance_s >= 0:
        raise ValueError(f"tolerance_s: must be 0 or more, not {tolerance_s}.")
    pairs = []
    i = j = 0
    while i < len(true) and j < len(found):
        if abs(true[i] - found[j]) <= tolerance_s + ROUNDING_S:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif true[i] < found[j]:
            i += 1
        else:
            j += 1
    return np.array(pairs, dtype=int).reshape(-1, 2)


def _checked(times: ArrayLike, name: str) -> list[float]:
    times = np.asarray(times, dtype=float)
    if times.ndim != 1:
        raise ValueError(f"{name}: must be the event times of one trace, shape (E,), not {times.shape}.")
    if not np.isfinite(times).all():
        raise ValueError(f"{name}: some times are NaN or infinite.")
    if np.any(np.diff(times) < 0):
        raise ValueError(f"{name}: times must ascend; give np.sort({name}).")
    return times.tolist()  # a list is walked through many times faster than an array
