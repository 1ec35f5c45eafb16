"""Whether spikes are of one neuron or of two, told by their times: a neuron has a refractory period."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import binom, poisson

from dlvolt.sortings import count_pairs

REFRACTORY_MS = 2.5  # a neuron may fire again later
FEW = 0.25  # one neuron has a smaller share of the pairs that two independent neurons have,
SIGNIFICANCE = 0.05  # and so many pairs have a smaller probability


class RefractoryPeriod(NamedTuple):
    """The distances of two spikes that one neuron does not fire, in samples, and the length of what is looked at."""

    low: int  # events of one unit are never found closer than this
    high: int  # end of the refractory period
    num_samples: int  # length of the sample from which the times come

    def expected(self, a: np.ndarray, b: np.ndarray) -> float:
        """Return the number of pairs of two trains within the refractory period if neurons fire independently."""
        return len(a) * len(b) * 2 * (self.high - self.low) / self.num_samples

    def pairs(self, a: np.ndarray, b: np.ndarray) -> int:
        """Return the number of pairs of two sorted trains within the refractory period."""
        return count_pairs(a, b, self.high) - count_pairs(a, b, self.low)

    def is_broken(self, train: np.ndarray) -> bool:
        """Return whether a sorted train has more pairs within the refractory period than one neuron has."""
        return _are_many(self.pairs(train, train) / 2, self.expected(train, train) / 2)

    def tells_apart(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Return whether two sorted trains are of two neurons.

        Then there are pairs of a spike of one and a spike of the other, but few pairs of spikes of the same. If one
        neuron's spikes, or those of a mixture of many, are shared out at random, both kinds are alike.
        """
        across, across_by_chance = self.pairs(a, b), self.expected(a, b)
        within = (self.pairs(a, a) + self.pairs(b, b)) // 2
        within_by_chance = (self.expected(a, a) + self.expected(b, b)) / 2
        share = within_by_chance / max(within_by_chance + across_by_chance, 1e-9)
        few_within = binom.cdf(within, within + across, share) < SIGNIFICANCE
        return bool(few_within and _are_many(across, across_by_chance))


def _are_many(pairs: float, expected: float) -> bool:
    """Return whether there are significantly more pairs than one neuron has."""
    return bool(poisson.sf(pairs - 1, FEW * expected) < SIGNIFICANCE)
