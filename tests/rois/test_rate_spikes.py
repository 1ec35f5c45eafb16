import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.rois import rate_spikes
from dlvolt.rois.rate_spikes import spikes_of_events


def test_by_hand():
    expected = np.array([0, 0.4, 0, 0, 0.5, 0.5, 1.2, 0, 0, 0.1, 0.3, 0.2])
    frames, events, counts = spikes_of_events(expected)
    assert frames.tolist() == [4, 6, 11]  # the integral of the second run passes 0.5 and 1.5, that of the third 0.5
    assert events.tolist() == [0, 0, 1]
    assert counts.tolist() == [2, 2, 1]


@given(seed=st.integers(0, 999), scale=st.floats(0.05, 4))
def test_every_event_has_as_many_spikes_as_its_integral_says(seed, scale):
    rng = np.random.default_rng(seed)
    expected = scale * rng.random(200) * (rng.random(200) < 0.7)
    frames, events, counts = spikes_of_events(expected)
    assert np.all(np.diff(frames) >= 0)
    assert np.all(expected[frames] > 0)
    runs = [run for run in np.split(np.arange(200), np.flatnonzero(np.diff(expected > 0)) + 1) if expected[run[0]] > 0]
    wanted = [int(np.floor(expected[run].sum() + 0.5)) for run in runs]
    assert [int(np.isin(frames, run).sum()) for run in runs] == wanted
    assert np.bincount(events, minlength=1).tolist() == ([n for n in wanted if n] or [0])
    np.testing.assert_array_equal(counts, np.bincount(events, minlength=1)[events])


def test_of_a_recording():
    rates = np.zeros((2, 100, 3), dtype="float32")
    rates[0, 20:24, 1], rates[0, 60, 0], rates[1, 30:32, 2] = 10.0, 100.0, 8.0
    recording = si.NumpyRecording(list(rates), 20.0)
    spikes = rate_spikes(recording, num_workers=2)
    np.testing.assert_array_equal(spikes["segment_index"], [0] * 7 + [1])
    np.testing.assert_array_equal(spikes["channel_index"], [1, 1] + [0] * 5 + [2])
    np.testing.assert_array_equal(spikes["sample_index"], [20, 22] + [60] * 5 + [31])
    np.testing.assert_array_equal(spikes["event_count"], [2, 2] + [5] * 5 + [1])
    np.testing.assert_array_equal(spikes["amplitude"], [10, 10] + [100] * 5 + [8])
    assert len(np.unique(spikes["event"])) == 3
    assert len(rate_spikes(si.NumpyRecording(np.zeros((10, 2)), 20.0))) == 0
    with pytest.raises(ValueError, match="rate: is negative somewhere"):
        rate_spikes(si.NumpyRecording(np.full((10, 2), -1.0), 20.0))
