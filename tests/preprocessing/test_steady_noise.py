import numpy as np
import pytest
import spikeinterface.core as sc

from dlvolt.preprocessing import steady_noise
from dlvolt.preprocessing.steady_noise import noise_levels, usual_levels

FS, WIDTH = 30_000.0, 1500  # samples of a window


def noise(num_samples, num_channels=3, seed=0):
    return np.random.default_rng(seed).standard_normal((num_samples, num_channels)).astype("float32")


def test_levels_are_those_of_the_louder_half():
    traces = noise(20 * WIDTH) * 2
    traces[3 * WIDTH : 3 * WIDTH + WIDTH // 2, 1] *= 5
    levels = noise_levels(traces, WIDTH)
    expected = np.full((20, 3), 2.0)
    expected[3, 1] = 10
    np.testing.assert_allclose(levels, expected, rtol=0.15)
    assert noise_levels(traces[: WIDTH + 10], WIDTH).shape == (2, 3)
    assert noise_levels(traces[:0], WIDTH).shape == (0, 3)


def test_loud_stretches_of_a_channel_are_brought_to_the_usual_level_and_others_stay():
    traces = noise(40 * WIDTH)
    loud = slice(10 * WIDTH, 14 * WIDTH)
    traces[loud, 2] *= 8
    steady = steady_noise(sc.NumpyRecording([traces], FS)).get_traces()
    assert steady[loud, 2].std() == pytest.approx(1, abs=0.1)
    elsewhere = np.ones_like(traces, dtype=bool)
    elsewhere[loud, 2] = False
    np.testing.assert_array_equal(steady[elsewhere], traces[elsewhere])


def test_a_burst_of_spikes_is_no_noise():
    traces = noise(4 * WIDTH)
    for start in range(1800, 2400, 120):  # five spikes of 1 ms, 4 ms apart
        traces[start : start + 30] += 30
    np.testing.assert_array_equal(steady_noise(sc.NumpyRecording([traces], FS)).get_traces(), traces)


def test_chunks_segments_and_channels_do_not_matter():
    traces = [noise(7 * WIDTH + 123), noise(WIDTH // 3, seed=1)]
    traces[0][3 * WIDTH + 100 : 5 * WIDTH] *= 4
    recording = steady_noise(sc.NumpyRecording(traces, FS))
    whole = recording.get_traces(segment_index=0)
    pieces = [recording.get_traces(0, start, min(start + 777, len(whole))) for start in range(0, len(whole), 777)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    some = recording.get_traces(0, 100, 9000, channel_ids=[2, 0])
    np.testing.assert_allclose(some, whole[100:9000, [2, 0]], rtol=1e-5)
    assert recording.get_traces(segment_index=1).shape == traces[1].shape


def test_the_usual_level_is_found_and_with_it_whether_noise_is_steady():
    traces = noise(100 * WIDTH) * np.array([1.0, 5.0, 0.0], dtype="float32")
    levels, is_steady = usual_levels(sc.NumpyRecording([traces], FS))
    np.testing.assert_allclose(levels, [1, 5, 0], rtol=0.1)
    assert is_steady
    traces[20 * WIDTH : 50 * WIDTH, 0] *= 4
    levels, is_steady = usual_levels(sc.NumpyRecording([traces], FS))
    np.testing.assert_allclose(levels, [1, 5, 0], rtol=0.1)
    assert not is_steady
    silent, is_steady = usual_levels(sc.NumpyRecording([0 * traces], FS))
    assert is_steady
    assert not silent.any()


@pytest.mark.parametrize("usual", [-1, [1.0, 2.0], np.nan])
def test_usual_levels_must_be_levels(usual):
    with pytest.raises(ValueError, match="usual must be a noise level, or one for each of 3 channels"):
        steady_noise(sc.NumpyRecording([noise(100)], FS), usual=usual)
