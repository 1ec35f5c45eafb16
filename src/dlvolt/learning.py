"""Learn templates on a sample of the recording: pursue, update, split, merge, prune."""

from __future__ import annotations

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
    compose,
    cross_correlations,
    event_slices,
    low_rank,
    pursue,
    residual,
    shift_bank,
)
from dlvolt.deconvolution.shifts import HALF_WIDTH
from dlvolt.threads import map_in_threads

NUM_FEATURES = 6  # temporal components in which clean snippets are split and merged
SUPPORT = 0.7  # noise standard deviations: channels on which a waveform has less norm do not see the unit
SAME = 2.0  # noise standard deviations; waveforms that are closer are one unit
MAYBE_SAME = 0.6  # and below which the spikes decide
INITIAL_SPREAD = 0.15  # of amplitudes, relative, as long as it is not known
MIN_SPREAD = 0.05
INITIAL_RATE = 1e-4  # events per sample, likewise
ECHO = 0.5  # a unit that has a larger one beside so many of its spikes is an echo of it
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
        self.correlations = shift_bank(cross_correlations(self.templates))

    def pursue(self, chunk: Tensor) -> Events:
        """Return the events in a chunk, shape (N, T), on the chunk's own device."""
        on_device = chunk.to(self.device)
        events = pursue(on_device, self.templates, self.prior, self.separation, correlations=self.correlations)
        return Events(*(field.to(chunk.device) for field in events))


def denoised(waveform: Tensor, num_spikes: int, rank: int) -> Tensor:
    """Return a mean waveform less what may as well be noise.

    The mean of n spikes holds white noise of variance 1/n. Channels whose norm noise alone would reach are set to
    zero, and so are the singular values below the largest that noise has (the edge of the Marchenko-Pastur law).
    """
    num_samples = waveform.shape[1]
    noise = num_spikes**-0.5
    norms = waveform.norm(dim=1)
    seen = norms > max(SUPPORT, noise * (num_samples**0.5 + 3))
    seen[norms.argmax()] = True
    spatial, singular_values, temporal = torch.linalg.svd(waveform[seen], full_matrices=False)
    edge = max(1.0, noise * (len(spatial) ** 0.5 + num_samples**0.5))
    num_kept = int((singular_values[:rank] > edge).sum().clamp(min=1))
    cleaned = torch.zeros_like(waveform)
    cleaned[seen] = (spatial[:, :num_kept] * singular_values[:num_kept]) @ temporal[:num_kept]
    return cleaned


def on_support(waveforms: Tensor) -> Tensor:
    """Return the waveforms with the channels that hardly see the unit set to zero, shape (K, N, D)."""
    return waveforms * support(waveforms)[:, :, None]


def support(waveforms: Tensor) -> Tensor:
    """Return which channels see which unit, shape (K, N), bool."""
    norms = waveforms.norm(dim=2)
    return norms >= norms.amax(dim=1, keepdim=True).clamp(max=SUPPORT)


