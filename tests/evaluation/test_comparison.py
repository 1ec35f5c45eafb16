import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from spikeinterface.comparison import GroundTruthComparison, SymmetricSortingComparison

from dlvolt.evaluation import compare_sortings, compare_to_ground_truth, comparison_tolerance_ms, match_events


def sorting(trains, sampling_frequency, recording=None):
    """Frames of each unit, of one segment or of a list of them."""
    segments = trains if isinstance(trains, list) else [trains]
    segments = [{unit: np.asarray(frames, dtype="int64") for unit, frames in units.items()} for units in segments]
    made = si.NumpySorting.from_unit_dict(segments, sampling_frequency)
    if recording is not None:
        made.register_recording(recording)
    return made


def recording(num_samples, sampling_frequency, t_start=None, times=None):
    made = si.NumpyRecording(
        [np.zeros((num_samples, 1), dtype="float32")],
        sampling_frequency,
        t_starts=None if t_start is None else [t_start],
    )
    if times is not None:
        made.set_times(times)
    return made


def counts(comparison):
    table = comparison.get_performance("raw_count")
    return {unit: (row["tp"], row["fn"], row["fp"]) for unit, row in table.iterrows()}


@pytest.mark.parametrize(
    ("rates", "tolerance_ms"),
    [((400, 400), 3.5), ((500,), 3.0), ((3125, 4000), 1.32), ((20_000, 500), 3.0), ((30_000, 20_000), 1.05)],
)
def test_tolerance_is_a_millisecond_and_a_frame_of_the_slower(rates, tolerance_ms):
    assert comparison_tolerance_ms(*(sorting({0: []}, rate) for rate in rates)) == tolerance_ms


@pytest.mark.parametrize(("rate", "reach"), [(400.0, 1), (500.0, 1), (1000.0, 2), (3328.0, 4), (20_000.0, 21)])
def test_spikes_as_far_as_the_tolerance_are_the_same_and_no_further(rate, reach):
    frames = np.arange(100, 10_000, 500)
    for shift, same in ((0, True), (reach, True), (-reach, True), (reach + 1, False), (-reach - 1, False)):
        comparison = compare_to_ground_truth(sorting({"a": frames}, rate), sorting({"a": frames + shift}, rate))
        assert isinstance(comparison, GroundTruthComparison)
        assert comparison.delta_frames == reach
        assert counts(comparison) == {"a": (20, 0, 0) if same else (0, 20, 20)}


@pytest.mark.parametrize(
    "tolerance_ms", [1000 * frames / rate for rate in (400, 3328, 24_414.0625) for frames in range(9)]
)
def test_a_tolerance_of_whole_frames_is_not_truncated(tolerance_ms):
    for rate in (400.0, 3328.0, 24_414.0625):
        pair = sorting({0: [100]}, rate), sorting({0: [100]}, rate)
        frames = compare_sortings(*pair, tolerance_ms=tolerance_ms).delta_frames
        assert frames == int(tolerance_ms * rate / 1000 + 1e-6)


def test_electrodes_at_20_khz_against_light_at_500_hz():
    # ms of true spikes:   10       20.95       31.95     50 (missed)
    # frames of 2 ms:       5        10          15       35 (false)
    truth = sorting({"cell": [200, 419, 639, 1000]}, 20_000.0)
    found = sorting({"cell": [5, 10, 15, 35]}, 500.0)
    assert counts(compare_to_ground_truth(truth, found)) == {"cell": (3, 1, 1)}
    assert counts(compare_to_ground_truth(truth, found, tolerance_ms=1.95)) == {"cell": (3, 1, 1)}
    assert counts(compare_to_ground_truth(truth, found, tolerance_ms=1.9)) == {"cell": (2, 2, 2)}
    assert counts(compare_to_ground_truth(truth, found, tolerance_ms=0.9)) == {"cell": (1, 3, 3)}


