"""Waveforms aligned in time, and how alike they then are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from dlvolt.deconvolution import shift_bank
from dlvolt.deconvolution.locality import blocks
from dlvolt.deconvolution.shifts import HALF_WIDTH

AT_ONCE = 32  # units that are aligned with their neighbours at a time; more take more memory


class Alignment(NamedTuple):
    """Inner products and distances of all pairs of units, unit i delayed so that it is most like unit j, all K×K.

    Only samples at which both are known count for the distance: after the delay the two windows no longer overlap at
    their ends.
    """

    products: Tensor  # ⟨W_i(d − lag − δ_shift), W_j(d)⟩, maximised over the lag and the sub-sample shift
    distances: Tensor  # norm of the difference relative to the larger norm of the two
    lags: Tensor  # the maximising lag, in samples,
    shifts: Tensor  # and the index of the sub-sample shift


def alignment(waveforms: Tensor) -> Alignment:
    """Align all waveforms with each other, by up to a sixth of their length either way.

    Parameters
    ----------
    waveforms : Tensor, shape (K, N, D)
        Waveforms of the units.

    Returns
    -------
    Alignment
        ``products``, ``distances``, ``lags`` and ``shifts``, each of shape (K, K). Products are 0 for two units without
        a common channel.
    """
    num_units, _, width = waveforms.shape
    max_lag, uses = width // 6, waveforms.any(dim=2)
    products = waveforms.new_zeros(num_units, num_units)
    lags, shifts = (torch.zeros(num_units, num_units, dtype=torch.long) for _ in range(2))
    for first, channels in blocks(uses, AT_ONCE):
        second = torch.nonzero(uses[:, channels].any(dim=1))[:, 0]
        pair, local = (first[:, None], second), waveforms[:, channels]
        of_pairs = lagged_products(local[first], local[second], max_lag + HALF_WIDTH)
        of_pairs = shift_bank(of_pairs)[..., HALF_WIDTH:-HALF_WIDTH]  # at τ − δ
        products[pair], where = of_pairs.movedim(0, 2).flatten(2).max(dim=2)
        lags[pair] = max_lag - where % (2 * max_lag + 1)
        shifts[pair] = where // (2 * max_lag + 1)

    energies = pad(waveforms.square().sum(dim=1).cumsum(dim=1), (1, 0))  # up to each sample, K×(D+1)
    early, late = lags.clamp(min=0), (-lags).clamp(min=0)  # samples at which only one of the two is known
    units = torch.arange(num_units)
    of_first = energies[units[:, None], width - early] - energies[units[:, None], late]
    of_second = energies[units, width - late] - energies[units, early]
    distances = (of_first + of_second - 2 * products).clamp(min=0).sqrt()
    return Alignment(products, distances / torch.maximum(of_first, of_second).sqrt(), lags, shifts)


def recentred(moved: Tensor, num_before: int) -> Tensor:
    """Return waveforms, shape (K, M, N, D), shifted by whole samples so that their peaks are at sample `num_before`.

    The peak is the largest absolute value in the reference place, the middle one of the M. Zeros fill up the ends.
    """
    width, shifted = moved.shape[3], torch.zeros_like(moved)
    for waveform, into in zip(moved, shifted, strict=True):
        by = num_before - int(waveform[len(waveform) // 2].abs().amax(dim=0).argmax())
        into[..., max(0, by) : width + min(0, by)] = waveform[..., max(0, -by) : width - max(0, by)]
    return shifted


def lagged_products(first: Tensor, second: Tensor, reach: int) -> Tensor:
    """Return ⟨W_i(d + τ), V_j(d)⟩ at lags τ from −reach to reach, (K, K', lags), for W (K, N, D) and V (K', N, D)."""
    length = first.shape[2] + reach
    spectra = [torch.fft.rfft(waveforms, n=length).permute(2, 0, 1) for waveforms in (first, second)]  # F×K×N
    products = torch.fft.irfft((spectra[0] @ spectra[1].mH).permute(1, 2, 0), n=length)
    return products[..., torch.arange(-reach, reach + 1)]
