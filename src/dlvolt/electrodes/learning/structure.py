"""Which units there are: units are split, merged, and joined across places of the tissue."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.mixture import GaussianMixture
from torch import Tensor

from dlvolt.deconvolution import shift_bank
from dlvolt.electrodes.clustering.isosplit import (
    NUM_COMPONENTS,
    is_unimodal,
    isosplit_recursive,
    principal_components,
)

from .alignment import alignment
from .denoise import TemporalPrior, denoised
from .sample import MIN_EVENTS, Snippets
from .timing import RefractoryPeriod
from .units import Units, in_places, support

SAME = 2.0  # units whose waveforms differ by less, in noise standard deviations, are merged,
SAME_RELATIVE = 0.1  # and those with a relative distance below this: sampling alone changes large waveforms so much;
MAYBE_SAME = 0.6  # between these and this relative distance, the snippets decide
SELDOM_TOGETHER = 0.3  # two units that may be one neuron fire in places that overlap by less than this
COUNTERPARTS = 0.8  # largest relative distance of `_counterparts` that are joined
FAR_CLOSER = 3.0  # a unit is far closer to another than to a third if distances have a larger ratio
HARDLY_THERE = 0.02  # a place with a smaller share of a unit's spikes is one in which the unit is not


def split(
    units: Units,
    snippets: list[Snippets],
    basis: Tensor,
    kernels: Tensor,
    rank: int,
    refractory: RefractoryPeriod,
    by_shape: bool,
) -> tuple[Units, list[Snippets]]:
    """Split the units whose clean snippets have several modes, or which are two neurons by the times of their events.

    Each mode that is not too small becomes a unit, with its share of the events; a unit with a single mode stays as it
    is. Returned are the units and the snippets of each. Snippets have the temporal `basis`, shape (B, D), waveforms of
    new units at most the `rank`. Unless `by_shape`, only times can split a unit.
    """
    moved, parts, origin, shares, prior = [], [], [], [], TemporalPrior.of(units.waveforms)
    for k, (own, seen) in enumerate(zip(snippets, support(units.waveforms), strict=True)):
        points = own.on(seen).numpy()
        labels = isosplit_recursive(points, depth=1) if by_shape else np.zeros(len(points), dtype=int)
        if not labels.any():
            labels = _two_neurons(points, own.times, refractory)
        labels = torch.from_numpy(labels)
        modes = [own.select(labels == label) for label in labels.unique()]
        modes = [mode for mode in modes if len(mode.features) >= MIN_EVENTS]
        if len(modes) <= 1:
            modes, means = [own], units.moved[k : k + 1]
        else:
            differences = torch.zeros(len(modes), *units.moved.shape[2:])
            for difference, mode in zip(differences, modes, strict=True):
                mean = (mode.features.mean(dim=0) @ basis)[None]
                difference[mode.channels] = denoised(mean, len(mode.features), rank, prior)[0]
                difference[mode.channels] -= units.waveforms[k, mode.channels]
            # What is known of the unit in each place is not lost, as only the difference is interpolated.
            means = units.moved[k] + in_places(differences, kernels)
        moved.append(means)
        parts += modes
        origin += [k] * len(modes)
        shares += [len(mode.features) / max(1, sum(len(each.features) for each in modes)) for mode in modes]
    return units.select(origin)._replace(
        moved=torch.cat(moved), rates=units.rates[origin] * torch.tensor(shares)
    ), parts


def _two_neurons(points: np.ndarray, times: np.ndarray, refractory: RefractoryPeriod) -> np.ndarray:
    """Return labels 0 and 1 of a unit's snippets if they are of two neurons, else 0 for all.

    Two like waveforms of small units make a single mode. But the unit then has pairs of events within a refractory
    period, and if these disappear when the snippets are divided as a mixture of two normal distributions, the unit is
    two neurons.
    """
    one = np.zeros(len(points), dtype=int)
    if not refractory.is_broken(np.sort(times)):
        return one
    components = principal_components(points, NUM_COMPONENTS)
    labels = GaussianMixture(2, covariance_type="tied", random_state=0).fit_predict(components)
    trains = [np.sort(times[labels == label]) for label in (0, 1)]
    return labels if refractory.tells_apart(*trains) else one


def merge(
    units: Units, snippets: list[Snippets], basis: Tensor, refractory: RefractoryPeriod
) -> tuple[Units, list[Snippets]]:
    """Merge units, closest pairs first, and return those that are left, and their snippets.

    Two units are merged if their waveforms are the same up to a shift, or if, moved by this shift, their snippets have
    a single mode along the line between the means (`is_unimodal`) and the times of their events do not tell them apart.
    The unit with more snippets is kept. Units that fire in different places of the tissue are left to `joined`.
    """
    waveforms = units.waveforms
    amplitudes = waveforms.flatten(1).norm(dim=1)
    _, distances, lags, shifts = alignment(waveforms)
    absorbed: set[int] = set()
    together = _together(_spikes_in_places(snippets, units.moved.shape[1]))
    for pair in _close_pairs(torch.where(together < SELDOM_TOGETHER, torch.inf, distances)):
        if absorbed.intersection(pair):
            continue
        small, large = sorted(pair, key=lambda k: len(snippets[k].features))
        few, many = snippets[small], snippets[large]
        seen = torch.zeros(waveforms.shape[1], dtype=torch.bool)
        seen[few.channels[torch.isin(few.channels, many.channels)]] = True
        seen &= support(waveforms[list(pair)]).any(dim=0)
        delayed = shift_bank(basis)[shifts[small, large]].roll(int(lags[small, large]), dims=1)
        # The features that the few snippets would have if found with the template of the larger unit.
        aligned = few._replace(features=few.features @ (delayed @ basis.T))
        is_close = distances[pair] < max(SAME_RELATIVE, SAME / amplitudes[list(pair)].max())
        if is_close or (
            is_unimodal(aligned.on(seen).numpy(), many.on(seen).numpy())
            and not refractory.tells_apart(np.sort(few.times), np.sort(many.times))
        ):
            absorbed.add(small)
    kept = [k for k in range(len(waveforms)) if k not in absorbed]
    return units.select(kept), [snippets[k] for k in kept]


def joined(units: Units, snippets: list[Snippets]) -> Units:
    """Join units that look alike in some place but do not fire in the same places of the tissue.

    Two neurons would not take turns whenever the tissue moves, so the two units are one neuron. Its waveform in each
    place is mostly that of the unit which has more spikes there. Interpolation over a large distance errs, so units
    that look less alike are joined, too, if they are counterparts, see `_counterparts`. If neighbouring neurons move to
    where others have been, the closest pairs may be wrong ones. So of all ways of pairing units, the one with the
    smallest sum of squared distances is taken. Of the snippets of each unit only the places are used.
    """
    moved, counts = units.moved.clone(), _spikes_in_places(snippets, units.moved.shape[1])
    kept = torch.arange(len(moved))
    while True:
        distances = _least_distances(moved, kept)
        alike = (distances < MAYBE_SAME) | (_counterparts(distances, counts[kept]) & (distances < COUNTERPARTS))
        alike &= _together(counts[kept]) < SELDOM_TOGETHER
        pairs = _best_pairs(torch.where(alike, distances, torch.inf))
        if not pairs:
            return units._replace(moved=moved).select(kept)
        absorbed = []
        for pair in pairs:
            small, large = sorted(kept[list(pair)].tolist(), key=lambda k: float(counts[k].sum()))
            share = ((counts[large] + 1) / (counts[large] + counts[small] + 2))[:, None, None]
            moved[large] = share * moved[large] + (1 - share) * moved[small]
            counts[large] += counts[small]
            absorbed.append(small)
        kept = kept[~torch.isin(kept, torch.tensor(absorbed))]


def _least_distances(moved: Tensor, kept: Tensor) -> Tensor:
    """Return the relative distances of some waveforms, shape (K, M, N, D), in the place where they are most alike."""
    least = torch.full((len(kept), len(kept)), torch.inf)
    for place in range(moved.shape[1]):
        flat = moved[kept, place].flatten(1)
        squares = flat.square().sum(dim=1)
        apart = (squares[:, None] + squares - 2 * flat @ flat.T).clamp(min=0)
        least = torch.minimum(least, (apart / torch.maximum(squares[:, None], squares)).sqrt())
    return least


def _best_pairs(distances: Tensor) -> list[tuple[int, int]]:
    """Return disjoint pairs of units with finite distances, shape (K, K), so that their squares are least in total.

    A unit without a partner counts as half a pair at the distance `COUNTERPARTS`. Pairs are left out, unless there are
    no others, if one of the two is far closer to a third unit: it may be joined with that one next.
    """
    alone = COUNTERPARTS**2 / 2
    costs = torch.where(distances.isfinite(), distances.square() / 2, 2 * len(distances) * alone)
    partners = torch.from_numpy(linear_sum_assignment(costs.fill_diagonal_(alone).numpy())[1])
    units, closest = torch.arange(len(partners)), distances.amin(dim=1)
    reached = torch.where(partners == units, torch.inf, distances[units, partners])
    ready = reached.isfinite() & (reached <= FAR_CLOSER * torch.minimum(closest, closest[partners]))
    if not ready.any():
        ready = reached.isfinite()
    pairs, taken = list[tuple[int, int]](), set[int]()
    for unit in torch.argsort(reached).tolist():
        pair = unit, int(partners[unit])
        if ready[unit] and not taken.intersection(pair):
            pairs.append(pair)
            taken.update(pair)
    return pairs


def _counterparts(distances: Tensor, counts: Tensor) -> Tensor:
    """Return which pairs of units may be one neuron that is seen in different places, shape (K, K), bool.

    Of all units in other places, each of the two is most like the other, and they are equally active, to a factor of 2.
    Given are relative distances of waveforms, shape (K, K), and the spikes of each unit in each place, shape (K, M).
    """
    closest = torch.where(_together(counts) < SELDOM_TOGETHER, distances, torch.inf).argmin(dim=1)
    units = torch.arange(len(counts))
    mutual = (closest[:, None] == units) & (closest == units[:, None])
    is_there = counts > HARDLY_THERE * counts.sum(dim=1, keepdim=True)
    # Share of the unit in all spikes in the places where it is.
    rates = counts.sum(dim=1) / (is_there * counts.sum(dim=0)).sum(dim=1).clamp(min=1)
    as_active = (rates[:, None] < 2 * rates) & (rates < 2 * rates[:, None])
    return mutual & as_active


def _spikes_in_places(snippets: list[Snippets], num_places: int) -> Tensor:
    """Return the number of spikes of each unit in each place, shape (K, M)."""
    return torch.stack([torch.bincount(own.places, minlength=num_places) for own in snippets]).float()


def _together(counts: Tensor) -> Tensor:
    """Return how far units fire in the same places, from 0 to 1, shape (K, K), given their spikes in each, (K, M)."""
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.minimum(shares[:, None], shares).sum(dim=2)


def _close_pairs(distances: Tensor) -> list[tuple[int, int]]:
    """Return the pairs of units with relative distances, shape (K, K), below `MAYBE_SAME`, closest first."""
    first, second = torch.nonzero(torch.triu(distances < MAYBE_SAME, diagonal=1), as_tuple=True)
    closest = torch.argsort(distances[first, second])
    return list(zip(first[closest].tolist(), second[closest].tolist(), strict=True))
