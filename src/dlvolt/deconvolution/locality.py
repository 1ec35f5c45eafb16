"""Units are local: work that is done only for units that share channels grows with their number, not its square."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def neighbours(uses: Tensor) -> list[Tensor]:
    """Return for each row the rows that have a column in common with it, ascending, itself among them.

    Parameters
    ----------
    uses : Tensor, shape (K, N), bool
        Which rows use which columns, as units use channels.
    """
    shared = _shared(uses.cpu().numpy())
    near = torch.from_numpy(shared.indices.astype("int64")).to(uses.device)
    return list(near.split(np.diff(shared.indptr).tolist()))


def padded(near: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return `neighbours` as a table, and the numbers of the pairs of a row and its neighbour, both of shape (K, P).

    Rows that have fewer than P neighbours are filled up with the row itself. The Q pairs are numbered row by row; where
    the table is filled up, the number is Q.
    """
    table = pad_sequence(near, batch_first=True, padding_value=-1)
    is_pair = table >= 0
    numbers = is_pair.flatten().cumsum(dim=0).view_as(table) - 1
    own = torch.arange(len(near), device=table.device)[:, None]
    return torch.where(is_pair, table, own), torch.where(is_pair, numbers, is_pair.sum())


def blocks(uses: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """Return the rows of each block and the columns that any of them uses, given a mask of shape (K, N).

    Blocks are of `size` rows, but the last one may have fewer, and are chosen so that each uses few columns.
    """
    on_cpu = uses.cpu().numpy()
    order = reverse_cuthill_mckee(_shared(on_cpu), symmetric_mode=True).astype("int64")  # puts neighbours close
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
        Smallest C, if there are so many columns.

    Returns
    -------
    columns : Tensor, shape (K, C), int64
        Columns that the row uses, ascending, then others. C is the largest number that any row uses.
    is_used : Tensor, shape (K, C), bool
        Whether the row uses the column.
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
