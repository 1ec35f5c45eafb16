"""Low-rank unit-norm templates and their update."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .model import Events


class LowRankTemplates(NamedTuple):
    """Templates W_k = Σ_r s_r u_r v_rᵀ with Σ_r s_r² = 1.

    Attributes
    ----------
    spatial : Tensor, shape (K, N, R)
        Footprints u, orthonormal columns.
    singular_values : Tensor, shape (K, R)
        s, descending, of unit norm.
    temporal : Tensor, shape (K, R, D)
        Profiles v, orthonormal rows.
    """

    spatial: Tensor
    singular_values: Tensor
    temporal: Tensor

    def select(self, units: Tensor) -> LowRankTemplates:
        """Return the templates of some units."""
        return LowRankTemplates(*(part[units] for part in self))

    def to(self, *args: object) -> LowRankTemplates:
        """Return the templates on another device or in another dtype, as ``Tensor.to``."""
        return LowRankTemplates(*(part.to(*args) for part in self))


def compose(templates: LowRankTemplates) -> Tensor:
    """Return the full matrices W_k = U_k S_k V_kᵀ, shape (K, N, D)."""
    spatial, singular_values, temporal = templates
    return spatial @ (singular_values[:, :, None] * temporal)


def low_rank(matrices: Tensor, rank: int) -> LowRankTemplates:
    """Return the rank-R, unit-norm matrices W_k that maximise ⟨M_k, W_k⟩.

    The truncated SVD of M_k with its singular values renormalised: s̄_r = s_r / √(Σ s_r²).

    Parameters
    ----------
    matrices : Tensor, shape (K, N, D)
        M, not all zero for any unit.
    rank : int
        R; at most min(N, D) components are kept.

    Returns
    -------
    LowRankTemplates
        K templates.

    Raises
    ------
    ValueError
        If a matrix is zero: no unit-norm template points its way.
    """
    if not torch.all(matrices.flatten(1).any(dim=1)):
        raise ValueError("matrices: each must have a non-zero entry; leave out units without events")
    spatial, singular_values, temporal = torch.linalg.svd(matrices, full_matrices=False)
    singular_values = singular_values[:, :rank]
    singular_values = singular_values / singular_values.norm(dim=1, keepdim=True)
    return LowRankTemplates(spatial[:, :, :rank], singular_values, temporal[:, :rank])


def event_slices(recording: Tensor, times: Tensor, num_template_samples: int) -> Tensor:
    """Return the slices R_t = R[:, t : t + D] of a recording, shape (E, N, D)."""
    return recording.unfold(1, num_template_samples, 1)[:, times].transpose(0, 1)


def update_templates(residual: Tensor, events: Events, rank: int, num_template_samples: int) -> LowRankTemplates:
    """Return the template of one unit that maximises the log joint, its amplitudes held.

    Parameters
    ----------
    residual : Tensor, shape (N, T)
        Recording less all other units.
    events : Events
        The events of the unit, at least one, at least D samples apart.
    rank : int
        R.
    num_template_samples : int
        D.

    Returns
    -------
    LowRankTemplates
        K = 1 template: the rank-R SVD of Σ_t a[t] R[:, t : t + D], renormalised.
    """
    slices = event_slices(residual, events.times, num_template_samples)  # E×N×D
    return low_rank(torch.tensordot(events.amplitudes, slices, dims=1)[None], rank)
