"""MAP amplitudes: the exponential prior, its maximiser and what an event gains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PER_UNIT = ("event_cost", "typical", "precision", "minimum", "maximum")


@dataclass(frozen=True)
class AmplitudePrior:
    """Exponential prior of amplitudes and the noise it competes with.

    A pure exponential prior lets every bump of noise above σ²λ become a spike. Optional parts make it sparse and
    keep units apart that differ in size only: a cost in nats that each event must earn (the log prior odds of
    silence), a normal distribution of each unit's amplitudes about its typical one, and their bounds.

    Attributes
    ----------
    rate : float
        λ, one over the amplitude.
    noise_variance : float
        σ².
    event_cost : float or Tensor, shape (K,)
        Nats by which an event must raise the log joint; a²/2σ² admits amplitudes above a. 0 is the plain
        exponential prior.
    minimum : float or Tensor, shape (K,)
        Events that would be smaller are not admitted.
    maximum : float or Tensor, shape (K,)
        Events that would be larger are cut to it.
    typical, precision : float or Tensor, shape (K,)
        A and π, one over the variance of the unit's amplitudes; with π = 0 nothing is typical.
    """

    rate: float = 0.0
    noise_variance: float = 1.0
    event_cost: float | Tensor = 0.0
    minimum: float | Tensor = 0.0
    maximum: float | Tensor = math.inf
    typical: float | Tensor = 0.0
    precision: float | Tensor = 0.0

    def select(self, units: Tensor) -> AmplitudePrior:
        """Return the prior of some units."""
        per_unit = {name: getattr(self, name) for name in PER_UNIT}
        per_unit |= {name: x[units] for name, x in per_unit.items() if isinstance(x, Tensor)}
        return replace(self, **per_unit)


def map_amplitudes(scores: Tensor, prior: AmplitudePrior) -> Tensor:
    """Return the amplitudes that maximise the log joint where the scores are μ.

    Parameters
    ----------
    scores : Tensor, shape (..., K)
        μ, the correlation of the residual with each unit's template.
    prior : AmplitudePrior
        Prior and noise of the K units.

    Returns
    -------
    Tensor, shape (..., K)
        max(0, (μ − σ²λ + σ²π A) / (1 + σ²π)); 0 where that is below the unit's minimum, the unit's maximum where it
        is above.
    """
    precision = prior.noise_variance * prior.precision
    amplitudes = (scores - prior.noise_variance * prior.rate + precision * prior.typical) / (1 + precision)
    amplitudes = amplitudes.clamp(min=0)
    admitted = amplitudes * (amplitudes >= prior.minimum)
    maximum = torch.as_tensor(prior.maximum, dtype=amplitudes.dtype, device=amplitudes.device)
    return torch.minimum(admitted, maximum)


def map_gain(scores: Tensor, amplitudes: Tensor, prior: AmplitudePrior) -> Tensor:
    """Return by how much an event of amplitude a raises the log joint over no event.

    Parameters
    ----------
    scores, amplitudes : Tensor, same shape
        μ and a.
    prior : AmplitudePrior
        Prior and noise.

    Returns
    -------
    Tensor, same shape
        (μ a − a²/2) / σ² − λ a − π (a − A)²/2 − cost; without π and bounds this is a²/2σ² − cost.
    """
    quadratic = amplitudes * (scores - amplitudes / 2) / prior.noise_variance
    atypical = prior.precision * (amplitudes - prior.typical) ** 2 / 2
    return quadratic - prior.rate * amplitudes - atypical - prior.event_cost


def least_scores(prior: AmplitudePrior, like: Tensor) -> Tensor:
    """Return the scores above which an event gains, shape () or (K,), with device and dtype of another tensor.

    The gain of the best amplitude rises with the score. With p = σ²π it is zero where the score less σ²λ is
    √((1 + p) (2σ² cost + p A²)) − p A, or, if amplitudes end below that, where the largest one is worth its cost.
    """
    cost, typical, precision, minimum, maximum = (
        torch.as_tensor(getattr(prior, name), dtype=like.dtype, device=like.device) for name in PER_UNIT
    )
    cost, precision = prior.noise_variance * cost, prior.noise_variance * precision
    pull = precision * typical
    unbounded = ((1 + precision) * (2 * cost + pull * typical)).sqrt() - pull
    bounded = (cost + precision * (maximum - typical) ** 2 / 2) / maximum + maximum / 2
    least = torch.where(maximum * (1 + precision) - pull < unbounded, bounded, unbounded)
    return prior.noise_variance * prior.rate + torch.maximum(least, minimum * (1 + precision) - pull)


def separated_maxima(gain: Tensor, separation: int) -> Tensor:
    """Return the times of positive local maxima that lie at least `separation` samples apart, best first kept.

    Parameters
    ----------
    gain : Tensor, shape (T,)
        What an event at each time would gain.
    separation : int
        Smallest distance in samples.

    Returns
    -------
    Tensor, shape (E,), int64
        Times, ascending. As ``scipy.signal.find_peaks(gain, height=0, distance=separation)``, except that the two
        ends count as maxima too.
    """
    left = torch.cat([gain.new_full((1,), -math.inf), gain[:-1]])
    right = torch.cat([gain[1:], gain.new_full((1,), -math.inf)])
    candidates = torch.nonzero((gain > 0) & (gain > left) & (gain >= right)).squeeze(1)
    taken = torch.zeros(len(gain), dtype=torch.bool)
    for time in candidates[torch.argsort(gain[candidates], descending=True, stable=True)].tolist():
        if not taken[max(0, time - separation + 1) : time + separation].any():
            taken[time] = True
    return torch.nonzero(taken).squeeze(1).to(gain.device)
