import pickle

import numpy as np
import pytest
import spikeinterface as si

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


@pytest.mark.parametrize("how", ["json", "pickle", "pickled object"])
def test_round_trip(tmp_path, how):
    filled = fill_nan(si.NumpyRecording(TRACES, 1000.0).save(folder=tmp_path / "recording", verbose=False), value=3.0)
    if how == "pickled object":
        loaded = pickle.loads(pickle.dumps(filled))
    else:
        filled.dump(tmp_path / f"filled.{how}")
        loaded = si.load(tmp_path / f"filled.{how}")
    assert type(loaded) is FillNanRecording
    np.testing.assert_array_equal(loaded.get_traces(), np.where(FINITE, TRACES, 3.0))
