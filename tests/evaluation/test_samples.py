import numpy as np
import pytest

from dlvolt.evaluation import confusion_table, sample_scores

LABELS = [0, 1, 1, 0, 0, 1]
PROBABILITY = [0.1, 0.9, 0.5, 0.7, 0.2, 0.3]


def test_known_scores():
    scores = sample_scores(LABELS, PROBABILITY)
    assert (scores.precision, scores.recall, scores.f1) == (2 / 3, 2 / 3, pytest.approx(2 / 3))
    # In order of probability: true, false, true, true, …: precision 1/1, 2/3, 3/4 at each third of recall.
    assert scores.average_precision == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert sample_scores(LABELS, PROBABILITY, 0.6).recall == 1 / 3
    shaped = [np.reshape(values, (3, 2)) for values in (LABELS, PROBABILITY)]
    assert sample_scores(*shaped) == scores


def test_confusion():
    table = confusion_table(LABELS, PROBABILITY)
    assert table.loc["spike"].tolist() == [2, 1]
    assert table.loc["no spike"].tolist() == [1, 2]
    assert list(table.columns) == ["spike", "no spike"]
    assert confusion_table([0, 0], [0.0, 0.1]).to_numpy().tolist() == [[0, 0], [0, 2]]


@pytest.mark.parametrize(
    ("labels", "probability", "expected"),
    [([0, 0], [0.1, 0.1], (1, 1, 1)), ([1, 0], [0.1, 0.1], (1, 0, 0)), ([0, 0], [0.9, 0.1], (0, 1, 0))],
)
def test_nothing_to_find_or_nothing_found(labels, probability, expected):
    scores = sample_scores(labels, probability)
    assert scores[:3] == expected
    assert np.isnan(scores.average_precision) == (not any(labels))


@pytest.mark.parametrize(
    ("labels", "probability", "error"),
    [
        ([0, 1, 1], [0.5, 0.5], r"labels: have shape \(3,\), the probabilities \(2,\)"),
        ([0, 2], [0.5, 0.5], "labels: must be 0 or 1"),
        ([0, 1], [0.5, 1.5], "probability: must lie between 0 and 1"),
        ([0, 1], [0.5, np.nan], "probability: must lie between 0 and 1"),
    ],
)
@pytest.mark.parametrize("function", [sample_scores, confusion_table])
def test_bad_input(function, labels, probability, error):
    with pytest.raises(ValueError, match=error):
        function(labels, probability)
