"""What the pursuit does most, in compiled loops: on a CPU several times as fast as tensor operations.

Each function does in place, or returns, what the tensor form in `pursuit` does. Compilation is cached.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

compiled = njit(cache=True, nogil=True)


def runs_in_loops(device: torch.device) -> bool:
    """Return whether compiled loops are faster on a device than tensor operations."""
    return device.type == "cpu"


@compiled
def sum_products(
    pieces: np.ndarray, starts: np.ndarray, channels: np.ndarray, spectrum: np.ndarray, products: np.ndarray
) -> None:
    """Multiply spectra of pieces of a residual by those of templates, and sum over the channels of each unit.

    Parameters
    ----------
    pieces : np.ndarray, shape (N, pieces, F), complex
        Of each channel and piece.
    starts, channels, spectrum : np.ndarray, shapes (K + 1,), (Q,) and (Q, F)
        See `Spectra`.
    products : np.ndarray, shape (K, pieces, F), complex
        Is overwritten.
    """
    for unit in range(len(starts) - 1):
        for piece in range(pieces.shape[1]):
            product = products[unit, piece]
            product[:] = 0
            for pair in range(starts[unit], starts[unit + 1]):
                seen, template = pieces[channels[pair], piece], spectrum[pair]
                for frequency in range(len(product)):
                    product[frequency] += seen[frequency] * template[frequency]


@compiled
def explain_away(
    mu: np.ndarray,
    bank: np.ndarray,
    near: np.ndarray,
    pairs: np.ndarray,
    times: np.ndarray,
    units: np.ndarray,
    amplitudes: np.ndarray,
    shifts: np.ndarray,
    changed: np.ndarray,
) -> None:
    """Subtract what events add to the scores of the units near their own, and mark the cells in which that is.

    Parameters
    ----------
    mu : np.ndarray, shape (K, bins · D)
        Scores of what is left.
    bank : np.ndarray, shape (J, Q + 1, 2 D - 1)
        Correlations of pairs of units, the last of none, see `PreparedTemplates`.
    near, pairs : np.ndarray, shape (K, P)
        Units near each unit, and the numbers of these pairs; Q where a row is filled up.
    times, units, amplitudes, shifts : np.ndarray, shape (E,)
        Events.
    changed : np.ndarray, shape (K, bins), bool
        Becomes true.
    """
    num_lags, no_pair = bank.shape[2], bank.shape[1] - 1
    width = (num_lags + 1) // 2
    for event in range(len(times)):
        unit, start, middle = units[event], times[event] - width + 1, times[event] // width
        for index in range(near.shape[1]):
            pair = pairs[unit, index]
            if pair == no_pair:
                break
            other, amplitude = near[unit, index], amplitudes[event]
            explained, scores = bank[shifts[event], pair], mu[other, start : start + num_lags]
            for lag in range(num_lags):
                scores[lag] -= amplitude * explained[lag]
            for beside in range(middle - 1, middle + 2):
                changed[other, beside] = True


@compiled
def highest(
    mu: np.ndarray,
    blocked: np.ndarray,
    which: np.ndarray,
    least: np.ndarray,
    where: np.ndarray,
    scores: np.ndarray,
) -> int:
    """Find the highest score in some cells, of samples that are not blocked; return in how many there is one.

    Parameters
    ----------
    mu : np.ndarray, shape (K, bins · D)
        Scores.
    blocked : np.ndarray, shape (K, bins · D), bool
        Where no new event may be.
    which : np.ndarray, shape (K, bins), bool
        Cells to look at.
    least : np.ndarray, shape (K,)
        Only scores above this count.
    where, scores : np.ndarray, shape (K · bins,)
        Samples in the flattened scores, and the scores, are written to the front of these.
    """
    num_units, num_bins = which.shape
    width, num_found = mu.shape[1] // num_bins, 0
    for unit in range(num_units):
        for time_bin in range(num_bins):
            if not which[unit, time_bin]:
                continue
            start = time_bin * width
            in_cell, is_blocked = mu[unit, start : start + width], blocked[unit, start : start + width]
            if _maximum(in_cell) <= least[unit]:  # as in most
                continue
            best, place = least[unit], -1
            for offset in range(width):
                if in_cell[offset] > best and not is_blocked[offset]:
                    best, place = in_cell[offset], offset
            if place >= 0:
                where[num_found], scores[num_found] = unit * mu.shape[1] + start + place, best
                num_found += 1
    return num_found


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})  # so that it runs on several samples at a time
def _maximum(values: np.ndarray) -> float:
    largest = values[0]
    for index in range(1, len(values)):
        largest = max(largest, values[index])
    return largest


@compiled
def winners(precedence: np.ndarray, rivals: np.ndarray, beaten_by: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return units and bins where no rival comes first in the same or a neighbouring bin; of equals the first wins.

    Parameters
    ----------
    precedence : np.ndarray, shape (K, bins)
        What is larger comes first; 0 where there is nothing.
    rivals : np.ndarray, shape (K, P)
        Units that compete with each unit, the first ones of a row different, then filled up.
    beaten_by : np.ndarray, shape (K, bins), int64
        Who came first when the function was called before, 3 · index in the row of rivals + step + 1: probably still
        does, so is asked first.

    Returns
    -------
    units, bins : np.ndarray, shape (E,)
        By unit, then by bin.
    """
    num_units, num_bins = precedence.shape
    units, bins, num_found = np.empty(precedence.size, np.int64), np.empty(precedence.size, np.int64), 0
    for unit in range(num_units):
        for time_bin in range(1, num_bins - 1):
            own = precedence[unit, time_bin]
            if own <= 0:
                continue
            has_won, first = True, beaten_by[unit, time_bin]
            for challenger in range(-1, 3 * rivals.shape[1]):
                code = first if challenger < 0 else challenger
                rival, step = rivals[unit, code // 3], code % 3 - 1
                theirs = precedence[rival, time_bin + step]
                comes_before = step < 0 or (step == 0 and rival < unit)
                if theirs > own or (theirs == own and comes_before):
                    has_won, beaten_by[unit, time_bin] = False, code
                    break
            if has_won:
                units[num_found], bins[num_found] = unit, time_bin
                num_found += 1
    return units[:num_found], bins[:num_found]
