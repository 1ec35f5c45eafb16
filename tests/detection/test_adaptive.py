import pickle

import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.detection import AdaptivePeakDetector

RATE = 30_000.0
WHOLE = dict(n_jobs=1, chunk_duration="1000s")


def noise(seconds, *levels, seed=0):
    """Traces (T, N), each second with its noise, the same on both channels but for its seed."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(scale=levels[s], size=(round(RATE), 2)) for s in range(seconds)]).astype(
        "float32"
    )


def find(recording, job_kwargs=WHOLE, **kwargs):
    return detect_peaks(recording, method="dlvolt-adaptive", method_kwargs=kwargs, job_kwargs=job_kwargs)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Two segments; noise that grows and falls, and spikes on it."""
    traces = noise(4, 5.0, 5.0, 20.0, 10.0)
    traces[300::900, 0] -= 80
    recording = si.NumpyRecording([traces, traces[:40_000]], RATE)
    return recording.save(folder=tmp_path_factory.mktemp("recording") / "saved", verbose=False)


def test_a_threshold_of_three_standard_deviations_finds_the_peaks_beyond_it():
    traces = noise(2, 10.0, 10.0)
    peaks = find(si.NumpyRecording(traces, RATE), max_rate_hz=1e4)
    assert peaks.dtype == np.dtype(base_peak_dtype)
    np.testing.assert_array_equal(peaks["amplitude"], traces[peaks["sample_index"], peaks["channel_index"]])
    for channel in (0, 1):
        sigma = [np.median(np.abs(piece)) / 0.6745 for piece in np.split(traces[:30_000, channel], 2)]
        found = peaks["sample_index"][peaks["channel_index"] == channel]
        assert np.diff(found).min() > 30  # 1 ms
        low = np.flatnonzero(traces[:, channel] < -3.2 * max(sigma))
        assert np.abs(low[:, None] - found).min(axis=1).max() <= 30  # none is missed but for a larger one beside it
        assert traces[found, channel].max() < -2.9 * min(sigma)


def test_the_threshold_is_interpolated_between_the_nodes():
    traces = noise(4, 10.0, 10.0, 20.0, 20.0)
    segment = AdaptivePeakDetector(si.NumpyRecording(traces, RATE), interval_s=2.0, max_rate_hz=1e4).scores.segments[0]
    at_nodes = [
        3 * np.median(np.abs(traces[max(0, centre - 15_000) : centre + 15_000]), axis=0) / 0.6745
        for centre in (0, 60_000, 120_000)
    ]
    expected = np.transpose([np.interp(np.arange(120_000), [0, 60_000, 120_000], of) for of in np.transpose(at_nodes)])
    np.testing.assert_allclose(segment.get_traces(0, 120_000, None), -traces[:120_000] / expected, rtol=1e-4)
    np.testing.assert_allclose(
        segment.get_traces(100, 200, [1]), -traces[100:200, 1:] / expected[100:200, 1:], rtol=1e-4
    )


def test_noise_that_doubles_does_not_raise_the_rate():
    traces = noise(20, *[5.0] * 10, *[30.0] * 10)
    frames = find(si.NumpyRecording(traces, RATE), interval_s=1.0)["sample_index"]
    before, after = np.sum(frames < 9 * RATE), np.sum(frames > 11 * RATE)
    assert after == pytest.approx(before, rel=0.15)


def test_where_too_many_peaks_cross_the_largest_are_found():
    traces = noise(2, 1.0, 1.0)
    heights = np.random.default_rng(1).uniform(20, 100, 600)
    traces[50 + 100 * np.arange(600), 0] -= heights
    peaks = find(si.NumpyRecording(traces, RATE), max_rate_hz=100.0)
    found = peaks[peaks["channel_index"] == 0]
    assert len(found) / 2 == pytest.approx(100, rel=0.15)
    assert -found["amplitude"].max() > np.quantile(heights, 0.6)


@pytest.mark.parametrize(("peak_sign", "wanted"), [("neg", [500]), ("pos", [1500]), ("both", [500, 1500])])
def test_peaks_of_either_sign(peak_sign, wanted):
    traces = noise(1, 1.0)[:, :1]
    traces[500], traces[1500], traces[510] = -50, 50, -40  # the last one in the refractory period of the first
    found = find(si.NumpyRecording(traces, RATE), peak_sign=peak_sign, detect_threshold=10.0)
    assert found["sample_index"].tolist() == wanted


@pytest.mark.parametrize(
    "job_kwargs",
    [
        dict(n_jobs=1, chunk_size=1371),
        dict(n_jobs=2, chunk_size=9000, pool_engine="thread"),
        dict(n_jobs=2, chunk_size=9000, pool_engine="process", mp_context="fork"),
    ],
    ids=["small chunks", "threads", "fork"],
)
def test_same_peaks_however_the_work_is_cut(recording, job_kwargs):
    expected = find(recording, interval_s=0.7)
    assert len(expected) > 500
    np.testing.assert_array_equal(find(recording, dict(progress_bar=False, **job_kwargs), interval_s=0.7), expected)


def test_a_pickled_detector_finds_the_same(recording):
    detector = AdaptivePeakDetector(recording, interval_s=0.7)
    copy = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(copy.detect(1, 100, 20_000), detector.detect(1, 100, 20_000))


@given(seed=st.integers(0, 99), chunk_size=st.integers(100, 2000), interval_s=st.floats(0.01, 0.2))
def test_exact_at_chunk_borders(seed, chunk_size, interval_s):
    traces = np.random.default_rng(seed).normal(size=(3000, 2)).astype("float32")
    recording = si.NumpyRecording(traces, RATE)
    detector = AdaptivePeakDetector(recording, detect_threshold=1.0, interval_s=interval_s, max_rate_hz=1e4)
    whole = detector.detect(0, 0, 3000)
    pieces = [detector.detect(0, at, min(at + chunk_size, 3000)) for at in range(0, 3000, chunk_size)]
    for expected, found in zip(whole, map(np.concatenate, zip(*pieces, strict=True)), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_nothing_in_nothing():
    assert len(find(si.NumpyRecording(np.zeros((1000, 2), dtype="int16"), RATE))) == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(peak_sign="up"), "peak_sign must be 'neg', 'pos' or 'both', not 'up'"),
        (dict(detect_threshold=0.0), "detect_threshold must be a positive number, not 0.0"),
        (dict(refractory_ms=-1.0), "refractory_ms must be a positive number"),
        (dict(max_rate_hz=np.inf), "max_rate_hz must be a positive number"),
        (dict(interval_s="1s"), "interval_s must be a positive number"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        AdaptivePeakDetector(si.NumpyRecording(np.zeros((1000, 1)), RATE), **kwargs)


def test_what_is_not_finite_is_refused():
    traces = np.full((1000, 1), np.nan, dtype="float32")
    with pytest.raises(ValueError, match=r"recording: samples .* are NaN or infinite; put fill_nan\(recording\)"):
        find(si.NumpyRecording(traces, RATE))
