"""Best-first coordinate ascent: matching pursuit of events with the templates held."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .amplitudes import AmplitudePrior, least_scores, map_amplitudes, map_gain
from .locality import neighbours, pairs
from .model import Events
from .scores import scores
from .shifts import HALF_WIDTH, NUM_SHIFTS, interpolation_kernels, shift_bank
from .templates import LowRankTemplates

NEGLIGIBLE_CORRELATION = 0.02  # units correlated less than this at every lag do not compete for an event


def cross_correlations(templates: LowRankTemplates) -> Tensor:
    """Return what a unit event of one template adds to the scores of those that share channels with it.

    Parameters
    ----------
    templates : LowRankTemplates
        K templates of D samples.

    Returns
    -------
    Tensor, shape (K, P, 2 D - 1)
        c[j, p, D - 1 + τ] = Σ_n Σ_d w_j[n, d + τ] w_k[n, d], where k is row j, column p of
        ``neighbours(templates.support)``: the score of unit k, τ samples after an event of unit j. Zero where units
        have less than P neighbours.
    """
    spatial, singular_values, temporal = templates
    width, support = temporal.shape[2], templates.support
    near = neighbours(support)
    spectra = torch.fft.rfft(singular_values[:, :, None] * temporal, n=2 * width)  # K×R×F
    correlations = temporal.new_empty(*near.shape, 2 * width)
    for unit, others in enumerate(near):
        channels = torch.nonzero(support[unit])[:, 0]
        products = torch.einsum("nr,pnq->prq", spatial[unit, channels], spatial[others[:, None], channels])
        seen = torch.einsum("prq,rf->pqf", products.to(spectra.dtype), spectra[unit])  # unit by the others
        correlations[unit] = torch.fft.irfft((seen * spectra[others].conj()).sum(dim=1), n=2 * width)
    correlations = correlations.roll(width - 1, dims=2)[:, :, :-1]  # negative lags come first
    return correlations.masked_fill(_is_repeated(near)[:, :, None], 0)


def pursue(
    recording: Tensor,
    templates: LowRankTemplates,
    prior: AmplitudePrior,
    separation: int,
    num_shifts: int = NUM_SHIFTS,
    correlations: Tensor | None = None,
) -> Events:
    """Find the events of a recording, best first.

    Starting from A = 0, the coordinate a[k, t] with the largest gain in log joint is set to its maximiser and
    explained away, until no event gains; then each amplitude is maximised once more given all others. Each event
    sits at the sub-sample shift of its template that scores highest. Events that cannot influence each other are
    taken in the same round: time is cut into bins of D samples, and an event is taken when nothing in its own and
    the two neighbouring bins of overlapping units gains more. The result is that of the one-by-one order where
    explaining an event away raises no other score (templates that correlate positively), and rarely another where
    it does.

    Parameters
    ----------
    recording : Tensor, shape (N, T)
        Whitened traces; T ≥ D.
    templates : LowRankTemplates
        K ≥ 1 templates of D samples, D > 8.
    prior : AmplitudePrior
        Prior and noise.
    separation : int
        Events of one unit lie at least so many samples apart; 1 to D.
    num_shifts : int
        J sub-sample positions; 1 for whole samples only.
    correlations : Tensor, shape (J, K, P, 2 D - 1), optional
        ``shift_bank(cross_correlations(templates), num_shifts)``, to compute it once for many recordings.

    Returns
    -------
    Events
        Sorted by time, with their shifts.
    """
    num_units, _, width = templates.temporal.shape  # bins are as wide as templates, D samples
    if correlations is None:
        correlations = shift_bank(cross_correlations(templates), num_shifts)
    near = neighbours(templates.support)  # K×P
    rivals = _rivals(near, correlations[num_shifts // 2])
    kernels = interpolation_kernels(recording, num_shifts)  # J×(2·HALF_WIDTH+1)
    taps, lags, apart = (
        torch.arange(-reach, reach + 1, device=recording.device) for reach in (HALF_WIDTH, width - 1, separation - 1)
    )

    num_times = recording.shape[1] - width + 1
    num_bins = math.ceil(num_times / width) + 2  # a spare bin at either end
    num_samples = num_bins * width
    mu = recording.new_zeros(num_units, num_samples)  # sample t of the recording is t + D here
    inside = slice(width - HALF_WIDTH, width + num_times + HALF_WIDTH)
    scores(recording, templates, padding=HALF_WIDTH, out=mu[:, inside])
    blocked = torch.ones_like(mu, dtype=torch.bool)
    blocked[:, width : width + num_times] = False

    best = mu.new_zeros(num_units, num_bins)  # what the best event in each bin gains, if it does
    when = torch.zeros(num_units, num_bins, dtype=torch.long, device=mu.device)  # and its sample
    least = least_scores(prior, mu).expand(num_units)

    def look(cells: Tensor, in_cells: Tensor) -> None:
        """Find the best event in some of the K·bins cells, given their scores, cells×D."""
        best.view(-1)[cells] = 0
        may_gain = in_cells.amax(dim=1) >= least[cells // num_bins]  # few
        cells, in_cells = cells[may_gain], in_cells[may_gain]
        score, offset = in_cells.masked_fill(blocked.view(-1, width)[cells], 0).max(dim=1)
        of_cells = prior.select(cells // num_bins)
        best.view(-1)[cells] = map_gain(score, map_amplitudes(score, of_cells), of_cells)
        when.view(-1)[cells] = offset + cells % num_bins * width

    rounds = []
    look(torch.arange(best.numel(), device=mu.device), mu.view(-1, width))
    while True:
        unit, time_bin = _winners(best, rivals)
        time = when[unit, time_bin]
        first = unit * num_samples + time  # in the flattened μ
        score, shift = (mu.view(-1)[first[:, None] + taps] @ kernels.T).max(dim=1)  # E×J
        amplitude = map_amplitudes(score, prior.select(unit))
        rounds.append(Events(time, unit, amplitude, shift))
        if len(unit) == 0:
            break
        blocked.view(-1)[first[:, None] + apart] = True
        samples = (near[unit] * num_samples + time[:, None])[:, :, None] + lags  # E×P×(2D-1)
        explained = amplitude[:, None, None] * correlations[shift, unit]
        mu.view(-1).index_add_(0, samples.flatten(), explained.flatten(), alpha=-1)
        changed = torch.zeros_like(best, dtype=torch.bool)
        changed[near[unit][:, :, None], time_bin[:, None, None] + torch.arange(-1, 2, device=mu.device)] = True
        cells = torch.nonzero(changed.flatten())[:, 0]
        look(cells, mu.view(-1, width).index_select(0, cells))

    found = Events(*(torch.cat(fields) for fields in zip(*rounds, strict=True)))
    left_over = (mu.view(-1)[(found.units * num_samples + found.times)[:, None] + taps] * kernels[found.shifts]).sum(1)
    influences = _influences(found, near, correlations, kernels)
    amplitudes = _refitted(found, left_over, influences, prior, [len(each.times) for each in rounds])
    found = found._replace(times=found.times - width, amplitudes=amplitudes).select(amplitudes > 0)
    return found.select(torch.argsort(found.times * num_units + found.units))


def _is_repeated(near: Tensor) -> Tensor:
    """Return which neighbours only fill up their row, K×P: a unit repeats itself there."""
    own = near == torch.arange(len(near), device=near.device)[:, None]
    return own & (own.cumsum(dim=1) > 1)


def _rivals(near: Tensor, correlations: Tensor) -> Tensor:
    """Return for each unit the units that compete with it, itself among them, K×P, padded with itself."""
    overlap = correlations.abs().amax(dim=2) > NEGLIGIBLE_CORRELATION  # K×P
    overlap, order = overlap.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    own = torch.arange(len(near), device=near.device)[:, None]
    return torch.where(overlap.bool(), near.gather(1, order), own)[:, : int(overlap.sum(dim=1).max())]


def _winners(best: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor]:
    """Return units and bins where no rival gains more in the same or a neighbouring bin; of equals the first wins."""
    unit, time_bin = torch.nonzero(best > 0, as_tuple=True)
    gain, rival = best[unit, time_bin][:, None], rivals[unit]  # E×P
    before, beside, after = (best[rival, (time_bin + step)[:, None]] for step in (-1, 0, 1))
    beaten = (before >= gain) | (beside > gain) | ((beside == gain) & (rival < unit[:, None])) | (after > gain)
    won = ~beaten.any(dim=1)
    return unit[won], time_bin[won]


def _influences(events: Events, near: Tensor, correlations: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return pairs of events and what a unit of the first adds to the score of the second."""
    width = (correlations.shape[3] + 1) // 2
    order = torch.argsort(events.times)
    times = events.times[order]
    ends = torch.searchsorted(times, times + width + HALF_WIDTH)
    first, second = pairs(ends, torch.arange(len(ends), device=ends.device))
    source, target = order[torch.cat([first, second])], order[torch.cat([second, first])]

    is_near = near[events.units[source]] == events.units[target][:, None]  # pairs×P
    overlap = is_near.any(dim=1)
    source, target, column = source[overlap], target[overlap], is_near[overlap].to(torch.uint8).argmax(dim=1)
    taps = torch.arange(-HALF_WIDTH, HALF_WIDTH + 1, device=ends.device)
    lags = width - 1 + (events.times[target] - events.times[source])[:, None] + taps  # pairs×taps
    inside = (lags >= 0) & (lags < correlations.shape[3])
    of_source = (events.shifts[source][:, None], events.units[source][:, None], column[:, None])
    added = correlations[(*of_source, lags.clamp(0, correlations.shape[3] - 1))] * inside
    return source, target, (added * kernels[events.shifts[target]]).sum(dim=1)


def _refitted(
    events: Events,
    left_over: Tensor,
    influences: tuple[Tensor, Tensor, Tensor],
    prior: AmplitudePrior,
    counts: list[int],
) -> Tensor:
    """Return the amplitudes after one more pass of coordinate ascent over the rounds; 0 is no event any more."""
    source, target, influence = influences
    by_source = torch.argsort(source)
    source, target, influence = source[by_source], target[by_source], influence[by_source]
    amplitudes = events.amplitudes.clone()
    score = left_over + amplitudes  # μ without the event itself is what is left plus its own amplitude
    ends = torch.tensor(counts).cumsum(0)
    last = torch.searchsorted(source, ends.to(source.device)).tolist()
    start = begin = 0
    for stop, end in zip(ends.tolist(), last, strict=True):
        own = slice(start, stop)
        of_round = prior.select(events.units[own])
        new = map_amplitudes(score[own], of_round)
        new = new * (map_gain(score[own], new, of_round) > 0)
        change = torch.zeros_like(amplitudes)
        change[own] = new - amplitudes[own]
        amplitudes[own] = new
        score.index_add_(0, target[begin:end], influence[begin:end] * change[source[begin:end]], alpha=-1)
        start, begin = stop, end
    return amplitudes
