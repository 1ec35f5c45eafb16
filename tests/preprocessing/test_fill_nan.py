import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.preprocessing import FillNanRecording, fill_nan

TRACES = np.array([[1, 2, np.nan], [np.inf, 5, 6], [7, -np.inf, 9], [np.nan, np.nan, np.nan]])
FINITE = np.isfinite(TRACES)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_fills_what_is_not_a_number(dtype, value):
    recording = fill_nan(si.NumpyRecording([TRACES.astype(dtype), TRACES[:2].astype(dtype)], 1000.0), value=value)
    traces = recording.get_traces(segment_index=0)
    assert traces.dtype == dtype
    np.testing.assert_array_equal(traces, np.where(FINITE, TRACES, value))
    np.testing.assert_array_equal(recording.get_traces(segment_index=1), np.where(FINITE, TRACES, value)[:2])


def test_chunks_and_channels():
    recording = fill_nan(si.NumpyRecording(TRACES, 1000.0))
    ids = recording.channel_ids[[2, 0]]
    traces = recording.get_traces(segment_index=0, start_frame=1, end_frame=3, channel_ids=ids)
    np.testing.assert_array_equal(traces, [[6, 0], [9, 7]])


def test_integers_pass_unchanged():
    traces = np.arange(12, dtype="int16").reshape(4, 3)
    filled = fill_nan(si.NumpyRecording(traces, 1000.0)).get_traces()
    assert filled.dtype == "int16"
    np.testing.assert_array_equal(filled, traces)


def test_the_source_is_left_alone():
    traces = TRACES.copy()
    fill_nan(si.NumpyRecording(traces, 1000.0)).get_traces()
    np.testing.assert_array_equal(traces, TRACES)


def test_a_value_for_each_channel():
    filled = fill_nan(si.NumpyRecording(TRACES, 1000.0), value=[10.0, 20.0, 30.0])
    np.testing.assert_array_equal(filled.get_traces(), np.where(FINITE, TRACES, [10.0, 20.0, 30.0]))
    np.testing.assert_array_equal(filled.get_traces(channel_ids=[2]), np.where(FINITE, TRACES, 30.0)[:, 2:])


def test_short_gaps_are_bridged_and_others_are_not():
    nan = np.nan
    trace = np.array([nan, 1, nan, 3, nan, nan, 9, nan, nan, nan, 5, nan])
    filled = fill_nan(si.NumpyRecording(trace[:, None], 1000.0), value=-1.0, bridge_ms=2.0).get_traces()[:, 0]
    np.testing.assert_array_equal(filled, [-1, 1, 2, 3, 5, 7, 9, -1, -1, -1, 5, -1])


@given(
    st.lists(st.one_of(st.just(np.nan), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(0, 6),
    st.integers(0, 39),
    st.integers(1, 39),
)
def test_chunks_bridge_as_the_whole_does(samples, bridge_ms, start, length):
    trace = np.array(samples, dtype="float64")[:, None]
    filled = fill_nan(si.NumpyRecording(trace, 1000.0), value=-1.0, bridge_ms=float(bridge_ms))
    start = min(start, len(trace) - 1)
    end = min(start + length, len(trace))
    np.testing.assert_allclose(
        filled.get_traces(start_frame=start, end_frame=end), filled.get_traces()[start:end], atol=1e-12
    )


def test_noise_is_the_same_whichever_chunk_is_asked_for():
    traces = np.full((20_000, 3), np.nan)
    traces[:100] = 5.0
    filled = fill_nan(si.NumpyRecording([traces, traces], 1000.0), value=[10.0, 20.0, 30.0], noise=[0.0, 1.0, 2.0])
    whole = filled.get_traces(segment_index=0)
    np.testing.assert_array_equal(whole[:100], 5.0)
    np.testing.assert_allclose(whole[100:].mean(axis=0), [10, 20, 30], atol=0.1)
    np.testing.assert_allclose(whole[100:].std(axis=0), [0, 1, 2], rtol=0.05)
    part = filled.get_traces(segment_index=0, start_frame=4000, end_frame=9000, channel_ids=[2, 1])
    np.testing.assert_array_equal(part, whole[4000:9000, [2, 1]])
    assert not np.array_equal(filled.get_traces(segment_index=1), whole)


@pytest.mark.parametrize(
    "arguments", [dict(value=[1.0, 2.0]), dict(value=np.nan), dict(noise=-1.0), dict(bridge_ms=-1.0)]
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        fill_nan(si.NumpyRecording(TRACES, 1000.0), **arguments)


def test_round_trip(tmp_path, reload):
    filled = fill_nan(si.NumpyRecording(TRACES, 1000.0).save(folder=tmp_path / "recording", verbose=False), value=3.0)
    loaded = reload(filled)
    assert type(loaded) is FillNanRecording
    np.testing.assert_array_equal(loaded.get_traces(), np.where(FINITE, TRACES, 3.0))
