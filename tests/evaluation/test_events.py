import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from dlvolt.evaluation import EventScores, event_scores, match_events

# Multiples of 1/32 s, so that many distances are exactly the tolerance.
times = st.lists(st.integers(0, 60).map(lambda step: step / 32), max_size=12).map(sorted)
tolerances = st.integers(0, 6).map(lambda step: step / 32)


@given(times, times, tolerances)
def test_as_many_pairs_as_the_best_assignment(true, found, tolerance):
    pairs = match_events(true, found, tolerance)
    within = np.abs(np.subtract.outer(true, found)) <= tolerance
    rows, columns = linear_sum_assignment(within.reshape(len(true), len(found)), maximize=True)
    assert len(pairs) == within[rows, columns].sum()
    assert np.all(np.diff(pairs, axis=0) > 0)  # each used once
    assert all(within[i, j] for i, j in pairs)


@given(times, times, tolerances)
def test_truth_and_found_change_places(true, found, tolerance):
    here, there = event_scores(true, found, tolerance), event_scores(found, true, tolerance)
    assert here.f1 == there.f1
    assert (here.precision, here.recall) == (there.recall, there.precision)


def test_known_pairs():
    # The greedy choice of the nearest pair (0.103 with 0.102) would leave two events alone.
    np.testing.assert_array_equal(match_events([0.1, 0.103], [0.102, 0.107], 0.005), [[0, 0], [1, 1]])
    scores = event_scores([0.1, 0.2, 0.3], [0.104, 0.2, 0.2, 0.35])
    assert scores == EventScores(num_true=3, num_found=4, num_matched=2)
    assert (scores.precision, scores.recall, scores.f1) == (2 / 4, 2 / 3, 4 / 7)


def test_frames_at_the_tolerance_are_within_it():
    frames = np.arange(0, 4000, 40)
    true, found = frames / 400, (frames + 2) / 400  # all 5 ms apart; some differences round to more
    assert np.any(found - true > 0.005)
    assert event_scores(true, found, 0.005).num_matched == len(frames)
    assert event_scores(true, found, 0.00499).num_matched == 0


@pytest.mark.parametrize(
    ("true", "found", "precision", "recall", "f1"),
    [([], [], 1, 1, 1), ([0.1], [], 1, 0, 0), ([], [0.1], 0, 1, 0), ([0.1], [0.1], 1, 1, 1)],
)
def test_nothing_to_find_or_nothing_found(true, found, precision, recall, f1):
    scores = event_scores(true, found)
    assert (scores.precision, scores.recall, scores.f1) == (precision, recall, f1)


def test_traces_add_up():
    total = sum([event_scores([0.1, 0.2], [0.1]), event_scores([], [0.3, 0.4])], EventScores())
    assert total == EventScores(num_true=2, num_found=3, num_matched=1)


@pytest.mark.parametrize(
    ("true", "found", "tolerance", "error"),
    [
        ([0.2, 0.1], [], 0.005, r"true: times must ascend; give np.sort\(true\)"),
        ([], [0.1, np.nan], 0.005, "found: some times are NaN"),
        ([[0.1]], [], 0.005, r"true: must be the event times of one trace, shape \(E,\), not \(1, 1\)"),
        ([], [], -1, "tolerance_s: must be 0 or more, not -1"),
        ([], [], np.nan, "tolerance_s: must be 0 or more"),
    ],
)
def test_bad_input(true, found, tolerance, error):
    with pytest.raises(ValueError, match=error):
        event_scores(true, found, tolerance)
