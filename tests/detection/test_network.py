import pickle
import sys

import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from matched_network import RATE, bumps, save_matched_network
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.detection import NetworkPeakDetector, shadow
from dlvolt.preprocessing import spike_probability

POLARITIES = ["positive", "negative"]
SPIKES_S = [np.arange(0.1, 5.9, 0.13), np.arange(0.2, 5.9, 0.31)]
ONE_JOB = dict(n_jobs=1, progress_bar=False, chunk_duration="1s")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_matched_network(tmp_path_factory.mktemp("model") / "matched")


def traces_at(rate):
    """Two channels, each with its own spikes, of which the second goes down."""
    num_samples = round(6 * rate)
    spikes = np.transpose(
        [sign * bumps(times, num_samples, rate) for sign, times in zip((3, -3), SPIKES_S, strict=True)]
    )
    return (50 + spikes + np.random.default_rng(0).normal(scale=0.25, size=spikes.shape)).astype("float32")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Two segments on disk, so that every kind of worker can read them."""
    traces = traces_at(RATE)
    recording = si.NumpyRecording([traces, traces[:1500]], RATE)
    return recording.save(folder=tmp_path_factory.mktemp("recording") / "saved", chunk_duration="1000s", verbose=False)


def find(recording, model, job_kwargs=ONE_JOB, **kwargs):
    return detect_peaks(recording, method="dlvolt", method_kwargs=dict(model=model, **kwargs), job_kwargs=job_kwargs)


@pytest.mark.parametrize(("rate", "threshold"), [(500.0, 0.999), (RATE, 0.98), (3328.0, 0.98)])
def test_spikes_are_found_where_they_are(model, rate, threshold):
    traces = traces_at(rate)
    recording = si.NumpyRecording(traces, rate)
    peaks = find(recording, model, threshold=threshold)
    assert peaks.dtype == np.dtype(base_peak_dtype)
    for channel, times in enumerate(SPIKES_S):
        found = peaks["sample_index"][peaks["channel_index"] == channel] / rate
        assert len(found) == len(times)
        np.testing.assert_allclose(found, times, atol=1.5 / min(rate, RATE))
    np.testing.assert_array_equal(peaks["amplitude"], traces[peaks["sample_index"], peaks["channel_index"]])
    assert np.all(np.diff(peaks["sample_index"]) >= 0)
    assert recording.get_property("polarity").tolist() == POLARITIES


def test_peaks_are_those_of_the_probability(recording, model):
    peaks = find(recording, model, refine=False)
    probability = spike_probability(recording, model=model)
    for segment in (0, 1):
        frames, channels = shadow(probability.get_traces(segment), 0.5, 2)
        here = peaks[peaks["segment_index"] == segment]
        np.testing.assert_array_equal(here["sample_index"], frames)
        np.testing.assert_array_equal(here["channel_index"], channels)


def test_threshold_shadow_and_polarity_can_be_said(recording, model, tmp_path):
    everything = find(recording, model, threshold=1e-3, shadow_ms=0, refine=False)
    fewer, fewest = (find(recording, model, refine=False, **at) for at in (dict(threshold=1e-3), {}))
    assert len(everything) > len(fewer) > len(fewest) > 0
    probability = spike_probability(recording, model=model, polarity="positive")
    frames, channels = shadow(probability.get_traces(1), 0.99, 50)
    peaks = find(recording, model, threshold=0.99, shadow_ms=50.0, polarity="positive", refine=False)
    peaks = peaks[peaks["segment_index"] == 1]
    np.testing.assert_array_equal(peaks["sample_index"], frames)
    np.testing.assert_array_equal(peaks["channel_index"], channels)

    strict = save_matched_network(tmp_path / "strict", threshold=0.999)
    assert np.all(NetworkPeakDetector(recording, strict, refine=False).threshold == 0.999)


def test_polarity_is_recorded(recording, model):
    assert NetworkPeakDetector(recording, model).polarity == POLARITIES
    assert recording.get_property("polarity").tolist() == POLARITIES
    assert NetworkPeakDetector(recording, model, polarity="negative").polarity == ["negative"] * 2
    assert recording.get_property("polarity").tolist() == ["negative"] * 2


@pytest.mark.parametrize(
    ("refine", "job_kwargs"),
    [
        (True, dict(n_jobs=1, chunk_size=137)),
        (True, dict(n_jobs=2, chunk_size=500, pool_engine="thread")),
        (True, dict(n_jobs=2, chunk_size=500, pool_engine="process")),  # slow: each process imports torch
        (False, dict(n_jobs=1, chunk_size=137)),
        (False, dict(n_jobs=2, chunk_size=500, pool_engine="thread")),
    ],
)
def test_same_peaks_however_the_work_is_cut(recording, model, job_kwargs, refine):
    expected = find(recording, model, threshold=0.05, refine=refine)
    again = find(recording, model, dict(progress_bar=False, **job_kwargs), threshold=0.05, refine=refine)
    np.testing.assert_array_equal(again, expected)


def test_a_pickled_detector_knows_its_polarity(recording, model, monkeypatch):
    detector = NetworkPeakDetector(recording, model)
    pickled = pickle.dumps(detector)
    module = sys.modules["dlvolt.preprocessing.spike_probability"]  # the package's attribute is the function
    monkeypatch.setattr(module, "infer_polarity", lambda *_: pytest.fail("inferred again"))
    copy = pickle.loads(pickled)
    assert copy.polarity == POLARITIES
    np.testing.assert_array_equal(copy.detect(0, 100, 900), detector.detect(0, 100, 900))


@given(seed=st.integers(0, 1000), chunk_size=st.integers(1, 40), shadow_samples=st.integers(0, 12))
def test_exact_under_chunking_even_where_everything_is_a_detection(recording, model, seed, chunk_size, shadow_samples):
    rng = np.random.default_rng(seed)
    probability = rng.integers(0, 8, size=(150, 2)) / 8  # with ties and plateaus
    if seed % 3 == 0:
        probability.sort(axis=0)  # a chain of stronger and stronger neighbours
        probability[::2] /= 2
    detector = NetworkPeakDetector(recording, model, threshold=0.1, polarity="positive", refine=False)
    detector.scores = si.NumpyRecording(probability, RATE)
    detector.shadow_samples = shadow_samples
    frames, channels = shadow(probability, 0.1, shadow_samples)
    starts = range(0, 150, chunk_size)
    pieces = [detector.detect(0, start, min(start + chunk_size, 150)) for start in starts]
    np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), frames)
    np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces]), channels)


@pytest.mark.parametrize(
    ("kwargs", "argument"),
    [(dict(threshold=0.0), "threshold"), (dict(threshold=1.5), "threshold"), (dict(shadow_ms=-1.0), "shadow_ms")],
)
def test_bad_parameters(recording, model, kwargs, argument):
    with pytest.raises(ValueError, match=f"^{argument} must"):
        find(recording, model, **kwargs)


def test_a_recording_without_spikes(model):
    assert len(find(si.NumpyRecording(np.zeros((2000, 2), dtype="float32"), RATE), model)) == 0
