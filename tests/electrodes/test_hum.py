"""Whether there is hum, and of which frequency."""

import numpy as np
import pytest
import spikeinterface.full as si

from dlvolt.electrodes import find_hum
from dlvolt.preprocessing import notch_comb

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
