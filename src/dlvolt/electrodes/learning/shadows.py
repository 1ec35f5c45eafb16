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
    """Return which unit (row) casts a shadow on which other (column), (K, K), bool, given their waveforms, (K, N, D).

    It is much larger, and the two have a channel in common.
    """
    amplitudes, seen = waveforms.flatten(1).norm(dim=1), support(waveforms).float()
    return (amplitudes[:, None] > SHADOW * amplitudes) & (seen @ seen.T > 0)


def shadows_of(events: Events, casts: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return which events are in a shadow, shape (E,), bool, and how often, shape (K, K).

    An event is in a shadow if one of a unit that `casts` a shadow on its unit is less than half a template, of `width`
    samples, away. Counted are the pairs of an event of a unit (row) and one that casts a shadow on it (column).
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
