"""Shadows: events of small units beside those of much larger ones.

The model never explains a large spike to the last bit, and a small unit may take what it leaves, the echo, for an event
of its own. An event of a small unit that is near one of a much larger unit is said to be in the shadow of the latter.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlvolt.deconvolution import Events
from dlvolt.deconvolution.locality import pairs

from .units import support

SHADOW = 2.0  # a unit casts a shadow on others whose norm is smaller by this factor


def casts_shadow(waveforms: Tensor) -> Tensor:
    """Return which unit (row) casts a shadow on which other (column), shape (K, K), bool.

    It is much larger, and the two have a channel in common.

    Parameters
    ----------
    waveforms : Tensor, shape (K, N, D)
        In noise standard deviations.
    """
    amplitudes, seen = waveforms.flatten(1).norm(dim=1), support(waveforms).float()
    return (amplitudes[:, None] > SHADOW * amplitudes) & (seen @ seen.T > 0)


def shadows_of(events: Events, casts: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return which events are in a shadow, and how often.

    Parameters
    ----------
    events : Events
        E events, in any order.
    casts : Tensor, shape (K, K), bool
        As `casts_shadow` returns it.
    width : int
        D; events less than half of it apart are near each other.

    Returns
    -------
    in_shadow : Tensor, shape (E,), bool
        Whether an event of a unit that casts a shadow on this one's unit is near.
    counts : Tensor, shape (K, K)
        How many pairs there are of an event of a unit (row) and one near it that casts a shadow on it (column).
    """
    order = torch.argsort(events.times, stable=True)
    times, units = events.times[order], events.units[order]
    first, second = pairs(torch.searchsorted(times, times + width // 2), torch.arange(len(times)))
    large, small = torch.cat([first, second]), torch.cat([second, first])
    darkens = casts[units[large], units[small]]
    large, small = large[darkens], small[darkens]
    in_shadow = torch.zeros(len(times), dtype=torch.bool)
    in_shadow[order[small]] = True
    counts = torch.zeros_like(casts, dtype=torch.long)
    return in_shadow, counts.index_put((units[small], units[large]), torch.ones_like(small), accumulate=True)
