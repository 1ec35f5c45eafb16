import shutil
import sys

import numpy as np
import pytest
import spikeinterface as si
import torch
from hypothesis import given
from hypothesis import strategies as st
from matched_network import RATE, bumps, matched_network, save_matched_network
from scipy.signal import resample_poly

from dlvolt.networks import save, trace_probability
from dlvolt.preprocessing import SpikeProbabilityRecording, infer_polarity, spike_probability
from dlvolt.preprocessing.models import load_model, rate_ratio
from dlvolt.preprocessing.resampling import resampling_filter

module = sys.modules["dlvolt.preprocessing.spike_probability"]  # the package's attribute is the function
SPIKES_S = np.arange(0.1, 3.9, 0.29)
POLARITIES = ["positive", "negative", "positive"]
SIGNS = np.array([1, -1, 1])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_matched_network(tmp_path_factory.mktemp("model") / "matched")


def traces_at(rate, duration_s=4.0, seed=0, noise=0.25):
    """Three channels with the same spikes, of which the second goes down."""
    num_samples = round(duration_s * rate)
    spikes = bumps(SPIKES_S, num_samples, rate)[:, None] * SIGNS
    return (50 + 2 * spikes + np.random.default_rng(seed).normal(scale=noise, size=spikes.shape)).astype("float32")


def probability_of(traces, rate, model, **kwargs):
    return spike_probability(si.NumpyRecording(traces, rate), model=model, **kwargs)


def by_the_network(model, traces):
    return trace_probability(load_model(model, "auto"), lambda start, end: traces[start:end], len(traces))


def test_at_the_rate_of_the_model_it_is_what_the_network_says(model):
    traces = traces_at(RATE)
    probability = probability_of(traces, RATE, model, polarity=POLARITIES).get_traces()
    assert probability.dtype == "float32"
    assert probability.min() >= 0
    assert probability.max() <= 1
    np.testing.assert_allclose(probability, by_the_network(model, traces * SIGNS), atol=1e-5)
    peaks = probability[np.round(SPIKES_S * RATE).astype(int)]
    assert peaks.min() > 0.8
    assert np.mean(probability > 0.5) < 0.03


@pytest.mark.parametrize("rate", [995.0, 1004.0])
def test_within_a_percent_nothing_is_resampled(model, rate):
    traces = traces_at(RATE)
    probability = probability_of(traces, rate, model, polarity=POLARITIES).get_traces()
    np.testing.assert_allclose(probability, by_the_network(model, traces * SIGNS), atol=1e-5)


@pytest.mark.parametrize(("rate", "up", "down"), [(2000.0, 1, 2), (3328.0, 3, 10), (1500.0, 2, 3)])
def test_faster_recordings_are_interpolated(model, rate, up, down):
    traces = traces_at(rate)
    taps, _ = resampling_filter(up, down)
    at_model_rate = resample_poly((traces - 50) * SIGNS, up, down, axis=0, window=taps).astype("float32")
    at_model_rate = by_the_network(model, at_model_rate)
    probability = probability_of(traces, rate, model, polarity=POLARITIES).get_traces()
    times, model_times = np.arange(len(traces)) / rate, np.arange(len(at_model_rate)) * down / up / rate
    expected = np.transpose([np.interp(times, model_times, column) for column in at_model_rate.T])
    inner = slice(round(0.2 * rate), -round(0.2 * rate))  # here SciPy pads with zeros, SpikeInterface does not
    np.testing.assert_allclose(probability[inner], expected[inner], atol=1e-3)


@pytest.mark.parametrize(("rate", "up", "down"), [(500.0, 2, 1), (400.0, 5, 2), (240.0, 21, 5)])
def test_slower_recordings_get_the_largest_around_a_sample(model, rate, up, down):
    traces = traces_at(rate)
    taps, _ = resampling_filter(up, down)
    at_model_rate = resample_poly((traces - 50) * SIGNS, up, down, axis=0, window=taps).astype("float32")
    at_model_rate = by_the_network(model, at_model_rate)
    positions = np.arange(len(at_model_rate)) * down
    expected = [
        at_model_rate[(2 * positions >= (2 * t - 1) * up) & (2 * positions < (2 * t + 1) * up)].max(axis=0)
        for t in range(len(traces))
    ]
    probability = probability_of(traces, rate, model, polarity=POLARITIES).get_traces()
    inner = slice(round(0.2 * rate), -round(0.2 * rate))
    np.testing.assert_allclose(probability[inner], np.array(expected)[inner], atol=1e-3)


@given(
    sampling_frequency=st.floats(210, 40_000),
    rate=st.floats(800, 1000),
)
def test_ratio_is_within_a_percent(sampling_frequency, rate):
    ratio = rate_ratio(sampling_frequency, matched_network(sampling_frequency=rate))
    assert float(ratio) * sampling_frequency == pytest.approx(rate, rel=0.0101)


