"""Learn templates on a sample of the recording: pursue, update, split, merge, prune."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad
from tqdm.auto import trange

from dlvolt.clustering.isosplit import is_unimodal, isosplit_recursive
from dlvolt.deconvolution import (
    NUM_SHIFTS,
    AmplitudePrior,
    Events,
    LowRankTemplates,
    PreparedTemplates,
    compose,
    event_slices,
    event_waveforms,
    local_columns,
    low_rank,
    pursue,
    residual,
    shift_bank,
)
from dlvolt.deconvolution.locality import pairs
from dlvolt.deconvolution.shifts import HALF_WIDTH, interpolation_kernels
from dlvolt.threads import map_in_threads

NUM_FEATURES = 6  # temporal components in which clean snippets are split and merged
SUPPORT = 0.7  # noise standard deviations: channels on which a waveform has less norm do not see the unit,
SUPPORT_RELATIVE = 0.15  # unless it is this much of the largest: weak units may be seen by many
SAME = 2.0  # noise standard deviations; waveforms that are closer are one unit,
SAME_RELATIVE = 0.1  # and so are those that are this close, relative: sampling alone changes large ones so much
MAYBE_SAME = 0.6  # and below which the spikes decide
INITIAL_SPREAD = 0.15  # of amplitudes, relative, as long as it is not known
MIN_SPREAD = 0.05
INITIAL_RATE = 1e-4  # events per sample, likewise
MAX_UNEXPLAINED = 2.0  # mean square in a snippet, where noise has 1, above which it counts less
NUM_GROUPS = 8  # of chunks, so that few sums are held at a time
SHADOW = 2.0  # a unit so much larger than another may leave echoes that pass for it
LITTLE = 0.01  # weight of events in a shadow
ECHO = 0.5  # a unit with so many of its events in the shadow of another is an echo of it
STIFFNESS = 5e4  # by the squared amplitude of a unit: spikes that it takes to see how interpolation in space errs
SAME_WHERE_MOVING = 0.3  # relative distance: waveforms that are closer are one unit that is not quite where we think
SELDOM_TOGETHER = 0.3  # overlap of the places in which two units fire that may be one
MIN_EVENTS = 10  # fewer do not make a template
MIN_RATE_HZ = 0.02  # units that fire less in the sample are dropped
MIN_EXCESS = 1.0  # and units whose amplitude does not exceed the threshold by so many noise standard deviations
MIN_ON_CHANNEL = 3.0  # norm on the channel that sees a unit best, likewise: less, and it is what many have in common
NUM_MATCHERS = 4  # that are kept at a time: they take memory, and the tissue moves slowly
PREPARING = threading.Lock()


class Units(NamedTuple):
    """What is known of the units.

    Attributes
    ----------
    moved : Tensor, shape (K, M, N, D)
        Mean waveforms in noise standard deviations where the tissue is in each of M evenly spaced places, M odd; one
        where nothing moves. Their norms are the units' typical amplitudes there.
    spreads : Tensor, shape (K,)
        Standard deviation of the amplitudes relative to the typical one.
    rates : Tensor, shape (K,)
        Events per sample.
    """

    moved: Tensor
    spreads: Tensor
    rates: Tensor

    @classmethod
    def new(cls, waveforms: Tensor, kernels: Tensor | None = None) -> Units:
        """Return units of which only the waveforms are known, shape (K, N, D), `kernels` as for `learn_units`."""
        moved = waveforms[:, None] if kernels is None else interpolated(waveforms, kernels)
        return cls(moved, torch.full((len(moved),), INITIAL_SPREAD), torch.full((len(moved),), INITIAL_RATE))

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
        """Return the prior: amplitudes are normal about the typical one, and an event costs its log odds."""
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
        Events of one unit lie at least so many samples apart; at least 1 and at most D are taken.
    """

    rank: int
    num_before: int
    amplitude_range: tuple[float, float]
    separation: int


