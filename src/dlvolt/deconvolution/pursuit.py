"""Best-first coordinate ascent: matching pursuit of events with the templates held."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from . import loops
from .amplitudes import PER_UNIT, AmplitudePrior, least_scores, map_amplitudes, map_gain
from .events import Events
from .local_pursuit import NEGLIGIBLE_CHANGE, REACH, Correlations, LocalPursuit, Prior
from .locality import neighbours, padded
from .scores import Spectra, scores, template_spectra
from .shifts import HALF_WIDTH, interpolation_kernels, shift_bank
from .templates import LowRankTemplates

MOST_TURNS = 100  # in a bin, of units that share channels: neurons take a few, what is no sum of templates never ends
NEGLIGIBLE_CORRELATION = 0.02  # units correlated less than this at every lag do not compete for an event


def cross_correlations(templates: LowRankTemplates) -> Tensor:
    """Return what an event of amplitude 1 of each unit adds to the scores of the units that share channels with it.

    Parameters
    ----------
    templates : LowRankTemplates
        K templates of D samples.

    Returns
    -------
    Tensor, shape (Q, 2 D - 1)
        c[q, D - 1 + τ] = Σ_n Σ_d w_j[n, d + τ] w_k[n, d], the score of unit k, τ samples after an event of unit j. The
        Q pairs are each unit j with each of its `neighbours` k.
    """
    spatial, singular_values, temporal = templates
    width, support = temporal.shape[2], templates.support
    spectra = torch.fft.rfft(singular_values[:, :, None] * temporal, n=2 * width)  # K×R×F
    correlations = []
    for unit, others in enumerate(neighbours(support)):
        channels = torch.nonzero(support[unit])[:, 0]
        products = torch.einsum("nr,pnq->prq", spatial[unit, channels], spatial[others[:, None], channels])
        seen = torch.einsum("prq,rf->pqf", products.to(spectra.dtype), spectra[unit])  # unit by the others
        correlations.append(torch.fft.irfft((seen * spectra[others].conj()).sum(dim=1), n=2 * width))
    return torch.cat(correlations).roll(width - 1, dims=1)[:, :-1]  # negative lags come first


class PreparedTemplates(NamedTuple):
    """What a pursuit needs to know of the templates, whatever the recording; `of` computes it."""

    near: Tensor  # K×P, the units that share channels with each unit,
    pairs: Tensor  # K×P, and the numbers of these pairs, see `padded`
    rivals: Tensor  # K×P', units that compete with the unit for an event; it is one of them itself, and fills up rows
    correlations: Tensor  # J×(Q+1)×(2D-1), `cross_correlations` at every shift; those of number Q, a filler, are zero
    own: Tensor  # J×K×(2 (REACH + HALF_WIDTH) + 1), of each unit with itself, at the lags at which events are maximised
    spectra: Spectra  # `template_spectra`

    @classmethod
    def of(cls, templates: LowRankTemplates) -> PreparedTemplates:
        """Prepare K templates for pursuits."""
        width = templates.temporal.shape[2]
        near, pairs = padded(neighbours(templates.support))
        correlations = pad(cross_correlations(templates), (0, 0, 0, 1))
        bank = shift_bank(correlations)
        is_itself = near == torch.arange(len(near), device=near.device)[:, None]
        own = bank[:, pairs[is_itself & (pairs < len(correlations) - 1)]]  # J×K×(2D-1)
        own = pad(own, (REACH, REACH))[..., width - 1 - HALF_WIDTH : width + 2 * REACH + HALF_WIDTH]
        return cls(
            near=near,
            pairs=pairs,
            rivals=_rivals(near, correlations[pairs]),
            correlations=bank,
            own=own,
            spectra=template_spectra(templates),
        )


def pursue(
    recording: Tensor,
    templates: LowRankTemplates,
    prior: AmplitudePrior,
    separation: int,
    prepared: PreparedTemplates | None = None,
) -> Events:
    """Return the events of a recording, found best first.

    Starting from A = 0, the coordinate a[k, t] with the largest gain in log joint is set to its maximiser, at the
    sub-sample shift of the template that scores highest, and what the event adds to the scores is subtracted from them.
    This goes on until no event gains.

    When an event is taken, those beside it become doubtful, and so does the event if there are such. Doubtful events
    are maximised once more, in amplitude, time and shift, the largest first, before another one is taken there. So two
    large spikes that overlap leave nothing that could pass for a third. At the end every event is maximised once more.

    Events that cannot influence each other are treated in the same round. Time is cut into bins of D samples. A unit
    has its turn in a bin when no unit that competes with it for events comes before it in this bin or the two beside
    it. The number of turns in a bin is bounded, as what is not neural may be no sum of a few events.

    Parameters
    ----------
    recording : Tensor, shape (N, T)
        Whitened traces; T ≥ D.
    templates : LowRankTemplates
        K ≥ 1 templates of D samples, D > 9.
    prior : AmplitudePrior
        Prior and noise.
    separation : int
        Events of one unit lie at least so many samples apart; 1 to D.
    prepared : PreparedTemplates, optional
        ``PreparedTemplates.of(templates)``, to compute it once for many recordings.

    Returns
    -------
    Events
        Sorted by time, with their shifts.

    Examples
    --------
    Three spikes of one unit on two channels, in noise:

    >>> import torch
    >>> from dlvolt.deconvolution import AmplitudePrior, low_rank, pursue
    >>> waveform = torch.outer(torch.tensor([1.0, 0.5]), -torch.exp(-((torch.arange(40) - 15) / 4.0) ** 2))
    >>> recording = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    >>> for time in (100, 400, 700):
    ...     recording[:, time : time + 40] += 8 * waveform
    >>> prior = AmplitudePrior(rate=0.1, event_cost=8.0)
    >>> events = pursue(recording, low_rank(waveform[None], rank=1), prior, separation=20)
    >>> events.times.tolist()
    [100, 400, 700]
    """
    if prepared is None:
        prepared = PreparedTemplates.of(templates)
    mu, num_times = _spaced_scores(recording, templates, prepared)
    if loops.runs_in_loops(recording.device):
        pursuit = LocalPursuit(mu.numpy(), *_as_arrays(mu, prior, prepared), num_times, separation, MOST_TURNS)
    else:
        pursuit = _Pursuit(mu, prior, prepared, num_times, separation)
    while pursuit.next_round():
        pass
    pursuit.doubt_all()
    while pursuit.next_round():
        pass
    events = pursuit.found()
    order = torch.argsort(events.times * len(mu) + events.units)
    return events._replace(times=events.times - templates.temporal.shape[2]).select(order)


def _as_arrays(mu: Tensor, prior: AmplitudePrior, prepared: PreparedTemplates) -> tuple[Prior, Correlations]:
    """Return the prior of K units and the correlations of their templates as `LocalPursuit` takes them."""

    def of_each(value: float | Tensor) -> np.ndarray:
        return torch.as_tensor(value).to(mu).expand(len(mu)).contiguous().numpy()

    return Prior(
        rate=float(prior.rate),
        noise_variance=float(prior.noise_variance),
        least=of_each(least_scores(prior, mu)),
        **{name: of_each(getattr(prior, name)) for name in PER_UNIT},
    ), Correlations(
        near=prepared.near.numpy(),
        pairs=prepared.pairs.numpy(),
        rivals=prepared.rivals.numpy(),
        bank=prepared.correlations.numpy(),
        own=prepared.own.numpy(),
        kernels=interpolation_kernels(mu).numpy(),
    )


def _spaced_scores(recording: Tensor, templates: LowRankTemplates, prepared: PreparedTemplates) -> tuple[Tensor, int]:
    """Return scores with a spare bin at either end, shape (K, bins · D), and at how many times an event may begin.

    Bins have D samples, as templates have, so sample t of the recording is t + D here. Beside these times there are
    `HALF_WIDTH` scores more, of templates that reach beyond the recording, from which sub-sample shifts interpolate.
    """
    num_units, _, width = templates.temporal.shape
    num_times = recording.shape[1] - width + 1
    mu = recording.new_zeros(num_units, (math.ceil(num_times / width) + 2) * width)
    inside = slice(width - HALF_WIDTH, width + num_times + HALF_WIDTH)
    scores(recording, templates, padding=HALF_WIDTH, spectra=prepared.spectra, out=mu[:, inside])
    return mu, num_times


class _Pursuit:
    """The state of a pursuit in tensors: the scores of what is left, the events, and the best new one of each cell.

    A cell is a unit in a bin; see `LocalPursuit`, whose methods have the same names.
    """

    def __init__(
        self, mu: Tensor, prior: AmplitudePrior, prepared: PreparedTemplates, num_times: int, separation: int
    ) -> None:
        self.near, self.pairs, self.rivals, self.bank, self.own, _ = prepared
        width = (self.bank.shape[2] + 1) // 2
        self.mu, self.num_samples, self.num_bins = mu, mu.shape[1], mu.shape[1] // width
        self.prior, self.width, self.separation = prior, width, separation
        self.is_near = self.pairs < self.bank.shape[1] - 1  # the other entries of `near` only fill up its rows
        self.kernels = interpolation_kernels(mu)  # J×(2·HALF_WIDTH+1)

        def offsets(reach: int) -> Tensor:
            return torch.arange(-reach, reach + 1, device=mu.device)

        self.taps = offsets(HALF_WIDTH)  # samples that are interpolated between
        self.lags = offsets(width - 1)  # lags at which templates overlap
        self.apart = offsets(separation - 1)  # samples at which another event of the unit is too close
        self.steps = offsets(REACH)  # samples by which an event may move
        self.around = offsets(REACH + HALF_WIDTH)  # samples whose scores tell where it moves
        self.beside = offsets(1)  # bins that a cell competes with

        self.blocked = torch.ones_like(mu, dtype=torch.bool)  # where no new event may be
        self.blocked[:, width : width + num_times] = False
        self.occupied = self.blocked.to(torch.int8)  # there 1, elsewhere the unit's events nearer than the separation

        none = torch.zeros(0, dtype=torch.long, device=mu.device)
        self.events = Events(none, none, mu.new_zeros(0), none)
        self.in_doubt = none.bool()  # whether each event is to be maximised once more
        self.best = mu.new_zeros(len(mu), self.num_bins)  # gain of the best new event of each cell
        self.when = torch.zeros_like(self.best, dtype=torch.long)  # and its sample
        self.turns = torch.zeros_like(self.best, dtype=torch.int32)  # turns that the unit and those near it have had
        self.least = least_scores(prior, mu).expand(len(mu))
        self._look(torch.ones_like(self.best, dtype=torch.bool))

    def next_round(self) -> bool:
        """Maximise and take events that cannot influence each other; return whether there were any."""
        self.in_doubt &= self.turns.view(-1)[self._cells(self.events)] < MOST_TURNS
        doubtful = torch.nonzero(self.in_doubt)[:, 0]
        doubtful = doubtful[torch.argsort(self.events.amplitudes[doubtful], stable=True)]
        cells = self._cells(self.events.select(doubtful))
        rank = torch.arange(1, len(doubtful) + 1, dtype=torch.float64, device=cells.device)
        turn = torch.zeros_like(self.best, dtype=torch.float64)
        turn.view(-1).scatter_reduce_(0, cells, rank, "amax")  # rank of the largest doubtful event; 0 if there is none
        precedence = torch.where(turn > 0, self.best.max() + turn, self.best.double())
        unit, time_bin = _winners(precedence, self.rivals)
        if len(unit) == 0:
            return False
        won = torch.zeros_like(self.best, dtype=torch.bool)
        won[unit, time_bin] = True
        beside = (self.near[unit] * self.num_bins + time_bin[:, None])[self.is_near[unit]]
        self.turns.view(-1).index_add_(0, beside, self.turns.new_ones(len(beside)))
        largest = doubtful[(turn.view(-1)[cells] == rank) & won.view(-1)[cells]]
        is_new = turn[unit, time_bin] == 0
        moved = self._maximise(largest)
        taken = self._take(unit[is_new], self.when[unit[is_new], time_bin[is_new]])
        self._explain_away(moved.and_also(taken))
        return True

    def doubt_all(self) -> None:
        """Have every event maximised once more."""
        self.in_doubt[:] = True

    def found(self) -> Events:
        """Return the events, at samples of the scores."""
        return self.events

    def _maximise(self, which: Tensor) -> Events:
        """Maximise some events while all others are held, and drop those that gain nothing.

        Returns the changes: events that have changed as they were, of negative amplitude, and as they are.
        """
        old = self.events.select(which)
        first = old.units * self.num_samples + old.times  # in the flattened μ
        without = self.mu.view(-1)[first[:, None] + self.around]
        without += old.amplitudes[:, None] * self.own[old.shifts, old.units]
        score = without.unfold(1, len(self.taps), 1) @ self.kernels.T  # E×steps×J
        # Another event of the unit may come as far towards this one in the same round. So an event moves by a step only
        # if at twice the step it would keep the separation from others. The event itself is not one of them.
        others = self.occupied.view(-1)[first[:, None] + 2 * self.steps]
        others = others - (2 * self.steps.abs() < self.separation).byte()
        score.masked_fill_(((others > 0) & (self.steps != 0))[:, :, None], -math.inf)
        score, place = score.flatten(1).max(dim=1)
        of_event = self.prior.select(old.units)
        amplitude = map_amplitudes(score, of_event)
        amplitude = amplitude * (map_gain(score, amplitude, of_event) > 0)
        step = place.div(len(self.kernels), rounding_mode="floor") - REACH
        new = Events(old.times + step, old.units, amplitude, place % len(self.kernels))

        has_moved = (step != 0) | (new.shifts != old.shifts)
        has_changed = has_moved | ((new.amplitudes - old.amplitudes).abs() > NEGLIGIBLE_CHANGE) | (amplitude == 0)
        self.in_doubt[which] = False
        old, new, which = old.select(has_changed), new.select(has_changed), which[has_changed]
        for events, sign in ((old, -1), (new.select(new.amplitudes > 0), 1)):
            self._occupy(events, sign)
        self.events = Events(*(x.index_put((which,), y) for x, y in zip(self.events, new, strict=True)))
        alive = self.events.amplitudes > 0
        self.events, self.in_doubt = self.events.select(alive), self.in_doubt[alive]
        return old._replace(amplitudes=-old.amplitudes).and_also(new)

    def _take(self, unit: Tensor, time: Tensor) -> Events:
        """Take new events, and doubt events of rivals beside them, and them if there are such; return the new ones."""
        first = unit * self.num_samples + time
        score, shift = (self.mu.view(-1)[first[:, None] + self.taps] @ self.kernels.T).max(dim=1)  # E×J
        taken = Events(time, unit, map_amplitudes(score, self.prior.select(unit)), shift)
        self.blocked.view(-1)[first[:, None] + self.apart] = True
        self._occupy(taken, 1)

        cells = self._cells(self.events)
        counts = torch.bincount(cells, minlength=self.best.numel())
        beside = self.rivals[unit][:, :, None] * self.num_bins + (time // self.width)[:, None, None] + self.beside
        touched = torch.zeros_like(counts, dtype=torch.bool)
        touched[beside] = True
        self.in_doubt = torch.cat([self.in_doubt | touched[cells], counts[beside].flatten(1).any(dim=1)])
        self.events = self.events.and_also(taken)
        return taken

    def _explain_away(self, changes: Events) -> None:
        """Subtract from the scores what events add to them, and look for the best new events there again."""
        time, unit, amplitude, shift = changes
        changed = torch.zeros_like(self.best, dtype=torch.bool)
        samples = (self.near[unit] * self.num_samples + time[:, None])[:, :, None] + self.lags  # E×P×(2D-1)
        explained = amplitude[:, None, None] * self.bank[shift[:, None], self.pairs[unit]]
        self.mu.view(-1).index_add_(0, samples.flatten(), explained.flatten(), alpha=-1)
        changed[self.near[unit][:, :, None], (time // self.width)[:, None, None] + self.beside] = True
        self._look(changed)

    def _look(self, which: Tensor) -> None:
        """Find the best new event in the cells that are marked in which, shape (K, bins)."""
        self.best[which] = 0
        cells = torch.nonzero((which & (self.turns < MOST_TURNS)).flatten())[:, 0]
        in_cells = self.mu.view(-1, self.width).index_select(0, cells)
        may_gain = in_cells.amax(dim=1) > self.least[cells // self.num_bins]  # in few cells
        cells, in_cells = cells[may_gain], in_cells[may_gain]
        score, offset = in_cells.masked_fill(self.blocked.view(-1, self.width)[cells], 0).max(dim=1)
        of_cells = self.prior.select(cells // self.num_bins)
        self.best.view(-1)[cells] = map_gain(score, map_amplitudes(score, of_cells), of_cells)
        self.when.view(-1)[cells] = offset + cells % self.num_bins * self.width

    def _occupy(self, events: Events, sign: int) -> None:
        """Count events (sign 1) in `occupied`, or no longer (sign -1)."""
        samples = (events.units * self.num_samples + events.times)[:, None] + self.apart
        self.occupied.view(-1).index_add_(0, samples.flatten(), self.occupied.new_full((samples.numel(),), sign))

    def _cells(self, events: Events) -> Tensor:
        """Return the cell of each event, from 0 to K · bins - 1."""
        return events.units * self.num_bins + events.times // self.width


def _rivals(near: Tensor, correlations: Tensor) -> Tensor:
    """Return `rivals` of `PreparedTemplates`, given `near` and the correlations of the same pairs, (K, P, 2 D - 1)."""
    overlap = correlations.abs().amax(dim=2) > NEGLIGIBLE_CORRELATION  # K×P
    overlap, order = overlap.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    own = torch.arange(len(near), device=near.device)[:, None]
    return torch.where(overlap.bool(), near.gather(1, order), own)[:, : int(overlap.sum(dim=1).max())]


def _winners(best: Tensor, rivals: Tensor) -> tuple[Tensor, Tensor]:
    """Return units and bins of the cells that come before those of their rivals in the same and neighbouring bins.

    The larger of `best`, shape (K, bins), comes first; zero stands for none. Of equals the earlier bin comes first, and
    in one bin the lower unit.
    """
    unit, time_bin = torch.nonzero(best > 0, as_tuple=True)
    gain, rival = best[unit, time_bin][:, None], rivals[unit]  # E×P
    before, beside, after = (best[rival, (time_bin + step)[:, None]] for step in (-1, 0, 1))
    beaten = (before >= gain) | (beside > gain) | ((beside == gain) & (rival < unit[:, None])) | (after > gain)
    won = ~beaten.any(dim=1)
    return unit[won], time_bin[won]
