import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.detection import best_expected_f1, expected_f1_thresholds

probabilities = st.lists(st.floats(0.02, 1), max_size=12).map(np.array)


@given(probabilities)
def test_no_other_choice_of_spikes_expects_more(confidence):
    """Over all subsets, with the expectations of hits and of true spikes in F1's formula."""
    best = best_expected_f1(confidence)
    for code in range(2 ** len(confidence)):
        chosen = confidence[[bool(code >> bit & 1) for bit in range(len(confidence))]] if code else confidence[:0]
        assert 2 * chosen.sum() / max(len(chosen) + confidence.sum(), 1e-9) <= best + 1e-12


@given(probabilities)
def test_the_best_threshold_is_half_of_it(confidence):
    best = best_expected_f1(confidence)
    chosen = confidence[confidence >= best / 2 - 1e-12]
    if len(confidence):
        assert 2 * chosen.sum() / (len(chosen) + confidence.sum()) == pytest.approx(best)
    else:
        assert best == 0


def test_clear_spikes_take_a_higher_threshold_than_faint_ones():
    probability = np.zeros((2000, 3), dtype="float32")
    probability[50::100, 0] = 1
    probability[50::100, 1] = 0.4
    probability[50::500, 1] = 0.8
    recording = si.NumpyRecording(probability, 1000.0)
    faint = 2 * (4 * 0.8 + 16 * 0.4) / (20 + 4 * 0.8 + 16 * 0.4)
    np.testing.assert_allclose(expected_f1_thresholds(recording, 2), [0.5, max(faint / 2, 0.3), 0.3], rtol=1e-6)
