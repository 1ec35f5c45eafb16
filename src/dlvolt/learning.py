"""Learn templates on a sample of the recording: pursue, update, split, merge, prune."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
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
from dlvolt.deconvolution.shifts import HALF_WIDTH
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
MIN_EVENTS = 10  # fewer do not make a template
MIN_RATE_HZ = 0.02  # units that fire less in the sample are dropped
MIN_EXCESS = 1.0  # and units whose amplitude does not exceed the threshold by so many noise standard deviations


class Units(NamedTuple):
    """What is known of the units.

    Attributes
    ----------
    waveforms : Tensor, shape (K, N, D)
        Mean waveforms in noise standard deviations; their norms are the units' typical amplitudes.
    spreads : Tensor, shape (K,)
        Standard deviation of the amplitudes relative to the typical one.
    rates : Tensor, shape (K,)
        Events per sample.
    """

    waveforms: Tensor
    spreads: Tensor
    rates: Tensor

    @classmethod
    def new(cls, waveforms: Tensor, spread: float = INITIAL_SPREAD, rate: float = INITIAL_RATE) -> Units:
        """Return units of which only the waveforms are known."""
        return cls(waveforms, torch.full((len(waveforms),), spread), torch.full((len(waveforms),), rate))

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


def denoised(waveform: Tensor, num_spikes: int, rank: int) -> Tensor:
    """Return a mean waveform less what may as well be noise.

    The mean of n spikes holds white noise of variance 1/n. Singular values below the largest that noise has (the edge
    of the Marchenko-Pastur law) are set to zero, then the channels that hardly see what is left.
    """
    used = waveform.any(dim=1)
    spatial, singular_values, temporal = torch.linalg.svd(waveform[used], full_matrices=False)
    edge = max(1.0, num_spikes**-0.5 * (len(spatial) ** 0.5 + waveform.shape[1] ** 0.5))
    num_kept = int((singular_values[:rank] > edge).sum().clamp(min=1))
    cleaned = torch.zeros_like(waveform)
    cleaned[used] = (spatial[:, :num_kept] * singular_values[:num_kept]) @ temporal[:num_kept]
    return on_support(cleaned[None])[0]


def on_support(waveforms: Tensor) -> Tensor:
    """Return the waveforms with the channels that hardly see the unit set to zero, shape (K, N, D)."""
    return waveforms * support(waveforms)[:, :, None]


def support(waveforms: Tensor) -> Tensor:
    """Return which channels see which unit, shape (K, N), bool."""
    norms = waveforms.norm(dim=2)
    return norms >= (SUPPORT_RELATIVE * norms.amax(dim=1, keepdim=True)).clamp(max=SUPPORT)


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

    Returns
    -------
    Units
        Their waveforms have the peak at sample `settings.num_before`; K' may be 0.
    """
    if nearby is None:
        nearby = torch.ones(2 * (units.waveforms.shape[1],), dtype=torch.bool)
    num_samples = sum(chunk.shape[1] for chunk in chunks)
    for sweep in trange(num_sweeps, desc="dlvolt: learn templates", disable=not progress_bar):
        if len(units.waveforms) == 0:  # at the start, or none is left
            return units
        sample = _collect(chunks, Matcher(units, settings, device), casts_shadow(units.waveforms), nearby, num_workers)
        units, kept = _updated(units, sample, settings, num_samples, sampling_frequency, sweep)
        if sweep < num_sweeps - 1 and kept.any():
            snippets = [
                Snippets(sample.features[sample.best_events(k)], sample.channels[k]) for k in torch.nonzero(kept)[:, 0]
            ]
            units, snippets = _split(units, snippets, sample.basis, settings.rank)
            units = _merge(units, snippets, sample.basis)
        units = units._replace(waveforms=_recentred(units.waveforms, settings.num_before))
    return units


class CleanSample(NamedTuple):
    """The events of a sample, each with all other events explained away.

    Attributes
    ----------
    units, amplitudes : Tensor, shape (E,)
        Of each event.
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
    waveforms : Tensor, shape (K, N, D)
        Weighted mean of R[:, t : t + D] / a of each unit.
    """

    units: Tensor
    amplitudes: Tensor
    in_shadow: Tensor
    shadows: Tensor
    features: Tensor
    channels: Tensor
    basis: Tensor
    waveforms: Tensor

    def best_events(self, unit: int) -> Tensor:
        """Return which events are of a unit, (E,), but for those in a shadow if there are enough others."""
        own = self.units == unit
        alone = own & ~self.in_shadow
        return alone if alone.sum() >= MIN_EVENTS else own


