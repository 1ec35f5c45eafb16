"""Compiled loops, which are several times as fast on a CPU as tensor operations; compiled code is cached on disk."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

compiled = njit(cache=True, nogil=True, error_model="numpy")
compiled_for_sums = njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})  # adds several samples at once


def runs_in_loops(device: torch.device) -> bool:
    """Return whether compiled loops are faster on a device than tensor operations."""
    return device.type == "cpu"


@compiled
def sum_products(
    pieces: np.ndarray, starts: np.ndarray, channels: np.ndarray, spectrum: np.ndarray, products: np.ndarray
) -> None:
    """Multiply spectra of pieces of a residual by those of templates, and sum over the channels that see each unit.

    Parameters
    ----------
    pieces : np.ndarray, shape (N, pieces, F), complex
        Spectrum of each piece on each channel.
    starts, channels, spectrum : np.ndarray, shapes (K + 1,), (Q,) and (Q, F)
        See `Spectra`.
    products : np.ndarray, shape (K, pieces, F), complex
        Overwritten by the sums.
    """
    for unit in range(len(starts) - 1):
        for piece in range(pieces.shape[1]):
            product = products[unit, piece]
            product[:] = 0
            for pair in range(starts[unit], starts[unit + 1]):
                seen, template = pieces[channels[pair], piece], spectrum[pair]
                for frequency in range(len(product)):
                    product[frequency] += seen[frequency] * template[frequency]


@compiled_for_sums
def add_events(
    recording: np.ndarray,
    times: np.ndarray,
    units: np.ndarray,
    amplitudes: np.ndarray,
    shifts: np.ndarray,
    spatial: np.ndarray,
    profiles: np.ndarray,
) -> None:
    """Add what events look like to a recording.

    Parameters
    ----------
    recording : np.ndarray, shape (N, T)
        Traces; changed in place.
    times, units, amplitudes, shifts : np.ndarray, shape (E,)
        Events.
    spatial : np.ndarray, shape (K, N, R)
        Footprints.
    profiles : np.ndarray, shape (J, K, R, D)
        Temporal components at every sub-sample shift, times their singular values.
    """
    width = profiles.shape[3]
    for event in range(len(times)):
        unit, start = units[event], times[event]
        of_event = profiles[shifts[event], unit]
        for channel in range(recording.shape[0]):
            footprint, seen = spatial[unit, channel], recording[channel, start : start + width]
            for component in range(len(footprint)):
                factor = amplitudes[event] * footprint[component]
                if factor != 0:
                    for sample in range(width):
                        seen[sample] += factor * of_event[component, sample]
