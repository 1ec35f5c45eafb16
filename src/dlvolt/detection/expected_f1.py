"""The threshold that serves F1 best, from nothing but the probabilities of a trace.

A spike of probability p is worth reporting where that raises the F1 to be expected, which it does exactly where p is
at least half of that F1 (Z. C. Lipton, C. Elkan, B. Narayanaswamy, "Optimal thresholding of classifiers to maximize F1
measure", ECML PKDD, 2014). So a trace of clear spikes is read with a threshold near one half, and a noisy one, where
waiting for certainty would leave most spikes out, with a lower one.
"""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording

from dlvolt.preprocessing.random_chunks import draw_pieces
from dlvolt.threads import map_in_threads

from .shadowing import shadow

CANDIDATE = 0.02  # peaks of a lower probability are no candidates for spikes
LOWEST = 0.3  # no threshold is lower: where there are hardly any spikes, the best F1 takes guesses for spikes


def expected_f1_thresholds(
    probability: BaseRecording, shadow_samples: int, seed: int = 0, num_workers: int = 1
) -> np.ndarray:
    """Choose the threshold of each channel from a sample of the recording.

    Parameters
    ----------
    probability : BaseRecording
        The spike probabilities of N channels, from `dlvolt.preprocessing.spike_probability`.
    shadow_samples : int
        As for `shadow`.
    seed : int, default: 0
        Draws the sample of the recording.
    num_workers : int, default: 1
        Threads that read the sample.

    Returns
    -------
    np.ndarray, shape (N,)
        Half of the F1 to be expected, but at least 0.3; it is never above 0.5.
    """
    confidence: list[list[np.ndarray]] = [[] for _ in range(probability.get_num_channels())]
    pieces = draw_pieces(probability, seed)
    for traces in map_in_threads(lambda piece: probability.get_traces(*piece), pieces, num_workers):
        frames, channels = shadow(traces, CANDIDATE, shadow_samples)
        for channel, of_channel in enumerate(confidence):
            of_channel.append(traces[frames[channels == channel], channel])
    best = [best_expected_f1(np.concatenate([np.empty(0), *of_channel])) for of_channel in confidence]
    return np.maximum(np.array(best) / 2, LOWEST)


def best_expected_f1(confidence: np.ndarray) -> float:
    """Return the largest F1 that can be expected when only the n most probable spikes are reported.

    F1 is 2 hits / (reported + true). The expected number of hits is the sum of the probabilities of those reported,
    and that of true spikes the sum of all probabilities.

    Parameters
    ----------
    confidence : np.ndarray, shape (E,)
        Probabilities of the events that may be spikes.
    """
    descending = np.sort(confidence)[::-1].astype("float64")
    reported = np.arange(1, len(descending) + 1)
    return float(np.max(2 * np.cumsum(descending) / (reported + descending.sum()), initial=0.0))
