import numpy as np
import probeinterface
import pytest
from spikeinterface.core import NumpyRecording
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.core.node_pipeline import PeakDetector

from dlvolt.deconvolution import fractions
from dlvolt.electrodes.clustering import detect_and_project

FS = 30000.0
BEFORE, AFTER = 10, 20
JOBS = dict(n_jobs=1, chunk_size=1000, progress_bar=False)


class KnownPeaks(PeakDetector):
    """Peaks at given samples, channels and sub-sample shifts."""

    name = "known"
    preferred_mp_context = None

    def __init__(self, recording, peaks):
        super().__init__(recording, return_output=True)
        self.peaks = peaks

    def get_margin(self):
        return 0

    def get_dtype(self):
        return self.peaks.dtype

    def compute(self, traces, start_frame, end_frame, segment_index, max_margin):
        own = self.peaks[(self.peaks["sample_index"] >= start_frame) & (self.peaks["sample_index"] < end_frame)].copy()
        own["sample_index"] -= start_frame
        return (own,)


def pulse(times):
    """A band-limited pulse."""
    return np.exp(-((times / 4) ** 2)) * np.cos(0.3 * times)


@pytest.fixture
def recording():
    traces = np.random.default_rng(0).normal(size=(3000, 5)).astype("float32")
    recording = NumpyRecording([traces], FS)
    probe = probeinterface.generate_linear_probe(5, 25.0)
    probe.set_device_channel_indices(np.arange(5))
    recording.set_probe(probe)
    return recording


def peaks_at(samples, channels, shifts):
    peaks = np.zeros(len(samples), dtype=[*base_peak_dtype, ("shift", "int64")])
    peaks["sample_index"], peaks["channel_index"], peaks["shift"] = samples, channels, shifts
    return peaks


def test_features_are_projections_on_the_delayed_basis(recording):
    rng = np.random.default_rng(1)
    samples = np.sort(np.concatenate([[999, 1000, 1001], rng.integers(BEFORE, 3000 - AFTER, size=40)]))
    peaks = peaks_at(samples, rng.integers(5, size=len(samples)), rng.integers(7, size=len(samples)))
    around = np.arange(-BEFORE, AFTER)
    basis = np.stack([pulse(around), pulse(around - 3)]).astype("float32")
    found, features, neighbours = detect_and_project(
        recording, KnownPeaks(recording, peaks), basis, BEFORE, AFTER, 30.0, JOBS
    )
    assert np.array_equal(found, peaks)
    assert np.array_equal(neighbours, np.abs(np.subtract.outer(range(5), range(5))) <= 1)

    traces = recording.get_traces()
    assert features.shape == (len(peaks), 2, 3)
    for peak, own in zip(peaks, features, strict=True):
        channels = np.flatnonzero(neighbours[peak["channel_index"]])
        delay = float(fractions()[peak["shift"]])
        delayed = np.stack([pulse(around - delay), pulse(around - 3 - delay)])  # 2×D
        expected = delayed @ traces[peak["sample_index"] + around][:, channels]
        np.testing.assert_allclose(own[:, : len(channels)], expected, atol=0.02)
        assert not own[:, len(channels) :].any()


def test_no_peaks(recording):
    basis = np.ones((2, BEFORE + AFTER), dtype="float32")
    detector = KnownPeaks(recording, peaks_at([], [], []))
    peaks, features, _ = detect_and_project(recording, detector, basis, BEFORE, AFTER, 30.0, JOBS)
    assert len(peaks) == 0
    assert features.shape == (0, 2, 3)
