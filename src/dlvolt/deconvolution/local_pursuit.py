"""The pursuit of `dlvolt.deconvolution.pursue` in compiled loops, which touch only what is near an event.

On a CPU this is several times as fast as tensor operations, which look at all units at all times in each round, and it
hardly holds the interpreter's lock. `dlvolt.deconvolution.pursuit` has the same in tensor operations, for CUDA.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .events import Events
from .loops import compiled, compiled_for_sums

REACH = 2  # samples by which an event may move when it is maximised
NEGLIGIBLE_CHANGE = 0.1  # noise standard deviations; an event whose amplitude alone changes, by less, is left as it is
FEW = 1024  # events for which there is room at first


# Numba's cache on disk refers to the next classes by name, so it fails to load if one is renamed or removed.


class Prior(NamedTuple):
    """`AmplitudePrior` with arrays of shape (K,), and `least_scores`, the scores above which an event gains."""

    rate: float
    noise_variance: float
    event_cost: np.ndarray
    typical: np.ndarray
    precision: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    least: np.ndarray


class Correlations(NamedTuple):
    """The arrays of `PreparedTemplates`, whose correlations are the bank here, and the `interpolation_kernels`."""

    near: np.ndarray
    pairs: np.ndarray
    rivals: np.ndarray
    bank: np.ndarray
    own: np.ndarray
    kernels: np.ndarray


class EventTable(NamedTuple):
    """Events, those of each cell chained: `following` has the index of the next event of the cell, -1 at the end."""

    times: np.ndarray
    units: np.ndarray
    shifts: np.ndarray
    amplitudes: np.ndarray
    in_doubt: np.ndarray
    following: np.ndarray

    @classmethod
    def room(cls, num_events: int, dtype: np.dtype) -> EventTable:
        """Return a table of zeros with room for so many events."""
        of_each = (np.int64, np.int64, np.int64, dtype, np.bool_, np.int64)
        return cls(*(np.zeros(num_events, each) for each in of_each))

    def select(self, which: np.ndarray | slice) -> EventTable:
        """Return some of the events, copied if they are given by indices or a mask."""
        return EventTable(*(each[which] for each in self))

    def with_room(self, num_events: int) -> EventTable:
        """Return the table with room for so many events, larger than it has to be if it must grow."""
        if num_events <= len(self.times):
            return self
        return EventTable(*(np.concatenate([each, np.zeros(num_events, each.dtype)]) for each in self))


class Scores(NamedTuple):
    """The scores of what is left, shape (K, bins · D), and where events may be. Sample t of the recording is t + D."""

    mu: np.ndarray
    blocked: np.ndarray  # bool, where no new event may be
    occupied: np.ndarray  # 1 where no event may begin, elsewhere the unit's events nearer than the separation


class Cells(NamedTuple):
    """What is known of each cell, shape (bins, K)."""

    touched: np.ndarray  # bins, whether something has changed in this round
    turns: np.ndarray  # turns that the unit and those near it have had
    gains: np.ndarray  # of the best new event,
    samples: np.ndarray  # and where it is
    rescored: np.ndarray  # whether scores have changed since it was looked for
    offers: np.ndarray  # how much the cell offers,
    offered: np.ndarray  # and which event; -1 for a new one
    first: np.ndarray  # index of the first event, where the chain of the cell begins; -1 if there is none


class LocalPursuit:
    """The state of a pursuit: the scores of what is left, the events, and what each cell offers.

    Time is cut into bins of D samples, the first and the last of them empty. A cell is a unit in a bin. It offers its
    largest doubtful event to be maximised or, if it has none, its best new event to be taken. It has its turn when no
    rival offers more in the same bin or the two beside it. All cells that have their turn in a round have it together.
    In a bin, a unit and those that share channels with it have at most `most_turns`, all together.

    The scores `mu` are overwritten. Events may begin at `num_times` samples from D on, and those of one unit lie at
    least `separation` samples apart.
    """

    def __init__(
        self,
        mu: np.ndarray,
        prior: Prior,
        correlations: Correlations,
        num_times: int,
        separation: int,
        most_turns: int,
    ) -> None:
        width = (correlations.bank.shape[2] + 1) // 2
        shape = mu.shape[1] // width, len(mu)  # bins×K
        self.prior, self.correlations, self.width = prior, correlations, width
        self.separation, self.most_turns = separation, most_turns
        blocked = np.ones(mu.shape, dtype=bool)
        blocked[:, width : width + num_times] = False
        self.scores = Scores(mu, blocked, occupied=blocked.astype("int8"))
        self.cells = Cells(
            touched=np.ones(shape[0], dtype=bool),
            turns=np.zeros(shape, dtype="int64"),
            gains=np.zeros(shape, mu.dtype),
            samples=np.zeros(shape, dtype="int64"),
            rescored=np.ones(shape, dtype=bool),
            offers=np.zeros(shape),
            offered=np.full(shape, -1),
            first=np.full(shape, -1),
        )
        self.events, self.num_events = EventTable.room(FEW, mu.dtype), 0
        self.won = np.zeros((mu.size // width, 2), dtype="int64")  # room for the cells (bin, unit) that have their turn

    def next_round(self) -> bool:
        """Give their turn to all cells that come first among their rivals; return whether there were any."""
        cells = self.cells
        look(cells, self.scores, self.prior, self.most_turns)
        offer(cells, self.events, self.most_turns)
        num_won = choose(cells, self.correlations.rivals, self.won)
        cells.touched[:] = False
        if num_won == 0:
            return False
        bins, units = self.won[:num_won].T
        cells.touched[bins] = True
        count_turns(bins, units, self.correlations, cells)
        offered = cells.offered[bins, units]
        moved = self._maximise(offered[offered >= 0])
        taken = self._take(units[offered < 0], cells.samples[bins, units][offered < 0])
        for before, after in (moved, taken):
            explain_away(before, after, cells, self.scores, self.prior, self.correlations)
        return True

    def doubt_all(self) -> None:
        """Have every event maximised once more."""
        self.events.in_doubt[:] = True
        self.cells.touched[:] = True

    def found(self) -> Events:
        """Return the events, at samples of the scores."""
        alive = self.events.select(self.events.amplitudes > 0)
        return Events(*map(torch.from_numpy, (alive.times, alive.units, alive.amplitudes, alive.shifts)))

    def _maximise(self, which: np.ndarray) -> tuple[EventTable, EventTable]:
        """Maximise events while all others are held; return those that change as they were before and are after it.

        All events that have their turn in a round are maximised before any is moved.
        """
        old, new = self.events.select(which), self.events.select(which)
        maximise(new, self.scores, self.prior, self.correlations, self.separation)
        self.events.in_doubt[which] = False
        changed = (new.times != old.times) | (new.shifts != old.shifts) | (new.amplitudes == 0)
        changed |= np.abs(new.amplitudes - old.amplitudes) > NEGLIGIBLE_CHANGE
        which, old, new = which[changed], old.select(changed), new.select(changed)
        move(which, new, self.events, self.cells, self.scores, self.separation)
        self.cells.touched[new.times // self.width] = True
        return old, new

    def _take(self, units: np.ndarray, times: np.ndarray) -> tuple[EventTable, EventTable]:
        """Take new events, and doubt those beside them; return them as `_maximise` does, with amplitude 0 before."""
        new = slice(self.num_events, self.num_events + len(units))
        self.events = self.events.with_room(new.stop)
        self.num_events = new.stop
        self.events.units[new], self.events.times[new] = units, times
        take(new.start, new.stop, self.events, self.cells, self.scores, self.prior, self.correlations, self.separation)
        taken = self.events.select(new)
        return taken._replace(amplitudes=np.zeros_like(taken.amplitudes)), taken


@compiled
def look(cells: Cells, scores: Scores, prior: Prior, most_turns: int) -> None:
    """Find the best new event of each cell whose scores have changed: its gain, 0 if there is none, and its sample."""
    mu, width = scores.mu, scores.mu.shape[1] // len(cells.touched)
    for time_bin in range(len(cells.touched)):
        if cells.touched[time_bin]:
            for unit in range(len(mu)):
                if cells.rescored[time_bin, unit]:
                    cells.rescored[time_bin, unit] = False
                    cells.gains[time_bin, unit] = 0
                    if cells.turns[time_bin, unit] < most_turns:
                        sample = _highest(mu[unit], scores.blocked[unit], time_bin * width, width, prior.least[unit])
                        if sample >= 0:
                            score = np.float64(mu[unit, sample])  # so that _amplitude is compiled for one type
                            cells.gains[time_bin, unit] = _gain(score, _amplitude(score, unit, prior), unit, prior)
                            cells.samples[time_bin, unit] = sample


@compiled
def offer(cells: Cells, events: EventTable, most_turns: int) -> None:
    """Find what the cells in touched bins offer: their largest doubtful event or else their best new one.

    Offers rise with the amplitude of a doubtful event, from 1 to 2, or with the gain of a new one, from 0 to 1. So all
    doubtful events come before all new ones. Events of a cell that has had `most_turns` are no longer doubtful.
    """
    for time_bin in range(len(cells.touched)):
        if cells.touched[time_bin]:
            for unit in range(cells.turns.shape[1]):
                doubtful, event = -1, cells.first[time_bin, unit]
                while event >= 0:
                    events.in_doubt[event] &= cells.turns[time_bin, unit] < most_turns
                    if events.in_doubt[event] and (
                        doubtful < 0 or events.amplitudes[event] > events.amplitudes[doubtful]
                    ):
                        doubtful = event
                    event = events.following[event]
                cells.offered[time_bin, unit] = doubtful
                if doubtful >= 0:
                    amplitude = events.amplitudes[doubtful]
                    cells.offers[time_bin, unit] = 1 + amplitude / (1 + amplitude)
                else:
                    gain = max(cells.gains[time_bin, unit], 0)
                    cells.offers[time_bin, unit] = gain / (1 + gain)


@compiled
def choose(cells: Cells, rivals: np.ndarray, won: np.ndarray) -> int:
    """Find the cells (bin, unit) that come first among their rivals; return how many there are.

    It is enough to look in touched bins and beside them: elsewhere no cell came first before, and nothing has changed.
    """
    num_won, touched, offers = 0, cells.touched, cells.offers
    for time_bin in range(1, len(touched) - 1):
        if touched[time_bin - 1] or touched[time_bin] or touched[time_bin + 1]:
            for unit in range(offers.shape[1]):
                if offers[time_bin, unit] > 0 and _comes_first(offers, rivals, time_bin, unit):
                    won[num_won, 0], won[num_won, 1] = time_bin, unit
                    num_won += 1
    return num_won


@compiled
def count_turns(bins: np.ndarray, units: np.ndarray, correlations: Correlations, cells: Cells) -> None:
    """Count the turns of cells for all units near the units of these cells."""
    no_pair = correlations.bank.shape[1] - 1
    for index in range(len(bins)):
        for place in range(correlations.near.shape[1]):
            if correlations.pairs[units[index], place] == no_pair:
                break
            cells.turns[bins[index], correlations.near[units[index], place]] += 1


@compiled
def maximise(events: EventTable, scores: Scores, prior: Prior, correlations: Correlations, separation: int) -> None:
    """Give each event the time, shift and amplitude at which it gains most, all others held; 0 if it gains nothing.

    Another event of the unit may come as far towards this one in the same round. So an event moves by a step only if at
    twice the step it would keep the separation from others.
    """
    mu, kernels, own = scores.mu, correlations.kernels, correlations.own
    half_width = kernels.shape[1] // 2
    without = np.empty(own.shape[2], mu.dtype)
    for index in range(len(events.times)):
        time, unit, shift = events.times[index], events.units[index], events.shifts[index]
        for sample in range(len(without)):
            without[sample] = mu[unit, time - REACH - half_width + sample]
            without[sample] += events.amplitudes[index] * own[shift, unit, sample]
        best = -np.inf
        for step in range(-REACH, REACH + 1):
            others = scores.occupied[unit, time + 2 * step] - (2 * abs(step) < separation)  # less the event itself
            if step == 0 or others <= 0:
                score, where = _best_shift(without, step + REACH + half_width, kernels)
                if score > best:
                    best, events.times[index], events.shifts[index] = score, time + step, where
        amplitude = _amplitude(best, unit, prior)
        events.amplitudes[index] = amplitude if _gain(best, amplitude, unit, prior) > 0 else 0


@compiled
def move(which: np.ndarray, new: EventTable, events: EventTable, cells: Cells, scores: Scores, separation: int) -> None:
    """Put new events in the place of old ones, and take those of amplitude 0 out of the chains of their cells."""
    occupied, first, width = scores.occupied, cells.first, scores.mu.shape[1] // len(cells.touched)
    for index in range(len(which)):
        event, unit, time = which[index], new.units[index], new.times[index]
        _occupy(occupied, unit, events.times[event], separation, -1)
        _unlink(event, first, events, events.times[event] // width, unit)
        events.times[event], events.shifts[event] = time, new.shifts[index]
        events.amplitudes[event] = new.amplitudes[index]
        if events.amplitudes[event] > 0:
            _occupy(occupied, unit, time, separation, 1)
            events.following[event] = first[time // width, unit]
            first[time // width, unit] = event


@compiled
def take(
    start: int,
    stop: int,
    events: EventTable,
    cells: Cells,
    scores: Scores,
    prior: Prior,
    correlations: Correlations,
    separation: int,
) -> None:
    """Give new events their shift and amplitude; doubt events of rivals beside them, and them if there are such."""
    first, width = cells.first, scores.mu.shape[1] // len(cells.touched)
    for new in range(start, stop):
        time, unit = events.times[new], events.units[new]
        score, events.shifts[new] = _best_shift(scores.mu[unit], time, correlations.kernels)
        events.amplitudes[new] = _amplitude(score, unit, prior)
        for sample in range(time - separation + 1, time + separation):
            scores.blocked[unit, sample] = True
        _occupy(scores.occupied, unit, time, separation, 1)
        time_bin = time // width
        for rival in correlations.rivals[unit]:
            for beside in range(time_bin - 1, time_bin + 2):
                event = first[beside, rival]
                while event >= 0:
                    events.in_doubt[event], events.in_doubt[new], cells.touched[beside] = True, True, True
                    event = events.following[event]
        events.following[new] = first[time_bin, unit]
        first[time_bin, unit] = new


@compiled
def explain_away(
    before: EventTable, after: EventTable, cells: Cells, scores: Scores, prior: Prior, correlations: Correlations
) -> None:
    """Subtract what events add to the scores of units near theirs after a change, and put back what they added before.

    An event that stays at its time changes the same scores twice, which is done in one step; one that moves changes
    those about its new time, then those about its old one. Cells in which a new event gained before or gains now are
    marked, to be looked at again. Most cells are not.
    """
    mu, near, pairs, bank = scores.mu, correlations.near, correlations.pairs, correlations.bank
    no_pair, width, nothing = bank.shape[1] - 1, (bank.shape[2] + 1) // 2, mu.dtype.type(0)
    for index in range(len(after.times)):
        unit, time = after.units[index], after.times[index]
        has_moved = before.times[index] != time
        for place in range(near.shape[1]):
            pair, other = pairs[unit, place], near[unit, place]
            if pair == no_pair:
                break
            old, new = bank[before.shifts[index], pair], bank[after.shifts[index], pair]
            for step in range(1 + has_moved):
                middle = before.times[index] if step else time
                added = nothing if step else after.amplitudes[index]
                removed = before.amplitudes[index] if step == has_moved else nothing
                for time_bin in range(middle // width - 1, middle // width + 2):
                    start, stop = max(time_bin * width, middle - width + 1), min((time_bin + 1) * width, middle + width)
                    lags = slice(start - middle + width - 1, stop - middle + width - 1)
                    highest = _subtract(added, new[lags], removed, old[lags], mu[other, start:stop])
                    if highest > prior.least[other] or cells.gains[time_bin, other] > 0:
                        cells.rescored[time_bin, other] = cells.touched[time_bin] = True


@compiled
def _amplitude(score: float, unit: int, prior: Prior) -> float:
    """Return the amplitude that maximises the log joint, see `map_amplitudes`."""
    precision = prior.noise_variance * prior.precision[unit]
    amplitude = (score - prior.noise_variance * prior.rate + precision * prior.typical[unit]) / (1 + precision)
    if amplitude <= 0 or amplitude < prior.minimum[unit]:
        return 0.0
    return min(amplitude, prior.maximum[unit])


@compiled
def _gain(score: float, amplitude: float, unit: int, prior: Prior) -> float:
    """Return by how much an event raises the log joint, see `map_gain`."""
    difference = amplitude - prior.typical[unit]
    quadratic = amplitude * (score - amplitude / 2) / prior.noise_variance
    return (
        quadratic
        - prior.rate * amplitude
        - prior.precision[unit] * difference * difference / 2
        - prior.event_cost[unit]
    )


@compiled
def _highest(mu: np.ndarray, blocked: np.ndarray, start: int, width: int, least: float) -> int:
    """Return the sample with the highest score above the least that is not blocked, or -1 if there is none."""
    if _maximum(mu, start, width) <= least:  # in most cells
        return -1
    best, place = least, -1
    for sample in range(start, start + width):
        if mu[sample] > best and not blocked[sample]:
            best, place = mu[sample], sample
    return place


@compiled_for_sums
def _maximum(values: np.ndarray, start: int, width: int) -> float:
    """Return the largest of some values, faster than ``max``, as comparisons are reordered."""
    largest = values[start]
    for sample in range(start, start + width):
        largest = max(largest, values[sample])
    return largest


@compiled
def _comes_first(offers: np.ndarray, rivals: np.ndarray, time_bin: int, unit: int) -> bool:
    """Return whether a cell comes before its rivals in the same bin and those beside it; of equals, the first does."""
    own = offers[time_bin, unit]
    for index in range(rivals.shape[1]):
        rival = rivals[unit, index]
        if offers[time_bin - 1, rival] >= own or offers[time_bin + 1, rival] > own:
            return False
        beside = offers[time_bin, rival]
        if beside > own or (beside == own and rival < unit):
            return False
    return True


@compiled
def _best_shift(mu: np.ndarray, time: int, kernels: np.ndarray) -> tuple[float, int]:
    """Return the highest score at the sub-sample shifts of a time, by interpolation, and its shift."""
    half_width = kernels.shape[1] // 2
    best, best_shift = -np.inf, 0
    for shift in range(len(kernels)):
        score = 0.0
        for tap in range(kernels.shape[1]):
            score += kernels[shift, tap] * mu[time - half_width + tap]
        if score > best:
            best, best_shift = score, shift
    return best, best_shift


@compiled
def _occupy(occupied: np.ndarray, unit: int, time: int, separation: int, sign: int) -> None:
    """Count an event in `occupied` (sign 1), or no longer (sign -1)."""
    for sample in range(time - separation + 1, time + separation):
        occupied[unit, sample] += sign


@compiled
def _unlink(event: int, first: np.ndarray, events: EventTable, time_bin: int, unit: int) -> None:
    """Take an event out of the chain of its cell."""
    before = first[time_bin, unit]
    if before == event:
        first[time_bin, unit] = events.following[event]
        return
    while events.following[before] != event:
        before = events.following[before]
    events.following[before] = events.following[event]


@compiled_for_sums
def _subtract(added: float, new: np.ndarray, removed: float, old: np.ndarray, scores: np.ndarray) -> float:
    """Add `removed` times the old correlation to scores, subtract `added` times the new one; return the highest."""
    highest = scores.dtype.type(-np.inf)
    for lag in range(len(scores)):
        score = scores[lag] + removed * old[lag] - added * new[lag]
        scores[lag], highest = score, max(highest, score)
    return highest
