import numpy as np
import probeinterface
import pytest
from spikeinterface.core import NumpyRecording
from spikeinterface.core.node_pipeline import run_node_pipeline

from dlvolt.deconvolution import fractions
from dlvolt.electrodes import MatchedFilterPeakDetector, find_prototype, find_snippets

FS = 30000.0
BEFORE, AFTER = 20, 40


def spike(times):
    """A spike in continuous time, its trough at 0."""
    return -np.exp(-((times / 4) ** 2)) + 0.3 * np.exp(-(((times - 12) / 8) ** 2))


def recording_of(traces):
    recording = NumpyRecording([traces.astype("float32")], FS)
    probe = probeinterface.generate_linear_probe(traces.shape[1], 25.0)
    probe.set_device_channel_indices(np.arange(traces.shape[1]))
    recording.set_probe(probe)
    return recording


def detect(traces, job_kwargs=None, **kwargs):
    recording = recording_of(traces)
    detector = MatchedFilterPeakDetector(recording, spike(np.arange(-BEFORE, AFTER)), BEFORE, **kwargs)
    return run_node_pipeline(recording, [detector], job_kwargs or dict(n_jobs=1, progress_bar=False))


def plant(traces, time, channel, amplitude, decay_um=0.01):
    distance = 25.0 * np.abs(np.arange(traces.shape[1]) - channel)
    traces += amplitude * np.exp(-distance / decay_um) * spike(np.arange(len(traces)) - time)[:, None]


def test_spikes_are_found_where_they_are_with_their_sub_sample_shift():
    traces = np.zeros((6000, 6))
    planted = [(1000.0, 2), (2000.3, 4), (3000.0 - 0.4, 0), (4500.15, 5)]
    for time, channel in planted:
        plant(traces, time, channel, 20, decay_um=20.0)
    peaks = detect(traces)
    assert [(p["sample_index"], p["channel_index"]) for p in peaks] == [(round(t), c) for t, c in planted]
    found = peaks["sample_index"] + fractions().numpy()[peaks["shift"]]
    assert np.abs(found - [time for time, _ in planted]).max() < 0.5 / 7 + 0.05


def test_a_weak_spike_that_many_channels_see_is_found_though_none_crosses():
    rng = np.random.default_rng(0)
    traces = rng.normal(size=(6000, 9))
    plant(traces, 3000.0, 4, 3.5, decay_um=50.0)
    assert np.abs(traces[2995:3006]).max() < 7  # nothing much to see on any one channel
    (peak,) = detect(traces, detect_threshold=7.0)
    assert abs(peak["sample_index"] - 3000) <= 2
    assert peak["channel_index"] == 4


def test_correlation_with_white_noise_has_variance_one():
    rng = np.random.default_rng(1)
    traces = rng.normal(size=(300_000, 4))
    peaks = detect(traces, detect_threshold=4.5)
    # Independent tests at the rate of the filter's bandwidth: of 1.2 million, 4e-6 are expected to cross 4.5.
    assert len(peaks) < 30
    assert len(detect(traces, detect_threshold=3.0)) > 300


def test_of_close_peaks_the_largest_stays_and_side_lobes_go():
    traces = np.zeros((6000, 6))
    plant(traces, 3000.0, 2, 100, decay_um=40.0)
    assert len(detect(traces)) == 1
    plant(traces, 3000.0 + 40, 2, 60, decay_um=40.0)  # a second spike, no side lobe
    assert len(detect(traces)) == 2


@pytest.mark.parametrize(("peak_sign", "expected"), [("neg", 1), ("both", 2)])
def test_sign(peak_sign, expected):
    traces = np.zeros((6000, 3))
    plant(traces, 1000.0, 1, 20)
    plant(traces, 3000.0, 1, -20)
    assert len(detect(traces, peak_sign=peak_sign, detect_threshold=15.0)) == expected


