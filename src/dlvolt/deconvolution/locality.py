"""Units are local: what is done for those that share channels only grows with their number, not its square."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor


def neighbours(uses: Tensor) -> Tensor:
    """Return for each row the rows that have a column in common with it.

    Parameters
    ----------
    uses : Tensor, shape (K, N), bool
        Which rows use which columns, as units use channels.

    Returns
    -------
    Tensor, shape (K, P), int64
        Ascending; itself among them, and itself again where there are fewer than P.
    """
    shared = _shared(uses.cpu().numpy())
    own = np.arange(len(uses))
    counts = np.diff(shared.indptr)
    near = np.repeat(own[:, None], counts.max(), axis=1)
    near[np.arange(counts.max()) < counts[:, None]] = shared.indices
    return torch.from_numpy(near).to(uses.device)


def blocks(uses: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Group rows that have columns in common.

    Parameters
    ----------
    uses : Tensor, shape (K, N), bool
        Which rows use which columns.
    size : int
        Rows of a block, less in the last.

    Returns
    -------
    list of (Tensor, Tensor)
        Rows of each block and the columns they use.
    """
    on_cpu = uses.cpu().numpy()
    order = reverse_cuthill_mckee(_shared(on_cpu), symmetric_mode=True).astype("int64")  # neighbours stay close
    return [
        (
            torch.from_numpy(rows).to(uses.device),
            torch.from_numpy(on_cpu[rows].any(axis=0).nonzero()[0]).to(uses.device),
        )
        for rows in np.split(order, range(size, len(order), size))
    ]


def local_columns(uses: Tensor, at_least: int = 1) -> tuple[Tensor, Tensor]:
    """Return the columns that each row uses.

    Parameters
    ----------
    uses : Tensor, shape (K, N), bool
        Which rows use which columns.
    at_least : int
        Smallest C, where there are so many columns.

    Returns
    -------
    columns : Tensor, shape (K, C), int64
        Those that the row uses, ascending, then others; C is the largest number that a row uses.
    is_used : Tensor, shape (K, C), bool
        Whether the row uses them.
    """
    most = max(int(uses.sum(dim=1).max()), at_least)
    is_used, columns = uses.to(torch.uint8).sort(dim=1, descending=True, stable=True)
    return columns[:, :most], is_used[:, :most].bool()


def pairs(ends: Tensor, firsts: Tensor) -> tuple[Tensor, Tensor]:
    """Return all pairs (i, j) with i among `firsts` and i < j < ends[i], both of shape (pairs,)."""
    counts = ends[firsts] - firsts - 1
    first = torch.repeat_interleave(firsts, counts)
    position = torch.arange(len(first), device=ends.device) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return first, first + 1 + position


def _shared(uses: np.ndarray) -> csr_array:
    """Return how many columns two rows share, K×K, sparse."""
    sparse = csr_array(uses.astype("int32"))
    shared = csr_array(sparse @ sparse.T)
    shared.sort_indices()
    return shared
