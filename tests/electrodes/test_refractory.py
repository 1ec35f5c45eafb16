import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.electrodes.learning.timing import RefractoryPeriod
from dlvolt.electrodes.refractory import contamination, same_neuron, without_doubles

FS = 30000.0
SPIKES = np.dtype([("sample_index", "int64"), ("cluster_index", "int64"), ("segment_index", "int64")])


def spikes_of(trains, segment=0):
    spikes = np.concatenate(
        [np.array([(t, k, segment) for t in train], dtype=SPIKES) for k, train in enumerate(trains)]
    )
    return np.sort(spikes, order=["segment_index", "sample_index"])


def waveforms(*scales):
    """The same pulse at several sizes, and one on another channel."""
    time = torch.arange(60) - 20.0
    pulse = -torch.exp(-((time / 5) ** 2))
    same = torch.stack([torch.stack([scale * pulse, torch.zeros(60)]) for scale in scales])
    other = torch.stack([torch.zeros(60), 20 * pulse])[None]
    return torch.cat([same, other])


def bursting(rng, seconds=120.0, rate=6.0):
    """A neuron that never fires twice within 3 ms: the first of each burst, and the small ones that follow."""
    first = np.cumsum(rng.integers(int(0.02 * FS), int(2 * FS / rate), size=int(seconds * rate)))
    return first, first + rng.integers(int(0.003 * FS), int(0.01 * FS), size=len(first))


def independent(rng, like):
    return np.sort(rng.integers(0, like.max(), size=len(like)))


@given(
    a=st.lists(st.integers(0, 200), max_size=20), b=st.lists(st.integers(0, 200), max_size=20), low=st.integers(0, 30)
)
def test_pairs_are_counted(a, b, low):
    a, b = np.sort(np.array(a, dtype=int)), np.sort(np.array(b, dtype=int))
    gaps = np.abs(a[:, None] - b[None])
    assert RefractoryPeriod(low, low + 10, 1).pairs(a, b) == np.sum((gaps > low) & (gaps <= low + 10))


def test_a_spike_that_two_units_of_one_neuron_explain_counts_once():
    spikes = np.concatenate(
        [spikes_of([[100, 500, 520], [110]], segment=0), spikes_of([[105, 300], [310, 340]], segment=1)]
    )
    left = without_doubles(spikes, censored=30)
    seen = set(left[["segment_index", "cluster_index", "sample_index"]].tolist())
    assert seen == {(0, 0, 100), (0, 0, 500), (0, 1, 110), (1, 0, 105), (1, 0, 300), (1, 1, 310), (1, 1, 340)}
    assert len(without_doubles(spikes[:0], 30)) == 0


def test_the_parts_of_a_bursting_neuron_are_one_whatever_their_order():
    rng = np.random.default_rng(0)
    first, second = bursting(rng)
    alone = independent(rng, first)
    for trains, sizes in (((first, second, alone), (30, 20)), ((second, first, alone), (20, 30))):
        owner = same_neuron(waveforms(*sizes), spikes_of(trains), FS, [int(first.max())])
        assert owner[0] == owner[1]
        assert owner[2] == 2


@pytest.mark.parametrize("thinned", [1, 40])  # with few spikes, nothing can be told
def test_neurons_that_fire_independently_are_two(thinned):
    rng = np.random.default_rng(1)
    first, second = bursting(rng)
    trains = (first[::thinned], independent(rng, second)[::thinned], first[::thinned] + 1)
    assert same_neuron(waveforms(30, 20), spikes_of(trains), FS, [int(first.max())]).tolist() == [0, 1, 2]


def test_what_looks_different_is_not_merged():
    rng = np.random.default_rng(2)
    first, second = bursting(rng)
    owner = same_neuron(waveforms(30), spikes_of((first, second)), FS, [int(first.max())])
    assert owner.tolist() == [0, 1]


def test_segments_are_apart():
    rng = np.random.default_rng(3)
    first, second = bursting(rng)
    length = int(first.max()) + 1
    one = spikes_of((first, independent(rng, first), []))
    two = spikes_of((independent(rng, first), second, []), segment=1)
    spikes = np.concatenate([one, two])
    assert same_neuron(waveforms(30, 20), spikes, FS, [length, length]).tolist() == [0, 1, 2]


def test_no_units():
    assert len(same_neuron(torch.zeros(0, 2, 60), spikes_of([[]]), FS, [100])) == 0


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_contamination_is_the_share_of_spikes_that_others_fired(share):
    rng, fs, num_samples, refractory = np.random.default_rng(0), 30_000.0, [9_000_000, 9_000_000], 60  # samples, 2 ms
    segments, samples = [], []
    for segment, length in enumerate(num_samples):
        own = np.cumsum(rng.exponential(600, 20_000) + 2 * refractory).astype(int)  # of one neuron
        own = rng.permutation(own[own < length])[: round(10_000 * (1 - share))]
        samples.append(np.concatenate([own, rng.integers(0, length, round(10_000 * share))]))  # and of many
        segments.append(np.full(len(samples[-1]), segment))
    spikes = np.zeros(sum(map(len, samples)), dtype=SPIKES)
    spikes["sample_index"], spikes["segment_index"] = np.concatenate(samples), np.concatenate(segments)
    spikes["cluster_index"] = 1
    found = contamination(spikes, 2, fs, num_samples, refractory_ms=2.0)
    assert found[0] == 0  # it has no spikes
    assert found[1] == pytest.approx(share, abs=0.05)
