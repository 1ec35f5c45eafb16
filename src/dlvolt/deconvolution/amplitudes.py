"""MAP amplitudes: the exponential prior, its maximiser and what an event gains."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AmplitudePrior:
    """Exponential prior of amplitudes and the noise it competes with.

    A pure exponential prior lets every bump of noise above σ²λ become a spike. Two optional parts make it sparse:
    a cost in nats that each event must earn (the log prior odds of silence), and an upper bound of the amplitudes
    (a truncated exponential), which keeps a small unit from explaining the spikes of a large one.

    Attributes
    ----------
    rate : float
        λ, one over the amplitude.
    noise_variance : float
        σ².
    event_cost : float or Tensor, shape (K,)
        Nats by which an event must raise the log joint; a²/2σ² admits amplitudes above a. 0 is the plain
        exponential prior.
    maximum : float or Tensor, shape (K,)
        Upper bound of the amplitudes.
    """

    rate: float = 0.0
    noise_variance: float = 1.0
    event_cost: float | Tensor = 0.0
    maximum: float | Tensor = math.inf

    def select(self, units: Tensor) -> AmplitudePrior:
        """Return the prior of some units."""
        cost, maximum = (
            value[units] if isinstance(value, Tensor) else value for value in (self.event_cost, self.maximum)
        )
        return AmplitudePrior(self.rate, self.noise_variance, cost, maximum)


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
        max(0, μ − σ²λ), at most the unit's upper bound.
    """
    amplitudes = (scores - prior.noise_variance * prior.rate).clamp(min=0)
    return torch.minimum(amplitudes, torch.as_tensor(prior.maximum).to(amplitudes))


def map_gain(scores: Tensor, amplitudes: Tensor, prior: AmplitudePrior) -> Tensor:
    """Return by how much an event of amplitude a raises the log joint over no event.

    Parameters
    ----------
    scores, amplitudes : Tensor, shape (..., K)
        μ and a.
    prior : AmplitudePrior
        Prior and noise of the K units.

    Returns
    -------
    Tensor, shape (..., K)
        (μ a − a²/2) / σ² − λ a − cost; for the unbounded maximiser this is a²/2σ² − cost.
    """
    quadratic = amplitudes * (scores - amplitudes / 2) / prior.noise_variance
    return quadratic - prior.rate * amplitudes - prior.event_cost


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
