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
SUPPORT = 1.5  # noise standard deviations: channels on which a waveform has less norm do not see the unit
SAME = 0.2  # relative distance below which two waveforms are one unit
MAYBE_SAME = 0.6  # and below which the spikes decide
ECHO = 0.5  # a unit that has a larger one beside so many of its spikes is an echo of it
MIN_EVENTS = 10  # fewer do not make a template
MIN_RATE_HZ = 0.02  # units that fire less in the sample are dropped
MIN_EXCESS = 1.0  # and units whose amplitude does not exceed the threshold by so many noise standard deviations


@dataclass(frozen=True)
class LearningSettings:
    """How templates are learnt and matched.

    Attributes
    ----------
    rank : int
        R of the templates.
    num_before : int
        Samples of a template before its peak.
    threshold : float
        Amplitude, in noise standard deviations, from which on an event is worth its cost.
    amplitude_range : (float, float)
        Smallest and largest amplitude of an event, relative to the typical one of its unit.
    separation : int
        Events of one unit lie at least so many samples apart; at least 1 and at most D are taken.
    """

    rank: int
    num_before: int
    threshold: float
    amplitude_range: tuple[float, float]
    separation: int


class Matcher:
    """Units made ready to be pursued in any number of chunks.

    Parameters
    ----------
    waveforms : Tensor, shape (K, N, D)
        Mean waveforms in noise standard deviations; their norms are the units' typical amplitudes.
    settings : LearningSettings
        Rank, threshold, amplitude bounds and separation.
    device : str
        Torch device on which they are pursued; "auto" is CUDA where there is one, else the CPU.
    """

    def __init__(self, waveforms: Tensor, settings: LearningSettings, device: str = "auto") -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        waveforms = waveforms.to(self.device)
        low, high = settings.amplitude_range
        amplitudes = waveforms.flatten(1).norm(dim=1)
        self.templates: LowRankTemplates = low_rank(on_support(waveforms), settings.rank)
        self.prior = AmplitudePrior(
            rate=float(1 / amplitudes.mean()),
            event_cost=settings.threshold**2 / 2,
            minimum=low * amplitudes,
            maximum=high * amplitudes,
        )
        self.separation = min(max(1, settings.separation), waveforms.shape[2])
        self.correlations = shift_bank(cross_correlations(self.templates))

    def pursue(self, chunk: Tensor) -> Events:
        """Return the events in a chunk, shape (N, T), on the chunk's own device."""
        on_device = chunk.to(self.device)
        events = pursue(on_device, self.templates, self.prior, self.separation, correlations=self.correlations)
        return Events(*(field.to(chunk.device) for field in events))


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
) -> Tensor:
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
    Tensor, shape (K', N, D)
        Waveforms, peak at sample `settings.num_before`; K' may be 0.
    """
    seconds = sum(chunk.shape[1] for chunk in chunks) / sampling_frequency
    for sweep in trange(num_sweeps, desc="dlvolt: learn templates", disable=not progress_bar):
        if len(waveforms) == 0:  # at the start, or none is left
            return waveforms
        matcher = Matcher(waveforms, settings, device)
        events = map_in_threads(matcher.pursue, chunks, num_workers)
        sample = _collect(chunks, events, matcher.templates.to("cpu"))
        waveforms, kept = _updated(waveforms, sample, settings, min_events=max(3, MIN_RATE_HZ * seconds))
        if sweep < num_sweeps - 1 and kept.any():
            snippets = [sample.features[sample.units == k] for k in torch.nonzero(kept)[:, 0]]
            waveforms, snippets = _split(waveforms, snippets, sample.basis)
            waveforms = _merge(waveforms, snippets, sample.basis)
        waveforms = _recentred(waveforms, settings.num_before)
    return waveforms


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
    waveforms: Tensor, sample: CleanSnippets, settings: LearningSettings, min_events: float
) -> tuple[Tensor, Tensor]:
    """Return the MAP waveforms of the units that fire enough and are no echo, and which those are, shape (K,)."""
    counts = torch.bincount(sample.units, minlength=len(waveforms))
    updated = waveforms.clone()
    for k in torch.nonzero(counts >= MIN_EVENTS)[:, 0]:
        typical = sample.amplitudes[sample.units == k].median()
        updated[k] = typical * sample.sums[k] / sample.sums[k].norm()
    amplitudes = updated.flatten(1).norm(dim=1)
    strong = amplitudes >= settings.threshold + MIN_EXCESS
    kept = strong & (counts >= min_events) & ~_echoes(sample, amplitudes, settings.num_before)
    return updated[kept], kept


def _split(waveforms: Tensor, snippets: list[Tensor], basis: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Split the units whose clean snippets have several modes."""
    new_waveforms, new_snippets = [], []
    for waveform, own, channels in zip(waveforms, snippets, support(waveforms), strict=True):
        labels = torch.from_numpy(isosplit_recursive(own[:, channels].flatten(1).numpy(), depth=1))
        parts = [own[labels == label] for label in labels.unique()]
        parts = [part for part in parts if len(part) >= MIN_EVENTS]
        if len(parts) <= 1:
            new_waveforms.append(waveform)
            new_snippets.append(own)
        else:
            new_waveforms += [part.mean(dim=0) @ basis for part in parts]
            new_snippets += parts
    return torch.stack(new_waveforms), new_snippets


def _merge(waveforms: Tensor, snippets: list[Tensor], basis: Tensor) -> Tensor:
    """Merge the units that are one up to a shift, or look like one along the line between them, closest first."""
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
        if distances[pair] < SAME or is_unimodal(
            aligned[:, channels].flatten(1).numpy(), snippets[large][:, channels].flatten(1).numpy()
        ):
            absorbed.add(small)
    return waveforms[[k for k in range(len(waveforms)) if k not in absorbed]]


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
