"""Which units are neurons and which are noise: units are compared with decoys, templates that no neuron looks like."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.stats import binom
from torch import Tensor

from dlvolt.deconvolution import Events

from .alignment import lagged_products, recentred
from .shadows import casts_shadow, shadows_of
from .units import LearningSettings, Matchers, Units

MAX_FALSE_DISCOVERY_RATE = 0.2  # units with a larger share of events that are noise are not reported,
SINGLE = 0.1  # and those with a share larger than this are reported as multi-unit activity
CONFIDENCE = 0.9  # a unit is dropped while learning goes on if its share exceeds the bound with this confidence
TOO_ALIKE = 0.85  # a decoy whose cosine with a unit is larger finds spikes of that unit, so it does not count noise


class Evidence(NamedTuple):
    """How many events each of K units has, and how many its decoys have in the same chunks.

    Attributes
    ----------
    events : Tensor, shape (K,)
        Events of each unit, without those in the shadow of a larger unit.
    decoys : Tensor, shape (K,)
        Events of the unit's most successful decoy, counted likewise.
    """

    events: Tensor
    decoys: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> Evidence:
        """Return the evidence in counts, shape (1 + kinds, K), as `Decoys.count` returns them."""
        return cls(counts[0], counts[1:].amax(dim=0) if len(counts) > 1 else torch.zeros_like(counts[0]))

    @property
    def false_discovery_rates(self) -> Tensor:
        """Share of each unit's events that are noise, shape (K,): as many as its decoy has; at most 1."""
        return (self.decoys / self.events.clamp(min=1)).clamp(max=1.0)

    def is_noise(self, bound: float = MAX_FALSE_DISCOVERY_RATE) -> Tensor:
        """Return which units have a false discovery rate significantly above the bound, shape (K,), bool.

        At the bound b, of the events of a unit and its decoy together a share b / (1 + b) is the decoy's.
        """
        decoys, trials = self.decoys.numpy(), (self.decoys + self.events).numpy()
        by_chance = binom.sf(decoys - 1, trials, bound / (1 + bound))  # probability of so many or more at the bound
        return torch.from_numpy((decoys > 0) & (by_chance < 1 - CONFIDENCE))


class Decoys:
    """Templates that no neuron looks like, whose events in the residual tell how many events noise makes.

    Each template has decoys of the same norm, rank, spectrum and prior, but of a form that no neuron has. They are
    pursued in the residual, the recording less the events of all units. As noise is as often like the decoy as like the
    template, a decoy has as many events as the template has false ones. (In proteomics, false identifications are
    counted in this way: J. Elias & S. Gygi, Nature Methods 4, 207, 2007.)

    Parameters
    ----------
    units : Units
        K units.
    which : Tensor, shape (K,), bool
        The units that have decoys.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    elsewhere : Tensor, shape (N,), optional
        For each channel n, the channel whose waveform is put on n in displaced decoys; None if the probe has no other
        place, and so no displaced decoys.
    device : str
        Torch device.
    """

    def __init__(
        self, units: Units, which: Tensor, settings: LearningSettings, elsewhere: Tensor | None, device: str
    ) -> None:
        self.num_units, self.width = len(units.moved), units.moved.shape[3]
        self.kinds: list[tuple[Tensor, Matchers, Tensor]] = []  # units with decoys, these, and who casts shadows
        owners = torch.nonzero(which)[:, 0]
        if len(owners) == 0:
            return
        for index, moved in enumerate(_decoys(units.moved[owners], settings.num_before, elsewhere)):
            fair = _is_distinct(moved, units) | (index == 0)  # decoys of the first kind are always taken
            if fair.any():
                decoys = units.select(owners[fair])._replace(moved=moved[fair])
                casts = casts_shadow(torch.cat([units.waveforms, decoys.waveforms]))
                casts[self.num_units :] = False  # only shadows of units count,
                casts[:, : self.num_units] = False  # and only those on decoys
                self.kinds.append((owners[fair], Matchers(decoys, settings, device), casts))

    def none(self) -> Tensor:
        """Return counts that are zero, shape (1 + kinds, K), to which those of `count` can be added."""
        return torch.zeros(1 + len(self.kinds), self.num_units, dtype=torch.long)

    def count(self, left: Tensor, events: Events, in_shadow: Tensor, place: int) -> Tensor:
        """Count the events of units, then of each kind of decoy, in a chunk, shape (1 + kinds, K).

        `left`, shape (N, T), is the chunk less the events of all units. Events in the shadow of a larger unit do not
        count.
        """
        counts = self.none()
        counts[0] = torch.bincount(events.units[~in_shadow], minlength=self.num_units)
        for kind, (owners, decoys, casts) in enumerate(self.kinds, start=1):
            found = decoys.at(place).pursue(left)
            units = torch.cat([events.units, self.num_units + found.units])
            both = Events(torch.cat([events.times, found.times]), units, torch.ones(len(units)))
            is_shaded = shadows_of(both, casts, self.width)[0][len(events.times) :]
            counts[kind, owners] = torch.bincount(found.units[~is_shaded], minlength=len(owners))
        return counts


def _decoys(moved: Tensor, num_before: int, elsewhere: Tensor | None) -> list[Tensor]:
    """Return each kind of decoys of waveforms (K, M, N, D): of opposite sign, reversed in time, and displaced.

    Symmetric noise makes as many events of either sign. Spikes of distant neurons make the noise skewed, but they have
    neither the unit's direction of time nor its place, so the other two kinds find as many of them as the unit does.
    """
    kinds = [-moved, recentred(moved.flip(3), num_before)]
    return kinds if elsewhere is None else [*kinds, moved[:, :, elsewhere]]


def _is_distinct(decoys: Tensor, units: Units) -> Tensor:
    """Return which decoys, shape (K', M, N, D), are unlike all units in the reference place, shape (K',), bool."""
    first, second = units.waveforms, decoys[:, decoys.shape[1] // 2]
    norms, of_decoys = (each.flatten(1).norm(dim=1).clamp(min=1e-6) for each in (first, second))
    products = lagged_products(first, second, first.shape[2] // 6).amax(dim=2)
    return (products / (norms[:, None] * of_decoys)).amax(dim=0) < TOO_ALIKE
