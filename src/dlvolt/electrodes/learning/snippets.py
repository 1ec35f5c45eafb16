"""The snippets of a residual at events, summed and projected in one compiled pass."""

from __future__ import annotations

import numpy as np

from dlvolt.deconvolution.loops import compiled_for_sums


@compiled_for_sums
def sum_snippets(
    left_over: np.ndarray,
    times: np.ndarray,
    units: np.ndarray,
    shifts: np.ndarray,
    weights: np.ndarray,
    channels: np.ndarray,
    profiles: np.ndarray,
    most: float,
    sums: np.ndarray,
    features: np.ndarray,
) -> None:
    """Add up the weighted snippets of each unit and sub-sample shift, and project each snippet on temporal profiles.

    Parameters
    ----------
    left_over : np.ndarray, shape (N, T)
        Residual.
    times, units, shifts : np.ndarray, shape (E,)
        First sample, unit and sub-sample shift of each snippet.
    weights : np.ndarray, shape (E,)
        Weights of the snippets. Changed in place: a snippet whose mean square is above the bound has its weight
        multiplied by bound over mean square.
    channels : np.ndarray, shape (K, C)
        Channels of the snippets of each unit.
    profiles : np.ndarray, shape (J, B, D)
        Temporal profiles for each shift.
    most : float
        The bound of mean squares.
    sums : np.ndarray, shape (J, K, C, D)
        The weighted snippets are added to these.
    features : np.ndarray, shape (E, C, B)
        Overwritten by the projections.
    """
    nothing, width = left_over.dtype.type(0), profiles.shape[2]
    for event in range(len(times)):
        of_unit, start = channels[units[event]], times[event]
        square = nothing
        for place in range(len(of_unit)):
            snippet = left_over[of_unit[place], start : start + width]
            for sample in range(width):
                square += snippet[sample] * snippet[sample]
            for index in range(profiles.shape[1]):
                profile, projection = profiles[shifts[event], index], nothing
                for sample in range(width):
                    projection += snippet[sample] * profile[sample]
                features[event, place, index] = projection
        if square > most * len(of_unit) * width:
            weights[event] *= most * len(of_unit) * width / square
        for place in range(len(of_unit)):
            snippet = left_over[of_unit[place], start : start + width]
            total, weight = sums[shifts[event], units[event], place], weights[event]
            for sample in range(width):
                total[sample] += weight * snippet[sample]
