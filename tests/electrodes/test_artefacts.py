"""What is set aside, and what is not."""

import numpy as np
import pytest
import spikeinterface.full as si
from hypothesis import given, settings
from hypothesis import strategies as st
from spikeinterface.core.base import base_period_dtype
from spikeinterface.core.job_tools import fix_job_kwargs

from dlvolt.electrodes import bridge_periods, find_artefacts

FS = 10_000
JOBS = fix_job_kwargs(
    {"n_jobs": 1, "chunk_duration": "1s", "progress_bar": False, "pool_engine": "thread", "mp_context": None}
)


def noise(seconds=5, channels=8, seed=0):
    return np.random.default_rng(seed).normal(0, 10, (round(seconds * FS), channels)).astype("float32")


def found(*segments, hum_period=0, jobs=JOBS):
    return find_artefacts(si.NumpyRecording(list(segments), FS), jobs, hum_period)


def covers(artefacts, start, end, margin):
    """Tell whether one period covers the samples from start to end, and is longer by at most so many on each side."""
    periods = artefacts.periods
    return any(
        start - margin <= p["start_sample_index"] <= start and end <= p["end_sample_index"] <= end + margin
        for p in periods
    )


def test_noise_and_spikes_are_left():
    traces = noise()
    rng = np.random.default_rng(1)
    spike = -400 * np.exp(-np.square(np.arange(20) - 8) / 8)
    for start in rng.integers(0, len(traces) - 20, 300):  # forty noise standard deviations, on half of the channels
        traces[start : start + 20, 2:6] += spike[:, None]
    assert len(found(traces).periods) == 0


def test_one_channel_with_large_bursts_is_left():
    traces = noise(channels=1)
    spike = -600 * np.exp(-np.square(np.arange(20) - 8) / 8)
    for start in range(1000, 40_000, 4000):
        for of_burst in range(start, start + 300, 40):
            traces[of_burst : of_burst + 20, 0] += spike
    assert len(found(traces).periods) == 0


def test_stimulation_is_set_aside():
    traces = noise()
    traces[20_000:20_030] += 5000 * np.sign(np.sin(np.arange(30)))[:, None]
    artefacts = found(traces)
    assert artefacts.reasons == ["outsize"]
    assert covers(artefacts, 20_000, 20_030, margin=60)


def test_movement_is_set_aside():
    traces = noise(channels=4)
    traces[20_000:25_000] += np.random.default_rng(1).normal(0, 300, (5000, 1)).astype("float32")
    artefacts = found(traces)
    assert len(artefacts.periods) == 1
    assert covers(artefacts, 20_010, 24_990, margin=100)


@pytest.mark.parametrize("value", [0, 32_000, -32_000])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_blanks_and_rails_are_set_aside(value, dtype):
    traces = noise()
    traces[20_000:20_500] = value
    artefacts = found(traces.astype(dtype))
    assert artefacts.reasons == ["constant"]
    assert covers(artefacts, 20_000, 20_500, margin=60)


def test_lost_packets_of_several_segments():
    first, second = noise(2), noise(2, seed=1)
    second[5000:5200] = 0
    artefacts = found(first, second)
    assert artefacts.periods["segment_index"].tolist() == [1]
    assert artefacts.num_samples(0, 0, 20_000) == 0
    assert 200 <= artefacts.num_samples(1, 0, 20_000) <= 320
    assert artefacts.contain(np.array([0, 1, 1]), np.array([5100, 5100, 9000])).tolist() == [False, True, False]
    ((segment, start, end, reason),) = artefacts.in_seconds(FS)
    assert (segment, reason) == (1, "constant")
    assert start <= 0.5 < 0.52 <= end


def test_silence_for_most_of_the_recording():
    traces = noise()
    traces[:40_000] = 0
    assert covers(found(traces), 0, 40_000, margin=30)


def test_coarse_digits_are_no_blanks():
    assert len(found(np.round(noise() / 20).astype("int16")).periods) == 0  # noise of half a step


def test_nothing_but_zeros():
    assert len(found(np.zeros((FS, 4), "int16")).periods) == 0


def test_hum_is_no_artefact():
    traces = noise(channels=16)
    traces[::200] += 3000  # something sharp, fifty times a second
    assert len(found(traces).periods) > 100
    assert len(found(traces, hum_period=200).periods) == 0
    traces[20_050:20_080] += 20_000
    assert covers(found(traces, hum_period=200), 20_050, 20_080, margin=60)


@settings(max_examples=10, deadline=None)
@given(chunk=st.integers(1000, 60_000))
def test_the_same_however_it_is_cut_into_chunks(chunk):
    traces = noise()
    traces[20_000:20_030] += 5000
    traces[30_000:30_100] = 0
    traces[9_990:10_015] -= 8000  # across a border
    jobs = {key: value for key, value in JOBS.items() if key != "chunk_duration"} | {"chunk_size": chunk}
    expected, same = found(traces), found(traces, jobs=jobs)
    assert len(expected.periods) == 3
    assert expected.periods.tolist() == same.periods.tolist()


def test_bridges_are_straight_lines():
    traces = np.tile(np.arange(1000.0)[:, None], (1, 2)).astype("float32") * [1, -2] + 500
    recording = si.NumpyRecording([np.where((np.arange(1000) // 100 == 4)[:, None], 9e9, traces)], FS)
    periods = np.array([(0, 400, 500)], dtype=base_period_dtype)
    bridged = bridge_periods(recording, periods)
    np.testing.assert_allclose(bridged.get_traces(), traces, rtol=1e-5)
    whole = bridged.get_traces(start_frame=350, end_frame=600)
    np.testing.assert_array_equal(bridged.get_traces(start_frame=450, end_frame=460), whole[100:110])
    np.testing.assert_array_equal(bridged.get_traces(channel_ids=[1]), bridged.get_traces()[:, 1:])


def test_bridges_at_the_ends_are_level():
    traces = np.full((1000, 1), 7.0, dtype="float32")
    traces[:100] = traces[900:] = 9e9
    periods = np.array([(0, 0, 100), (0, 900, 1000)], dtype=base_period_dtype)
    np.testing.assert_allclose(bridge_periods(si.NumpyRecording([traces], FS), periods).get_traces(), 7.0)
    everything = np.array([(0, 0, 1000)], dtype=base_period_dtype)
    np.testing.assert_array_equal(bridge_periods(si.NumpyRecording([traces], FS), everything).get_traces(), 0.0)
