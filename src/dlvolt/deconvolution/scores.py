"""Scores: the correlation of a residual with every template."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from .locality import blocks
from .templates import LowRankTemplates, compose

BLOCK = 8  # units that are correlated with the channels of all of them
PIECES, OF_CHANNELS = 8, 256  # of a residual, or of single channels: so many at a time stay in the cache


class Spectra(NamedTuple):
    """Conjugate spectra of some templates.

    Attributes
    ----------
    units : Tensor, shape (B,)
        Which templates.
    channels : Tensor, shape (C,)
        Channels that any of them uses.
    spectrum : Tensor, shape (F, B, C), complex
        Of each frequency.
    """

    units: Tensor
    channels: Tensor
    spectrum: Tensor


def dense_scores(residual: Tensor, templates: Tensor) -> Tensor:
    """Return μ_k = R ⋆ W_k, channel by channel.

    Parameters
    ----------
    residual : Tensor, shape (N, T)
        Recording less all other units.
    templates : Tensor, shape (K, N, D)
        Template of each unit.

    Returns
    -------
    Tensor, shape (K, T - D + 1)
        Σ_n Σ_d r[n, t + d] w[k, n, d].
    """
    return conv1d(residual[None], templates)[0]


def scores(
    residual: Tensor,
    templates: LowRankTemplates,
    padding: int = 0,
    spectra: list[Spectra] | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return μ_k = R ⋆ W_k, by overlap-save: products of spectra, a matrix product for each frequency.

    Parameters
    ----------
    residual : Tensor, shape (N, T)
        Recording less all other units.
    templates : LowRankTemplates
        K templates of D samples; channels where a footprint is zero cost nothing.
    padding : int
        Zeros that the residual is taken to have at either end; at most D.
    spectra : list of Spectra, optional
        ``template_spectra(templates)``, to compute it once for many residuals.
    out : Tensor, shape (K, T - D + 1 + 2 padding), optional
        Where to put the scores.

    Returns
    -------
    Tensor, shape (K, T - D + 1 + 2 padding)
        The same as `dense_scores`, whatever the rank, at a fraction of the cost.
    """
    width = templates.temporal.shape[2]
    num_scores = residual.shape[1] + 2 * padding - width + 1
    if out is None:
        out = residual.new_empty(len(templates.spatial), num_scores)
    length = _fft_length(width)
    hop = length - width + 1
    spectra = template_spectra(templates) if spectra is None else spectra
    at_once = max(PIECES, OF_CHANNELS // len(residual)) * hop
    for start in range(0, num_scores, at_once):
        of_some = out[:, start : start + at_once]
        end = start + math.ceil(of_some.shape[1] / hop) * hop + width - 1
        some = _between(residual, start - padding, end - padding).unfold(1, length, hop)  # N×pieces×length
        pieces = torch.fft.rfft(some).permute(2, 0, 1).contiguous()  # F×N×pieces
        for units, channels, spectrum in spectra:
            local = pieces if len(channels) == len(residual) else pieces.index_select(1, channels)
            products = (spectrum @ local).permute(1, 2, 0)  # B×pieces×F
            correlated = torch.fft.irfft(products, n=length)[:, :, :hop].flatten(1)
            of_some[units] = correlated[:, : of_some.shape[1]]
    return out


def _between(residual: Tensor, start: int, end: int) -> Tensor:
    """Return a residual from start to end, with zeros where these lie outside it."""
    inside = residual[:, max(start, 0) : end]
    beyond = (max(-start, 0), max(end - residual.shape[1], 0))
    return pad(inside, beyond) if any(beyond) else inside


def template_spectra(templates: LowRankTemplates) -> list[Spectra]:
    """Return the conjugate Fourier transforms of templates, in blocks of units that share channels."""
    length, full = _fft_length(templates.temporal.shape[2]), compose(templates)
    return [
        Spectra(
            units, channels, torch.fft.rfft(full[units][:, channels], n=length).conj().permute(2, 0, 1).contiguous()
        )
        for units, channels in blocks(templates.support, BLOCK)
    ]


def _fft_length(width: int) -> int:
    """Return the power of two from eight widths on, which few samples of overlap are lost to."""
    return 2 ** math.ceil(math.log2(8 * width))
