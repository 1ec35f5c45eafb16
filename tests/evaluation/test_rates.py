import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from dlvolt.evaluation import rate_scores


@given(num_samples=st.integers(40, 300), bin_samples=st.integers(1, 5), sparse=st.booleans(), seed=st.integers(0, 999))
def test_scores_are_those_of_scipy_and_scikit_learn_on_bins(num_samples, bin_samples, sparse, seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.2, num_samples)
    counts[:2] = 1, 0
    counts[5:10] = 0  # there is a bin with, and one without
    rate = counts + rng.normal(size=num_samples)
    rate = rate * (rate > 1) + (0 if sparse else 1e-3 * rate)  # many bins alike, or none
    last = num_samples - num_samples % bin_samples
    y, p = (
        [sum(trace[start : start + bin_samples]) for start in range(0, last, bin_samples)] for trace in (counts, rate)
    )
    expected = [pearsonr(y, p)[0], spearmanr(y, p)[0], roc_auc_score(np.array(y) > 0, p)]
    np.testing.assert_allclose(rate_scores(counts, rate, bin_samples).loc[0], expected, atol=1e-12)
    np.testing.assert_allclose(rate_scores(counts, 3 * rate + 2, bin_samples).loc[0], expected, atol=1e-6)


def test_by_hand():
    counts = [0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9]  # bins 0, 2, 0, 9
    rate = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0]  # bins 0, 1, 2, 3
    scores = rate_scores(counts, rate).loc[0]
    assert scores["correlation"] == pytest.approx(12.5 / np.sqrt(5 * (85 - 11**2 / 4)))
    assert scores["rank"] == pytest.approx(3.0 / np.sqrt(5 * 4.5))  # ranks 1.5, 3, 1.5, 4 against 1, 2, 3, 4
    assert scores["auc"] == 0.75  # three of four pairs of a bin with and one without are in order


def test_padding_does_not_count_and_means_are_over_cells():
    rng = np.random.default_rng(0)
    cells = [(rng.poisson(0.1, n), rng.random(n)) for n in (400, 250)]
    table = np.full((2, 400, 2), np.nan)
    for n, pair in enumerate(cells):
        for which in (0, 1):
            table[which, : len(pair[which]), n] = pair[which]
    padded, listed = rate_scores(*table), rate_scores(*zip(*cells, strict=True))
    np.testing.assert_array_equal(padded, listed)
    np.testing.assert_array_equal(padded.loc[1], rate_scores(*cells[1]).loc[0])
    assert padded.mean()["auc"] == np.mean([rate_scores(*pair)["auc"][0] for pair in cells])


def test_a_cell_without_spikes_has_no_scores_and_is_left_out_of_means():
    spikes, rate = np.zeros((40, 2)), np.random.default_rng(0).random((40, 2))
    spikes[[3, 20], 1] = 1
    scores = rate_scores(spikes, rate)
    assert scores.loc[0].isna().all()
    assert scores.mean().tolist() == scores.loc[1].tolist()
    assert rate_scores(spikes[:, 1], np.full(40, 0.7)).loc[0].tolist() == [0, 0, 0.5]


@pytest.mark.parametrize(
    ("counts", "rate", "message"),
    [
        (np.zeros((8, 2)), np.zeros((8, 3)), "rate: there are 3 cells, but 2 with counts"),
        (np.zeros(8), np.zeros(9), r"rate: of cell 0 has the shape \(9,\), its counts \(8,\)"),
        (np.zeros(8), [0, 0, np.nan, 0, 0, 0, 0, 0], "rate: of cell 0 is NaN or infinite where counts are known"),
        ([0, 0, 0, -1], np.zeros(4), "counts: of cell 0 are negative"),
        ([0, 0, 1, np.nan], np.zeros(4), "counts: of cell 0 hold 3 known samples, no bin of 4"),
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), r"must have the shape \(T,\) or \(T, N\)"),
    ],
)
def test_bad_input(counts, rate, message):
    with pytest.raises(ValueError, match=message):
        rate_scores(counts, rate)
    with pytest.raises(ValueError, match="bin_samples: must be 1 or more, not 0"):
        rate_scores([1], [1], 0)
