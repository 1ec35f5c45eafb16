"""The weights in the package: small, described, and good on neurons they were not trained on."""

import json
from pathlib import Path

import numpy as np
import pytest
import spikeinterface as si
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

import dlvolt
from dlvolt.detection import adaptive_matched_filter
from dlvolt.evaluation import event_scores
from dlvolt.networks import available, load
from dlvolt.simulation import simulate_biophysical
from dlvolt.training.waveforms import read_channels

WEIGHTS = Path(dlvolt.__file__).parent / "weights"


def detect(traces, rate, **settings):
    recording = si.NumpyRecording(traces, rate)
    peaks = detect_peaks(recording, method="dlvolt", method_kwargs=settings, job_kwargs=dict(chunk_duration="10s"))
    spikes = [peaks["sample_index"][peaks["channel_index"] == n] / rate for n in range(traces.shape[1])]
    return spikes, recording.get_property("polarity").tolist()


def f1(true, found):
    return [event_scores(one, other).f1 for one, other in zip(true, found, strict=True)]


def test_weights_of_all_kinds_are_there():
    assert available() == ["calcium", "extracellular", "s2s", "voltage", "waveform_cnn", "waveform_gru"]


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("extracellular", "pretrain"),
        ("voltage", "pretrain"),
        ("waveform_cnn", "waveforms"),
        ("waveform_gru", "waveforms"),
    ],
)
def test_weights_are_small_and_say_how_to_make_them_again(name, script):
    assert sum(file.stat().st_size for file in (WEIGHTS / name).iterdir()) < 2e6
    config = json.loads((WEIGHTS / name / "config.json").read_text())
    assert config["name"] == name
    assert config["version"]
    assert config["threshold"] == "auto" or 0 < config["threshold"] < 1
    assert f"python -m dlvolt.training.{script} {name}" in (WEIGHTS / name / "MODEL_CARD.md").read_text()
    assert load(name).name == name


@pytest.mark.parametrize(
    ("rate", "snr", "compartment", "least"), [(1000.0, 6.0, "soma", 0.98), (3328.0, 5.0, "dendrite", 0.98)]
)
def test_voltage_finds_the_spikes_of_biophysical_neurons_and_their_polarity(rate, snr, compartment, least):
    traces, spikes, polarities = simulate_biophysical(8, 10.0, rate, snr, compartment=compartment, seed=77)
    found, inferred = detect(traces, rate)
    assert inferred == polarities
    assert np.median(f1(spikes, found)) > least
    assert np.mean(f1(spikes, found)) > 0.93  # a neuron that fires triplets at 3.5 ms only seems to have one wide spike


def test_voltage_beats_a_matched_filter_that_is_told_the_polarity():
    traces, spikes, polarities = simulate_biophysical(8, 20.0, 500.0, 4.0, seed=78)
    found, _ = detect(traces, 500.0)
    filtered = [adaptive_matched_filter(*pair) / 500 for pair in zip(traces.T, [500.0] * 8, polarities, strict=True)]
    assert np.mean(f1(spikes, found)) > np.mean(f1(spikes, filtered)) + 0.02


def test_voltage_is_silent_on_noise():
    noise = np.random.default_rng(0).normal(100, 5, (20_000, 8))
    found, _ = detect(noise, 1000.0)
    assert sum(map(len, found)) / (8 * 20) < 0.05  # false spikes per second


@pytest.mark.parametrize(
    "trace",
    [
        np.full((1000, 2), 7.0),
        np.random.default_rng(0).normal(size=(100, 1)),
        np.random.default_rng(0).integers(-5, 5, (500, 1)).astype("int16"),
        np.zeros((1, 1)),
    ],
)
def test_short_constant_and_integer_traces_have_few_spikes_or_none(trace):
    found, _ = detect(trace, 500.0)
    assert sum(map(len, found)) <= 3


@pytest.mark.parametrize("name", ["waveform_cnn", "waveform_gru"])
def test_waveform_networks_know_the_spikes_of_a_channel_they_were_not_trained_on(name, shared_data):
    X, y = read_channels(shared_data / "zebra_finch" / "snippets.npz")[11]
    assert load(name).score(X, y) > 0.94
