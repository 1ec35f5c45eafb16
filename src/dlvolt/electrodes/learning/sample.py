"""The events of a sample of the recording, each with all others explained away."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlvolt.deconvolution import (
    Events,
    compose,
    local_columns,
    scores,
    shift_bank,
    subtract,
)
from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.threads import map_in_threads

from .evidence import Decoys, Evidence
from .shadows import casts_shadow, shadows_of
from .snippets import sum_snippets
from .units import Matcher, Matchers, support

NUM_FEATURES = 6  # temporal components in which clean snippets are split and merged
MAX_UNEXPLAINED = 2.0  # mean square in a snippet, where noise has 1, above which it counts less
OUTSIZE = 3.0  # times the median norm of a unit's snippets: one of its spikes never is so large
DEVIATION_SAMPLES = 10_000  # of each group of chunks tell how scores deviate in noise
NUM_GROUPS = 8  # of chunks, so that few sums are held at a time
LITTLE = 0.01  # weight of events in a shadow
MIN_EVENTS = 10  # fewer do not make a template


class CleanSample(NamedTuple):
    """The events of a sample, each with all other events explained away.

    Attributes
    ----------
    units, places, amplitudes : Tensor, shape (E,)
        Of each event, the amplitude relative to the typical one of the unit in the place.
    in_shadow : Tensor, shape (E,), bool
        Whether a spike of a unit that casts a shadow is near: the event may be what the model leaves of it.
    shadows : Tensor, shape (K, K)
        How many events of a unit (row) lie in the shadow of another (column).
    features : Tensor, shape (E, C, B)
        Projections of the clean snippets on the temporal basis.
    channels : Tensor, shape (K, C)
        Channels of each unit's snippets.
    basis : Tensor, shape (B, D)
        Orthonormal temporal profiles that the templates are made of.
    sums : Tensor, shape (K, M, C, D)
        Weighted sum of a R[:, t : t + D] of each unit in each place.
    squares : Tensor, shape (K, M)
        Likewise of a².
    deviations : Tensor, shape (K,)
        Standard deviation of the scores of each unit in what is left.
    evidence : Evidence
        How many events of each unit, and of its decoys, there are in some of the chunks.
    """

    units: Tensor
    places: Tensor
    amplitudes: Tensor
    in_shadow: Tensor
    shadows: Tensor
    features: Tensor
    channels: Tensor
    basis: Tensor
    sums: Tensor
    squares: Tensor
    deviations: Tensor
    evidence: Evidence

    def best_events(self, unit: int) -> Tensor:
        """Return which events are of a unit, (E,), but for those in a shadow if there are enough others."""
        own = self.units == unit
        alone = own & ~self.in_shadow
        return alone if alone.sum() >= MIN_EVENTS else own

    def snippets(self, unit: int, moved: Tensor) -> Snippets:
        """Return the snippets of a unit as they would be in the reference place, given its waveforms, (M, N, D).

        Those that are far larger than most are artefacts, and left out.
        """
        own, channels = self.best_events(unit), self.channels[unit]
        projected = moved[:, channels] @ self.basis.T  # M×C×B
        change = projected[len(moved) // 2] - projected
        features = self.features[own] + self.amplitudes[own, None, None] * change[self.places[own]]
        norms = features.flatten(1).norm(dim=1)
        usual = norms <= OUTSIZE * norms.median() if len(norms) else norms > 0
        return Snippets(features, channels, self.places[own]).select(usual)


class Snippets(NamedTuple):
    """Clean snippets of one unit: features, shape (E, C, B), of its channels, shape (C,), and places, shape (E,)."""

    features: Tensor
    channels: Tensor
    places: Tensor

    def select(self, events: Tensor) -> Snippets:
        """Return some of the snippets."""
        return self._replace(features=self.features[events], places=self.places[events])

    def on(self, wanted: Tensor) -> Tensor:
        """Return the features of those channels that are marked in `wanted`, shape (N,), as points (E, F)."""
        return self.features[:, wanted[self.channels]].flatten(1)


def collect(
    chunks: list[Tensor],
    places: list[int],
    matchers: Matchers,
    nearby: Tensor,
    num_workers: int,
    decoys: Decoys,
    weighed: list[int],
    num_features: int = NUM_FEATURES,
) -> CleanSample:
    """Pursue all units in a sample and cut out their clean snippets, at one place of the tissue after the other.

    Chunks may be halves. The decoys are pursued in what is left of those whose indices are `weighed`.
    """
    units = matchers.units
    num_units, num_places, _, width = units.moved.shape
    casts, may_see = casts_shadow(units.waveforms), support(units.moved)
    around = nearby[units.moved.norm(dim=3).argmax(dim=2)]
    channels, is_near = local_columns((may_see | around).any(dim=1))  # K×C
    channels, order = channels.sort(dim=1)  # the same order for all units, so that features can be compared
    is_near = is_near.gather(1, order)
    in_reference = compose(matchers.at(num_places // 2).templates.to("cpu"))
    basis = torch.linalg.svd(in_reference[support(units.waveforms)], full_matrices=False)[2][:num_features]  # B×D
    groups = _groups(places)  # the same ones however many threads there are

    def of_group(group: range) -> _Part:
        some, place = [(chunks[index], index in weighed) for index in group], places[group[0]]
        return _in_place(some, matchers.at(place), casts, channels, basis, decoys, place)

    parts = map_in_threads(of_group, groups, num_workers)
    sums = torch.zeros(num_units, num_places, channels.shape[1], width)
    squares = torch.zeros(num_units, num_places)
    for group, part in zip(groups, parts, strict=True):
        sums[:, places[group[0]]] += part.sums * is_near[:, :, None]
        squares[:, places[group[0]]] += part.squares
    return CleanSample(
        units=torch.cat([part.events.units for part in parts]),
        places=torch.cat(
            [torch.full_like(part.events.units, places[group[0]]) for group, part in zip(groups, parts, strict=True)]
        ),
        amplitudes=torch.cat([part.events.amplitudes for part in parts]),
        in_shadow=torch.cat([part.in_shadow for part in parts]),
        shadows=torch.stack([part.shadows for part in parts]).sum(dim=0),
        features=torch.cat([part.features for part in parts]),
        channels=channels,
        basis=basis,
        sums=sums,
        squares=squares,
        deviations=torch.stack([part.deviations for part in parts]).median(dim=0).values.clamp(min=1.0),
        evidence=Evidence.of(torch.stack([part.counts for part in parts]).sum(dim=0)),
    )


class _Part(NamedTuple):
    """What `CleanSample` holds of some chunks in one place; `counts` are those of `Decoys.count`."""

    events: Events
    features: Tensor
    in_shadow: Tensor
    shadows: Tensor
    sums: Tensor
    squares: Tensor
    deviations: Tensor
    counts: Tensor


def _in_place(
    chunks: list[tuple[Tensor, bool]],
    matcher: Matcher,
    casts: Tensor,
    channels: Tensor,
    basis: Tensor,
    decoys: Decoys,
    place: int,
) -> _Part:
    """Collect the events of chunks in which the tissue is in one place; decoys are counted in those that are marked.

    The update of a template, Σ a R / Σ a² over its events, is weighted: an event counts the less, the more of its
    snippet the model leaves unexplained over what noise would (artefacts and the like), and hardly where it lies in
    the shadow of another. Nor is it explained away there: it may be a part of the larger spike that the larger template
    lacks, and should have back. (A spike of another neuron, which is there by chance, is lost in the mean.)

    A clean snippet is what is left at the event and what the event itself adds, a w(d − δ). Moved back by the shift δ,
    the latter is a w, the same for all events of a unit but for the amplitude. So it is added to the sums and to the
    projections, not to each snippet.
    """
    templates, typical = matcher.templates.to("cpu"), torch.as_tensor(matcher.prior.typical, device="cpu")
    num_units, width = len(typical), basis.shape[1]
    back = undelays(width)  # J×D×D
    local = compose(templates).gather(1, channels[:, :, None].expand(-1, -1, width))  # K×C×D
    of_unit = local @ basis.T  # K×C×B
    profiles = (back @ basis.T).mT.contiguous().numpy()  # J×B×D
    sums, added = torch.zeros(len(back), *local.shape), torch.zeros(num_units)
    squares, counts, shadows = torch.zeros(num_units), decoys.none(), torch.zeros_like(casts, dtype=torch.long)
    found: list[Events] = []
    features, shaded = [], []
    for halves, is_weighed in chunks:
        chunk = halves.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        events = matcher.pursue(chunk)
        in_shadow, of_chunk = shadows_of(events, casts, width)
        known = events._replace(amplitudes=events.amplitudes * ~in_shadow)  # echoes are left to those that cast them
        left = subtract(chunk, known, templates)
        if not found:  # of one chunk are enough
            deviations = _score_deviations(left, matcher)
        relative = events.amplitudes / typical[events.units]
        weights = relative * torch.where(in_shadow, LITTLE, 1.0)
        projected = torch.zeros(len(weights), channels.shape[1], len(basis))
        times, units, _, shifts = (field.numpy() for field in events)
        given = (left.numpy(), times, units, shifts, weights.numpy(), channels.numpy(), profiles)
        sum_snippets(*given, MAX_UNEXPLAINED, sums.numpy(), projected.numpy())
        added.index_add_(0, events.units, weights * known.amplitudes)
        squares.index_add_(0, events.units, weights * relative)
        found.append(events._replace(amplitudes=relative))
        features.append(projected + known.amplitudes[:, None, None] * of_unit[events.units])
        shaded.append(in_shadow)
        shadows += of_chunk
        if is_weighed:
            counts += decoys.count(subtract(left, events.select(in_shadow), templates), events, in_shadow, place)
    moved_back = sum(of_shift @ matrix for of_shift, matrix in zip(sums, back, strict=True))
    return _Part(
        events=Events(*(torch.cat(fields) for fields in zip(*found, strict=True))),
        features=torch.cat(features),
        in_shadow=torch.cat(shaded),
        shadows=shadows,
        sums=moved_back + added[:, None, None] * local,
        squares=squares,
        deviations=deviations,
        counts=counts,
    )


def _score_deviations(left_over: Tensor, matcher: Matcher) -> Tensor:
    """Return the standard deviation of the scores of each template in noise, (K,), told by their median size.

    Silence, where artefacts were, is no noise; where there is nothing else, it is 0.
    """
    noise = left_over[:, torch.nonzero(left_over.any(dim=0))[:DEVIATION_SAMPLES, 0]]
    num_units, _, width = matcher.templates.temporal.shape
    if noise.shape[1] < width:
        return noise.new_zeros(num_units)
    mu = scores(noise.to(matcher.device), matcher.templates, spectra=matcher.prepared.spectra)
    return mu.abs().median(dim=1).values.to(noise.device) / GAUSSIAN_MAD


def undelays(width: int) -> Tensor:
    """Return the matrix for each sub-sample shift that moves snippets, shape (…, D), back by it, shape (J, D, D)."""
    return shift_bank(torch.eye(width)).flip(0)  # as δ_j = -δ_{J-1-j}


def _groups(places: list[int]) -> list[range]:
    """Return the indices of the chunks in a few groups, in order, each of one place."""
    ends = np.linspace(0, len(places), min(NUM_GROUPS, len(places)) + 1).astype(int)
    ends = np.union1d(ends, np.flatnonzero(np.diff(places)) + 1).tolist()
    return [range(*each) for each in itertools.pairwise(ends)]
