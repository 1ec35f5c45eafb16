"""Best-first coordinate ascent: matching pursuit of events with the templates held."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv1d, max_pool1d, pad

from .amplitudes import AmplitudePrior, map_amplitudes, map_gain
from .model import Events
from .scores import scores
from .shifts import HALF_WIDTH, NUM_SHIFTS, interpolation_kernels, shift_bank
from .templates import LowRankTemplates, compose

NEGLIGIBLE_CORRELATION = 0.02  # units correlated less than this at every lag do not compete for an event


def cross_correlations(templates: LowRankTemplates) -> Tensor:
    """Return what a unit event of one template adds to the scores of the others.

    Parameters
    ----------
    templates : LowRankTemplates
        K templates of D samples.

    Returns
    -------
    Tensor, shape (K, K, 2 D - 1)
        c[j, k, D - 1 + τ] = Σ_n Σ_d w_j[n, d + τ] w_k[n, d]: the score of unit k, τ samples after an event of
        unit j.
    """
    full = compose(templates)  # K×N×D
    num_template_samples = full.shape[2]
    return conv1d(pad(full, (num_template_samples - 1,) * 2), full)


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
        Whitened traces X; T ≥ D.
    templates : LowRankTemplates
        K ≥ 1 templates of D samples, D > 8.
    prior : AmplitudePrior
        Prior and noise.
    separation : int
        Events of one unit lie at least so many samples apart; 1 to D.
    num_shifts : int
        J sub-sample positions; 1 for whole samples only.
    correlations : Tensor, shape (J, K, K, 2 D - 1), optional
        ``shift_bank(cross_correlations(templates), num_shifts)``, to compute it once for many recordings.

    Returns
    -------
    Events
        Sorted by time, with their shifts.
    """
    num_units, _, width = templates.temporal.shape  # bins are as wide as templates, D samples
    if correlations is None:
        correlations = shift_bank(cross_correlations(templates), num_shifts)
    rivals = _rivals(correlations[num_shifts // 2])
    kernels = interpolation_kernels(recording, num_shifts)  # J×(2·HALF_WIDTH+1)
    taps = torch.arange(-HALF_WIDTH, HALF_WIDTH + 1, device=recording.device)

    num_times = recording.shape[1] - width + 1
    num_bins = math.ceil(num_times / width) + 2  # a spare bin at either end
    mu = scores(pad(recording, (width, (num_bins - 1) * width - num_times)), templates)  # K×bins·D
    allowed = torch.zeros_like(mu, dtype=torch.bool)
    allowed[:, width : width + num_times] = True

    def explain_away(unit: int, time: int, shift: int, amplitude: float) -> None:
        mu[:, time - width + 1 : time + width] -= amplitude * correlations[shift, unit]

    best = mu.new_empty(num_units, num_bins)  # largest gain in each bin
    when = torch.empty(num_units, num_bins, dtype=torch.long, device=mu.device)  # and its sample
    changed = torch.arange(num_bins, device=mu.device)
    found: list[tuple[int, int, int, float]] = []
    while len(changed):
        in_bins = mu.view(num_units, num_bins, width)[:, changed].movedim(0, -1)  # bins×D×K
        gain = map_gain(in_bins, map_amplitudes(in_bins, prior), prior).movedim(-1, 0)
        gain = gain.masked_fill(~allowed.view(num_units, num_bins, width)[:, changed], -math.inf)
        best[:, changed], offset = gain.max(dim=2)
        when[:, changed] = offset + changed * width

        winners = _winners(best, rivals)
        unit, time_bin = torch.nonzero(winners, as_tuple=True)
        time = when[unit, time_bin]
        score, shift = (mu[unit[:, None], time[:, None] + taps] @ kernels.T).max(dim=1)  # E×J
        amplitude = map_amplitudes(score, prior.select(unit))
        new = list(zip(unit.tolist(), time.tolist(), shift.tolist(), amplitude.tolist(), strict=True))
        for k, t, j, a in new:
            explain_away(k, t, j, a)
            allowed[k, t - separation + 1 : t + separation] = False
        found += new
        changed = torch.nonzero(max_pool1d(winners.any(dim=0).to(mu)[None], 3, 1, 1)[0]).squeeze(1)

    # One more pass of coordinate ascent: μ without the event itself is what is left plus its own amplitude.
    prior_of = [prior.select(unit) for unit in torch.arange(num_units, device=mu.device)]
    events = []
    for k, t, j, a in found:
        score = mu[k, t - HALF_WIDTH : t + HALF_WIDTH + 1] @ kernels[j] + a
        amplitude = map_amplitudes(score, prior_of[k])
        if map_gain(score, amplitude, prior_of[k]) <= 0:
            amplitude = 0 * amplitude
        explain_away(k, t, j, float(amplitude) - a)
        if amplitude > 0:
            events.append((t - width, k, j, float(amplitude)))
    times, units, shifts, amplitudes = zip(*sorted(events), strict=True) if events else ((), (), (), ())
    return Events(
        *(torch.tensor(x, dtype=torch.long, device=recording.device) for x in (times, units)),
        torch.tensor(amplitudes, dtype=recording.dtype, device=recording.device),
        torch.tensor(shifts, dtype=torch.long, device=recording.device),
    )


def _rivals(correlations: Tensor) -> Tensor:
    """Return for each unit the units that compete with it, itself among them, K×P, padded with itself."""
    overlap = correlations.abs().amax(dim=2) > NEGLIGIBLE_CORRELATION  # K×K
    own = torch.arange(len(overlap), device=overlap.device)
    overlap[own, own] = True
    order = torch.argsort(overlap.to(torch.uint8), dim=1, descending=True, stable=True)
    rivals = torch.where(overlap.gather(1, order), order, own[:, None])
    return rivals[:, : int(overlap.sum(dim=1).max())]


def _winners(best: Tensor, rivals: Tensor) -> Tensor:
    """Return where no rival gains more in the same or a neighbouring bin, K×bins."""
    rival_best, rival = best[rivals].max(dim=1)  # K×bins
    own = rivals.gather(1, rival) == torch.arange(len(best), device=best.device)[:, None]
    before, after = rival_best.roll(1, dims=1), rival_best.roll(-1, dims=1)
    return (best > 0) & own & (best > before) & (best >= after)
