"""Large spikes leave echoes, what the model lacks of them, and small units may live on these."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvolt.deconvolution import Events
from dlvolt.deconvolution.locality import pairs

from .units import support

SHADOW = 2.0  # a unit so much larger than another may leave echoes that pass for it


def casts_shadow(waveforms: Tensor) -> Tensor:
    """Return which unit (row) is so much larger than another beside it that it may leave echoes, shape (K, K), bool."""
    amplitudes, seen = waveforms.flatten(1).norm(dim=1), support(waveforms).float()
    return (amplitudes[:, None] > SHADOW * amplitudes) & (seen @ seen.T > 0)


def shadows_of(events: Events, casts: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return which events have one near that casts a shadow on them, (E,), and how often which unit does, (K, K)."""
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
