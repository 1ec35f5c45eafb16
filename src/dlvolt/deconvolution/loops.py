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

    `pieces`, shape (N, pieces, F), are the spectra on each channel; the next three are those of `Spectra`; and
    `products`, shape (K, pieces, F), are overwritten by the sums.
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
    """Add what E events look like to a recording, shape (N, T), in place.

    Footprints are of shape (K, N, R), and `profiles`, the temporal components at every sub-sample shift times their
    singular values, of shape (J, K, R, D).
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