@pytest.mark.parametrize("rate", [400.0, 997.3, RATE, 1231.0, 3328.0])
@pytest.mark.parametrize("chunk_size", [1, 17, 250, 1000])
def test_exact_under_chunking(model, rate, chunk_size):
    traces = traces_at(rate, 1.5)
    recording = si.NumpyRecording([traces, traces[:7]], rate)
    probability = spike_probability(recording, model=model, polarity=POLARITIES)
    for segment in (0, 1):
        whole = probability.get_traces(segment_index=segment)
        assert whole.shape == (recording.get_num_samples(segment), 3)
        starts = np.arange(0, len(whole), chunk_size)
        starts = starts[np.unique(np.linspace(0, len(starts) - 1, 30).astype(int))]
        for start in starts:
            piece = probability.get_traces(segment, start, min(start + chunk_size, len(whole)))
            np.testing.assert_allclose(piece, whole[start : start + chunk_size], atol=1e-5)


def test_chosen_channels_keep_their_polarity(model):
    probability = probability_of(traces_at(RATE), RATE, model, polarity=POLARITIES)
    chosen = probability.get_traces(channel_ids=probability.channel_ids[[2, 1]], start_frame=300, end_frame=800)
    np.testing.assert_allclose(chosen, probability.get_traces()[300:800, [2, 1]], atol=1e-5)


def test_integers_and_brightness_make_no_difference(model):
    traces = np.round(1e5 * traces_at(400.0)).astype("int32")
    expected = probability_of(traces_at(400.0), 400.0, model, polarity=POLARITIES).get_traces()
    for shift in (-10_000_000, 0, 5_000_000):
        probability = probability_of(traces - shift, 400.0, model, polarity=POLARITIES).get_traces()
        np.testing.assert_allclose(probability, expected, atol=1e-3)


@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 30), (2, 1), (5, 2), (2, 3), (21, 5)])
def test_resampling_filter_is_scipys_but_passes_constants(up, down):
    taps, margin = resampling_filter(up, down)
    trace = np.random.default_rng(0).normal(size=(60 * down, 1)) + 1000
    inner = slice(10 * up + 10, -10 * up - 10)
    reference = resample_poly(trace - 1000, up, down, axis=0)
    np.testing.assert_allclose(resample_poly(trace - 1000, up, down, axis=0, window=taps), reference, atol=5e-3)
    constant = resample_poly(np.full(60 * down, 1000.0), up, down, window=taps)
    np.testing.assert_allclose(constant[inner], 1000, rtol=1e-12)
    assert margin * up >= len(taps) // 2
    assert margin % down == 0


@pytest.mark.parametrize("rate", [400.0, RATE, 3328.0])
@pytest.mark.parametrize("num_samples", [0, 1, 2, 3])
def test_tiny_recordings(model, rate, num_samples):
    traces = np.zeros((num_samples, 3), dtype="float32")
    probability = probability_of(traces, rate, model, polarity="positive").get_traces()
    np.testing.assert_allclose(probability, np.full((num_samples, 3), 1 / (1 + np.exp(6))), atol=1e-6)


@pytest.mark.parametrize("rate", [400.0, RATE, 3328.0])
def test_polarity_is_inferred_and_recorded(model, rate):
    recording = si.NumpyRecording(traces_at(rate), rate)
    assert infer_polarity(recording, model) == POLARITIES
    probability = spike_probability(recording, model=model)
    assert probability.get_property("polarity").tolist() == POLARITIES
    assert probability._kwargs["inferred_polarity"] == POLARITIES
    given_polarity = spike_probability(recording, model=model, polarity=POLARITIES)
    np.testing.assert_array_equal(probability.get_traces(), given_polarity.get_traces())


