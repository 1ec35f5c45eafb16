import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.training import split_in_time, windows


@given(num_samples=st.integers(1, 60), size=st.integers(1, 20), data=st.data())
def test_every_sample_is_in_a_window_and_every_window_is_a_piece_of_the_trace(num_samples, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    trace = np.arange(num_samples, dtype=float)
    X, y = windows([trace], [trace % 2], size, overlap)
    assert X.shape == y.shape == (len(X), size)
    np.testing.assert_array_equal(y, X % 2)
    assert set(X.ravel()) == set(trace)
    if num_samples >= size:
        np.testing.assert_array_equal(np.diff(X, axis=1), 1)
        np.testing.assert_array_equal(np.diff(X[:-1, 0]), size - overlap)
        assert X[-1, -1] == num_samples - 1


def test_published_windows():
    X, _ = windows([np.arange(1400)], [np.zeros(1400)], 500, 50)
    np.testing.assert_array_equal(X[:, 0], [0, 450, 900])


def test_windows_do_not_span_traces():
    X, y = windows([np.arange(10), 100 + np.arange(4)], [np.zeros(10), np.ones(4)], 4, 0)
    np.testing.assert_array_equal(X[:, 0], [0, 4, 6, 100])
    np.testing.assert_array_equal(y.sum(axis=1), [0, 0, 0, 4])
    assert (X.dtype, y.dtype) == ("float32", "int8")


def test_what_is_shorter_than_a_window_goes_on_as_its_mirror_image():
    X, _ = windows([np.arange(3)], [np.zeros(3)], 7, 0)
    np.testing.assert_array_equal(X, [[0, 1, 2, 2, 1, 0, 0]])


@pytest.mark.parametrize("overlap", [-1, 5])
def test_overlap_is_less_than_a_window(overlap):
    with pytest.raises(ValueError, match=f"less than the window of 5 samples, not {overlap}"):
        windows([np.arange(10)], [np.zeros(10)], 5, overlap)


@given(lengths=st.lists(st.integers(20, 500), min_size=1, max_size=4))
def test_parts_follow_each_other_and_make_up_the_whole(lengths):
    arrays = [np.arange(length) for length in lengths]
    parts = split_in_time(arrays, (0.7, 0.15, 0.15))
    for index, array in enumerate(arrays):
        np.testing.assert_array_equal(np.concatenate([part[index] for part in parts]), array)
        assert abs(len(parts[0][index]) - 0.7 * len(array)) <= 0.5
        assert abs(len(parts[1][index]) - 0.15 * len(array)) <= 1


def test_fractions_and_lengths_are_checked():
    with pytest.raises(ValueError, match="fractions must be positive with the sum 1"):
        split_in_time([np.arange(100)], (0.7, 0.2, 0.2))
    with pytest.raises(ValueError, match="traces: 3 samples are too few for 3 parts"):
        split_in_time([np.arange(3)])
