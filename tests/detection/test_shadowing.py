import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlvolt.detection import AdaptivePeakDetector, NetworkPeakDetector, shadow
from dlvolt.detection.shadowing import shadow_chunk

# Few distinct values, so that there are ties and plateaus.
probabilities = arrays(
    "float32", st.tuples(st.integers(1, 60), st.integers(1, 3)), elements=st.integers(0, 9).map(float)
)


def by_brute_force(trace, threshold, reach):
    """Take the most confident peak, the first of equal ones; strike out what is within reach; and so on."""
    around = [-np.inf, *trace, -np.inf]
    left = [t for t, p in enumerate(trace) if p >= threshold and around[t] < p >= around[t + 2]]
    kept = []
    while left:
        best = max(left, key=lambda t: (trace[t], -t))
        kept.append(best)
        left = [t for t in left if abs(t - best) > reach]
    return sorted(kept)


@given(probability=probabilities, threshold=st.integers(0, 9), reach=st.integers(0, 20))
def test_brute_force(probability, threshold, reach):
    frames, channels = shadow(probability, threshold, reach)
    assert np.all(np.diff(frames) >= 0)
    for channel in range(probability.shape[1]):
        found = frames[channels == channel].tolist()
        assert found == by_brute_force(probability[:, channel], threshold, reach)


@given(probability=probabilities, reach=st.integers(0, 6), cut=st.tuples(st.integers(0, 59), st.integers(1, 60)))
def test_what_is_sure_in_a_piece_holds_in_the_whole(probability, reach, cut):
    start, end = min(cut[0], len(probability) - 1), min(max(cut), len(probability))
    if start >= end:
        return
    whole = set(zip(*(part.tolist() for part in shadow(probability, 3, reach)), strict=True))
    piece = probability[start:end]
    frames, channels, sure = shadow_chunk(piece, 3, reach, start > 0, end < len(probability))
    possible = set(zip((frames + start).tolist(), channels.tolist(), strict=True))
    assert set(zip((frames[sure] + start).tolist(), channels[sure].tolist(), strict=True)) <= whole
    # What is no peak at the border of the piece may be one in the whole, all else is at least possible.
    assert {(t, n) for t, n in whole if start <= t < end} <= possible


def test_what_is_suppressed_suppresses_nothing():
    probability = np.zeros((20, 1))
    probability[[4, 7, 10], 0] = 0.9, 0.8, 0.7
    assert shadow(probability, 0.5, 3)[0].tolist() == [4, 10]
    assert shadow(probability, 0.5, 2)[0].tolist() == [4, 7, 10]
    assert shadow(probability, 0.75, 2)[0].tolist() == [4, 7]


@pytest.mark.parametrize("num_samples", [0, 1])
def test_nothing_and_next_to_nothing(num_samples):
    frames, channels = shadow(np.full((num_samples, 2), 0.9), 0.5, 2)
    assert frames.tolist() == [0, 0][: 2 * num_samples]
    assert channels.tolist() == [0, 1][: 2 * num_samples]


@pytest.mark.parametrize("detector", [AdaptivePeakDetector, NetworkPeakDetector])
def test_spikeinterface_is_told_all_parameters(detector):
    told = [line.split(" : ")[0] for line in detector.params_doc.splitlines() if not line.startswith(" ")]
    assert ["recording", *told, "return_output"] == list(inspect.signature(detector).parameters)
