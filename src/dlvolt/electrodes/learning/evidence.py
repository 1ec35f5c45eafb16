"""Is it a neuron? Units compete with decoys, templates that cannot be neurons, for the events of a recording."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.stats import binom
from torch import Tensor

from dlvolt.deconvolution import Events

from .alignment import lagged_products, recentred
from .shadows import casts_shadow, shadows_of
from .units import LearningSettings, Matchers, Units

MAX_FALSE_DISCOVERY_RATE = 0.2  # units are not reported in which the share of events that noise gives is larger
SINGLE = 0.1  # and those with more than this are no single neuron's
CONFIDENCE = 0.9  # that a unit's rate is above the bound, before it is dropped while units are still learnt
TOO_ALIKE = 0.85  # cosine: what looks like a unit so much takes a part of its spikes, and tells nothing


class Evidence(NamedTuple):
    """What speaks for each of K units.

    Attributes
    ----------
    events : Tensor, shape (K,)
        Events of each unit, but for those in the shadow of a larger one.
    decoys : Tensor, shape (K,)
        Events of its most successful decoy, likewise.
    """

    events: Tensor
    decoys: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> Evidence:
        """Make it of counts, shape (1 + kinds, K), see `Decoys.count`."""
        return cls(counts[0], counts[1:].amax(dim=0) if len(counts) > 1 else torch.zeros_like(counts[0]))

    @property
    def false_discovery_rates(self) -> Tensor:
        """Share of each unit's events that noise gives, shape (K,), at most 1."""
        return (self.decoys / self.events.clamp(min=1)).clamp(max=1.0)

    def is_noise(self, bound: float = MAX_FALSE_DISCOVERY_RATE) -> Tensor:
        """Return which units have a rate above the bound, not by chance, shape (K,), bool."""
        decoys, trials = self.decoys.numpy(), (self.decoys + self.events).numpy()
        by_chance = binom.sf(decoys - 1, trials, bound / (1 + bound))  # of so many events, if the rate is the bound
        return torch.from_numpy((decoys > 0) & (by_chance < 1 - CONFIDENCE))


class Decoys:
    """Templates that cannot be neurons, made ready to be pursued in what the units leave.

    The model explains whatever it can by whatever units it has, so noise makes events, and enough of them a unit. What
    noise gives is told by the recording itself: each template has decoys of the same norm, rank, spectrum and prior
    that no neuron looks like, and they are pursued in what the units leave. Noise knows no difference. (So are false
    identifications counted in proteomics: J. Elias & S. Gygi, Nature Methods 4, 207, 2007.)

    Parameters
    ----------
    units : Units
        K units.
    which : Tensor, shape (K,), bool
        Those that have decoys.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    elsewhere : Tensor, shape (N,), optional
        The channel that takes the place of each in a decoy that is moved; None where there is no other place.
    device : str
        Torch device.
    """

    def __init__(
        self, units: Units, which: Tensor, settings: LearningSettings, elsewhere: Tensor | None, device: str
    ) -> None:
        self.num_units, self.width = len(units.moved), units.moved.shape[3]
        self.kinds: list[tuple[Tensor, Matchers, Tensor]] = []  # whose they are, decoys, and what darkens them
        owners = torch.nonzero(which)[:, 0]
        if len(owners) == 0:
            return
        for index, moved in enumerate(_decoys(units.moved[owners], settings.num_before, elsewhere)):
            fair = _is_distinct(moved, units) | (index == 0)  # there always is the first kind
            if fair.any():
                decoys = units.select(owners[fair])._replace(moved=moved[fair])
                self.kinds.append((owners[fair], Matchers(decoys, settings, device), _casts_on(units, decoys)))

    def none(self) -> Tensor:
        """Return counts of nothing, see `count`."""
        return torch.zeros(1 + len(self.kinds), self.num_units, dtype=torch.long)

    def count(self, left: Tensor, events: Events, in_shadow: Tensor, place: int) -> Tensor:
        """Count events of units and of decoys, but for those in the shadow of a larger unit.

        Parameters
        ----------
        left : Tensor, shape (N, T)
            What the units leave of a chunk.
        events : Events
            Theirs.
        in_shadow : Tensor, shape (E,), bool
            Which of these lie in a shadow.
        place : int
            Where the tissue is.

        Returns
        -------
        Tensor, shape (1 + kinds, K)
            Of the units, then of each kind of decoy; 0 where a unit has none.
        """
        counts = self.none()
        counts[0] = torch.bincount(events.units[~in_shadow], minlength=self.num_units)
        for kind, (owners, decoys, casts) in enumerate(self.kinds, start=1):
            counts[kind, owners] = _count_alone(events, decoys.at(place).pursue(left), casts, self.width)
        return counts


def _casts_on(units: Units, others: Units) -> Tensor:
    """Return which unit casts a shadow on which of some others, shape (K, K')."""
    return casts_shadow(torch.cat([units.waveforms, others.waveforms]))[: len(units.moved), len(units.moved) :]


def _count_alone(events: Events, others: Events, casts: Tensor, width: int) -> Tensor:
    """Count events of others, (K',), but for what may be left of larger spikes: these cast a shadow there."""
    num_units, num_others = casts.shape
    of_both = torch.zeros(num_units + num_others, num_units + num_others, dtype=torch.bool)
    of_both[:num_units, num_units:] = casts
    times, units = torch.cat([events.times, others.times]), torch.cat([events.units, num_units + others.units])
    in_shadow = shadows_of(Events(times, units, torch.ones(len(times))), of_both, width)[0][len(events.times) :]
    return torch.bincount(others.units[~in_shadow], minlength=num_others)


def _decoys(moved: Tensor, num_before: int, elsewhere: Tensor | None) -> list[Tensor]:
    """Return decoys of waveforms, (K, M, N, D): of the other sign, backward in time, and in another place.

    Noise that is symmetric makes as many events of either sign. Far neurons make it skewed, but neither their
    direction of time nor their place on the probe is the unit's own.
    """
    kinds = [-moved, recentred(moved.flip(3), num_before)]
    return kinds if elsewhere is None else [*kinds, moved[:, :, elsewhere]]


def _is_distinct(decoys: Tensor, units: Units) -> Tensor:
    """Return which decoys, (K', M, N, D), are not too like a unit, shape (K',), bool."""
    first, second = units.waveforms, decoys[:, decoys.shape[1] // 2]
    norms, of_decoys = (each.flatten(1).norm(dim=1).clamp(min=1e-6) for each in (first, second))
    products = lagged_products(first, second, first.shape[2] // 6).amax(dim=2)
    return (products / (norms[:, None] * of_decoys)).amax(dim=0) < TOO_ALIKE