class Snippets(NamedTuple):
    """Clean snippets of one unit: features, shape (E, C, B), of its channels, shape (C,)."""

    features: Tensor
    channels: Tensor

    def select(self, events: Tensor) -> Snippets:
        """Return some of the snippets."""
        return self._replace(features=self.features[events])

    def on(self, wanted: Tensor) -> Tensor:
        """Return the features of those channels that are marked in `wanted`, shape (N,), as points (E, F)."""
        return self.features[:, wanted[self.channels]].flatten(1)


def casts_shadow(waveforms: Tensor) -> Tensor:
    """Return which unit (row) is so much larger than another beside it that it may leave echoes, shape (K, K), bool."""
    amplitudes, seen = waveforms.flatten(1).norm(dim=1), support(waveforms).float()
    return (amplitudes[:, None] > SHADOW * amplitudes) & (seen @ seen.T > 0)


def _collect(chunks: list[Tensor], matcher: Matcher, casts: Tensor, nearby: Tensor, num_workers: int) -> CleanSample:
    """Pursue all units in a sample and cut out their clean snippets.

    The update of a template, Σ a R / Σ a² over its events, is weighted: an event counts the less, the more of its
    snippet the model leaves unexplained over what noise would (artefacts and the like), and hardly where it lies in
    the shadow of another.
    """
    templates = matcher.templates.to("cpu")
    waveforms = compose(templates)  # K×N×D
    num_units, num_channels, width = waveforms.shape
    seen = templates.support
    channels, is_near = local_columns(seen | nearby[waveforms.norm(dim=2).argmax(dim=1)])  # K×C
    channels, order = channels.sort(dim=1)  # the same order for all units, so that features can be compared
    is_near = is_near.gather(1, order)
    basis = torch.linalg.svd(waveforms[seen], full_matrices=False)[2][:NUM_FEATURES]  # B×D
    basis_bank = shift_bank(basis)  # J×B×D
    size = NUM_SHIFTS * num_units

    def collect(some: list[Tensor]) -> tuple[list[Events], list[Tensor], list[Tensor], Tensor, Tensor, Tensor]:
        found, features, shaded, shadows = [], [], [], torch.zeros_like(casts, dtype=torch.long)
        sums, squares = torch.zeros(size, channels.shape[1], width), torch.zeros(num_units)
        for chunk in some:
            events = matcher.pursue(chunk)
            where = channels[events.units]
            left_over = event_slices(residual(chunk, events, templates), events.times, width, where)  # E×C×D
            unexplained = left_over.square().mean(dim=(1, 2))  # 1 where it is noise
            in_shadow, of_chunk = _shadows(events, casts, width)
            weights = events.amplitudes * (MAX_UNEXPLAINED / unexplained).clamp(max=1)
            weights[in_shadow] *= LITTLE
            clean = left_over + event_waveforms(events, templates, where)
            sums.index_add_(0, events.shifts * num_units + events.units, weights[:, None, None] * clean)
            squares.index_add_(0, events.units, weights * events.amplitudes)
            found.append(events)
            features.append(clean @ basis_bank[events.shifts].mT)
            shaded.append(in_shadow)
            shadows += of_chunk
        sums = sums.view(NUM_SHIFTS, num_units, -1, width)
        sums = sum(shift_bank(sums[j])[NUM_SHIFTS - 1 - j] for j in range(NUM_SHIFTS))
        return found, features, shaded, shadows, sums, squares

    parts = map_in_threads(collect, _groups(chunks), num_workers)  # the same ones however many threads there are
    found, features, shaded, shadows, sums, squares = zip(*parts, strict=True)
    events = list(itertools.chain(*found))
    means = sum(sums) / sum(squares).clamp(min=1e-6)[:, None, None] * is_near[:, :, None]
    return CleanSample(
        units=torch.cat([each.units for each in events]),
        amplitudes=torch.cat([each.amplitudes for each in events]),
        in_shadow=torch.cat(list(itertools.chain(*shaded))),
        shadows=sum(shadows),
        features=torch.cat(list(itertools.chain(*features))),
        channels=channels,
        basis=basis,
        waveforms=_scattered(means, channels, num_channels),
    )


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


def _groups(chunks: list[Tensor]) -> list[list[Tensor]]:
    """Return the chunks in a few groups, in order."""
    ends = np.linspace(0, len(chunks), min(NUM_GROUPS, len(chunks)) + 1).astype(int)
    return [chunks[start:end] for start, end in itertools.pairwise(ends)]


def _scattered(local: Tensor, channels: Tensor, num_channels: int) -> Tensor:
    """Return waveforms on all channels, shape (K, N, D), from those on some, (K, C, D); zeros elsewhere."""
    full = local.new_zeros(len(local), num_channels, local.shape[2])
    return full.scatter_(1, channels[:, :, None].expand_as(local), local)


