"""Scores: the correlation of a residual with every template."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import conv1d, pad

from .locality import blocks
from .templates import LowRankTemplates

NO_COMPONENT = 1e-4  # of a template's norm: smaller singular values are rounding errors of zero
BLOCK = 16  # units whose channels are projected together


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


def scores(residual: Tensor, templates: LowRankTemplates, padding: int = 0, out: Tensor | None = None) -> Tensor:
    """Return μ_k = (U_kᵀ R) ⋆ (S_k V_kᵀ): project in space, then correlate in time.

    Parameters
    ----------
    residual : Tensor, shape (N, T)
        Recording less all other units.
    templates : LowRankTemplates
        K templates of rank R and D samples; channels where a footprint is zero cost nothing.
    padding : int
        Zeros that the residual is taken to have at either end; at most D.
    out : Tensor, shape (K, T - D + 1 + 2 padding), optional
        Where to put the scores.

    Returns
    -------
    Tensor, shape (K, T - D + 1 + 2 padding)
        The same as `dense_scores`, for R (N + D) instead of N·D products a sample, N counting the channels of a
        block of units.
    """
    spatial, singular_values, temporal = templates
    num_units, num_channels, _ = spatial.shape
    profiles = singular_values[:, :, None] * temporal  # K×R×D
    if out is None:
        out = residual.new_empty(num_units, residual.shape[1] - temporal.shape[2] + 1 + 2 * padding)
    for units, channels in blocks(templates.support, BLOCK):
        rank = int((singular_values[units] > NO_COMPONENT).any(dim=0).sum())  # of the block
        footprints = spatial[units, :, :rank][:, channels].permute(2, 0, 1).flatten(0, 1)  # R·B×C
        projected = footprints @ (residual if len(channels) == num_channels else residual.index_select(0, channels))
        taps = profiles[units, :rank].transpose(0, 1).reshape(len(projected), 1, -1)  # R·B×1×D
        projected = pad(projected, (padding, padding))  # conv1d would be slow with padding of its own
        correlated = conv1d(projected[None], taps, groups=len(projected))[0]
        out[units] = correlated.view(rank, len(units), -1).sum(dim=0)
    return out
