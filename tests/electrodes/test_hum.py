"""Whether there is hum, and of which frequency."""

import numpy as np
import pytest
import spikeinterface.full as si

from dlvolt.electrodes import find_hum
from dlvolt.electrodes.hum import without_echoes
from dlvolt.preprocessing import highpass_reference, notch_comb

FS = 10_000
T = np.arange(15 * FS) / FS


def noise(channels=3, seed=0):
    return np.random.default_rng(seed).normal(0, 10, (len(T), channels)).astype("float32")


def hum(freq, size=20.0):
    return sum(size * np.sin(2 * np.pi * k * freq * T + k) for k in range(1, 21))[:, None].astype("float32")


def recording_of(traces):
    return si.NumpyRecording([traces], FS)


@pytest.mark.parametrize("freq", [50.0, 49.93, 60.0, 60.04])
def test_hum_is_found_exactly(freq):
    found = find_hum(recording_of(noise() + hum(freq)))
    assert abs(found["freq"] - freq) < 0.003
    assert set(range(2, 21)) <= set(found["harmonics"]) <= set(range(1, 22))


def test_without_hum_there_is_none():
    traces = noise()
    assert find_hum(recording_of(traces)) is None
    assert find_hum(recording_of(traces + 30 * np.sin(2 * np.pi * 1234 * T)[:, None].astype("float32"))) is None
    assert find_hum(recording_of(traces + hum(50.0, size=0.05))) is None  # too little to harm
    assert find_hum(recording_of(np.zeros_like(traces))) is None
    assert find_hum(recording_of(traces[:FS])) is None  # too short to tell


def test_what_is_found_takes_it_out():
    traces = noise()
    found = find_hum(recording_of(traces + hum(49.97)))
    left = notch_comb(recording_of(traces + hum(49.97)), **found).get_traces()
    middle = slice(4 * FS, 11 * FS)
    assert np.std(left[middle] - traces[middle]) < 0.15 * np.std(traces)


@pytest.fixture(scope="module")
def spiking():
    """Large spikes in noise on two channels, high-pass filtered, without notches, with them, and without echoes."""
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.integers(100, 1000, 150))
    spikes = np.zeros((len(T), 2), dtype="float32")
    spikes[times[times < len(T) - 200]] = [-1500.0, -900.0]
    kernel = np.exp(-((np.arange(-15, 16) / 4.0) ** 2))
    clean = np.stack([np.convolve(channel, kernel, mode="same") for channel in spikes.T], axis=1).astype("float32")
    recording, comb = recording_of(clean + noise(2)), dict(freq=50.0, harmonics=list(range(1, 21)))
    plain, notched = (highpass_reference(each, reference=False) for each in (recording, notch_comb(recording, **comb)))
    return plain, notched, without_echoes(notched, comb, seed=0)


def test_spikes_leave_no_echoes(spiking):
    plain, notched, mended = (recording.get_traces() for recording in spiking)
    quiet = np.abs(plain) < 50
    echoes, left = (np.std((traces - plain)[quiet]) for traces in (notched, mended))
    assert echoes > 2.0  # of noise with a deviation of some 10
    assert left < 0.4 * echoes


def test_echoes_are_those_of_the_whole_recording_in_any_chunk(spiking):
    whole = spiking[2].get_traces()
    for start, end in ((0, 700), (40_000, 41_000), (len(T) - 300, len(T))):
        chunk = spiking[2].get_traces(start_frame=start, end_frame=end, channel_ids=spiking[2].channel_ids[1:])
        np.testing.assert_allclose(chunk, whole[start:end, 1:], atol=0.05)


@pytest.mark.filterwarnings("error")
def test_a_short_segment_beside_a_long_one():
    traces = noise(2) + hum(50.0)
    recording = si.NumpyRecording([traces, traces[:3000]], FS)
    mended = without_echoes(highpass_reference(recording, reference=False), find_hum(recording), seed=0)
    assert [mended.get_traces(segment_index=segment).shape[0] for segment in range(2)] == [len(T), 3000]