def test_polarity_is_inferred_from_a_sample_that_the_seed_draws(model):
    short, long = traces_at(RATE), traces_at(RATE, 60.0)
    recording = si.NumpyRecording([short, long], RATE)
    draws = [module.draw_pieces(recording, seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    for pieces in draws:
        assert len(pieces) == 3
        covered = sum(end - start for _, start, end in pieces)
        assert 16 * RATE < covered <= 24 * RATE  # the short one ends in a short piece
        assert pieces == sorted(set(pieces))


def test_one_polarity_for_all_and_none_for_a_model_that_does_not_care(tmp_path, model):
    traces = traces_at(RATE)
    down = probability_of(traces, RATE, model, polarity="negative")
    assert down.get_property("polarity").tolist() == ["negative"] * 3
    np.testing.assert_allclose(down.get_traces(), by_the_network(model, -traces), atol=1e-5)

    any_model = save_matched_network(tmp_path / "any", spike_polarity="any")
    for polarity, recorded in (("auto", "any"), ("negative", "negative")):
        probability = probability_of(traces, RATE, any_model, polarity=polarity)
        assert probability.get_property("polarity").tolist() == [recorded] * 3
        np.testing.assert_allclose(probability.get_traces(), by_the_network(any_model, traces), atol=1e-5)


def test_probabilities_have_no_units_and_a_known_origin(model):
    recording = si.NumpyRecording(traces_at(RATE), RATE)
    recording.set_channel_gains(0.2)
    recording.set_channel_offsets(5.0)
    probability = spike_probability(recording, model=model)
    np.testing.assert_array_equal(probability.get_traces(return_in_uV=True), probability.get_traces())
    assert probability.get_annotation("model_name") == "matched"
    assert probability.get_annotation("model_version") == "1"


def test_round_trip_does_not_infer_again(tmp_path, monkeypatch, model, reload):
    saved = si.NumpyRecording(traces_at(400.0), 400.0).save(
        folder=tmp_path / "recording", chunk_duration="1000s", verbose=False
    )
    probability = spike_probability(saved, model=model, seed=3)
    monkeypatch.setattr(module, "infer_polarity", lambda *_: pytest.fail("inferred again"))
    loaded = reload(probability)
    assert type(loaded) is SpikeProbabilityRecording
    assert loaded._kwargs == {**probability._kwargs, "recording": loaded._kwargs["recording"]}
    assert loaded.get_property("polarity").tolist() == POLARITIES
    np.testing.assert_array_equal(loaded.get_traces(), probability.get_traces())


@pytest.mark.parametrize("jobs", [dict(pool_engine="process", mp_context="spawn"), dict(pool_engine="thread")])
def test_saved_in_parallel(tmp_path, model, jobs):
    recording = si.NumpyRecording(traces_at(400.0), 400.0).save(
        folder=tmp_path / "recording", chunk_duration="1000s", verbose=False
    )
    probability = spike_probability(recording, model=model)
    saved = probability.save(folder=tmp_path / "saved", n_jobs=2, chunk_duration="1s", verbose=False, **jobs)
    np.testing.assert_allclose(saved.get_traces(), probability.get_traces(), atol=1e-5)


def test_a_forked_process_starts_no_threads_of_torch(monkeypatch, model):
    monkeypatch.setattr(module, "IMPORTED_IN", -1)  # as if in another process
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        probability_of(traces_at(RATE, 0.2), RATE, model, polarity="positive").get_traces()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(num_threads)


def test_times_pass_through(model):
    recording = si.NumpyRecording(traces_at(400.0), 400.0)
    times = 3 + np.arange(recording.get_num_samples()) / 400
    times[800:] += 1  # frames were dropped
    recording.set_times(times)
    probability = spike_probability(recording, model=model, polarity=POLARITIES)
    np.testing.assert_array_equal(probability.get_times(), times)
    without = probability_of(traces_at(400.0), 400.0, model, polarity=POLARITIES)
    np.testing.assert_array_equal(probability.get_traces(), without.get_traces())


def test_a_model_is_loaded_once_until_it_is_saved_again(tmp_path):
    folder = save_matched_network(tmp_path / "model")
    first = load_model(folder, "cpu")
    assert load_model(folder, "cpu") is first
    shutil.rmtree(folder)
    save(matched_network(threshold=0.7), folder)
    assert load_model(folder, "cpu").threshold == 0.7


def test_a_model_that_is_not_saved_is_an_error():
    with pytest.raises(ValueError, match=r"model must be .*dlvolt\.networks\.save"):
        probability_of(traces_at(RATE), RATE, matched_network())


def test_a_model_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        probability_of(traces_at(RATE), RATE, tmp_path / "nowhere")


@pytest.mark.parametrize("polarity", ["up", ["positive"], ["positive", "negative", "auto"]])
def test_unknown_polarity_is_an_error(model, polarity):
    with pytest.raises(ValueError, match=r"^polarity must"):
        probability_of(traces_at(RATE), RATE, model, polarity=polarity)


def test_a_rate_that_the_model_cannot_serve_is_an_error(model, tmp_path):
    with pytest.raises(ValueError, match=r"recording: model 'matched' serves .* from 200 to inf Hz, not 100 Hz"):
        probability_of(traces_at(100.0), 100.0, model)


@pytest.mark.parametrize("rate", [400.0, RATE])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_an_error(model, rate, value):
    traces = traces_at(rate)
    traces[20, 1] = value
    with pytest.raises(ValueError, match=r"recording: .*fill_nan\(recording\) before spike_probability"):
        probability_of(traces, rate, model, polarity="positive").get_traces()
