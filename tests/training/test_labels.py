import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.training import targets

FS, T = 500.0, 100
FRAMES = np.array([3, 40, 99])
TRACE = np.isin(np.arange(T), FRAMES).astype(int)


@pytest.mark.parametrize(
    "label",
    [FRAMES / FS, list(FRAMES / FS), FRAMES, FRAMES.tolist(), TRACE, TRACE.astype(bool), TRACE.astype(float)],
    ids=["seconds", "list of seconds", "frames", "list of frames", "0/1", "bool", "0.0/1.0"],
)
def test_labels_of_all_kinds_become_the_same(label):
    for labels in (label, [label]):
        (target,) = targets(labels, [T], FS)
        np.testing.assert_array_equal(target, TRACE)
    first, second = targets([label, []], [T, 7], FS)
    np.testing.assert_array_equal(first, TRACE)
    np.testing.assert_array_equal(second, np.zeros(7))


def test_one_table_serves_traces_of_one_table():
    table = np.stack([TRACE, TRACE[::-1]], axis=1)
    first, second = targets(table, [T, T], FS)
    np.testing.assert_array_equal(first, TRACE)
    np.testing.assert_array_equal(second, TRACE[::-1])


def test_kind_settles_what_cannot_be_guessed():
    (target,) = targets([[1, 2]], [1500], FS, kind="seconds")
    np.testing.assert_array_equal(np.flatnonzero(target), [500, 1000])
    (target,) = targets([[1.0, 2.0]], [T], FS, kind="frames")
    np.testing.assert_array_equal(np.flatnonzero(target), [1, 2])


@given(frames=st.sets(st.integers(0, 9999)), sampling_frequency=st.floats(200, 5000), jitter=st.floats(-0.4, 0.4))
def test_spikes_go_to_the_nearest_sample(frames, sampling_frequency, jitter):
    times = np.maximum((np.sort(list(frames)) + jitter) / sampling_frequency, 0.0)
    (target,) = targets([times.astype(float)], [10_000], sampling_frequency)
    assert set(np.flatnonzero(target)) == frames


BAD = {
    "after the end": ([[0.1, 0.2]], {}, r"labels\[0\]: the spike at 0.2 s lies outside the trace \(0 to 0.2 s\)"),
    "before the start": ([[-0.1]], {}, r"labels\[0\]: the spike at -0.1 s lies outside the trace"),
    "frames as floats": ([[3.0, 40.0]], {}, r"floats are taken for seconds and integers for frames"),
    "late frame": ([[3, 100]], {}, r"labels\[0\]: the spike at 100  lies outside the trace \(0 to 100 \)"),
    "short 0/1": ([TRACE[:-1]], {}, r"labels\[0\] has 99 values 0 and 1, but the trace has 100 samples"),
    "not 0/1": ([2 * TRACE], {"kind": "trace"}, r"labels\[0\] must be 100 values 0 or 1"),
    "NaN": ([[0.1, np.nan]], {}, r"labels\[0\] must be a list of finite numbers"),
    "words": ([["a"]], {}, r"labels\[0\] must be a list of finite numbers"),
    "too many": ([[0.1], [0.1]], {}, "labels: there are 1 traces, so give a list of 1 arrays .*not 2"),
    "transposed": (TRACE[None], {}, r"not shape \(1, 100\)"),
    "unknown kind": ([[0.1]], {"kind": "times"}, "kind must be one of auto, seconds, frames, trace, not 'times'"),
}


@pytest.mark.parametrize(("labels", "settings", "message"), BAD.values(), ids=BAD)
def test_bad_labels_are_refused(labels, settings, message):
    with pytest.raises(ValueError, match=message):
        targets(labels, [T], FS, **settings)


def test_one_list_of_times_does_not_serve_two_traces():
    with pytest.raises(ValueError, match="labels: there are 2 traces"):
        targets([0.1, 0.15], [T, T], FS)
