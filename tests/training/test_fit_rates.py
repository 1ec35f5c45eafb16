import numpy as np
import pytest

from dlvolt import training
from dlvolt.networks import create
from dlvolt.simulation import CalciumSettings, simulate_calcium
from dlvolt.training.fit import split_by_cell

CLEAR = CalciumSettings(
    snr=(5, 6), firing_rate_hz=(1, 2), rise_s=(0.01, 0.01), decay_s=(0.5, 0.5), nonlinearity=(1, 1), drift=(0.1, 0.2)
)
SMALL = dict(window_samples=1000, overlap_samples=250, prune_samples=100, lr=3e-3)


@pytest.fixture(scope="module")
def cells():
    return simulate_calcium(10, 40.0, 100.0, settings=CLEAR, seed=0)


@pytest.mark.parametrize("architecture", ["s2s", "calcium"])
def test_rates_of_cells_it_has_not_seen(architecture, cells):
    own = dict(num_filters=8) if architecture == "s2s" else dict(base_channels=8, depth=2)
    model = create(architecture, max_epochs=10, **SMALL, **own)
    traces, spike_times = cells
    assert training.fit(model, traces, spike_times, sampling_frequency=100.0, cells=list("aabbcdefgh")) is model
    scores = model.test_scores_
    assert scores["correlation"] > 0.5
    assert scores["auc"] > 0.8
    assert 0.5 < scores["count_ratio"] < 2


def test_labels_are_counted(cells):
    traces, spike_times = cells
    several = [np.repeat(times, 2) for times in spike_times]
    counts = [np.bincount((times * 100).astype(int), minlength=4000) for times in several]
    assert max(map(np.max, counts)) >= 2
    models = [
        training.fit(create("s2s", max_epochs=1, **SMALL), traces, labels, sampling_frequency=100.0)
        for labels in (several, counts)
    ]
    np.testing.assert_array_equal(*(model.predict(traces.T[:, :1000]) for model in models[:2]))
    assert training.targets([[3, 3, 5]], [10], 100.0, counted=True)[0].tolist() == [0, 0, 0, 2, 0, 1, 0, 0, 0, 0]
    assert training.targets([[0.039, 0.031]], [5], 100.0, counted=True)[0].tolist() == [0, 0, 0, 2, 0]
    with pytest.raises(ValueError, match=r"labels\[0\] must be 5 numbers of spikes"):
        training.targets([[0, -1, 0, 0, 0]], [5], 100.0, counted=True)
    with pytest.raises(ValueError, match=r"labels\[0\]: the spike at 7  lies outside the trace"):
        training.targets([[2, 7]], [5], 100.0, counted=True)


def test_all_traces_of_a_cell_are_in_one_part():
    names = ["x", "y", "x", "z", "w", "y", "v", "u", "u", "t"]
    parts = split_by_cell(names, 10, seed=1)
    assert sorted(np.concatenate(parts)) == list(range(10))
    of_parts = [{names[n] for n in part} for part in parts]
    assert all(of_parts)
    assert sum(map(len, of_parts)) == 7
    assert parts != split_by_cell(names, 10, seed=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(cells=["a", "b"]), "cells: 2 traces of 2 cells are named, but there are 10 traces"),
        (dict(cells=["a"] * 10), "cells: 10 traces of 1 cells are named"),
        (dict(labels=[[]] * 10), "labels: there is not a single spike in them"),
        (dict(sampling_frequency=30.0), "the model works at 100 Hz but the traces come at 30 Hz; resample them"),
        (dict(traces=np.zeros((4000, 10))), "traces: trace 0 is constant"),
        (dict(traces=np.zeros((90, 10))), "traces: trace 0 has 90 samples, fewer than a window"),
        (dict(traces=np.full((4000, 10), np.nan)), "traces: trace 0 has samples that are NaN"),
    ],
)
def test_bad_input(cells, change, message):
    traces, spike_times = cells
    given = dict(traces=traces, labels=spike_times, sampling_frequency=100.0) | change
    with pytest.raises(ValueError, match=message):
        training.fit(create("s2s", max_epochs=1, **SMALL), given.pop("traces"), given.pop("labels"), **given)
