"""MAP amplitudes: the exponential prior, its maximiser and what an event gains."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class AmplitudePrior:
    """Exponential prior of amplitudes and the noise it competes with.

    A pure exponential prior lets every bump of noise above σ²λ become a spike. Three optional parts make it sparse
    and keep units apart that differ in size only: a cost in nats that each event must earn (the log prior odds of
    silence), and bounds of each unit's amplitudes.

    Attributes
    ----------
    rate : float
        λ, one over the amplitude.
    noise_variance : float
        σ².
    event_cost : float
        Nats by which an event must raise the log joint; a²/2σ² admits amplitudes above a. 0 is the plain
        exponential prior.
    minimum : float or Tensor, shape (K,)
        Events that would be smaller are not admitted.
    maximum : float or Tensor, shape (K,)
        Events that would be larger are cut to it.
    """

    rate: float = 0.0
    noise_variance: float = 1.0
    event_cost: float = 0.0
    minimum: float | Tensor = 0.0
    maximum: float | Tensor = math.inf

    def select(self, units: Tensor) -> AmplitudePrior:
        """Return the prior of some units."""
        minimum, maximum = (
            value[units] if isinstance(value, Tensor) else value for value in (self.minimum, self.maximum)
        )
        return replace(self, minimum=minimum, maximum=maximum)


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
        max(0, μ − σ²λ); 0 where that is below the unit's minimum, the unit's maximum where it is above.
    """
    amplitudes = (scores - prior.noise_variance * prior.rate).clamp(min=0)
    admitted = amplitudes * (amplitudes >= prior.minimum)
    return torch.minimum(admitted, torch.as_tensor(prior.maximum).to(amplitudes))


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
