"""The pursuit on the CPU: the rounds of `pursue`, walked event by event in compiled loops.

Events are local. A new or changed event changes the scores of the units that share channels with it, less than a
template around it; so only these are looked at again, and only there another event may have its turn. The loops
touch nothing else, and let go of the interpreter lock.

Notation as in `dlvolt.deconvolution`: μ scores, K units, D samples of a template, J sub-sample shifts; a *cell* is a
unit in a bin of D samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

REACH = 2  # samples that an event may move when those beside it are known
NEGLIGIBLE_CHANGE = 0.01  # noise standard deviations: amplitudes that change less are left as they are
NONE = -1  # no event

compiled = njit(cache=True, nogil=True)


class Model(NamedTuple):
    """The units.

    Attributes
    ----------
    bank : np.ndarray, shape (J, Q + 1, 2 D - 1)
        Correlations of pairs of units, see `PreparedTemplates`.
    own : np.ndarray, shape (J, K, 2 (REACH + half) + 1)
        Those of each unit with itself.
    kernels : np.ndarray, shape (J, 2 half + 1)
        Interpolation between samples.
    near, rivals : np.ndarray, shape (K, P)
        Units that share channels with a unit, and those of them that compete with it for an event.
    num_near, num_rivals : np.ndarray, shape (K,)
        How many of these there are.
    first : np.ndarray, shape (K,)
        Row of the bank in which a unit's pairs begin.
    least : np.ndarray, shape (K,)
        Scores above which an event gains.
    rate, cost, typical, precision, minimum, maximum, variance : np.ndarray, shape (K,)
        The `AmplitudePrior`.
    separation : int
        Events of one unit lie at least so many samples apart.
    most_turns : int
        In one bin, of all units near one.
    """

    bank: np.ndarray
    own: np.ndarray
    kernels: np.ndarray
    near: np.ndarray
    rivals: np.ndarray
    num_near: np.ndarray
    num_rivals: np.ndarray
    first: np.ndarray
    least: np.ndarray
    rate: np.ndarray
    cost: np.ndarray
    typical: np.ndarray
    precision: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    variance: np.ndarray
    separation: int
    most_turns: int


class Cells(NamedTuple):
    """What is known of each cell and each sample of a unit.

    Attributes
    ----------
    mu : np.ndarray, shape (K, bins · D)
        Scores of what is left.
    blocked : np.ndarray, shape (K, bins · D), bool
        Where no new event may be.
    occupied : np.ndarray, shape (K, bins · D), int8
        Events of the unit that are less than the separation away.
    best, when : np.ndarray, shape (K, bins)
        What the best new event gains, and its sample.
    doubtful, doubt : np.ndarray, shape (K, bins)
        The largest event in doubt, which is to be maximised once more, and its amplitude; NONE and 0 without.
    head : np.ndarray, shape (K, bins)
        The first event of the cell.
    turns : np.ndarray, shape (K, bins)
        How many turns units near one have had.
    """

    mu: np.ndarray
    blocked: np.ndarray
    occupied: np.ndarray
    best: np.ndarray
    when: np.ndarray
    doubtful: np.ndarray
    doubt: np.ndarray
    head: np.ndarray
    turns: np.ndarray


class Found(NamedTuple):
    """Events, in the order in which they were found; those of amplitude 0 are none. `following` chains a cell's."""

    times: np.ndarray
    units: np.ndarray
    amplitudes: np.ndarray
    shifts: np.ndarray
    in_doubt: np.ndarray
    following: np.ndarray


