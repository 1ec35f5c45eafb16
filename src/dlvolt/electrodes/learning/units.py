"""What is known of the units, and matchers that find their events in chunks of the recording."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from dlvolt.deconvolution import (
    AmplitudePrior,
    Events,
    LowRankTemplates,
    PreparedTemplates,
    least_scores,
    low_rank,
    map_amplitudes,
    pursue,
)

SUPPORT = 0.7  # a channel sees a unit if the norm of its waveform there, in noise standard deviations, is this large,
SUPPORT_RELATIVE = 0.15  # or this share of the norm on its best channel: weak units may be seen on many channels
INITIAL_SPREAD = 0.15  # relative standard deviation of amplitudes, until it is measured
INITIAL_RATE = 1e-4  # events per sample, until they are counted
NUM_MATCHERS = 4  # matchers kept at a time: they take memory, and the tissue moves slowly
KEEPING = threading.Lock()  # held while the matchers that are kept are looked up or changed


class Units(NamedTuple):
    """What is known of the units.

    Attributes
    ----------
    moved : Tensor, shape (K, M, N, D)
        Mean waveforms, in noise standard deviations, while the tissue is in each of M evenly spaced places. M is odd,
        and 1 if nothing moves. The norm of a waveform is the unit's typical amplitude in that place.
    spreads : Tensor, shape (K,)
        Standard deviation of the amplitudes relative to the typical one.
    rates : Tensor, shape (K,)
        Events per sample.
    deviations : Tensor, shape (K,)
        Standard deviation of the unit's scores where it has no events: 1 if the noise is white.
    false_discovery_rates : Tensor, shape (K,)
        Share of the unit's events that are noise, see `Decoys`; 0 for large units, which noise never makes.
    """

    moved: Tensor
    spreads: Tensor
    rates: Tensor
    deviations: Tensor
    false_discovery_rates: Tensor

    @classmethod
    def new(cls, waveforms: Tensor, kernels: Tensor | None = None) -> Units:
        """Return units of which only the waveforms, shape (K, N, D), are known; `kernels` as for `learn_units`."""
        moved = waveforms[:, None] if kernels is None else interpolated(waveforms, kernels)
        constants = (torch.full((len(moved),), value) for value in (INITIAL_SPREAD, INITIAL_RATE, 1.0, 0.0))
        return cls(moved, *constants)

    @property
    def waveforms(self) -> Tensor:
        """Waveforms in the reference place, the middle one, shape (K, N, D)."""
        return self.moved[:, self.moved.shape[1] // 2]

    def at(self, place: int) -> Units:
        """Return the units as they are in one place."""
        return self._replace(moved=self.moved[:, place : place + 1])

    def and_also(self, others: Units) -> Units:
        """Return these units and others."""
        return Units(*(torch.cat(fields) for fields in zip(self, others, strict=True)))

    def select(self, units: Tensor | list[int]) -> Units:
        """Return some of the units."""
        return Units(*(field[units] for field in self))

    def amplitude_prior(self, amplitude_range: tuple[float, float]) -> AmplitudePrior:
        """Return the prior of amplitudes: normal about the typical amplitude A = ‖W‖, cut off at bounds relative to A.

        The cost of an event is the log odds of silence, from the unit's rate, and ½ log(1 + variance), which the
        integral over amplitudes adds: a unit whose amplitudes vary more fits noise more easily.
        """
        typical = self.waveforms.flatten(1).norm(dim=1)
        variance = (self.spreads * typical).square()
        low, high = amplitude_range
        return AmplitudePrior(
            rate=float(1 / typical.mean()),
            event_cost=-torch.logit(self.rates) + torch.log1p(variance) / 2,
            typical=typical,
            precision=1 / variance,
            minimum=low * typical,
            maximum=high * typical,
        )

    def least_amplitudes(self, prior: AmplitudePrior) -> Tensor:
        """Return the smallest amplitudes that are told from noise, shape (K,).

        They are those at which an event is worth its cost, where the cost grows with the variance of scores in noise.
        """
        strict = replace(prior, event_cost=self.deviations.square() * prior.event_cost)
        return map_amplitudes(least_scores(strict, self.moved), strict)

    def to(self, device: torch.device) -> Units:
        """Return the units on another device."""
        return Units(*(field.to(device) for field in self))


@dataclass(frozen=True)
class LearningSettings:
    """How templates are learnt and matched.

    Attributes
    ----------
    rank : int
        R of the templates.
    num_before : int
        Samples of a template before its peak.
    amplitude_range : (float, float)
        Smallest and largest amplitude of an event, relative to the typical one of its unit.
    separation : int
        Least distance between events of one unit, in samples; values below 1 are taken as 1, those above D as D.
    """

    rank: int
    num_before: int
    amplitude_range: tuple[float, float]
    separation: int


class Matcher:
    """Finds the events of units in any number of chunks; what depends on the units only is computed once.

    Parameters
    ----------
    units : Units
        The units in one place of the tissue, M = 1.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    device : str
        Torch device of the pursuit; "auto" is CUDA where there is one, else the CPU.
    """

    def __init__(self, units: Units, settings: LearningSettings, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        units = units.to(self.device)
        self.templates: LowRankTemplates = low_rank(on_support(units.waveforms), settings.rank)
        self.prior = units.amplitude_prior(settings.amplitude_range)
        self.least = units.least_amplitudes(self.prior)
        self.separation = min(max(1, settings.separation), units.waveforms.shape[2])
        self.prepared = PreparedTemplates.of(self.templates)

    def pursue(self, chunk: Tensor) -> Events:
        """Return the events in a chunk, shape (N, T), on the chunk's own device."""
        on_device = chunk.to(self.device)
        events = pursue(on_device, self.templates, self.prior, self.separation, prepared=self.prepared)
        # They are dropped after the pursuit and not in it, where another unit would take what these events explain.
        events = events.select(events.amplitudes >= self.least[events.units])
        return Events(*(field.to(chunk.device) for field in events))


