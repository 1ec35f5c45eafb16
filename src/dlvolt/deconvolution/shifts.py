"""Sub-sample shifts: spikes do not wait for the sampling clock."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

NUM_SHIFTS = 15  # J, sub-sample positions within one sample; odd, so that "no shift" is one of them
HALF_WIDTH = 8  # taps of the interpolation kernel on either side
AT_ONCE = 32  # signals that are shifted together: so few stay in the cache


def fractions() -> Tensor:
    """Return the shifts δ_j in samples, evenly spaced in (-½, ½), shape (J,)."""
    return (torch.arange(NUM_SHIFTS) - (NUM_SHIFTS - 1) / 2) / NUM_SHIFTS


def interpolation_kernels(like: Tensor) -> Tensor:
    """Return Hann-windowed sinc kernels h with Σ_s h_j[s] x[t + s] ≈ x(t + δ_j), shape (J, 2·HALF_WIDTH + 1)."""
    delta = fractions().to(like)[:, None]
    taps = torch.arange(-HALF_WIDTH, HALF_WIDTH + 1, device=like.device)
    window = torch.cos(torch.pi * (taps - delta) / (2 * (HALF_WIDTH + 1))).square()
    return torch.sinc(taps - delta) * window


def shift_bank(signals: Tensor) -> Tensor:
    """Return every signal delayed by every sub-sample shift.

    Parameters
    ----------
    signals : Tensor, shape (..., D)
        Templates, correlations or anything else sampled in time; outside of their D samples they are taken for zero.

    Returns
    -------
    Tensor, shape (J, ..., D)
        x(d − δ_j).
    """
    kernels = interpolation_kernels(signals).flip(0)  # for x(d - δ_j), as -δ_j = δ_{J-1-j}
    flat = pad(signals.reshape(-1, signals.shape[-1]), (HALF_WIDTH, HALF_WIDTH))
    bank = signals.new_empty(len(kernels), len(flat), signals.shape[-1])
    for some, delayed in zip(flat.split(AT_ONCE), bank.split(AT_ONCE, dim=1), strict=True):
        windows = some.unfold(1, signals.shape[-1], 1).transpose(0, 1).flatten(1)  # taps×(signals·D)
        delayed.copy_((kernels @ windows).unflatten(1, delayed.shape[1:]))
    return bank.view(len(kernels), *signals.shape)