def test_neither_clock_is_rounded_to_the_other():
    # 2.5 ms frames against 2 ms frames: 7.5 and 8 ms are within half a millisecond, 12.5 and 14 are not.
    slow, fast = sorting({1: [3, 5]}, 400.0), sorting({1: [4, 7]}, 500.0)
    assert counts(compare_to_ground_truth(slow, fast, tolerance_ms=0.5)) == {1: (1, 1, 1)}
    assert counts(compare_to_ground_truth(fast, slow, tolerance_ms=0.5)) == {1: (1, 1, 1)}
    assert counts(compare_to_ground_truth(slow, fast, tolerance_ms=0.49)) == {1: (0, 2, 2)}


def test_start_times_are_respected():
    truth = sorting({0: [22_000]}, 20_000.0, recording(40_000, 20_000.0, t_start=4.0))  # 5.1 s
    found = sorting({0: [50]}, 500.0, recording(500, 500.0, t_start=5.0))  # 5.1 s
    assert counts(compare_to_ground_truth(truth, found)) == {0: (1, 0, 0)}
    late = sorting({0: [50]}, 500.0, recording(500, 500.0, t_start=5.0035))
    assert counts(compare_to_ground_truth(truth, late)) == {0: (0, 1, 1)}
    same_rate = sorting({0: [550]}, 500.0, recording(1000, 500.0, t_start=4.0))
    assert counts(compare_to_ground_truth(same_rate, found)) == {0: (1, 0, 0)}


@pytest.mark.parametrize("rate", [500.0, 20_000.0])
def test_a_truth_without_a_start_begins_with_the_recording(rate):
    found = sorting({0: [50]}, 500.0, recording(500, 500.0, t_start=1e9))
    truth = sorting({0: [0.1 * rate]}, rate)
    assert counts(compare_to_ground_truth(truth, found)) == {0: (1, 0, 0)}
    assert counts(compare_to_ground_truth(found, truth)) == {0: (1, 0, 0)}


def test_irregular_timestamps_are_respected():
    times = np.arange(500) / 500.0 + 7.0
    times[100:] += 0.3  # a camera that paused
    found = sorting({0: [50, 150]}, 500.0, recording(500, 500.0, times=times))
    truth = sorting({0: [7.1 * 20_000, 7.6 * 20_000]}, 20_000.0, recording(200_000, 20_000.0, t_start=0.0))
    assert counts(compare_to_ground_truth(truth, found)) == {0: (2, 0, 0)}
    regular = sorting({0: [50, 150]}, 500.0, recording(500, 500.0, t_start=7.0))
    assert counts(compare_to_ground_truth(found, regular)) == {0: (1, 1, 1)}


def test_neighbouring_frames_of_one_recording_agree_however_irregular_it_is():
    times = np.cumsum(np.random.default_rng(0).uniform(0.001, 0.004, 500))
    camera = recording(500, 500.0, times=times)
    frames = np.arange(10, 490, 12)
    pair = sorting({0: frames}, 500.0, camera), sorting({0: frames + 1}, 500.0, camera)
    assert counts(compare_to_ground_truth(*pair)) == {0: (40, 0, 0)}


def test_units_go_together_by_id_however_little_they_agree():
    truth = sorting({3: [10, 50, 90, 130], 4: [30, 70], 7: [200]}, 400.0)
    found = sorting({"9": [], "4": [], "3": [10, 200, 300, 400, 500]}, 400.0)
    comparison = compare_to_ground_truth(truth, found)
    assert counts(comparison) == {3: (1, 3, 4), 4: (0, 2, 0), 7: (0, 1, 0)}
    assert comparison.get_performance()["accuracy"].to_dict() == {3: 1 / 8, 4: 0, 7: 0}
    assert list(comparison.hungarian_match_12) == ["3", "4", ""]
    assert list(comparison.hungarian_match_21) == [-1, 4, 3]
    symmetric = compare_sortings(truth, found)
    assert isinstance(symmetric, SymmetricSortingComparison)
    assert list(symmetric.get_matching()[0]) == ["3", "4", ""]
    assert symmetric.agreement_scores.loc[3, "3"] == 1 / 8


