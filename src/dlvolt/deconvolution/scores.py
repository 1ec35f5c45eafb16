"""Scores: the correlation of a residual with every template."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from . import loops
from .templates import LowRankTemplates, compose

# So many pieces of a residual of N channels are transformed at a time, to stay in the cache: OF_CHANNELS / N, but at
# least PIECES.
PIECES, OF_CHANNELS = 8, 256


class Spectra(NamedTuple):
    """Conjugate spectra of templates, one for each of Q pairs of a unit and a channel that sees it."""

    starts: Tensor  # K+1; the pairs of unit k are ``starts[k]`` to ``starts[k + 1] - 1``
    channels: Tensor  # Q
    spectrum: Tensor  # Q×F, complex


def dense_scores(residual: Tensor, templates: Tensor) -> Tensor:
    """Return the scores μ_k = R ⋆ W_k by convolutions with full templates.

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
    spectra: Spectra | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Return the scores μ_k = R ⋆ W_k by overlap-save: products of spectra, summed over the channels that see a unit.

    Parameters
    ----------
    residual : Tensor, shape (N, T)
        Recording less all other units.
    templates : LowRankTemplates
        K templates of D samples; channels where a footprint is zero cost nothing.
    padding : int
        Number of zeros that the residual is taken to have at either end; at most D.
    spectra : Spectra, optional
        ``template_spectra(templates)``, to compute them once for many residuals.
    out : Tensor, shape (K, T - D + 1 + 2 padding), optional
        Where to put the scores.

    Returns
    -------
    Tensor, shape (K, T - D + 1 + 2 padding)
        The same as `dense_scores` at a fraction of the cost, which does not depend on the rank.
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
        products = _products(torch.fft.rfft(some), spectra)  # K×pieces×F
        of_some[:] = torch.fft.irfft(products, n=length)[:, :, :hop].flatten(1)[:, : of_some.shape[1]]
    return out


def _products(pieces: Tensor, spectra: Spectra) -> Tensor:
    """Return Σ_n X_n conj(W_kn), shape (K, pieces, F), given the spectra X of pieces of a residual, (N, pieces, F)."""
    starts, channels, spectrum = spectra
    if loops.runs_in_loops(pieces.device):
        products = pieces.new_empty(len(starts) - 1, *pieces.shape[1:])
        loops.sum_products(*(x.numpy() for x in (pieces, starts, channels, spectrum, products)))
        return products
    units = torch.arange(len(starts) - 1, device=starts.device).repeat_interleave(starts.diff())
    products = pieces.new_zeros(len(starts) - 1, *pieces.shape[1:])
    return products.index_add_(0, units, pieces[channels] * spectrum[:, None])


def _between(residual: Tensor, start: int, end: int) -> Tensor:
    """Return the samples of a residual from start to end, and zeros for those that lie outside of it."""
    inside = residual[:, max(start, 0) : end]
    beyond = (max(-start, 0), max(end - residual.shape[1], 0))
    return pad(inside, beyond) if any(beyond) else inside


def template_spectra(templates: LowRankTemplates) -> Spectra:
    """Return the conjugate Fourier transforms of templates, channel by channel."""
    length = _fft_length(templates.temporal.shape[2])
    units, channels = torch.nonzero(templates.support, as_tuple=True)
    spectrum = torch.fft.rfft(compose(templates)[units, channels], n=length).conj().resolve_conj()
    starts = torch.searchsorted(units, torch.arange(len(templates.spatial) + 1, device=units.device))
    return Spectra(starts, channels, spectrum)


def _fft_length(width: int) -> int:
    """Return the length of transforms: a power of two, at least eight template widths, so that little overlaps."""
    return 2 ** math.ceil(math.log2(8 * width))