def learn_waveforms(
    chunks: list[Tensor],
    waveforms: Tensor,
    settings: LearningSettings,
    sampling_frequency: float,
    num_sweeps: int,
    device: str = "auto",
    num_workers: int = 1,
    progress_bar: bool = False,
) -> Units:
    """Improve the units' waveforms on a sample of the recording.

    Each sweep finds the events of all units (`pursue`), then updates each template from its events in the residual
    (the MAP estimate of `dlvolt.deconvolution.update_templates`). All but the last sweep also look at the clean
    snippets, from which all other units are explained away: a unit with several modes is split, two units that
    look like one along the line between them are merged, and units that hardly fire are dropped.

    Parameters
    ----------
    chunks : list of Tensor, shape (N, T)
        Whitened sample of the recording.
    waveforms : Tensor, shape (K, N, D)
        Where to start.
    settings : LearningSettings
        Rank, threshold, amplitude bounds and separation.
    sampling_frequency : float
        Hz.
    num_sweeps : int
        How often.
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
    units = Units.new(waveforms)
    num_samples = sum(chunk.shape[1] for chunk in chunks)
    for sweep in trange(num_sweeps, desc="dlvolt: learn templates", disable=not progress_bar):
        if len(units.waveforms) == 0:  # at the start, or none is left
            return units
        matcher = Matcher(units, settings, device)
        events = map_in_threads(matcher.pursue, chunks, num_workers)
        sample = _collect(chunks, events, matcher.templates.to("cpu"))
        units, kept = _updated(units, sample, settings, num_samples, sampling_frequency, lenient=sweep == 0)
        if sweep < num_sweeps - 1 and kept.any():
            snippets = [sample.features[sample.units == k] for k in torch.nonzero(kept)[:, 0]]
            units, snippets = _split(units, snippets, sample.basis, settings.rank)
            units = _merge(units, snippets, sample.basis)
        units = units._replace(waveforms=_recentred(units.waveforms, settings.num_before))
    return units


class CleanSnippets(NamedTuple):
    """The events of a sample, each with all other events explained away.

    Attributes
    ----------
    units, times, amplitudes : Tensor, shape (E,)
        Of each event; times run on from chunk to chunk.
    features : Tensor, shape (E, N, B)
        Projections of the clean snippets on the temporal basis.
    basis : Tensor, shape (B, D)
        Orthonormal temporal profiles that the templates are made of.
    sums : Tensor, shape (K, N, D)
        Σ a R[:, t : t + D] of each unit.
    """

    units: Tensor
    times: Tensor
    amplitudes: Tensor
    features: Tensor
    basis: Tensor
    sums: Tensor


def _collect(chunks: list[Tensor], events: list[Events], templates: LowRankTemplates) -> CleanSnippets:
    full = compose(templates)  # K×N×D
    num_units, num_channels, width = full.shape
    bank = shift_bank(full).flatten(0, 1)  # J·K×N×D
    basis = torch.linalg.svd(full.flatten(0, 1), full_matrices=False)[2][:NUM_FEATURES]  # B×D
    basis_bank = shift_bank(basis)  # J×B×D
    sums = torch.zeros_like(bank)
    features = []
    for chunk, found in zip(chunks, events, strict=True):
        in_bank = found.in_bank(num_units)
        left_over = residual(chunk, in_bank, bank)
        amplitudes = found.amplitudes[:, None, None]
        clean = event_slices(left_over, found.times, width) + amplitudes * bank[in_bank.units]  # E×N×D
        sums.index_add_(0, in_bank.units, amplitudes * clean)
        features.append(clean @ basis_bank[found.shifts].transpose(1, 2))
    sums = sums.view(NUM_SHIFTS, num_units, num_channels, width)
    unshifted = sum(shift_bank(sums[shift])[NUM_SHIFTS - 1 - shift] for shift in range(NUM_SHIFTS))
    starts = np.cumsum([0] + [chunk.shape[1] for chunk in chunks])
    return CleanSnippets(
        units=torch.cat([found.units for found in events]),
        times=torch.cat([start + found.times for start, found in zip(starts, events, strict=False)]),
        amplitudes=torch.cat([found.amplitudes for found in events]),
        features=torch.cat(features),
        basis=basis,
        sums=unshifted,
    )


def _updated(
    units: Units,
    sample: CleanSnippets,
    settings: LearningSettings,
    num_samples: int,
    sampling_frequency: float,
    lenient: bool,
) -> tuple[Units, Tensor]:
    """Return the units that fire enough and are no echo, updated from their events, and which those are, shape (K,)."""
    counts = torch.bincount(sample.units, minlength=len(units.waveforms))
    prior = units.amplitude_prior(settings.amplitude_range)
    waveforms, spreads = units.waveforms.clone(), units.spreads.clone()
    for k in torch.nonzero(counts >= MIN_EVENTS)[:, 0]:
        amplitudes = sample.amplitudes[sample.units == k]
        measured = amplitudes + prior.precision[k] * (amplitudes - prior.typical[k])  # before the prior had its say
        typical = measured.median()
        variance = ((measured - typical).abs().median() / 0.6745) ** 2 - prior.noise_variance
        spreads[k] = (variance.clamp(min=0).sqrt() / typical).clamp(min=MIN_SPREAD)
        waveforms[k] = denoised(typical * sample.sums[k] / amplitudes.square().sum(), len(amplitudes), settings.rank)
    updated = Units(waveforms, spreads, (counts + 1) / num_samples)
    cost = updated.amplitude_prior(settings.amplitude_range).event_cost
    amplitudes = waveforms.flatten(1).norm(dim=1)
    strong = amplitudes - (amplitudes / 2 + cost / amplitudes) > MIN_EXCESS
    kept = counts >= max(3, MIN_RATE_HZ * num_samples / sampling_frequency)
    if not lenient:
        kept &= strong & ~_echoes(sample, amplitudes, settings.num_before)
    return updated.select(kept), kept


def _split(units: Units, snippets: list[Tensor], basis: Tensor, rank: int) -> tuple[Units, list[Tensor]]:
    """Split the units whose clean snippets have several modes."""
    new_waveforms, new_snippets, origin = [], [], []
    for k, (own, channels) in enumerate(zip(snippets, support(units.waveforms), strict=True)):
        labels = torch.from_numpy(isosplit_recursive(own[:, channels].flatten(1).numpy(), depth=1))
        parts = [own[labels == label] for label in labels.unique()]
        parts = [part for part in parts if len(part) >= MIN_EVENTS]
        if len(parts) <= 1:
            new_waveforms.append(units.waveforms[k])
            new_snippets.append(own)
        else:
            new_waveforms += [denoised(part.mean(dim=0) @ basis, len(part), rank) for part in parts]
            new_snippets += parts
        origin += [k] * max(1, len(parts))
    return units.select(origin)._replace(waveforms=torch.stack(new_waveforms)), new_snippets


def _merge(units: Units, snippets: list[Tensor], basis: Tensor) -> Units:
    """Merge the units that are one up to a shift, or look like one along the line between them, closest first."""
    waveforms = units.waveforms
    amplitudes = waveforms.flatten(1).norm(dim=1)
    distances, lags, shifts = _alignment(waveforms)
    first, second = torch.nonzero(torch.triu(distances < MAYBE_SAME, diagonal=1), as_tuple=True)
    closest = torch.argsort(distances[first, second])
    absorbed: set[int] = set()
    for pair in zip(first[closest].tolist(), second[closest].tolist(), strict=True):
        small, large = sorted(pair, key=lambda k: len(snippets[k]))
        if absorbed.intersection(pair):
            continue
        channels = support(waveforms[list(pair)]).any(dim=0)
        delayed = shift_bank(basis)[shifts[small, large]].roll(int(lags[small, large]), dims=1)
        aligned = snippets[small] @ (delayed @ basis.T)  # as if found with the template of the larger unit
        if distances[pair] * amplitudes[list(pair)].max() < SAME or is_unimodal(
            aligned[:, channels].flatten(1).numpy(), snippets[large][:, channels].flatten(1).numpy()
        ):
            absorbed.add(small)
    return units.select([k for k in range(len(waveforms)) if k not in absorbed])


def _alignment(waveforms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return how far W_i, delayed by the best lag and sub-sample shift, is from W_j, relative to the larger norm.

    Returns
    -------
    distances, lags, shifts : Tensor, shape (K, K)
        ‖W_i(d − lag − δ_shift) − W_j(d)‖ / max(‖W_i‖, ‖W_j‖) at its minimum, and where that is.
    """
    max_lag = waveforms.shape[2] // 6
    products = conv1d(pad(waveforms, (max_lag + HALF_WIDTH,) * 2), waveforms)  # ⟨W_i(d + τ), W_j(d)⟩, K×K×lags
    products = shift_bank(products)[..., HALF_WIDTH:-HALF_WIDTH]  # at τ - δ
    best, where = products.movedim(0, 2).flatten(2).max(dim=2)
    lags = max_lag - where % (2 * max_lag + 1)
    shifts = where // (2 * max_lag + 1)
    squares = waveforms.flatten(1).square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * best).clamp(min=0).sqrt()
    return distances / torch.maximum(squares[:, None], squares).sqrt(), lags, shifts


def _echoes(sample: CleanSnippets, amplitudes: Tensor, width: int) -> Tensor:
    """Return which units mostly fire together with one larger unit: what is left of its spikes, shape (K,)."""
    times = [sample.times[sample.units == k].numpy() for k in range(len(amplitudes))]  # ascending
    echo = torch.zeros(len(amplitudes), dtype=torch.bool)
    for k, own in enumerate(times):
        for larger in torch.nonzero(amplitudes > 2 * amplitudes[k])[:, 0].tolist():
            near = np.searchsorted(times[larger], own + width) - np.searchsorted(times[larger], own - width)
            if len(own) and np.mean(near > 0) > ECHO:
                echo[k] = True
    return echo


def _recentred(waveforms: Tensor, num_before: int) -> Tensor:
    """Move the largest absolute value of each waveform to sample `num_before`, zeros coming in."""
    width = waveforms.shape[2]
    moved = torch.zeros_like(waveforms)
    for k, waveform in enumerate(waveforms):
        by = num_before - int(waveform.abs().amax(dim=0).argmax())
        moved[k, :, max(0, by) : width + min(0, by)] = waveform[:, max(0, -by) : width - max(0, by)]
    return moved
