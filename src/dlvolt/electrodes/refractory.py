"""Units that are one neuron: alike, and never firing within each other's refractory period."""

from __future__ import annotations

import numpy as np
from scipy.stats import poisson
from torch import Tensor

from dlvolt.electrodes.learning import alignment

ALIKE = 0.5  # cosine of two waveforms that may be one neuron's, at the beginning and the end of a burst
WINDOW_MS = (0.5, 2.5)  # nearer, and spikes of two neurons may pass for one; later, and one neuron may fire again
FEW = 0.25  # of the pairs expected of two independent neurons
FEW_CONTAMINATE = 0.1  # of the pairs of a train without refractory period: fewer do not tell
CHANCE = 0.05  # probability of so many pairs by chance, above which they do not tell either
SIGNIFICANCE = 0.001  # probability of so few pairs by chance; there are many units that may be compared


def same_neuron(waveforms: Tensor, spikes: np.ndarray, sampling_frequency: float, num_samples: list[int]) -> np.ndarray:
    """Return for each unit the unit that it belongs to, itself if it is alone.

    A neuron in a burst fires smaller and smaller spikes, and so may be found as several units. Two independent
    neurons fire within a millisecond or so of each other as often as chance has it, the parts of one never.

    Parameters
    ----------
    waveforms : Tensor, shape (K, N, D)
        Of the units.
    spikes : np.ndarray
        With fields ``sample_index``, ``cluster_index`` and ``segment_index``.
    sampling_frequency : float
        Hz.
    num_samples : list of int
        Length of each segment.

    Returns
    -------
    np.ndarray, shape (K,), int
        The part with the most spikes stands for a neuron.
    """
    if len(waveforms) == 0:
        return np.arange(0)
    low, high = (round(ms / 1000 * sampling_frequency) for ms in WINDOW_MS)
    trains = _trains(spikes, len(waveforms), num_samples, gap=high + 1)
    norms = waveforms.flatten(1).norm(dim=1)
    products = alignment(waveforms).products / (norms[:, None] * norms)
    owner = np.arange(len(waveforms))
    pairs = [(a, b) for a in owner for b in owner[:a] if products[a, b] > ALIKE]
    for a, b in sorted(pairs, key=lambda pair: -products[pair]):
        large, small = sorted((owner[a], owner[b]), key=lambda k: -len(trains[k]))
        if large == small:
            continue
        expected = len(trains[large]) * len(trains[small]) * 2 * (high - low) / sum(num_samples)
        found = count_pairs(trains[large], trains[small], low, high)
        if found < FEW * expected and poisson.cdf(found, expected) < SIGNIFICANCE:
            owner[owner == small] = large
            trains[large] = np.sort(np.concatenate([trains[large], trains[small]]))
    return owner


def contamination(
    spikes: np.ndarray, num_units: int, sampling_frequency: float, num_samples: list[int], refractory_ms: float
) -> np.ndarray:
    """Return which share of each unit's spikes are other neurons', told by how many come in its refractory period.

    Spikes closer than the sorter lets them be are not counted, so the window is from there to twice as long.

    Parameters
    ----------
    spikes : np.ndarray
        With fields ``sample_index``, ``cluster_index`` and ``segment_index``.
    num_units : int
        K.
    sampling_frequency : float
        Hz.
    num_samples : list of int
        Length of each segment.
    refractory_ms : float
        Spikes of a unit lie at least so far apart.

    Returns
    -------
    np.ndarray, shape (K,)
        C = 1 - √(1 - n T / (S² τ)), n pairs in a window of τ, at most 1 (Llobet et al., bioRxiv 2022, equation 11,
        where the contaminating spikes come from a single neuron or many). Pairs that chance makes in a train without
        any are not significant and give 0.
    """
    low = round(refractory_ms / 1000 * sampling_frequency)
    high = 2 * low
    shares = np.zeros(num_units)
    for unit, train in enumerate(_trains(spikes, num_units, num_samples, gap=high + 1)):
        found = count_pairs(train, train, low, high) / 2
        expected = len(train) ** 2 * (high - low) / sum(num_samples)  # of spikes without a refractory period
        if expected > 0 and poisson.sf(found - 1, FEW_CONTAMINATE * expected) <= CHANCE:
            shares[unit] = 1 - np.sqrt(max(0.0, 1 - found / expected))
    return shares


def _trains(spikes: np.ndarray, num_units: int, num_samples: list[int], gap: int) -> list[np.ndarray]:
    """Return the sorted samples of each unit's spikes, segments one after the other with a gap between them."""
    starts = np.concatenate([[0], np.cumsum(num_samples)[:-1]]) + gap * np.arange(len(num_samples))
    times = spikes["sample_index"] + starts[spikes["segment_index"]]
    return [np.sort(times[spikes["cluster_index"] == unit]) for unit in range(num_units)]


def count_pairs(a: np.ndarray, b: np.ndarray, low: int, high: int) -> int:
    """Return how many pairs of two sorted trains are more than `low` and at most `high` samples apart."""

    def within(reach: int) -> int:
        return int((np.searchsorted(b, a + reach, side="right") - np.searchsorted(b, a - reach)).sum())

    return within(high) - within(low)
