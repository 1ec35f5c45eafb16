from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.networks import create, trace_probability
from dlvolt.networks.inference import mirror


def fake(predict_proba, width=10, overlap=4, prune=1):
    return SimpleNamespace(
        window_samples=width, overlap_samples=overlap, prune_samples=prune, predict_proba=predict_proba
    )


def position_weighted(X):
    """Tells where in its window a sample lies, so that averages over windows show."""
    return X * np.arange(X.shape[1])


def reader(traces, asked=None):
    def read(start, end):
        assert 0 <= start <= end <= len(traces)
        if asked is not None:
            asked.append((start, end))
        return traces[start:end]

    return read


def brute_force(model, traces):
    """Every window of the grid up to the first that reaches the end, one by one."""
    num_samples, width, prune = len(traces), model.window_samples, model.prune_samples
    hop, far = width - model.overlap_samples, 10 * width
    padded = np.pad(traces, ((far, far), (0, 0)), mode="symmetric")
    total, count = np.zeros_like(padded), np.zeros(len(padded))
    position = 0
    while True:
        begin = far + position - prune
        window = model.predict_proba(padded[begin : begin + width].T).T
        total[begin + prune : begin + width - prune] += window[prune : width - prune]
        count[begin + prune : begin + width - prune] += 1
        if position + width - 2 * prune >= num_samples:
            return (total[far : far + num_samples].T / count[far : far + num_samples]).T
        position += hop


windows = st.tuples(st.integers(1, 12), st.integers(0, 11), st.integers(0, 5)).filter(
    lambda w: w[1] < w[0] and 2 * w[2] <= w[1] and 2 * w[2] < w[0]
)


@given(window=windows, num_samples=st.integers(1, 60), data=st.data())
def test_any_stretch_holds_the_mean_over_the_windows_of_the_whole_recording(window, num_samples, data):
    model = fake(position_weighted, *window)
    traces = np.random.default_rng(0).normal(size=(num_samples, 2)).astype("float32")
    whole = brute_force(model, traces)
    np.testing.assert_allclose(trace_probability(model, reader(traces), num_samples), whole, rtol=1e-4, atol=1e-5)
    start = data.draw(st.integers(0, num_samples))
    end = data.draw(st.integers(start, num_samples))
    part = trace_probability(model, reader(traces), num_samples, start, end)
    assert (part.shape, part.dtype) == ((end - start, 2), "float32")
    np.testing.assert_allclose(part, whole[start:end], rtol=1e-4, atol=1e-5)


def test_a_model_that_repeats_its_input_gives_the_traces_back():
    traces = np.random.default_rng(0).normal(size=(1234, 3)).astype("float32")
    model = fake(lambda X: X, width=100, overlap=50, prune=10)
    np.testing.assert_allclose(trace_probability(model, reader(traces), 1234), traces, rtol=1e-6)


def test_only_what_is_needed_is_read():
    asked = []
    model = fake(lambda X: X, width=100, overlap=50, prune=10)
    trace_probability(model, reader(np.zeros((10_000, 1), "float32"), asked), 10_000, 5000, 5050)
    assert max(end - start for start, end in asked) <= 300


def test_a_long_stretch_is_read_piece_by_piece(monkeypatch):
    monkeypatch.setattr("dlvolt.networks.inference.SAMPLES_PER_CALL", 1000)
    asked, traces = [], np.random.default_rng(0).normal(size=(5000, 2)).astype("float32")
    model = fake(position_weighted, width=100, overlap=50, prune=10)
    pieces = trace_probability(model, reader(traces, asked), 5000)
    assert max(end - start for start, end in asked) < 500
    np.testing.assert_allclose(pieces, brute_force(model, traces), rtol=1e-5, atol=1e-5)


@given(num_samples=st.integers(1, 9), reach=st.integers(0, 40))
def test_mirror_is_numpys_symmetric_padding(num_samples, reach):
    expected = np.pad(np.arange(num_samples), reach, mode="symmetric")
    np.testing.assert_array_equal(mirror(np.arange(-reach, num_samples + reach), num_samples), expected)


def test_chunks_of_a_real_network_agree_with_the_whole():
    model = create("unet", sampling_frequency=1000.0, base_channels=8, depth=2).initialize()
    traces = np.random.default_rng(0).normal(size=(3000, 4)).astype("float32").cumsum(axis=0)
    whole = trace_probability(model, reader(traces), 3000)
    assert whole.std() > 1e-3
    for start, end in [(0, 1), (0, 999), (999, 2001), (2999, 3000)]:
        part = trace_probability(model, reader(traces), 3000, start, end)
        np.testing.assert_allclose(part, whole[start:end], atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_traces_must_be_finite(bad):
    traces = np.zeros((100, 2), "float32")
    traces[50, 1] = bad
    with pytest.raises(ValueError, match="traces: some samples are NaN or infinite; fill them"):
        trace_probability(fake(lambda X: X), reader(traces), 100)


def test_ranges_and_windows_are_checked():
    with pytest.raises(ValueError, match="start and end must lie within 0 and 100, not be 90 and 101"):
        trace_probability(fake(lambda X: X), reader(np.zeros((100, 1))), 100, 90, 101)
    with pytest.raises(ValueError, match=r"overlap_samples \(4\) must be at least twice prune_samples \(3\)"):
        trace_probability(fake(lambda X: X, prune=3), reader(np.zeros((100, 1))), 100)
