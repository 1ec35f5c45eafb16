"""What refractory periods tell: which units are one neuron, and how many spikes of a unit are other neurons'.

Spikes, shape (E,), have the fields ``sample_index``, ``cluster_index`` and ``segment_index``; the samples of the
segments are counted in `num_samples`.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import poisson
from torch import Tensor

from dlvolt.electrodes.learning import alignment
from dlvolt.electrodes.learning.timing import RefractoryPeriod

ALIKE = 0.5  # least cosine of two waveforms that may be one neuron's, at the beginning and the end of a burst
WINDOW_MS = (0.5, 2.5)  # spikes of two neurons that are closer may be found as one; later, a neuron may fire again
FEW = 0.25  # two units are one neuron if they have a smaller share of the pairs expected of independent neurons,
SIGNIFICANCE = 0.001  # and so few pairs have a smaller probability; it is low, as there are many pairs of units
FEW_CONTAMINATE = 0.1  # a unit is contaminated if it has more than this share of the pairs of a train without
CHANCE = 0.05  # refractory period, and so many pairs have a probability of at most this


def same_neuron(waveforms: Tensor, spikes: np.ndarray, sampling_frequency: float, num_samples: list[int]) -> np.ndarray:
    """Return for each unit the unit with most spikes of its neuron, shape (K,), given waveforms, shape (K, N, D).

    In a burst, a neuron fires smaller and smaller spikes, so it may be found as several units. Two independent neurons
    fire within a refractory period of each other as often as by chance, two units of one neuron never.
    """
    if len(waveforms) == 0:
        return np.arange(0)
    low, high = (round(ms / 1000 * sampling_frequency) for ms in WINDOW_MS)
    period = RefractoryPeriod(low, high, sum(num_samples))
    trains = _trains(spikes, len(waveforms), num_samples, gap=high + 1)
    norms = waveforms.flatten(1).norm(dim=1)
    products = alignment(waveforms).products / (norms[:, None] * norms)
    owner = np.arange(len(waveforms))
    pairs = [(a, b) for a in owner for b in owner[:a] if products[a, b] > ALIKE]
    for a, b in sorted(pairs, key=lambda pair: -products[pair]):
        large, small = sorted((owner[a], owner[b]), key=lambda k: -len(trains[k]))
        if large == small:
            continue
        expected = period.expected(trains[large], trains[small])
        found = period.pairs(trains[large], trains[small])
        if found < FEW * expected and poisson.cdf(found, expected) < SIGNIFICANCE:
            owner[owner == small] = large
            trains[large] = np.sort(np.concatenate([trains[large], trains[small]]))
    return owner


def without_doubles(spikes: np.ndarray, censored: int) -> np.ndarray:
    """Return spikes, less those that follow a spike of the same unit within so many samples.

    Two units that are one neuron may both have explained the same spike.
    """
    order = np.lexsort((spikes["sample_index"], spikes["segment_index"], spikes["cluster_index"]))
    units, segments, times = (spikes[name][order] for name in ("cluster_index", "segment_index", "sample_index"))
    follows = (np.diff(units) == 0) & (np.diff(segments) == 0) & (np.diff(times) < censored)
    kept = np.ones(len(spikes), dtype=bool)
    kept[order[1:][follows]] = False
    return spikes[kept]


def contamination(
    spikes: np.ndarray, num_units: int, sampling_frequency: float, num_samples: list[int], refractory_ms: float
) -> np.ndarray:
    """Return the share of each unit's spikes that are other neurons', estimated from pairs in its refractory period.

    The sorter finds no spikes of a unit closer than `refractory_ms`, so pairs are counted from there to twice as far.
    If there are n pairs in this window τ among S spikes in a time T, the share is 1 − √(1 − n T / (S² τ)) (Llobet et
    al., bioRxiv 2022, equation 11, where the contaminating spikes come from a single neuron or many). It is at most 1,
    and 0 if the pairs are too few to be significant.
    """
    low = round(refractory_ms / 1000 * sampling_frequency)
    period = RefractoryPeriod(low, 2 * low, sum(num_samples))
    shares = np.zeros(num_units)
    for unit, train in enumerate(_trains(spikes, num_units, num_samples, gap=2 * low + 1)):
        found, expected = period.pairs(train, train) / 2, period.expected(train, train) / 2
        if expected > 0 and poisson.sf(found - 1, FEW_CONTAMINATE * expected) <= CHANCE:
            shares[unit] = 1 - np.sqrt(max(0.0, 1 - found / expected))
    return shares


def _trains(spikes: np.ndarray, num_units: int, num_samples: list[int], gap: int) -> list[np.ndarray]:
    """Return the sorted samples of each unit's spikes, as if segments followed each other with gaps in between."""
    starts = np.concatenate([[0], np.cumsum(num_samples)[:-1]]) + gap * np.arange(len(num_samples))
    times = spikes["sample_index"] + starts[spikes["segment_index"]]
    return [np.sort(times[spikes["cluster_index"] == unit]) for unit in range(num_units)]