def test_units_go_together_by_agreement_where_ids_are_mere_numbers():
    truth = sorting({0: [10, 50, 90], 1: [30, 70]}, 400.0)
    found = sorting({0: [30, 70], 1: [10, 50, 91]}, 400.0)
    comparison = compare_to_ground_truth(truth, found, match="agreement", exhaustive_gt=True)
    assert type(comparison) is GroundTruthComparison
    assert comparison.get_performance()["accuracy"].to_dict() == {0: 1, 1: 1}
    assert comparison.get_false_positive_units() == []
    assert type(compare_sortings(truth, found, match="agreement")) is SymmetricSortingComparison


@pytest.mark.parametrize("match", ["id", "agreement"])
def test_ids_of_a_label_image(match):
    units = {np.uint16(4): [10, 20], np.uint16(5): [30]}
    pair = sorting(units, 500.0), sorting(units, 20_000.0 / 40)
    assert compare_to_ground_truth(*pair, match=match).get_performance()["accuracy"].to_dict() == {4: 1, 5: 1}


def test_silent_units_and_several_segments():
    truth = sorting([{"a": [10], "b": []}, {"a": [20, 40], "b": []}], 20_000.0)
    found = sorting([{"a": [], "b": []}, {"a": [0, 1], "b": [30]}], 500.0)
    assert counts(compare_to_ground_truth(truth, found)) == {"a": (2, 1, 0), "b": (0, 0, 1)}


rates = st.sampled_from([400.0, 500.0, 997.3, 3328.0, 20_000.0])


@given(rates, st.lists(st.integers(0, 20_000), unique=True, min_size=1), st.floats(0, 30), st.floats(-1, 1))
def test_shifted_by_no_more_than_the_tolerance_is_right_fully(rate, frames, tolerance_ms, part):
    shift_s = part * tolerance_ms / 1000
    truth = sorting({0: np.sort(frames)}, rate, recording(20_001, rate, t_start=3.0))
    shifted = sorting({0: np.sort(frames)}, rate, recording(20_001, rate, t_start=3.0 + shift_s))
    comparison = compare_to_ground_truth(truth, shifted, tolerance_ms=tolerance_ms)
    assert counts(comparison) == {0: (len(frames), 0, 0)}


@given(rates, rates, st.floats(1, 5), st.integers(0, 1000))
def test_matches_are_those_of_a_walk_through_the_times(rate, other_rate, tolerance_ms, seed):
    # Spikes further apart than twice the tolerance, where there is but one way to pair them.
    jitter = np.random.default_rng(seed).uniform(-0.004, 0.004, (2, 30))
    times, others = 0.02 * np.arange(1, 31) + jitter
    truth, found = sorting({0: np.round(times * rate)}, rate), sorting({0: np.round(others * other_rate)}, other_rate)
    seconds = [units.get_unit_spike_train_in_seconds(0, 0) for units in (truth, found)]
    matched = compare_to_ground_truth(truth, found, tolerance_ms=tolerance_ms).match_event_count.at[0, 0]
    assert len(match_events(*seconds, tolerance_ms / 1000)) <= matched
    assert matched <= len(match_events(*seconds, tolerance_ms / 1000 + 3e-6))


def test_what_will_not_do():
    one = sorting({0: [1]}, 500.0)
    with pytest.raises(ValueError, match=r"sorting: one has 1 segments, the other 2"):
        compare_to_ground_truth(one, sorting([{0: [1]}, {0: [1]}], 500.0))
    with pytest.raises(ValueError, match=r"sorting: 1 units against 0; both must have some"):
        compare_sortings(one, sorting({}, 500.0))
    with pytest.raises(ValueError, match=r"match: no id is in both, .*; match=\"agreement\""):
        compare_to_ground_truth(one, sorting({"soma": [1]}, 500.0))
    with pytest.raises(ValueError, match='match: must be "id" or "agreement", not'):
        compare_sortings(one, one, match="best")
    with pytest.raises(ValueError, match="tolerance_ms: must be 0 or more, not -1"):
        compare_sortings(one, one, tolerance_ms=-1)