def straightforward(traces, locations, prototype, threshold, both_signs, sweep=15, radius_um=75.0):
    """Peaks of the filters written out in full, each candidate compared with each other one."""
    distances = np.linalg.norm(locations[:, None] - locations, axis=2)
    weights = np.stack([np.exp(-distances / decay) * (distances <= radius_um) for decay in (1e-9, 20.0, 50.0)])
    weights /= np.linalg.norm(weights, axis=2, keepdims=True)
    windows = np.lib.stride_tricks.sliding_window_view(traces, len(prototype), axis=0)  # T×N×D
    score = weights @ (windows @ (prototype / np.linalg.norm(prototype))).T
    score = (np.abs(score) if both_signs else score).max(axis=0)  # N×T
    inner = score[:, 1:-1]
    channels, times = np.nonzero((inner > threshold) & (inner > score[:, :-2]) & (inner >= score[:, 2:]))
    height = inner[channels, times]
    peaks = []
    for c, t, own in zip(channels, times, height, strict=True):
        apart, distance = np.abs(times - t), distances[c, channels]
        beside = (apart <= sweep) & (distance <= radius_um)
        in_reach = (apart < len(prototype)) & (distance <= 2 * radius_um)
        if not (((height > own) & beside) | ((height * 0.3 > own) & in_reach)).any():
            peaks.append((t + 1 + BEFORE, c))
    return sorted(peaks)


@pytest.mark.parametrize("peak_sign", ["neg", "both"])
def test_many_channels_on_a_grid_in_any_order(peak_sign):
    rng = np.random.default_rng(3)
    locations = 25.0 * rng.permutation([(x, y) for x in range(8) for y in range(8)])
    traces = rng.normal(size=(12_000, 64))
    for time in range(300, 11_700, 50):
        distance = np.linalg.norm(locations - locations[rng.integers(64)], axis=1)
        pulse = spike(np.arange(len(traces)) - time)[:, None]
        traces += rng.uniform(-5, 15) * np.exp(-distance / rng.choice([0.01, 20, 50])) * pulse
    recording = NumpyRecording([traces.astype("float32")], FS)
    probe = probeinterface.Probe(ndim=2)
    probe.set_contacts(locations, shapes="circle", shape_params={"radius": 5})
    probe.set_device_channel_indices(np.arange(64))
    recording.set_probe(probe)
    prototype = spike(np.arange(-BEFORE, AFTER))
    detector = MatchedFilterPeakDetector(recording, prototype, BEFORE, peak_sign=peak_sign)
    job_kwargs = dict(n_jobs=1, chunk_size=12_000, progress_bar=False)  # longer than a tile
    found = run_node_pipeline(recording, [detector], job_kwargs)
    margin = np.zeros((130, 64))
    padded = np.concatenate([margin, traces, margin])
    expected = straightforward(padded, locations, prototype, 5.0, both_signs=peak_sign == "both")
    assert len(expected) > 100
    assert [(p["sample_index"], p["channel_index"]) for p in found] == [(t - 130, c) for t, c in expected]


def test_chunks_do_not_matter():
    rng = np.random.default_rng(2)
    traces = rng.normal(size=(60_000, 4))
    for time in range(100, 59_900, 333):  # somewhere a border goes through every part of a spike
        plant(traces, float(time), time % 4, 15, decay_um=20.0)
    whole = detect(traces, dict(n_jobs=1, chunk_size=60_000, progress_bar=False))
    pieces = detect(traces, dict(n_jobs=1, chunk_size=1009, progress_bar=False))
    assert len(whole) >= 180
    assert np.array_equal(whole[["sample_index", "channel_index"]], pieces[["sample_index", "channel_index"]])


def test_snippets_and_their_prototype():
    traces = np.zeros((6000, 3))
    for time in (500, 1500, 4000):
        plant(traces, float(time), 1, 10 + time / 100)
    plant(traces, 5.0, 1, 30)  # too close to the start to be cut out
    snippets = find_snippets([traces], 5.0, "neg", BEFORE, AFTER, max_snippets=100)
    assert snippets.shape == (3, BEFORE + AFTER)
    prototype = find_prototype(snippets, BEFORE)
    assert np.allclose(prototype, spike(np.arange(-BEFORE, AFTER)) / -spike(0.0) * 1.0, atol=0.02)
    assert len(find_snippets([traces], 500.0, "neg", BEFORE, AFTER, max_snippets=100)) == 0
