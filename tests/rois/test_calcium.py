"""Recordings of calcium, from fluorescence to units, with the packaged weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import spikeinterface.full as si

import dlvolt
from dlvolt.evaluation import rate_scores
from dlvolt.networks import load
from dlvolt.preprocessing import spike_rate
from dlvolt.simulation import CalciumSettings, simulate_calcium

RATE = 30.0
TYPICAL = CalciumSettings(  # of cortex; brightness alone does not tell one spike from two, so how much it fires counts
    snr=(1, 2), firing_rate_hz=(1, 3), rise_s=(0.02, 0.05), decay_s=(0.4, 0.8), nonlinearity=(1, 1), drift=(0.1, 0.5)
)


@pytest.fixture(scope="module")
def cells():
    """Eight cells of a hundred seconds: traces, spikes per frame, and a recording."""
    traces, spike_times = simulate_calcium(8, 100.0, RATE, settings=TYPICAL, seed=4)
    edges = np.arange(len(traces) + 1) / RATE
    counts = np.transpose([np.histogram(times, edges)[0] for times in spike_times])
    recording = si.NumpyRecording(traces, RATE, channel_ids=list("abcdefgh"))
    recording.annotate(modality="calcium")
    return traces, counts, recording


def run(recording, folder, **parameters):
    return si.run_sorter("dlvolt", recording, folder=folder / "sorted", **parameters)


@pytest.mark.parametrize(
    ("model", "least", "off"), [("calcium+s2s", 0.7, 0.35), ("calcium", 0.6, 0.35), ("s2s", 0.5, 0.6)]
)
def test_rates_follow_the_spikes_and_add_up_to_them(cells, model, least, off):
    _, counts, recording = cells
    rate = spike_rate(recording, model=model, refine="+" in model).get_traces()
    assert rate_scores(counts, rate, bin_samples=3)["correlation"].median() > least
    expected = rate.sum(axis=0) / RATE
    assert abs(np.log(expected.sum() / counts.sum())) < off


@pytest.mark.parametrize("model", ["calcium", "s2s", "calcium+s2s"])
@pytest.mark.parametrize(("frame_rate", "most"), [(7.5, 0.4), (15.0, 0.2), (30.0, 0.2), (100.0, 0.2)])
def test_noise_is_taken_for_a_cell_that_hardly_fires(model, frame_rate, most):
    noise = np.random.default_rng(0).normal(100, 5, (round(100 * frame_rate), 4))
    rate = spike_rate(si.NumpyRecording(noise, frame_rate), model=model).get_traces()
    assert rate.mean() < most


def test_one_unit_for_each_roi_by_annotation_or_model(cells, tmp_path):
    traces, _, recording = cells
    sorting = run(recording, tmp_path)
    assert sorting.unit_ids.tolist() == list("abcdefgh")
    assert sorting.get_annotation("modality") == "calcium"
    assert set(sorting.get_property("model_name")) == {"calcium+s2s"}
    found = sorting.count_num_spikes_per_unit(outputs="array")
    np.testing.assert_allclose(sorting.get_property("firing_rate"), found / 100.0)
    expected = spike_rate(recording).get_traces().sum(axis=0) / RATE
    assert abs(np.log(found.sum() / expected.sum())) < 0.3
    for unit, of_each in zip(sorting.unit_ids, sorting.get_property("spike_event_count"), strict=True):
        assert len(of_each) == len(sorting.get_unit_spike_train(unit))
        assert np.sum(1 / of_each) == pytest.approx(np.round(np.sum(1 / of_each)))  # whole events
    (tmp_path / "by_model").mkdir()
    by_model = run(
        si.NumpyRecording(traces, RATE, channel_ids=list("abcdefgh")), tmp_path / "by_model", model="calcium+s2s"
    )
    for unit in sorting.unit_ids:
        np.testing.assert_array_equal(by_model.get_unit_spike_train(unit), sorting.get_unit_spike_train(unit))


def test_dead_rois_and_gaps(cells, tmp_path):
    damaged = cells[0][:, :4].copy()
    damaged[:, 1], damaged[:, 2], damaged[1000:1300, 3] = 7.0, np.nan, np.nan
    sorting = run(si.NumpyRecording(damaged, RATE), tmp_path, model="calcium")
    assert sorting.get_property("flag").tolist() == ["", "dead", "dead", "gaps"]
    counts = sorting.count_num_spikes_per_unit(outputs="array")
    assert counts[1] == counts[2] == 0 < counts[0]
    train = sorting.get_unit_spike_train(3)
    assert not np.any((train >= 1000) & (train < 1300))


@pytest.mark.parametrize("name", ["calcium", "s2s"])
def test_weights_are_small_and_say_where_they_come_from(name):
    folder = Path(dlvolt.__file__).parent / "weights" / name
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5e6
    config, card = json.loads((folder / "config.json").read_text()), (folder / "MODEL_CARD.md").read_text()
    assert (config["name"], config["architecture"], config["sampling_frequency"]) == (name, name, 100.0)
    assert f"python -m dlvolt.training.calcium {name}" in card
    for source in ("PTRRupprecht/Cascade", "GPL-3", "spikefinder_analysis, no licence"):
        assert source in card
    if name == "s2s":
        assert sum(value.numel() for value in load(name).state().values()) == 8820
