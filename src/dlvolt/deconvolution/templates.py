"""Low-rank unit-norm templates and their update."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .events import Events
from .locality import local_columns


class LowRankTemplates(NamedTuple):
    """Templates W_k = Σ_r s_r u_r v_rᵀ with Σ_r s_r² = 1.

    A footprint is exactly zero on the channels that do not see the unit.

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

    @property
    def support(self) -> Tensor:
        """Which channels see which unit, shape (K, N), bool."""
        return self.spatial.any(dim=2)

    def select(self, units: Tensor) -> LowRankTemplates:
        """Return the templates of some units."""
        return LowRankTemplates(*(part[units] for part in self))

    def to(self, *args: Any) -> LowRankTemplates:
        """Return the templates on another device or in another dtype, as ``Tensor.to``."""
        return LowRankTemplates(*(part.to(*args) for part in self))


def compose(templates: LowRankTemplates) -> Tensor:
    """Return the full matrices W_k = U_k S_k V_kᵀ, shape (K, N, D)."""
    spatial, singular_values, temporal = templates
    return spatial @ (singular_values[:, :, None] * temporal)


def low_rank(matrices: Tensor, rank: int) -> LowRankTemplates:
    """Return the rank-R, unit-norm matrices W_k that maximise ⟨M_k, W_k⟩.

    They are the truncated SVDs of M_k with renormalised singular values, s̄_r = s_r / √(Σ s_r²). Rows of zeros stay
    zero and cost nothing.

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
        If a matrix is zero, for which all unit-norm templates are equally good.
    """
    rows, is_used = local_columns(matrices.any(dim=2), at_least=rank)  # K×C
    if not is_used.any(dim=1).all():
        raise ValueError("matrices: each must have a non-zero entry; leave out units without events")
    local = matrices.gather(1, rows[:, :, None].expand(-1, -1, matrices.shape[2]))
    footprints, singular_values, temporal = torch.linalg.svd(local, full_matrices=False)
    footprints = footprints[:, :, :rank] * is_used[:, :, None]  # components of weight zero may be anywhere
    spatial = footprints.new_zeros(*matrices.shape[:2], footprints.shape[2])
    spatial.scatter_(1, rows[:, :, None].expand_as(footprints), footprints)
    singular_values = singular_values[:, :rank]
    singular_values = singular_values / singular_values.norm(dim=1, keepdim=True)
    return LowRankTemplates(spatial, singular_values, temporal[:, :rank])


def event_slices(recording: Tensor, times: Tensor, num_template_samples: int, channels: Tensor | None = None) -> Tensor:
    """Return the slices R_t = R[:, t : t + D] of a recording.

    Parameters
    ----------
    recording : Tensor, shape (N, T)
        Traces.
    times : Tensor, shape (E,), int64
        First samples.
    num_template_samples : int
        D.
    channels : Tensor, shape (E, C), int64, optional
        Channels of each slice; all N if None.

    Returns
    -------
    Tensor, shape (E, C, D) or (E, N, D)
        The slices.
    """
    if channels is None:
        return recording.unfold(1, num_template_samples, 1)[:, times].transpose(0, 1)
    return recording.unfold(1, num_template_samples, 1)[channels, times[:, None]]


def update_templates(residual: Tensor, events: Events, rank: int, num_template_samples: int) -> LowRankTemplates:
    """Return the template of one unit that maximises the log joint while its amplitudes are held.

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
