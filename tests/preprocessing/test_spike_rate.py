import pickle
from importlib import import_module

import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import resample_poly
from spikeinterface.preprocessing.pipeline import apply_preprocessing_pipeline

from dlvolt.networks import create, load, save, trace_rate
from dlvolt.preprocessing import SpikeRateRecording, fill_nan, spike_probability, spike_rate
from dlvolt.preprocessing.models import rate_ratio
from dlvolt.preprocessing.resampling import resampling_filter

DURATION_S = 30.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a network that was never trained: what it says is something, and depends on the trace."""
    network = create("s2s", name="untrained", window_samples=512, gain=0.5, offset=-0.1, rate_range_hz=(5.0, 1000.0))
    return str(save(network.initialize(), tmp_path_factory.mktemp("model") / "untrained"))


def traces_at(rate, num_channels=2):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(round(DURATION_S * rate), num_channels)) + 5 * (rng.random((1, num_channels)) < 0.01)
    return (100 + steps.cumsum(axis=0) / np.sqrt(rate)).astype("float32")


def of_the_network(model, traces, rate):
    """What the network says at its own rate, by SciPy's resampling, and by how many samples there are for one."""
    network = load(model)
    ratio = rate_ratio(rate, network)
    taps, _ = resampling_filter(ratio.numerator, ratio.denominator)
    traces = resample_poly(traces - 100.0, ratio.numerator, ratio.denominator, axis=0, window=taps, padtype="line")
    return trace_rate(network, lambda start, end: traces[start:end], len(traces)), float(ratio)


@pytest.mark.parametrize("rate", [7.8, 30.0, 59.1, 100.0, 160.0, 322.5])
def test_every_sample_has_the_mean_of_its_time(model, rate):
    traces = traces_at(rate)
    expected, ratio = of_the_network(model, traces, rate)
    integral = np.concatenate([np.zeros((1, 2)), expected]).cumsum(axis=0) / 100
    edges = np.minimum(np.arange(len(traces) + 1) * ratio, len(expected))
    until = np.transpose([np.interp(edges, np.arange(len(integral)), one) for one in integral.T])
    found = spike_rate(si.NumpyRecording(traces, rate), model=model, refine=False).get_traces()
    assert found.dtype == "float32"
    assert found.min() >= 0
    inner = slice(round(8 * rate), -round(8 * rate))  # windows at the ends see SciPy's padding
    np.testing.assert_allclose(found[inner] / 100 * ratio, np.diff(until, axis=0)[inner], atol=3e-3 * ratio)


@given(rate=st.floats(7, 400), seed=st.integers(0, 9), seconds=st.sampled_from([4, 12]))
def test_the_integral_is_that_of_the_network(model, rate, seed, seconds):
    """Refined, too: the trace says where the spikes are, the networks how many."""
    traces = np.random.default_rng(seed).normal(size=(round(seconds * rate), 1)).astype("float32")
    recording = spike_rate(si.NumpyRecording(traces, rate), model=model)
    segment = recording.segments[0]
    at_model_rate = segment._at_model_rate(0, segment._num_samples_at_model_rate(), slice(None))
    spikes = recording.get_traces().sum(dtype="float64") * segment.up / segment.down / 100
    assert spikes == pytest.approx(at_model_rate.sum(dtype="float64") / 100, rel=0.01)  # but for a part of a sample


@pytest.mark.parametrize("rate", [7.8, 59.1, 100.0, 322.5])
@pytest.mark.parametrize(("chunk_size", "refine"), [(1, True), (17, False), (700, True)])
def test_exact_under_chunking(model, rate, chunk_size, refine, monkeypatch):
    module = import_module("dlvolt.preprocessing.spike_rate")
    monkeypatch.setattr(module, "BLOCK_S", 11.0)  # three of them
    monkeypatch.setattr(module, "MARGIN_S", 2.0)
    traces = traces_at(rate)
    rates = spike_rate(si.NumpyRecording([traces, traces[:7]], rate), model=model, refine=refine)
    for segment in (0, 1):
        whole = rates.get_traces(segment_index=segment)
        starts = np.arange(0, len(whole), chunk_size)
        for start in starts[np.unique(np.linspace(0, len(starts) - 1, 15).astype(int))]:
            piece = rates.get_traces(segment, start, min(start + chunk_size, len(whole)))
            np.testing.assert_allclose(piece, whole[start : start + chunk_size], rtol=1e-4, atol=1e-4)
    some = rates.get_traces(0, 3, 40, channel_ids=rates.channel_ids[[1]])
    np.testing.assert_allclose(some, rates.get_traces(0, 3, 40)[:, [1]], rtol=1e-4, atol=1e-4)