def _updated(
    units: Units,
    sample: CleanSample,
    settings: LearningSettings,
    num_samples: int,
    sampling_frequency: float,
    sweep: int,
) -> tuple[Units, Tensor]:
    """Return the units that fire enough and are no echo, updated from their events, and which those are, shape (K,)."""
    counts = torch.bincount(sample.units, minlength=len(units.waveforms))
    prior = units.amplitude_prior(settings.amplitude_range)
    waveforms, spreads = units.waveforms.clone(), units.spreads.clone()
    for k in torch.nonzero(counts >= MIN_EVENTS)[:, 0]:
        amplitudes = sample.amplitudes[sample.best_events(k)]
        measured = amplitudes + prior.precision[k] * (amplitudes - prior.typical[k])  # before the prior had its say
        typical = measured.median()
        variance = ((measured - typical).abs().median() / 0.6745) ** 2 - prior.noise_variance
        spreads[k] = (variance.clamp(min=0).sqrt() / typical).clamp(min=MIN_SPREAD)
        waveforms[k] = denoised(typical * sample.waveforms[k], len(amplitudes), settings.rank)
    updated = Units(waveforms, spreads, (counts + 1) / num_samples)
    cost = updated.amplitude_prior(settings.amplitude_range).event_cost
    amplitudes = waveforms.flatten(1).norm(dim=1)
    strong = amplitudes - (amplitudes / 2 + cost / amplitudes) > MIN_EXCESS
    kept = counts >= max(3, MIN_RATE_HZ * num_samples / sampling_frequency)
    if sweep > 0:
        kept &= strong
    if sweep > 1:  # till then large units may leave echoes, as their waveforms are not known well yet
        kept &= ~(sample.shadows > ECHO * counts[:, None]).any(dim=1)
    return updated.select(kept), kept


def _split(units: Units, snippets: list[Snippets], basis: Tensor, rank: int) -> tuple[Units, list[Snippets]]:
    """Split the units whose clean snippets have several modes."""
    waveforms, parts, origin = [], [], []
    for k, (own, seen) in enumerate(zip(snippets, support(units.waveforms), strict=True)):
        labels = torch.from_numpy(isosplit_recursive(own.on(seen).numpy(), depth=1))
        modes = [own.select(labels == label) for label in labels.unique()]
        modes = [mode for mode in modes if len(mode.features) >= MIN_EVENTS]
        if len(modes) <= 1:
            modes, means = [own], [units.waveforms[k]]
        else:
            means = [torch.zeros_like(units.waveforms[k]) for _ in modes]
            for mean, mode in zip(means, modes, strict=True):
                mean[mode.channels] = mode.features.mean(dim=0) @ basis
            means = [denoised(mean, len(mode.features), rank) for mean, mode in zip(means, modes, strict=True)]
        waveforms += means
        parts += modes
        origin += [k] * len(modes)
    return units.select(origin)._replace(waveforms=torch.stack(waveforms)), parts


def _merge(units: Units, snippets: list[Snippets], basis: Tensor) -> Units:
    """Merge the units that are one up to a shift, or look like one along the line between them, closest first."""
    waveforms = units.waveforms
    amplitudes = waveforms.flatten(1).norm(dim=1)
    _, distances, lags, shifts = alignment(waveforms)
    first, second = torch.nonzero(torch.triu(distances < MAYBE_SAME, diagonal=1), as_tuple=True)
    closest = torch.argsort(distances[first, second])
    absorbed: set[int] = set()
    for pair in zip(first[closest].tolist(), second[closest].tolist(), strict=True):
        small, large = sorted(pair, key=lambda k: len(snippets[k].features))
        if absorbed.intersection(pair):
            continue
        seen = torch.zeros(waveforms.shape[1], dtype=torch.bool)
        seen[snippets[small].channels[torch.isin(snippets[small].channels, snippets[large].channels)]] = True
        seen &= support(waveforms[list(pair)]).any(dim=0)
        delayed = shift_bank(basis)[shifts[small, large]].roll(int(lags[small, large]), dims=1)
        aligned = snippets[small]._replace(features=snippets[small].features @ (delayed @ basis.T))
        # as if found with the template of the larger unit
        if distances[pair] < max(SAME_RELATIVE, SAME / amplitudes[list(pair)].max()) or is_unimodal(
            aligned.on(seen).numpy(), snippets[large].on(seen).numpy()
        ):
            absorbed.add(small)
    return units.select([k for k in range(len(waveforms)) if k not in absorbed])


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


def _recentred(waveforms: Tensor, num_before: int) -> Tensor:
    """Move the largest absolute value of each waveform to sample `num_before`, zeros coming in."""
    width = waveforms.shape[2]
    moved = torch.zeros_like(waveforms)
    for k, waveform in enumerate(waveforms):
        by = num_before - int(waveform.abs().amax(dim=0).argmax())
        moved[k, :, max(0, by) : width + min(0, by)] = waveform[:, max(0, -by) : width - max(0, by)]
    return moved
