import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.evaluation import best_threshold, threshold_sweep


def bumps(num_samples, **heights_at):
    """A probability of zero but for triangles."""
    probability = np.zeros(num_samples)
    for frame, height in heights_at.items():
        frame = int(frame.removeprefix("at"))
        probability[frame - 1 : frame + 2] = height / 2, height, height / 2
    return probability


def test_known_sweep():
    probability = bumps(1000, at100=0.9, at300=0.6, at500=0.3)
    sweep = threshold_sweep([0.1, 0.3], probability, 1000.0, [0.2, 0.5, 0.8, 0.95])
    assert sweep.index.tolist() == [0.2, 0.5, 0.8, 0.95]
    assert sweep["num_found"].tolist() == [3, 2, 1, 0]
    assert sweep["num_matched"].tolist() == [2, 2, 1, 0]
    assert sweep["precision"].tolist() == [2 / 3, 1, 1, 1]
    assert sweep["recall"].tolist() == [1, 1, 0.5, 0]
    assert best_threshold(sweep) == 0.5


def test_traces_are_pooled_and_ends_count():
    probability = np.zeros((50, 2))
    probability[0, 0] = probability[-1, 1] = 0.8
    sweep = threshold_sweep([[0.0], []], probability, 1000.0, [0.5])
    assert sweep.loc[0.5, ["num_true", "num_found", "num_matched"]].tolist() == [1, 2, 1]


def test_of_equal_thresholds_the_middle_one_is_best():
    sweep = threshold_sweep([0.1], bumps(200, at100=0.75), 1000.0)
    assert best_threshold(sweep) == 0.4  # 0.05 to 0.75 are all right


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.floats(0.1, 6))
def test_each_threshold_of_a_sweep_stands_for_itself(steps, shadow_ms):
    probability = np.array(steps) / 20
    true = np.flatnonzero(probability > 0.7) / 1000
    sweep = threshold_sweep(true, probability, 1000.0, shadow_ms=shadow_ms)
    for threshold in (0.2, 0.6, 0.95):
        alone = threshold_sweep(true, probability, 1000.0, [threshold], shadow_ms=shadow_ms)
        assert alone.loc[threshold].equals(sweep.loc[threshold])


@pytest.mark.parametrize(
    ("true", "probability", "thresholds", "error"),
    [
        ([[0.1], [0.2]], np.zeros((10, 3)), [0.5], "true: holds spike times of 2 traces for 3"),
        ([0.1], np.zeros(10), [], "thresholds: must be one or more numbers above 0"),
        ([0.1], np.zeros(10), [0.0], "thresholds: must be one or more numbers above 0"),
        ([0.1], np.zeros(10), [0.5, 1.5], "thresholds: must be one or more numbers above 0"),
        ([0.2, 0.1], np.zeros(10), [0.5], "true: times must ascend"),
    ],
)
def test_bad_input(true, probability, thresholds, error):
    with pytest.raises(ValueError, match=error):
        threshold_sweep(true, probability, 1000.0, thresholds)