def test_units_and_baseline_make_no_difference_and_constant_traces_have_no_spikes(model):
    traces = traces_at(50.0)
    expected = spike_rate(si.NumpyRecording(traces, 50.0), model=model).get_traces()
    shifted = spike_rate(si.NumpyRecording(3 * traces - 40, 50.0), model=model).get_traces()
    np.testing.assert_allclose(shifted, expected, rtol=1e-2, atol=1e-2)
    assert not spike_rate(si.NumpyRecording(np.full((300, 1), 7.0), 50.0), model=model).get_traces().any()


@pytest.mark.parametrize("num_samples", [1, 2, 3, 40])
def test_tiny_recordings(model, num_samples):
    rate = spike_rate(si.NumpyRecording(traces_at(30.0)[:num_samples], 30.0), model=model).get_traces()
    assert rate.shape == (num_samples, 2)
    assert np.isfinite(rate).all()


def test_round_trips_and_the_pipeline(model, tmp_path):
    saved = si.NumpyRecording(traces_at(50.0), 50.0).save(
        folder=tmp_path / "recording", verbose=False, chunk_duration="30s"
    )
    rate = spike_rate(saved, model=model)
    assert rate.get_annotation("value") == "spike_rate"
    assert rate.get_annotation("model_name") == "untrained"
    rate.dump(tmp_path / "rate.json")
    for loaded in (si.load(tmp_path / "rate.json"), pickle.loads(pickle.dumps(rate))):
        assert type(loaded) is SpikeRateRecording
        np.testing.assert_array_equal(loaded.get_traces(), rate.get_traces())
    by_name = apply_preprocessing_pipeline(saved, [{"name": "spike_rate", "params": {"model": model}}])
    np.testing.assert_array_equal(by_name.get_traces(), rate.get_traces())


def test_several_networks_give_their_mean_and_the_trace_refines_it(model):
    recording = si.NumpyRecording(traces_at(50.0), 50.0)
    one, other = (spike_rate(recording, model=name, refine=False).get_traces() for name in (model, "s2s"))
    both = spike_rate(recording, model=f"{model}+s2s", refine=False)
    assert both.get_annotation("model_name") == "untrained+s2s"
    np.testing.assert_allclose(both.get_traces(), (one + other) / 2, rtol=1e-4, atol=1e-4)
    refined = spike_rate(recording, model=f"{model}+s2s")
    assert si.load(refined.to_dict())._kwargs == refined._kwargs
    assert not np.allclose(refined.get_traces(), both.get_traces(), rtol=0.1)
    np.testing.assert_allclose(refined.get_traces().sum(axis=0), one.sum(axis=0), rtol=1e-3)


def test_bad_input(model, tmp_path):
    traces = traces_at(50.0)
    faster = save(create("s2s", window_samples=512, sampling_frequency=200.0).initialize(), tmp_path / "faster")
    with pytest.raises(ValueError, match=r"model: the networks of .* work at different sampling frequencies"):
        spike_rate(si.NumpyRecording(traces, 50.0), model=f"{faster}+s2s")
    with pytest.raises(ValueError, match="serves sampling frequencies from 5 to 1000 Hz, not 2 Hz"):
        spike_rate(si.NumpyRecording(traces, 2.0), model=model)
    with pytest.raises(ValueError, match="model: 'voltage' gives probabilities, not rates; take spike_probability"):
        spike_rate(si.NumpyRecording(traces, 500.0), model="voltage")
    with pytest.raises(ValueError, match="model: 'untrained' gives rates, not probabilities; take spike_rate"):
        spike_probability(si.NumpyRecording(traces, 50.0), model=model)
    traces[20, 1] = np.nan
    recording = si.NumpyRecording(traces, 50.0)
    with pytest.raises(ValueError, match=r"recording: .*fill_nan\(recording\) before spike_rate"):
        spike_rate(recording, model=model).get_traces()
    assert np.isfinite(spike_rate(fill_nan(recording), model=model).get_traces()).all()
