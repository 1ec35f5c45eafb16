"""MAP amplitudes: their prior, the amplitude that maximises the log joint, and what an event gains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PER_UNIT = ("event_cost", "typical", "precision", "minimum", "maximum")  # may differ between units


@dataclass(frozen=True)
class AmplitudePrior:
    """Exponential prior of amplitudes, and the variance of the noise.

    Under the exponential prior alone every bump of noise above σ²λ is a spike. Optional parts make events sparse and
    keep units apart that differ in size only: a cost in nats that each event must earn (the log prior odds of
    silence), a normal distribution of each unit's amplitudes about a typical one, and bounds on the amplitudes.

    Attributes
    ----------
    rate : float
        λ, one over the mean amplitude.
    noise_variance : float
        σ².
    event_cost : float or Tensor, shape (K,)
        Nats that an event costs; a²/2σ² admits amplitudes above a, 0 is the plain exponential prior.
    minimum : float or Tensor, shape (K,)
        An event that would be smaller is no event.
    maximum : float or Tensor, shape (K,)
        An event that would be larger has this amplitude.
    typical, precision : float or Tensor, shape (K,)
        Mean A and precision π, one over the variance, of the normal distribution of the unit's amplitudes; with π = 0
        there is none.
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
    """Return the amplitudes that maximise the log joint, given the scores.

    Parameters
    ----------
    scores : Tensor, shape (..., K)
        μ, the correlation of the residual with each unit's template.
    prior : AmplitudePrior
        Prior and noise of the K units.

    Returns
    -------
    Tensor, shape (..., K)
        max(0, (μ − σ²λ + σ²π A) / (1 + σ²π)); 0 where that is below the unit's minimum, and the unit's maximum where
        it is above that.
    """
    precision = prior.noise_variance * prior.precision
    amplitudes = (scores - prior.noise_variance * prior.rate + precision * prior.typical) / (1 + precision)
    amplitudes = amplitudes.clamp(min=0)
    admitted = amplitudes * (amplitudes >= prior.minimum)
    maximum = torch.as_tensor(prior.maximum, dtype=amplitudes.dtype, device=amplitudes.device)
    return torch.minimum(admitted, maximum)


def map_gain(scores: Tensor, amplitudes: Tensor, prior: AmplitudePrior) -> Tensor:
    """Return the gain: by how much an event of amplitude a raises the log joint over no event.

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
    """Return the scores above which an event gains.

    The gain of the best amplitude rises with the score. With p = σ²π it is zero where the score less σ²λ is
    √((1 + p) (2σ² cost + p A²)) − p A. If the best amplitude there is above the maximum, it is zero where an event of
    the maximum gains nothing. And no event gains whose best amplitude is below the minimum.

    Parameters
    ----------
    prior : AmplitudePrior
        Prior and noise.
    like : Tensor
        Gives the device and dtype of the scores.

    Returns
    -------
    Tensor, shape () or (K,)
        Least scores, of each unit if the prior differs between units.
    """
    cost, typical, precision, minimum, maximum = (
        torch.as_tensor(getattr(prior, name), dtype=like.dtype, device=like.device) for name in PER_UNIT
    )
    cost, precision = prior.noise_variance * cost, prior.noise_variance * precision  # σ² cost and p
    pull = precision * typical
    unbounded = ((1 + precision) * (2 * cost + pull * typical)).sqrt() - pull
    bounded = (cost + precision * (maximum - typical) ** 2 / 2) / maximum + maximum / 2
    least = torch.where(maximum * (1 + precision) - pull < unbounded, bounded, unbounded)
    return prior.noise_variance * prior.rate + torch.maximum(least, minimum * (1 + precision) - pull)


def separated_maxima(gain: Tensor, separation: int) -> Tensor:
    """Return the times of positive local maxima at least `separation` samples apart, the highest chosen first.

    Parameters
    ----------
    gain : Tensor, shape (T,)
        What an event at each time would gain.
    separation : int
        Smallest distance in samples.

    Returns
    -------
    Tensor, shape (E,), int64
        Times, ascending. They are those of ``scipy.signal.find_peaks(gain, height=0, distance=separation)``, but the
        two ends may be maxima, too, and a plateau is one at its first sample.
    """
    left = torch.cat([gain.new_full((1,), -math.inf), gain[:-1]])
    right = torch.cat([gain[1:], gain.new_full((1,), -math.inf)])
    candidates = torch.nonzero((gain > 0) & (gain > left) & (gain >= right)).squeeze(1)
    taken = torch.zeros(len(gain), dtype=torch.bool)
    for time in candidates[torch.argsort(gain[candidates], descending=True, stable=True)].tolist():
        if not taken[max(0, time - separation + 1) : time + separation].any():
            taken[time] = True
    return torch.nonzero(taken).squeeze(1).to(gain.device)
