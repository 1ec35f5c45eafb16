"""Scores: the correlation of a residual with every template."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import conv1d

from .templates import LowRankTemplates


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


def scores(residual: Tensor, templates: LowRankTemplates) -> Tensor:
    """Return μ_k = (U_kᵀ R) ⋆ (S_k V_kᵀ): project in space, then correlate in time.

    Parameters
    ----------
    residual : Tensor, shape (N, T)
        Recording less all other units.
    templates : LowRankTemplates
        K templates of rank R and D samples.

    Returns
    -------
    Tensor, shape (K, T - D + 1)
        The same as `dense_scores`, for R (N + D) instead of N·D products a sample.
    """
    spatial, singular_values, temporal = templates
    num_units, num_channels, rank = spatial.shape
    projected = spatial.transpose(1, 2).reshape(num_units * rank, num_channels) @ residual  # K·R×T
    profiles = (singular_values[:, :, None] * temporal).reshape(num_units * rank, 1, -1)  # K·R×1×D
    correlated = conv1d(projected[None], profiles, groups=num_units * rank)[0]  # K·R×(T-D+1)
    return correlated.view(num_units, rank, -1).sum(dim=1)
