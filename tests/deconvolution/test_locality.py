import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.deconvolution import local_columns, neighbours
from dlvolt.deconvolution.locality import blocks, padded, pairs

SEEDS = st.integers(0, 2**32 - 1)


def random_uses(seed, num_rows, num_columns):
    """A mask in which each row uses at least one column."""
    rng = np.random.default_rng(seed)
    uses = rng.random((num_rows, num_columns)) < rng.uniform(0, 0.5)
    uses[range(num_rows), rng.integers(num_columns, size=num_rows)] = True
    return torch.from_numpy(uses)


@given(seed=SEEDS, num_rows=st.integers(1, 12), num_columns=st.integers(1, 12))
def test_neighbours_share_a_column(seed, num_rows, num_columns):
    uses = random_uses(seed, num_rows, num_columns)
    near = neighbours(uses)
    expected = [[j for j in range(num_rows) if (uses[i] & uses[j]).any()] for i in range(num_rows)]
    assert [row.tolist() for row in near] == expected
    table, pairs = padded(near)
    most, total = max(map(len, expected)), sum(map(len, expected))
    assert table.tolist() == [row + [i] * (most - len(row)) for i, row in enumerate(expected)]
    number = itertools.count()
    assert pairs.tolist() == [[next(number) for _ in row] + [total] * (most - len(row)) for row in expected]


@given(seed=SEEDS, num_rows=st.integers(1, 12), num_columns=st.integers(1, 12), size=st.integers(1, 5))
def test_blocks_hold_each_row_once_with_its_columns(seed, num_rows, num_columns, size):
    uses = random_uses(seed, num_rows, num_columns)
    found = blocks(uses, size)
    assert sorted(torch.cat([rows for rows, _ in found]).tolist()) == list(range(num_rows))
    assert all(len(rows) == size for rows, _ in found[:-1])
    for rows, columns in found:
        assert columns.tolist() == torch.nonzero(uses[rows].any(dim=0))[:, 0].tolist()


def test_blocks_grow_with_the_neighbourhood_only():
    """On a line, whatever the order of its rows, a block uses little more columns than it has rows."""
    place = torch.from_numpy(np.random.default_rng(0).permutation(200))
    uses = (place[:, None] - torch.arange(200)).abs() <= 3
    assert max(len(columns) for _, columns in blocks(uses, 16)) <= 16 + 2 * 3 + 2


@given(seed=SEEDS, num_rows=st.integers(1, 8), num_columns=st.integers(1, 8), at_least=st.integers(1, 8))
def test_local_columns(seed, num_rows, num_columns, at_least):
    uses = random_uses(seed, num_rows, num_columns)
    columns, is_used = local_columns(uses, at_least)
    assert columns.shape[1] == max(int(uses.sum(dim=1).max()), min(at_least, num_columns))
    for row, own, used in zip(uses, columns, is_used, strict=True):
        assert own[used].tolist() == torch.nonzero(row)[:, 0].tolist()
        assert len(own.unique()) == len(own)
        assert torch.equal(row[own], used)


@given(seed=SEEDS, num_times=st.integers(0, 12))
def test_pairs(seed, num_times):
    rng = np.random.default_rng(seed)
    times = torch.from_numpy(np.sort(rng.integers(0, 30, size=num_times)))
    ends = torch.searchsorted(times, times + 5)
    firsts = torch.from_numpy(np.flatnonzero(rng.random(num_times) < 0.7))
    expected = [(i, j) for i in firsts.tolist() for j in range(i + 1, num_times) if times[j] - times[i] < 5]
    assert list(zip(*(x.tolist() for x in pairs(ends, firsts)), strict=True)) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_what_comes_from_a_device_stays_there():
    uses = torch.eye(3, dtype=torch.bool, device="cuda")
    assert {x.device for x in (*neighbours(uses), *padded(neighbours(uses)))} == {uses.device}
    assert {x.device for block in blocks(uses, 2) for x in block} == {uses.device}