@compiled
def pursue_locally(mu: np.ndarray, blocked: np.ndarray, model: Model) -> Found:
    """Return the events; `mu` becomes the scores of what is left, both arrays are changed in place."""
    num_units, width = len(mu), (model.bank.shape[2] + 1) // 2
    shape = (num_units, mu.shape[1] // width)
    cells = Cells(
        mu,
        blocked,
        blocked.astype(np.int8),
        np.zeros(shape),
        np.zeros(shape, np.int64),
        np.full(shape, NONE),
        np.zeros(shape),
        np.full(shape, NONE),
        np.zeros(shape, np.int64),
    )
    found, num_found = _room(1024), 0
    dirty = np.ones(shape[1], np.bool_)  # bins in which something has changed
    for unit in range(num_units):
        for time_bin in range(shape[1]):
            _look(cells, model, unit, time_bin, width)
    for is_final in (False, True):
        if is_final:  # every event is maximised once more
            found.in_doubt[:num_found] = found.amplitudes[:num_found] > 0
            for unit in range(num_units):
                for time_bin in range(shape[1]):
                    _doubt(cells, found, unit, time_bin)
            dirty[:] = True
        while True:
            units, bins = _winners(cells, model, dirty)
            if len(units) == 0:
                break
            while num_found + len(units) > len(found.times):
                found = _more_room(found)
            num_found = _have_turns(cells, found, model, units, bins, num_found, width, dirty)
    return found


@compiled
def _have_turns(
    cells: Cells,
    found: Found,
    model: Model,
    units: np.ndarray,
    bins: np.ndarray,
    num_found: int,
    width: int,
    dirty: np.ndarray,
) -> int:
    """Maximise the events in doubt of the cells that won, take new ones in the others, and explain the changes away.

    All see the scores as they were before this round. Returns how many events there are now.
    """
    dirty[:] = False
    events = np.empty(len(units), np.int64)
    for turn in range(len(units)):
        unit, time_bin = units[turn], bins[turn]
        events[turn] = cells.doubtful[unit, time_bin]
        dirty[time_bin] = True
        for index in range(model.num_near[unit]):
            cells.turns[model.near[unit, index], time_bin] += 1
    # time, unit, shift and amplitude of what is to be subtracted
    most, num_changes = 2 * len(units), 0
    time, owner, shift = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    amplitude = np.empty(most)
    for turn in range(len(units)):
        event = events[turn]
        if event == NONE:
            continue
        unit = units[turn]
        old = found.times[event], found.shifts[event], found.amplitudes[event]
        if _maximise(cells, found, model, event, width, dirty):
            new = found.times[event], found.shifts[event], found.amplitudes[event]
            time[num_changes], shift[num_changes], amplitude[num_changes] = old[0], old[1], -old[2]
            time[num_changes + 1], shift[num_changes + 1], amplitude[num_changes + 1] = new
            owner[num_changes : num_changes + 2] = unit
            num_changes += 2
    num_old = num_found
    for turn in range(len(units)):
        if events[turn] == NONE:
            _take(cells, found, model, units[turn], bins[turn], num_found)
            time[num_changes], shift[num_changes] = found.times[num_found], found.shifts[num_found]
            amplitude[num_changes], owner[num_changes] = found.amplitudes[num_found], units[turn]
            num_changes += 1
            num_found += 1
    for event in range(num_old, num_found):
        _cast_doubt(cells, found, model, event, num_old, width, dirty)
    for event in range(num_old, num_found):
        _enter(cells, found, event, width)
    for change in range(num_changes):
        _explain_away(cells, model, owner[change], time[change], amplitude[change], shift[change], width)
    for change in range(num_changes):
        middle = time[change] // width
        for index in range(model.num_near[owner[change]]):
            for time_bin in range(middle - 1, middle + 2):
                _look(cells, model, model.near[owner[change], index], time_bin, width)
        dirty[middle - 1 : middle + 2] = True
    return num_found


@compiled
def _winners(cells: Cells, model: Model, dirty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return units and bins where no rival comes first in the same or a neighbouring bin; of equals the first wins.

    Events in doubt come before new ones, the largest first. Only where something has changed may there be another
    winner: in changed bins, and beside them.
    """
    units, bins = [0][:0], [0][:0]
    last = cells.best.shape[1] - 1
    for time_bin in range(1, last):
        if not (dirty[time_bin - 1] or dirty[time_bin] or dirty[time_bin + 1]):
            continue
        for unit in range(len(cells.best)):
            if cells.turns[unit, time_bin] >= model.most_turns:
                continue
            doubt, best = cells.doubt[unit, time_bin], cells.best[unit, time_bin]
            if doubt <= 0 and best <= 0:
                continue
            has_won = True
            for index in range(model.num_rivals[unit]):
                rival = model.rivals[unit, index]
                for beside in range(time_bin - 1, time_bin + 2):
                    if (rival == unit and beside == time_bin) or cells.turns[rival, beside] >= model.most_turns:
                        continue
                    theirs = cells.doubt[rival, beside]
                    lead = doubt - theirs
                    if doubt <= 0 and theirs <= 0:
                        theirs = cells.best[rival, beside]
                        lead = best - theirs
                    first_of_equals = beside > time_bin or (beside == time_bin and rival > unit)
                    if theirs > 0 and (lead < 0 or (lead == 0 and not first_of_equals)):
                        has_won = False
                        break
                if not has_won:
                    break
            if has_won:
                units.append(unit)
                bins.append(time_bin)
    return np.array(units), np.array(bins)


@compiled
def _maximise(cells: Cells, found: Found, model: Model, event: int, width: int, dirty: np.ndarray) -> bool:
    """Maximise an event, all others held; it goes if it gains nothing. Return whether it changed."""
    unit, old, num_shifts = found.units[event], found.times[event], len(model.kernels)
    half = model.kernels.shape[1] // 2
    without = np.empty(2 * (REACH + half) + 1, cells.mu.dtype)
    for index in range(len(without)):
        here = cells.mu[unit, old - REACH - half + index]
        without[index] = here + found.amplitudes[event] * model.own[found.shifts[event], unit, index]
    highest, step, shift = -np.inf, 0, 0
    for move in range(-REACH, REACH + 1):
        # Another event of the unit may come as near in the same round, so either keeps away twice as far.
        others = cells.occupied[unit, old + 2 * move] - (1 if abs(2 * move) < model.separation else 0)
        if others > 0 and move != 0:
            continue
        for candidate in range(num_shifts):
            score = 0.0
            for tap in range(2 * half + 1):
                score += model.kernels[candidate, tap] * without[move + REACH + tap]
            if score > highest:
                highest, step, shift = score, move, candidate
    amplitude = _amplitude(model, unit, highest)
    if _gain(model, unit, highest, amplitude) <= 0:
        amplitude = 0.0
    change = abs(amplitude - found.amplitudes[event])
    found.in_doubt[event] = False
    has_changed = step != 0 or shift != found.shifts[event] or change > NEGLIGIBLE_CHANGE or amplitude == 0
    if has_changed:
        _leave(cells, found, event, width)
        cells.occupied[unit, old - model.separation + 1 : old + model.separation] -= 1
        found.times[event], found.shifts[event], found.amplitudes[event] = old + step, shift, amplitude
        if amplitude > 0:
            new = old + step
            cells.occupied[unit, new - model.separation + 1 : new + model.separation] += 1
            _enter(cells, found, event, width)
            dirty[new // width] = True
    _doubt(cells, found, unit, old // width)
    return has_changed


@compiled
def _take(cells: Cells, found: Found, model: Model, unit: int, time_bin: int, event: int) -> None:
    """Take the best new event of a cell, at the sub-sample shift that scores highest."""
    time, half = cells.when[unit, time_bin], model.kernels.shape[1] // 2
    highest = -np.inf
    for candidate in range(len(model.kernels)):
        score = 0.0
        for tap in range(2 * half + 1):
            score += model.kernels[candidate, tap] * cells.mu[unit, time - half + tap]
        if score > highest:
            highest, found.shifts[event] = score, candidate
    found.times[event], found.units[event] = time, unit
    found.amplitudes[event] = _amplitude(model, unit, highest)
    around = slice(time - model.separation + 1, time + model.separation)
    cells.blocked[unit, around] = True
    cells.occupied[unit, around] += 1


@compiled
def _cast_doubt(
    cells: Cells, found: Found, model: Model, event: int, num_old: int, width: int, dirty: np.ndarray
) -> None:
    """Doubt the older events beside a new one, and the new one, if there are any."""
    unit, middle = found.units[event], found.times[event] // width
    for index in range(model.num_rivals[unit]):
        rival = model.rivals[unit, index]
        for time_bin in range(middle - 1, middle + 2):
            other = cells.head[rival, time_bin]
            if other == NONE:
                continue
            found.in_doubt[event] = True
            while other != NONE:
                found.in_doubt[other] = True
                other = found.following[other]
            _doubt(cells, found, rival, time_bin)
            dirty[time_bin] = True


@compiled
def _explain_away(cells: Cells, model: Model, unit: int, time: int, amplitude: float, shift: int, width: int) -> None:
    """Subtract what an event adds to the scores of the units near its own."""
    if amplitude == 0:
        return
    size = cells.mu.dtype.type(amplitude)
    for index in range(model.num_near[unit]):
        of_unit = cells.mu[model.near[unit, index], time - width + 1 : time + width]
        explained = model.bank[shift, model.first[unit] + index]
        for lag in range(2 * width - 1):
            of_unit[lag] -= size * explained[lag]


@compiled
def _look(cells: Cells, model: Model, unit: int, time_bin: int, width: int) -> None:
    """Find the best new event of a cell."""
    cells.best[unit, time_bin] = 0
    if cells.turns[unit, time_bin] >= model.most_turns:
        return
    highest, where = model.least[unit], NONE
    for sample in range(time_bin * width, (time_bin + 1) * width):
        if cells.mu[unit, sample] > highest and not cells.blocked[unit, sample]:
            highest, where = cells.mu[unit, sample], sample
    if where != NONE:
        cells.best[unit, time_bin] = _gain(model, unit, highest, _amplitude(model, unit, highest))
        cells.when[unit, time_bin] = where


@compiled
def _doubt(cells: Cells, found: Found, unit: int, time_bin: int) -> None:
    """Find the largest event in doubt of a cell."""
    cells.doubt[unit, time_bin], cells.doubtful[unit, time_bin] = 0.0, NONE
    event = cells.head[unit, time_bin]
    while event != NONE:
        if found.in_doubt[event] and found.amplitudes[event] > cells.doubt[unit, time_bin]:
            cells.doubt[unit, time_bin], cells.doubtful[unit, time_bin] = found.amplitudes[event], event
        event = found.following[event]


@compiled
def _enter(cells: Cells, found: Found, event: int, width: int) -> None:
    """Add an event to those of its cell."""
    unit, time_bin = found.units[event], found.times[event] // width
    found.following[event] = cells.head[unit, time_bin]
    cells.head[unit, time_bin] = event
    _doubt(cells, found, unit, time_bin)


@compiled
def _leave(cells: Cells, found: Found, event: int, width: int) -> None:
    """Take an event out of those of its cell."""
    unit, time_bin = found.units[event], found.times[event] // width
    if cells.head[unit, time_bin] == event:
        cells.head[unit, time_bin] = found.following[event]
        return
    before = cells.head[unit, time_bin]
    while found.following[before] != event:
        before = found.following[before]
    found.following[before] = found.following[event]


@compiled
def _amplitude(model: Model, unit: int, score: float) -> float:
    """Return `map_amplitudes` of one score."""
    variance = model.variance[unit]
    precision = variance * model.precision[unit]
    pull = precision * model.typical[unit]
    amplitude = max(0.0, (score - variance * model.rate[unit] + pull) / (1 + precision))
    return min(amplitude, model.maximum[unit]) if amplitude >= model.minimum[unit] else 0.0


@compiled
def _gain(model: Model, unit: int, score: float, amplitude: float) -> float:
    """Return `map_gain` of one event."""
    atypical = model.precision[unit] * (amplitude - model.typical[unit]) ** 2 / 2
    quadratic = amplitude * (score - amplitude / 2) / model.variance[unit]
    return quadratic - model.rate[unit] * amplitude - atypical - model.cost[unit]


@compiled
def _room(size: int) -> Found:
    return Found(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size),
        np.zeros(size, np.int64),
        np.zeros(size, np.bool_),
        np.full(size, NONE),
    )


@compiled
def _more_room(found: Found) -> Found:
    more, size = _room(2 * len(found.times)), len(found.times)
    more.times[:size], more.units[:size], more.amplitudes[:size] = found.times, found.units, found.amplitudes
    more.shifts[:size], more.in_doubt[:size], more.following[:size] = found.shifts, found.in_doubt, found.following
    return more