class Matchers:
    """A `Matcher` for each place of the tissue, made when it is first asked for; the last few are kept.

    Parameters
    ----------
    units : Units
        The units in all places.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    device : str
        As for `Matcher`.
    """

    def __init__(self, units: Units, settings: LearningSettings, device: str = "auto") -> None:
        self.units, self.settings, self.device = units, settings, device
        self.kept: dict[int, Matcher] = {}
        self.locks: dict[int, threading.Lock] = {}

    def at(self, place: int) -> Matcher:
        """Return the matcher for chunks in which the tissue is in this place; threads may ask at the same time."""
        with KEEPING:
            preparing = self.locks.setdefault(place, threading.Lock())
        with preparing:  # the first thread prepares the matcher, others that want the same one wait
            if (matcher := self.kept.get(place)) is None:
                matcher = Matcher(self.units.at(place), self.settings, self.device)
                with KEEPING:
                    if len(self.kept) == NUM_MATCHERS:
                        del self.kept[next(iter(self.kept))]
                    self.kept[place] = matcher
        return matcher


def on_support(waveforms: Tensor) -> Tensor:
    """Return waveforms, shape (…, N, D), with zeros on the channels that hardly see the unit."""
    return waveforms * support(waveforms)[:, :, None]


def support(waveforms: Tensor) -> Tensor:
    """Return which channels see a unit, shape (…, N), bool, given its waveform, shape (…, N, D)."""
    norms = waveforms.norm(dim=-1)
    return norms >= (SUPPORT_RELATIVE * norms.amax(dim=-1, keepdim=True)).clamp(max=SUPPORT)


def in_places(waveforms: Tensor, kernels: Tensor) -> Tensor:
    """Return waveforms, shape (…, N, D), interpolated in space to the M places, shape (…, M, N, D)."""
    return torch.einsum("mnc,...nd->...mcd", kernels, waveforms)


def interpolated(waveforms: Tensor, kernels: Tensor) -> Tensor:
    """Return waveforms `in_places`, scaled to their norm before, as interpolation makes sharp footprints smaller."""
    moved = in_places(waveforms, kernels)
    norms, before = moved.flatten(-2).norm(dim=-1), waveforms.flatten(-2).norm(dim=-1)
    return moved * (before[..., None] / norms.clamp(min=1e-6))[..., None, None]
