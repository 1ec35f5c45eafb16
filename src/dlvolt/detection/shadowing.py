"""Confidence-based spike shadowing: a strong detection suppresses weaker ones within the refractory time.

Mangipudi, Song and Zhang ("Robust machine learning-enabled spike inference in neuronal voltage imaging data", MIT
PRIMES October Conference, 2025) name the rule. Of two ways to read it, "keep what is the largest within the shadow"
and "strongest first", the second is taken: what is itself suppressed suppresses nothing, so the shoulder between two
spikes of a burst does not take the second one with it.
"""

from __future__ import annotations

import numpy as np

from dlvolt.preprocessing.spike_probability import peak_mask

KEPT, SUPPRESSED, UNKNOWN, OPEN = 1, 0, -1, -2


def shadow(
    probability: np.ndarray, threshold: float | np.ndarray, shadow_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Detect spikes where a probability peaks.

    Parameters
    ----------
    probability : np.ndarray, shape (T, N)
        Of a spike at every sample.
    threshold : float or np.ndarray, shape (N,)
        Smaller peaks are no detections.
    shadow_samples : int
        A detection suppresses the less confident ones (of equal ones, the later) at most so far away.

    Returns
    -------
    frames, channels : np.ndarray, shape (E,), int
        Samples and channels of the detections, by sample. On a plateau, its first sample.
    """
    frames, channels, _ = shadow_chunk(probability, threshold, shadow_samples, open_start=False, open_end=False)
    return frames, channels


def shadow_chunk(
    probability: np.ndarray, threshold: float | np.ndarray, shadow_samples: int, open_start: bool, open_end: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do as `shadow` on a piece of a recording, and say what depends on how it goes on.

    Parameters
    ----------
    probability, threshold, shadow_samples
        As for `shadow`.
    open_start, open_end : bool
        Whether the recording goes on there.

    Returns
    -------
    frames, channels : np.ndarray, shape (E,), int
        Detections and what may be one, by sample.
    sure : np.ndarray, shape (E,), bool
        False for what may be one.
    """
    channels, frames = np.nonzero(peak_mask(probability, threshold).T)  # channel by channel
    from_start, from_end = frames, len(probability) - 1 - frames
    unknown = (open_start & (from_start <= shadow_samples)) | (open_end & (from_end <= shadow_samples))
    one_behind_the_other = frames + channels * (len(probability) + shadow_samples)  # out of each other's reach
    fate = strongest_first(one_behind_the_other, probability[frames, channels], shadow_samples, unknown)
    by_time = np.lexsort((channels, frames))
    by_time = by_time[fate[by_time] != SUPPRESSED]
    return frames[by_time], channels[by_time], fate[by_time] == KEPT


def strongest_first(positions: np.ndarray, confidence: np.ndarray, reach: int, unknown: np.ndarray) -> np.ndarray:
    """Decide which detections stay when each that stays suppresses the weaker ones within reach.

    Parameters
    ----------
    positions : np.ndarray, shape (E,), int
        Ascending.
    confidence : np.ndarray, shape (E,)
        Of each; of equally confident ones the first counts as stronger.
    reach : int
        Largest distance of a suppressed detection.
    unknown : np.ndarray, shape (E,), bool
        Those whose fate is decided elsewhere, and with it, perhaps, that of weaker ones beside them.

    Returns
    -------
    np.ndarray, shape (E,), int
        KEPT, SUPPRESSED or UNKNOWN.
    """
    first = np.searchsorted(positions, positions - reach)
    end = np.searchsorted(positions, positions + reach, side="right")
    fate = np.where(unknown, UNKNOWN, OPEN)
    for event in np.lexsort((positions, -confidence)):
        beside = fate[first[event] : end[event]]  # a view; all stronger ones in it are decided
        if fate[event] == OPEN:
            beside[:] = SUPPRESSED
            fate[event] = KEPT
        elif fate[event] == UNKNOWN:
            beside[beside == OPEN] = UNKNOWN
    return fate
