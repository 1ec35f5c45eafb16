"""Which units there are: split, merge, join."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvolt.deconvolution import shift_bank
from dlvolt.electrodes.clustering.isosplit import is_unimodal, isosplit_recursive

from .alignment import alignment
from .sample import MIN_EVENTS, Snippets
from .units import Units, interpolated, support
from .update import denoised

SAME = 2.0  # noise standard deviations; waveforms that are closer are one unit,
SAME_RELATIVE = 0.1  # and so are those that are this close, relative: sampling alone changes large ones so much
MAYBE_SAME = 0.6  # and below which the spikes decide
SAME_WHERE_MOVING = 0.3  # relative distance: waveforms that are closer are one unit that is not quite where we think
SELDOM_TOGETHER = 0.3  # overlap of the places in which two units fire that may be one
COUNTERPARTS = 0.8  # relative distance of units that may be one although interpolation does not show it
HARDLY_THERE = 0.02  # of a unit's spikes in a place: it is not there


def split(
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


def merge(units: Units, snippets: list[Snippets], basis: Tensor) -> tuple[Units, list[Snippets]]:
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


def joined(units: Units, snippets: list[Snippets]) -> Units:
    """Join units that look alike in some place and are never in the same one: neurons do not come and go so.

    Each of the two knows the waveform where it was seen. Interpolation over a large distance errs, so two that look
    less alike are joined too if they are counterparts, see `_counterparts`.
    """
    moved, num_places = units.moved.clone(), units.moved.shape[1]
    counts = torch.stack([torch.bincount(own.places, minlength=num_places) for own in snippets]).float()  # K×M
    kept = torch.ones(len(moved), dtype=torch.bool)
    flat = moved.flatten(2).transpose(0, 1)  # M×K×ND
    squares = flat.square().sum(dim=2)
    apart = (squares[:, :, None] + squares[:, None] - 2 * flat @ flat.mT).clamp(min=0)
    distances = (apart / torch.maximum(squares[:, :, None], squares[:, None])).sqrt().amin(dim=0)
    alike = (distances < MAYBE_SAME) | _counterparts(distances, counts)
    for pair in _close_pairs(torch.where(alike, distances, torch.inf), COUNTERPARTS):
        if kept[list(pair)].all() and _together(counts[list(pair)])[0, 1] < SELDOM_TOGETHER:
            small, large = sorted(pair, key=lambda k: float(counts[k].sum()))
            share = ((counts[large] + 1) / (counts[large] + counts[small] + 2))[:, None, None]
            moved[large] = share * moved[large] + (1 - share) * moved[small]
            counts[large] += counts[small]
            kept[small] = False
    return units._replace(moved=moved).select(kept)


def _counterparts(distances: Tensor, counts: Tensor) -> Tensor:
    """Return which units are each other's closest of those they never are together with, and as active, (K, K), bool.

    Counts are their spikes in each of the M places, (K, M).
    """
    closest = torch.where(_together(counts) < SELDOM_TOGETHER, distances, torch.inf).argmin(dim=1)
    units = torch.arange(len(counts))
    mutual = (closest[:, None] == units) & (closest == units[:, None])
    is_there = counts > HARDLY_THERE * counts.sum(dim=1, keepdim=True)
    rates = counts.sum(dim=1) / (is_there * counts.sum(dim=0)).sum(dim=1).clamp(min=1)  # relative to all units' there
    as_active = (rates[:, None] < 2 * rates) & (rates < 2 * rates[:, None])
    return mutual & as_active


def _together(counts: Tensor) -> Tensor:
    """Return the overlap of the places in which units fire, (K, K), from 0 to 1, given their spikes in each, (K, M)."""
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.minimum(shares[:, None], shares).sum(dim=2)


def _close_pairs(distances: Tensor, most: float = MAYBE_SAME) -> list[tuple[int, int]]:
    """Return the pairs of units that may be one, closest first, given their relative distances, shape (K, K)."""
    first, second = torch.nonzero(torch.triu(distances < most, diagonal=1), as_tuple=True)
    closest = torch.argsort(distances[first, second])
    return list(zip(first[closest].tolist(), second[closest].tolist(), strict=True))
