"""Learn templates on a sample of the recording: pursue, update, split, merge, prune."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
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

NUM_FEATURES = 6  # temporal components in which clean snippets are split and merged
SUPPORT = 0.1  # channels with less of the template's largest channel norm do not belong to it
SIMILAR = 0.7  # correlation from which on two templates may be one unit
SAME_SIZE = 0.5  # smaller over larger amplitude from which on they may
MIN_EVENTS = 10  # fewer do not make a template
MIN_RATE_HZ = 0.02  # units that fire less in the sample are dropped


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
        Events of one unit lie at least so many samples apart.
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
    """

    def __init__(self, waveforms: Tensor, settings: LearningSettings) -> None:
        low, high = settings.amplitude_range
        amplitudes = waveforms.flatten(1).norm(dim=1)
        self.templates: LowRankTemplates = low_rank(on_support(waveforms), settings.rank)
        self.prior = AmplitudePrior(
            rate=float(1 / amplitudes.mean()),
            event_cost=settings.threshold**2 / 2,
            minimum=low * amplitudes,
            maximum=high * amplitudes,
        )
        self.separation = settings.separation
        self.correlations = shift_bank(cross_correlations(self.templates))

    def pursue(self, chunk: Tensor) -> Events:
        """Return the events in a chunk, shape (N, T)."""
        return pursue(chunk, self.templates, self.prior, self.separation, NUM_SHIFTS, correlations=self.correlations)


def on_support(waveforms: Tensor) -> Tensor:
    """Return the waveforms with the channels that hardly see the unit set to zero, shape (K, N, D)."""
    return waveforms * support(waveforms)[:, :, None]


def support(waveforms: Tensor) -> Tensor:
    """Return which channels see which unit, shape (K, N), bool."""
    norms = waveforms.norm(dim=2)
    return norms >= SUPPORT * norms.amax(dim=1, keepdim=True)


def learn_waveforms(
    chunks: list[Tensor],
    waveforms: Tensor,
    settings: LearningSettings,
    sampling_frequency: float,
    num_sweeps: int,
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
        if len(waveforms) == 0:
            break
        matcher = Matcher(waveforms, settings)
        with threadpool_limits(1), ThreadPoolExecutor(num_workers) as pool:
            events = list(pool.map(matcher.pursue, chunks))
        sample = _collect(chunks, events, matcher.templates)
        waveforms, kept = _updated(waveforms, sample, min_events=max(3, MIN_RATE_HZ * seconds))
        if sweep < num_sweeps - 1:
            snippets = [sample.features[sample.units == k] for k in torch.nonzero(kept)[:, 0]]
            waveforms, snippets = _split(waveforms, snippets, sample.basis)
            waveforms = _merge(waveforms, snippets)
        waveforms = _recentred(waveforms, settings.num_before)
    return waveforms


class CleanSnippets(NamedTuple):
    """The events of a sample, each with all other events explained away.

    Attributes
    ----------
    units, amplitudes : Tensor, shape (E,)
        Of each event.
    features : Tensor, shape (E, N, B)
        Projections of the clean snippets on the temporal basis.
    basis : Tensor, shape (B, D)
        Orthonormal temporal profiles that the templates are made of.
    sums : Tensor, shape (K, N, D)
        Σ a R[:, t : t + D] of each unit.
    """

    units: Tensor
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
    return CleanSnippets(
        units=torch.cat([found.units for found in events]),
        amplitudes=torch.cat([found.amplitudes for found in events]),
        features=torch.cat(features),
        basis=basis,
        sums=unshifted,
    )


def _updated(waveforms: Tensor, sample: CleanSnippets, min_events: float) -> tuple[Tensor, Tensor]:
    """Return the MAP waveforms of the units that fire enough, and which those are, shape (K,)."""
    counts = torch.bincount(sample.units, minlength=len(waveforms))
    updated = waveforms.clone()
    for k in torch.nonzero(counts >= MIN_EVENTS)[:, 0]:
        typical = sample.amplitudes[sample.units == k].median()
        updated[k] = typical * sample.sums[k] / sample.sums[k].norm()
    kept = counts >= min_events
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


def _merge(waveforms: Tensor, snippets: list[Tensor]) -> Tensor:
    """Merge the units that look like one along the line between them, most similar first."""
    waveforms, snippets = list(waveforms), list(snippets)
    apart: set[tuple[int, int]] = set()  # pairs of id() that were tried
    while pair := _most_similar(waveforms, apart):
        i, j = pair
        channels = support(torch.stack([waveforms[i], waveforms[j]])).any(dim=0)
        a, b = (snippets[k][:, channels].flatten(1).numpy() for k in pair)
        if len(a) and len(b) and not is_unimodal(a, b):
            apart.add((id(waveforms[i]), id(waveforms[j])))
            continue
        weights = len(snippets[i]) + 1, len(snippets[j]) + 1
        waveforms[i] = (weights[0] * waveforms[i] + weights[1] * waveforms[j]) / sum(weights)
        snippets[i] = torch.cat([snippets[i], snippets[j]])
        del waveforms[j], snippets[j]
    return torch.stack(waveforms)


def _most_similar(waveforms: list[Tensor], apart: set[tuple[int, int]]) -> tuple[int, int] | None:
    """Return the most correlated pair of waveforms of similar size that is not known to be apart."""
    flat = torch.stack(waveforms).flatten(1)
    amplitudes = flat.norm(dim=1)
    similarity = (flat @ flat.T) / amplitudes[:, None] / amplitudes
    size = torch.minimum(amplitudes[:, None], amplitudes) / torch.maximum(amplitudes[:, None], amplitudes)
    candidates = torch.nonzero(torch.triu((similarity > SIMILAR) & (size > SAME_SIZE), diagonal=1))
    pairs = [(i, j) for i, j in candidates.tolist() if (id(waveforms[i]), id(waveforms[j])) not in apart]
    return max(pairs, key=lambda pair: float(similarity[pair]), default=None)


def _recentred(waveforms: Tensor, num_before: int) -> Tensor:
    """Move the largest absolute value of each waveform to sample `num_before`, zeros coming in."""
    width = waveforms.shape[2]
    moved = torch.zeros_like(waveforms)
    for k, waveform in enumerate(waveforms):
        by = num_before - int(waveform.abs().amax(dim=0).argmax())
        moved[k, :, max(0, by) : width + min(0, by)] = waveform[:, max(0, -by) : width - max(0, by)]
    return moved
