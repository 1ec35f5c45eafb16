"""The events of a sample of the recording, and their clean snippets: what is there with all other events subtracted."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlvolt.deconvolution import Events, compose, local_columns, scores, shift_bank, subtract
from dlvolt.deconvolution.loops import compiled_for_sums
from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.threads import map_in_threads

from .evidence import Decoys, Evidence
from .shadows import casts_shadow, shadows_of
from .units import Matcher, Matchers, support

NUM_FEATURES = 6  # temporal components in which clean snippets are split and merged
MAX_UNEXPLAINED = 2.0  # a snippet counts less if the residual in it has a larger mean square; noise has 1
OUTSIZE = 3.0  # a snippet with a norm so many times the median of its unit is not one of the unit's spikes
DEVIATION_SAMPLES = 10_000  # samples of each group of chunks that show how scores deviate in noise
NUM_GROUPS = 8  # groups into which chunks are divided; sums are held for each of them
LITTLE = 0.01  # weight of events in a shadow
MIN_EVENTS = 10  # fewer events do not make a template


class CleanSample(NamedTuple):
    """The events of a sample, and what is to be known of their clean snippets.

    The clean snippet of an event at time t is R[:, t : t + D], where R is the sample less all other events.
    """

    units: Tensor  # E; of each event its unit,
    times: Tensor  # E; its time as if the chunks followed each other,
    places: Tensor  # E; where the tissue is,
    amplitudes: Tensor  # E; its amplitude relative to the typical one of the unit there,
    in_shadow: Tensor  # E; whether it is in the shadow of another, and so maybe what the model leaves of that one,
    features: Tensor  # E×C×B; and the projection of its clean snippet on the basis
    shadows: Tensor  # K×K; how often an event of a unit (row) is in the shadow of one of another (column)
    channels: Tensor  # K×C; channels of each unit's snippets
    basis: Tensor  # B×D; orthonormal temporal components of all templates
    sums: Tensor  # K×M×C×D; Σ w a R[:, t : t + D] over the events in each place, weights w and amplitudes a
    squares: Tensor  # K×M; Σ w a² over the same events
    deviations: Tensor  # K; standard deviation of the scores of each unit in the residual
    evidence: Evidence  # how many events each unit has, and how many its decoys, in some of the chunks

    def best_events(self, unit: int) -> Tensor:
        """Return which events are of a unit, shape (E,), bool, without those in a shadow if there are enough others."""
        own = self.units == unit
        alone = own & ~self.in_shadow
        return alone if alone.sum() >= MIN_EVENTS else own

    def snippets(self, unit: int, moved: Tensor) -> Snippets:
        """Return the snippets of a unit as they would be in the reference place, given its waveforms, (M, N, D).

        Snippets that are far larger than most are artefacts and left out.
        """
        own, channels = self.best_events(unit), self.channels[unit]
        projected = moved[:, channels] @ self.basis.T  # M×C×B
        change = projected[len(moved) // 2] - projected
        features = self.features[own] + self.amplitudes[own, None, None] * change[self.places[own]]
        norms = features.flatten(1).norm(dim=1)
        usual = norms <= OUTSIZE * norms.median() if len(norms) else norms > 0
        return Snippets(features, channels, self.places[own], self.times[own].numpy()).select(usual)


class Snippets(NamedTuple):
    """Clean snippets of one unit: features, shape (E, C, B), of its channels, (C,), places and times, (E,)."""

    features: Tensor
    channels: Tensor
    places: Tensor
    times: np.ndarray

    def select(self, events: Tensor) -> Snippets:
        """Return some of the snippets."""
        features, places, times = self.features[events], self.places[events], self.times[events.numpy()]
        return self._replace(features=features, places=places, times=times)

    def on(self, wanted: Tensor) -> Tensor:
        """Return the features on the channels marked in `wanted`, shape (N,), bool, as points, shape (E, F)."""
        return self.features[:, wanted[self.channels]].flatten(1)


def collect(
    chunks: list[Tensor],
    places: list[int],
    matchers: Matchers,
    nearby: Tensor,
    num_workers: int,
    decoys: Decoys,
    weighed: list[int],
) -> CleanSample:
    """Find the events of all units in a sample, and project and sum their clean snippets.

    The arguments are those of `learn_units`, the matchers of the units, decoys of some of them, and the indices of the
    chunks in which decoys are counted.
    """
    units = matchers.units
    num_units, num_places, _, width = units.moved.shape
    casts, may_see = casts_shadow(units.waveforms), support(units.moved)
    around = nearby[units.moved.norm(dim=3).argmax(dim=2)]
    channels, is_near = local_columns((may_see | around).any(dim=1))  # K×C
    channels, order = channels.sort(dim=1)  # the same order for all units, so that features can be compared
    is_near = is_near.gather(1, order)
    in_reference = compose(matchers.at(num_places // 2).templates.to("cpu"))
    basis = torch.linalg.svd(in_reference[support(units.waveforms)], full_matrices=False)[2][:NUM_FEATURES]  # B×D
    starts = list(itertools.accumulate((chunk.shape[1] for chunk in chunks), initial=0))
    groups = _groups(places)  # not by the number of threads, on which results must not depend

    def of_group(group: range) -> _Part:
        """Return the part of a group of chunks, given by indices."""
        some = [(chunks[index], starts[index], index in weighed) for index in group]
        place = places[group[0]]
        return _collect_part(some, place, matchers.at(place), casts, channels, basis, decoys)

    parts = map_in_threads(of_group, groups, num_workers)
    sums = torch.zeros(num_units, num_places, channels.shape[1], width)
    squares = torch.zeros(num_units, num_places)
    for part in parts:
        sums[:, part.place] += part.sums * is_near[:, :, None]
        squares[:, part.place] += part.squares
    return CleanSample(
        units=torch.cat([part.events.units for part in parts]),
        times=torch.cat([part.events.times for part in parts]),
        places=torch.cat([torch.full_like(part.events.units, part.place) for part in parts]),
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
    """What goes into a `CleanSample` from some chunks in one place; `counts` are those of `Decoys.count`."""

    place: int
    events: Events
    features: Tensor
    in_shadow: Tensor
    shadows: Tensor
    sums: Tensor
    squares: Tensor
    deviations: Tensor
    counts: Tensor


def _collect_part(
    chunks: list[tuple[Tensor, int, bool]],
    place: int,
    matcher: Matcher,
    casts: Tensor,
    channels: Tensor,
    basis: Tensor,
    decoys: Decoys,
) -> _Part:
    """Find the events in chunks, all of them with the tissue in one place, and project and sum their clean snippets.

    Each chunk comes with the time at which it starts and a mark, whether decoys are to be counted in it.

    A template is updated to Σ w a R / Σ w a² over its events, see `CleanSample`. The weight w of an event is 1,
    and less if the mean square of the residual in its snippet is larger than that of noise, as in artefacts.

    In a shadow, w is close to 0. Nor is such an event subtracted from the chunk: if it is a part of the larger spike
    that the larger template lacks, it has to stay in the residual for that template to take it up. (If it is a spike
    of its own, which is near the larger one by chance, it averages out over the events of the larger unit.)

    A clean snippet is the residual in it plus what its own event adds, a W(d − δ). The sub-sample shift δ is undone in
    sums and projections, and then this is a W, the same for all events of a unit up to the amplitude a. So it is added
    to the sums and to the projections at the end, and not to each snippet.
    """
    templates, typical = matcher.templates.to("cpu"), torch.as_tensor(matcher.prior.typical, device="cpu")
    num_units, width = len(typical), basis.shape[1]
    back = undelays(width)  # J×D×D
    local = compose(templates).gather(1, channels[:, :, None].expand(-1, -1, width))  # K×C×D, of norm 1
    of_unit = local @ basis.T  # K×C×B
    profiles = (back @ basis.T).mT.contiguous().numpy()  # J×B×D
    sums, added = torch.zeros(len(back), *local.shape), torch.zeros(num_units)
    squares, counts, shadows = torch.zeros(num_units), decoys.none(), torch.zeros_like(casts, dtype=torch.long)
    found: list[Events] = []
    features, shaded = [], []
    for halves, start, is_weighed in chunks:
        chunk = halves.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        events = matcher.pursue(chunk)
        in_shadow, of_chunk = shadows_of(events, casts, width)
        known = events._replace(amplitudes=events.amplitudes * ~in_shadow)  # those in a shadow stay in the residual
        left = subtract(chunk, known, templates)
        if not found:  # one chunk shows well enough how scores deviate
            deviations = _score_deviations(left, matcher)
        relative = events.amplitudes / typical[events.units]
        weights = relative * torch.where(in_shadow, LITTLE, 1.0)  # w a
        projected = torch.zeros(len(weights), channels.shape[1], len(basis))
        times, units, _, shifts = (field.numpy() for field in events)
        given = (left.numpy(), times, units, shifts, weights.numpy(), channels.numpy(), profiles)
        sum_snippets(*given, MAX_UNEXPLAINED, sums.numpy(), projected.numpy())
        added.index_add_(0, events.units, weights * known.amplitudes)
        squares.index_add_(0, events.units, weights * relative)
        found.append(events._replace(times=start + events.times, amplitudes=relative))
        features.append(projected + known.amplitudes[:, None, None] * of_unit[events.units])
        shaded.append(in_shadow)
        shadows += of_chunk
        if is_weighed:
            counts += decoys.count(subtract(left, events.select(in_shadow), templates), events, in_shadow, place)
    moved_back = sum(of_shift @ matrix for of_shift, matrix in zip(sums, back, strict=True))
    return _Part(
        place=place,
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
    """Return the standard deviation of the scores of each template in noise, shape (K,), from their median size.

    Samples that are zero on all channels, where artefacts were, are no noise; if there are no others, it is 0.
    """
    noise = left_over[:, torch.nonzero(left_over.any(dim=0))[:DEVIATION_SAMPLES, 0]]
    num_units, _, width = matcher.templates.temporal.shape
    if noise.shape[1] < width:
        return noise.new_zeros(num_units)
    mu = scores(noise.to(matcher.device), matcher.templates, spectra=matcher.prepared.spectra)
    return mu.abs().median(dim=1).values.to(noise.device) / GAUSSIAN_MAD


def undelays(width: int) -> Tensor:
    """Return matrices, shape (J, D, D), that undo each sub-sample shift: snippets, shape (…, D), @ matrix."""
    return shift_bank(torch.eye(width)).flip(0)  # the shifts are symmetric, δ_j = −δ_{J−1−j}


def _groups(places: list[int]) -> list[range]:
    """Return a few groups of consecutive chunks, as ranges of indices; the tissue is in one place in each group."""
    ends = np.linspace(0, len(places), min(NUM_GROUPS, len(places)) + 1).astype(int)
    ends = np.union1d(ends, np.flatnonzero(np.diff(places)) + 1).tolist()
    return [range(*each) for each in itertools.pairwise(ends)]


@compiled_for_sums
def sum_snippets(
    left_over: np.ndarray,
    times: np.ndarray,
    units: np.ndarray,
    shifts: np.ndarray,
    weights: np.ndarray,
    channels: np.ndarray,
    profiles: np.ndarray,
    most: float,
    sums: np.ndarray,
    features: np.ndarray,
) -> None:
    """Add up the weighted snippets of each unit and sub-sample shift, and project each snippet on temporal profiles.

    Each of the E events begins at a time and has a weight. Channels, shape (K, C), are those of the snippets of each
    unit, and profiles, shape (J, B, D), those of each shift. If the mean square of a snippet is above `most`, its
    weight is multiplied, in place, by bound over mean square. The weighted snippets are added to `sums`, shape
    (J, K, C, D), and the projections overwrite `features`, shape (E, C, B).
    """
    nothing, width = left_over.dtype.type(0), profiles.shape[2]
    for event in range(len(times)):
        of_unit, start = channels[units[event]], times[event]
        square = nothing
        for place in range(len(of_unit)):
            snippet = left_over[of_unit[place], start : start + width]
            for sample in range(width):
                square += snippet[sample] * snippet[sample]
            for index in range(profiles.shape[1]):
                profile, projection = profiles[shifts[event], index], nothing
                for sample in range(width):
                    projection += snippet[sample] * profile[sample]
                features[event, place, index] = projection
        if square > most * len(of_unit) * width:
            weights[event] *= most * len(of_unit) * width / square
        for place in range(len(of_unit)):
            snippet = left_over[of_unit[place], start : start + width]
            total, weight = sums[shifts[event], units[event], place], weights[event]
            for sample in range(width):
                total[sample] += weight * snippet[sample]