class Matcher:
    """Units made ready to be pursued in any number of chunks.

    Parameters
    ----------
    units : Units
        What is known of them.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    device : str
        Torch device on which they are pursued; "auto" is CUDA where there is one, else the CPU.
    """

    def __init__(self, units: Units, settings: LearningSettings, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        units = units.to(self.device)
        self.templates: LowRankTemplates = low_rank(on_support(units.waveforms), settings.rank)
        self.prior = units.amplitude_prior(settings.amplitude_range)
        self.separation = min(max(1, settings.separation), units.waveforms.shape[2])
        self.prepared = PreparedTemplates.of(self.templates)

    def pursue(self, chunk: Tensor) -> Events:
        """Return the events in a chunk, shape (N, T), on the chunk's own device."""
        on_device = chunk.to(self.device)
        events = pursue(on_device, self.templates, self.prior, self.separation, prepared=self.prepared)
        return Events(*(field.to(chunk.device) for field in events))


class Matchers:
    """A `Matcher` for each place of the tissue, made when it is asked for; the last few are kept."""

    def __init__(self, units: Units, settings: LearningSettings, device: str = "auto") -> None:
        self.units, self.settings, self.device = units, settings, device
        self.kept: dict[int, Matcher] = {}

    def at(self, place: int) -> Matcher:
        """Return what pursues the units where the tissue is in this place."""
        with PREPARING:  # whichever thread comes first
            if place not in self.kept:
                if len(self.kept) == NUM_MATCHERS:
                    del self.kept[next(iter(self.kept))]
                self.kept[place] = Matcher(self.units.at(place), self.settings, self.device)
            return self.kept[place]


def denoised(waveform: Tensor, num_spikes: int, rank: int) -> Tensor:
    """Return a mean waveform, shape (M, C, D), less what may as well be noise.

    The mean of n spikes holds white noise of variance 1/n. Singular values below the largest that noise has (the edge
    of the Marchenko-Pastur law) are set to zero, then the channels that hardly see what is left.
    """
    num_places, _, num_samples = waveform.shape
    used = waveform.any(dim=2).any(dim=0)
    spatial, singular_values, temporal = torch.linalg.svd(waveform[:, used].flatten(0, 1), full_matrices=False)
    noise = (num_spikes / num_places) ** -0.5
    edge = max(1.0, noise * (len(spatial) ** 0.5 + num_samples**0.5))
    num_kept = int((singular_values[:rank] > edge).sum().clamp(min=1))
    cleaned = torch.zeros_like(waveform)
    kept = (spatial[:, :num_kept] * singular_values[:num_kept]) @ temporal[:num_kept]
    cleaned[:, used] = kept.unflatten(0, (num_places, -1))
    return on_support(cleaned)


def on_support(waveforms: Tensor) -> Tensor:
    """Return the waveforms with the channels that hardly see the unit set to zero, shape (K, N, D)."""
    return waveforms * support(waveforms)[:, :, None]


def support(waveforms: Tensor) -> Tensor:
    """Return which channels see which unit, shape (…, N), bool, of waveforms (…, N, D)."""
    norms = waveforms.norm(dim=-1)
    return norms >= (SUPPORT_RELATIVE * norms.amax(dim=-1, keepdim=True)).clamp(max=SUPPORT)


def interpolated(waveforms: Tensor, kernels: Tensor) -> Tensor:
    """Return waveforms, shape (…, N, D), interpolated in space to the M places, shape (…, M, N, D).

    Interpolation makes sharp footprints wide and small, so they are given back their norm.
    """
    moved = torch.einsum("mnc,...nd->...mcd", kernels, waveforms)
    norms, before = moved.flatten(-2).norm(dim=-1), waveforms.flatten(-2).norm(dim=-1)
    return moved * (before[..., None] / norms.clamp(min=1e-6))[..., None, None]


def learn_units(
    chunks: list[Tensor],
    units: Units,
    settings: LearningSettings,
    sampling_frequency: float,
    num_sweeps: int,
    nearby: Tensor | None = None,
    device: str = "auto",
    num_workers: int = 1,
    progress_bar: bool = False,
    places: list[int] | None = None,
    kernels: Tensor | None = None,
) -> Units:
    """Improve what is known of the units on a sample of the recording.

    Each sweep finds the events of all units (`pursue`), then updates each template from its events in the residual
    (the MAP estimate of `dlvolt.deconvolution.update_templates`). All but the last sweep also look at the clean
    snippets, from which all other units are explained away: a unit with several modes is split, two units that
    look like one along the line between them are merged, and units that hardly fire are dropped.

    Parameters
    ----------
    chunks : list of Tensor, shape (N, T)
        Whitened sample of the recording.
    units : Units
        Where to start.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    sampling_frequency : float
        Hz.
    num_sweeps : int
        How often.
    nearby : Tensor, shape (N, N), bool, optional
        Which channels may see a unit that is largest on a channel; all if None.
    device : str
        Torch device of the pursuit.
    num_workers : int
        Threads.
    progress_bar : bool
        Show one.
    places : list of int, optional
        Where the tissue is in each chunk, best in order; 0 if None.
    kernels : Tensor, shape (M, N, N), optional
        What takes a waveform from the reference to each place, by interpolation in space; needed if M > 1.

    Returns
    -------
    Units
        Their waveforms have the peak at sample `settings.num_before`; K' may be 0.
    """
    num_channels = units.moved.shape[2]
    nearby = torch.ones(num_channels, num_channels, dtype=torch.bool) if nearby is None else nearby
    kernels = torch.eye(num_channels)[None] if kernels is None else kernels
    places = [0] * len(chunks) if places is None else places
    num_samples = sum(chunk.shape[1] for chunk in chunks)
    for sweep in trange(num_sweeps, desc="dlvolt: learn templates", disable=not progress_bar):
        if len(units.moved) == 0:  # at the start, or none is left
            return units
        sample = _collect(chunks, places, Matchers(units, settings, device), nearby, num_workers)
        units, kept = _updated(units, sample, settings, kernels, num_samples, sampling_frequency, sweep)
        if sweep < num_sweeps - 1 and kept.any():
            of_units = zip(torch.nonzero(kept)[:, 0], units.moved, strict=True)
            snippets = [sample.snippets(k, moved) for k, moved in of_units]
            units, snippets = _split(units, snippets, sample.basis, kernels, settings.rank)
            units, snippets = _merge(units, snippets, sample.basis)
            units = _joined(units, snippets)
        units = units._replace(moved=_recentred(units.moved, settings.num_before))
    return units


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

    def best_events(self, unit: int) -> Tensor:
        """Return which events are of a unit, (E,), but for those in a shadow if there are enough others."""
        own = self.units == unit
        alone = own & ~self.in_shadow
        return alone if alone.sum() >= MIN_EVENTS else own

    def snippets(self, unit: int, moved: Tensor) -> Snippets:
        """Return the snippets of a unit as they would be in the reference place, given its waveforms, (M, N, D)."""
        own, channels = self.best_events(unit), self.channels[unit]
        projected = moved[:, channels] @ self.basis.T  # M×C×B
        change = projected[len(moved) // 2] - projected
        features = self.features[own] + self.amplitudes[own, None, None] * change[self.places[own]]
        return Snippets(features, channels, self.places[own])


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


def casts_shadow(waveforms: Tensor) -> Tensor:
    """Return which unit (row) is so much larger than another beside it that it may leave echoes, shape (K, K), bool."""
    amplitudes, seen = waveforms.flatten(1).norm(dim=1), support(waveforms).float()
    return (amplitudes[:, None] > SHADOW * amplitudes) & (seen @ seen.T > 0)


def _collect(
    chunks: list[Tensor], places: list[int], matchers: Matchers, nearby: Tensor, num_workers: int
) -> CleanSample:
    """Pursue all units in a sample and cut out their clean snippets, at one place of the tissue after the other."""
    units = matchers.units
    num_units, num_places, _, width = units.moved.shape
    casts, may_see = casts_shadow(units.waveforms), support(units.moved)
    around = nearby[units.moved.norm(dim=3).argmax(dim=2)]
    channels, is_near = local_columns((may_see | around).any(dim=1))  # K×C
    channels, order = channels.sort(dim=1)  # the same order for all units, so that features can be compared
    is_near = is_near.gather(1, order)
    in_reference = compose(matchers.at(num_places // 2).templates.to("cpu"))
    basis = torch.linalg.svd(in_reference[support(units.waveforms)], full_matrices=False)[2][:NUM_FEATURES]  # B×D
    groups = _groups(places)  # the same ones however many threads there are

    def collect(group: range) -> tuple[Events, Tensor, Tensor, Tensor, Tensor, Tensor]:
        some = [chunks[index] for index in group]
        return _collect_in_place(some, matchers.at(places[group[0]]), casts, channels, basis)

    parts = map_in_threads(collect, groups, num_workers)
    events, features, in_shadow, shadows, sums_of_groups, squares_of_groups = zip(*parts, strict=True)
    sums = torch.zeros(num_units, num_places, channels.shape[1], width)
    squares = torch.zeros(num_units, num_places)
    of_groups = [places[group[0]] for group in groups]
    for place, sums_of_group, squares_of_group in zip(of_groups, sums_of_groups, squares_of_groups, strict=True):
        sums[:, place] += sums_of_group * is_near[:, :, None]
        squares[:, place] += squares_of_group
    return CleanSample(
        units=torch.cat([each.units for each in events]),
        places=torch.tensor(of_groups).repeat_interleave(torch.tensor([len(each.units) for each in events])),
        amplitudes=torch.cat([each.amplitudes for each in events]),
        in_shadow=torch.cat(in_shadow),
        shadows=sum(shadows),
        features=torch.cat(features),
        channels=channels,
        basis=basis,
        sums=sums,
        squares=squares,
    )


def _collect_in_place(
    chunks: list[Tensor], matcher: Matcher, casts: Tensor, channels: Tensor, basis: Tensor
) -> tuple[Events, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do so where the tissue is in one place; return events, features, in_shadow, shadows, sums and squares.

    The update of a template, Σ a R / Σ a² over its events, is weighted: an event counts the less, the more of its
    snippet the model leaves unexplained over what noise would (artefacts and the like), and hardly where it lies in
    the shadow of another.
    """
    templates, typical = matcher.templates.to("cpu"), matcher.prior.typical.to("cpu")
    num_units, width = len(typical), basis.shape[1]
    basis_bank = shift_bank(basis)  # J×B×D
    found, features, shaded, shadows = [], [], [], torch.zeros_like(casts, dtype=torch.long)
    sums, squares = torch.zeros(NUM_SHIFTS * num_units, channels.shape[1], width), torch.zeros(num_units)
    for chunk in chunks:
        events = matcher.pursue(chunk)
        where = channels[events.units]
        left_over = event_slices(residual(chunk, events, templates), events.times, width, where)  # E×C×D
        clean = left_over + event_waveforms(events, templates, where)
        unexplained = left_over.square().mean(dim=(1, 2))  # 1 where it is noise
        in_shadow, of_chunk = _shadows(events, casts, width)
        events = events._replace(amplitudes=events.amplitudes / typical[events.units])
        weights = events.amplitudes * (MAX_UNEXPLAINED / unexplained).clamp(max=1)
        weights[in_shadow] *= LITTLE
        sums.index_add_(0, events.shifts * num_units + events.units, weights[:, None, None] * clean)
        squares.index_add_(0, events.units, weights * events.amplitudes)
        found.append(events)
        features.append(clean @ basis_bank[events.shifts].mT)
        shaded.append(in_shadow)
        shadows += of_chunk
    undelayed = conv1d(  # x(d + δ_j), summed over j
        sums.view(NUM_SHIFTS, -1, width).transpose(0, 1), interpolation_kernels(sums)[None], padding=HALF_WIDTH
    )
    sums = undelayed.view(num_units, -1, width)
    events = Events(*(torch.cat(fields) for fields in zip(*found, strict=True)))
    return events, torch.cat(features), torch.cat(shaded), shadows, sums, squares


def _shadows(events: Events, casts: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return which events have one near that casts a shadow on them, (E,), and how often which unit does, (K, K)."""
    order = torch.argsort(events.times, stable=True)
    times, units = events.times[order], events.units[order]
    first, second = pairs(torch.searchsorted(times, times + width // 2), torch.arange(len(times)))
    large, small = torch.cat([first, second]), torch.cat([second, first])
    darkens = casts[units[large], units[small]]
    large, small = large[darkens], small[darkens]
    in_shadow = torch.zeros(len(times), dtype=torch.bool)
    in_shadow[order[small]] = True
    counts = torch.zeros_like(casts, dtype=torch.long)
    return in_shadow, counts.index_put((units[small], units[large]), torch.ones_like(small), accumulate=True)


def _groups(places: list[int]) -> list[range]:
    """Return the indices of the chunks in a few groups, in order, each of one place."""
    ends = np.linspace(0, len(places), min(NUM_GROUPS, len(places)) + 1).astype(int)
    ends = np.union1d(ends, np.flatnonzero(np.diff(places)) + 1).tolist()
    return [range(*each) for each in itertools.pairwise(ends)]


def _updated(
    units: Units,
    sample: CleanSample,
    settings: LearningSettings,
    kernels: Tensor,
    num_samples: int,
    sampling_frequency: float,
    sweep: int,
) -> tuple[Units, Tensor]:
    """Return the units that fire enough and are no echo, updated from their events, and which those are, shape (K,)."""
    counts = torch.bincount(sample.units, minlength=len(units.moved))
    moved, spreads, norms = torch.zeros_like(units.moved), units.spreads.clone(), units.moved.flatten(2).norm(dim=2)
    for k in range(len(units.moved)):
        if counts[k] < MIN_EVENTS:
            moved[k] = units.moved[k]
            continue
        own, channels = sample.best_events(k), sample.channels[k]
        amplitudes, places = sample.amplitudes[own], sample.places[own]
        scale = norms[k, places]
        measured = amplitudes + (amplitudes - 1) / (units.spreads[k] * scale) ** 2  # before the prior had its say
        typical = _medians(measured, places, units.moved.shape[1])
        measured, scale = measured / typical[places], scale * typical[places]
        variance = ((measured - 1).abs().median() / 0.6745) ** 2 - scale.square().reciprocal().mean()
        spreads[k] = variance.clamp(min=0).sqrt().clamp(min=MIN_SPREAD)
        kriged = interpolated(units.waveforms[k, channels], kernels[:, channels[:, None], channels])
        mean = _moving_mean(typical[:, None, None] * sample.sums[k], sample.squares[k], kriged)
        moved[k][:, channels] = denoised(mean, len(amplitudes), settings.rank)
    updated = Units(moved, spreads, (counts + 1) / num_samples)
    cost = updated.amplitude_prior(settings.amplitude_range).event_cost
    amplitudes = updated.waveforms.flatten(1).norm(dim=1)
    strong = amplitudes - (amplitudes / 2 + cost / amplitudes) > MIN_EXCESS
    strong &= updated.waveforms.norm(dim=2).amax(dim=1) > MIN_ON_CHANNEL
    kept = counts >= max(3, MIN_RATE_HZ * num_samples / sampling_frequency)
    if sweep > 0:
        kept &= strong
    if sweep > 1:  # till then large units may leave echoes, as their waveforms are not known well yet
        kept &= ~(sample.shadows > ECHO * counts[:, None]).any(dim=1)
    return updated.select(kept), kept


def _medians(values: Tensor, places: Tensor, num_places: int) -> Tensor:
    """Return the median of values in each place, shape (M,), drawn to that of all where there are few."""
    medians = values.median().repeat(num_places)
    for place in places.unique():
        here = values[places == place]
        medians[place] = (len(here) * here.median() + MIN_EVENTS * medians[place]) / (len(here) + MIN_EVENTS)
    return medians


def _moving_mean(sums: Tensor, squares: Tensor, kriged: Tensor) -> Tensor:
    """Return the waveform W of a unit in each of the M places, shape (M, C, D), from its spikes in all of them.

    It minimises Σ_e ‖R_e − a_e W_m(e)‖² + λ Σ_m ‖(W_{m+1} − W_m) − (V_{m+1} − V_m)‖²: how the waveform changes from
    place to place is taken from interpolation in space, V, as far as spikes do not show it. V errs by a part of the
    waveform, so λ falls with its squared norm.
    """
    steps = torch.eye(len(squares)).diff(dim=0)  # (M-1)×M
    penalty = STIFFNESS / kriged.square().sum(dim=(1, 2)).mean() * steps.T @ steps
    known = sums.flatten(1) + penalty @ kriged.flatten(1)
    return torch.linalg.solve(squares.clamp(min=1e-6).diag() + penalty, known).view_as(sums)


def _split(
    units: Units, snippets: list[Snippets], basis: Tensor, kernels: Tensor, rank: int
) -> tuple[Units, list[Snippets]]:
    """Split the units whose clean snippets have several modes."""
    moved, parts, origin = [], [], []
    for k, (own, seen) in enumerate(zip(snippets, support(units.waveforms), strict=True)):
        labels = torch.from_numpy(isosplit_recursive(own.on(seen).numpy(), depth=1))
        modes = [own.select(labels == label) for label in labels.unique()]
        modes = [mode for mode in modes if len(mode.features) >= MIN_EVENTS]
        if len(modes) <= 1:
            modes, means = [own], units.moved[k : k + 1]
        else:
            means = torch.zeros(len(modes), *units.moved.shape[2:])
            for mean, mode in zip(means, modes, strict=True):
                mean[mode.channels] = denoised((mode.features.mean(dim=0) @ basis)[None], len(mode.features), rank)[0]
            means = interpolated(means, kernels)
        moved.append(means)
        parts += modes
        origin += [k] * len(modes)
    return units.select(origin)._replace(moved=torch.cat(moved)), parts


def _merge(units: Units, snippets: list[Snippets], basis: Tensor) -> tuple[Units, list[Snippets]]:
    """Merge the units that are one up to a shift, or look like one along the line between them, closest first."""
    waveforms = units.waveforms
    amplitudes = waveforms.flatten(1).norm(dim=1)
    same = SAME_RELATIVE if units.moved.shape[1] == 1 else SAME_WHERE_MOVING
    _, distances, lags, shifts = alignment(waveforms)
    absorbed: set[int] = set()
    for pair in _close_pairs(distances):
        small, large = sorted(pair, key=lambda k: len(snippets[k].features))
        if absorbed.intersection(pair):
            continue
        seen = torch.zeros(waveforms.shape[1], dtype=torch.bool)
        seen[snippets[small].channels[torch.isin(snippets[small].channels, snippets[large].channels)]] = True
        seen &= support(waveforms[list(pair)]).any(dim=0)
        delayed = shift_bank(basis)[shifts[small, large]].roll(int(lags[small, large]), dims=1)
        # as if found with the template of the larger unit
        aligned = snippets[small]._replace(features=snippets[small].features @ (delayed @ basis.T))
        if distances[pair] < max(same, SAME / amplitudes[list(pair)].max()) or is_unimodal(
            aligned.on(seen).numpy(), snippets[large].on(seen).numpy()
        ):
            absorbed.add(small)
    kept = [k for k in range(len(waveforms)) if k not in absorbed]
    return units.select(kept), [snippets[k] for k in kept]


def _joined(units: Units, snippets: list[Snippets]) -> Units:
    """Join units that look alike in some place and are never in the same one: neurons do not come and go so.

    Each of the two knows the waveform where it was seen.
    """
    moved, num_places = units.moved.clone(), units.moved.shape[1]
    counts = torch.stack([torch.bincount(own.places, minlength=num_places) for own in snippets]).float()  # K×M
    kept = torch.ones(len(moved), dtype=torch.bool)
    flat = moved.flatten(2).transpose(0, 1)  # M×K×ND
    norms = flat.norm(dim=2)
    distances = (torch.cdist(flat, flat) / torch.maximum(norms[:, :, None], norms[:, None])).amin(dim=0)
    for pair in _close_pairs(distances):
        of_pair = counts[list(pair)]
        together = torch.minimum(*(of_pair / of_pair.sum(dim=1, keepdim=True))).sum()
        if kept[list(pair)].all() and together < SELDOM_TOGETHER:
            small, large = sorted(pair, key=lambda k: float(counts[k].sum()))
            share = ((counts[large] + 1) / (counts[large] + counts[small] + 2))[:, None, None]
            moved[large] = share * moved[large] + (1 - share) * moved[small]
            counts[large] += counts[small]
            kept[small] = False
    return units._replace(moved=moved).select(kept)


def _close_pairs(distances: Tensor) -> list[tuple[int, int]]:
    """Return the pairs of units that may be one, closest first, given their relative distances, shape (K, K)."""
    first, second = torch.nonzero(torch.triu(distances < MAYBE_SAME, diagonal=1), as_tuple=True)
    closest = torch.argsort(distances[first, second])
    return list(zip(first[closest].tolist(), second[closest].tolist(), strict=True))


class Alignment(NamedTuple):
    """How units compare, each delayed by the lag and sub-sample shift that brings it closest to another.

    Attributes
    ----------
    products : Tensor, shape (K, K)
        ⟨W_i(d − lag − δ_shift), W_j(d)⟩ at its maximum.
    distances : Tensor, shape (K, K)
        Norm of the difference relative to the larger of the two, where both are known: windows may cut them off at
        different samples.
    lags, shifts : Tensor, shape (K, K)
        Where that is.
    """

    products: Tensor
    distances: Tensor
    lags: Tensor
    shifts: Tensor


def alignment(waveforms: Tensor) -> Alignment:
    """Align all waveforms, shape (K, N, D), with each other, within a sixth of their length."""
    max_lag = waveforms.shape[2] // 6
    reach = max_lag + HALF_WIDTH
    length = waveforms.shape[2] + reach
    spectra = torch.fft.rfft(waveforms, n=length).permute(2, 0, 1)  # F×K×N
    products = torch.fft.irfft((spectra @ spectra.mH).permute(1, 2, 0), n=length)
    products = products[..., torch.arange(-reach, reach + 1)]  # ⟨W_i(d + τ), W_j(d)⟩, K×K×lags
    products = shift_bank(products)[..., HALF_WIDTH:-HALF_WIDTH]  # at τ - δ
    best, where = products.movedim(0, 2).flatten(2).max(dim=2)
    lags = max_lag - where % (2 * max_lag + 1)

    energies = pad(waveforms.square().sum(dim=1).cumsum(dim=1), (1, 0))  # up to each sample, K×(D+1)
    early, late = lags.clamp(min=0), (-lags).clamp(min=0)  # samples that are cut off where the two do not overlap
    width, units = waveforms.shape[2], torch.arange(len(waveforms))
    of_first = energies[units[:, None], width - early] - energies[units[:, None], late]
    of_second = energies[units, width - late] - energies[units, early]
    distances = (of_first + of_second - 2 * best).clamp(min=0).sqrt()
    return Alignment(
        products=best,
        distances=distances / torch.maximum(of_first, of_second).sqrt(),
        lags=lags,
        shifts=where // (2 * max_lag + 1),
    )


def _recentred(moved: Tensor, num_before: int) -> Tensor:
    """Move the largest absolute value of each waveform, shape (M, N, D), to sample `num_before`, zeros coming in."""
    width = moved.shape[3]
    recentred = torch.zeros_like(moved)
    for k, waveform in enumerate(moved):
        by = num_before - int(waveform[len(waveform) // 2].abs().amax(dim=0).argmax())
        recentred[k, ..., max(0, by) : width + min(0, by)] = waveform[..., max(0, -by) : width - max(0, by)]
    return recentred
