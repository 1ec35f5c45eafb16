import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import convolve

from dlvolt.networks import S2S, RateNetwork, create, load, save, trace_rate
from dlvolt.networks.features import in_noise
from dlvolt.networks.s2s import mean_correlation


def calcium(num_windows, num_samples=400, seed=0):
    """Windows of exponential transients in noise, and their spike counts."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.02, (num_windows, num_samples))
    transients = convolve(counts, np.exp(-np.arange(200) / 40)[None])[:, :num_samples]
    return 3 + transients + rng.normal(scale=0.15, size=counts.shape), counts


@pytest.fixture(scope="module")
def trained():
    return create("s2s", window_samples=400, max_epochs=12, lr=4e-3).fit(*calcium(60))


@pytest.mark.parametrize(("num_hidden", "num_parameters"), [(0, 6030), (1, 6960), (3, 8820)])
def test_parameters_are_those_of_the_papers_formula(num_hidden, num_parameters):
    assert sum(each.numel() for each in S2S(num_hidden).parameters()) == num_parameters
    assert num_parameters == (100 * 30 + 30) + num_hidden * (30 * 30 + 30) + 30 * 100


def test_s2s_is_frames_analysed_one_by_one_overlapped_and_added():
    torch.manual_seed(0)
    network, x = S2S(2, num_filters=4, frame_samples=10), torch.randn(1, 50)
    padded = np.pad(np.arcsinh(in_noise(x)[0].numpy()), 9, mode="edge")
    estimate = np.zeros(50 + 18)
    with torch.no_grad():
        for start in range(len(padded) - 9):
            frame = network.analysis.weight[:, 0].numpy() @ padded[start : start + 10] + network.analysis.bias.numpy()
            for layer in network.hidden:
                frame = layer.weight[..., 0].numpy() @ frame.clip(min=0) + layer.bias.numpy()
            estimate[start : start + 10] += frame.clip(min=0) @ network.synthesis.weight[:, 0].numpy()
        np.testing.assert_allclose(network(x)[0], estimate[9:-9], atol=1e-4)
        assert [tuple(layer.shape) for layer in network.layers(x)] == [(1, 4, 59)] * 3 + [(1, 50)]


@given(seed=st.integers(0, 999), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_the_loss_is_minus_the_correlation_with_smoothed_counts(seed, scale, shift):
    rng = np.random.default_rng(seed)
    counts, estimate = rng.poisson(0.1, (3, 60)).astype("float32"), rng.normal(size=(3, 60)).astype("float32")
    counts[:, 30], counts[1] = 1, 0
    gaussian = np.exp(-0.5 * (np.arange(-5, 6) / 5) ** 2)
    targets = [np.convolve(each, gaussian, mode="same") for each in counts]
    expected = np.mean([np.corrcoef(targets[n], estimate[n])[0, 1] for n in (0, 2)])  # there is nothing in window 1
    loss = S2S().loss(torch.from_numpy(scale * estimate + shift), torch.from_numpy(counts))
    assert float(loss) == pytest.approx(-expected, abs=1e-4)


def test_where_nothing_is_to_be_learnt_there_is_no_gradient():
    estimate = torch.randn(2, 30, requires_grad=True)
    correlation = mean_correlation(estimate, torch.zeros(2, 30))
    correlation.backward()
    assert correlation.item() == 0
    assert not estimate.grad.any()
    constant = torch.ones(1, 30, requires_grad=True)
    mean_correlation(constant, torch.randn(1, 30)).backward()
    assert torch.isfinite(constant.grad).all()


def test_it_estimates_rates_whose_integral_is_the_number_of_spikes(trained):
    X, counts = calcium(40, seed=1)
    rate = trained.predict(X)
    assert rate.shape == X.shape
    assert rate.min() >= 0
    assert rate.sum() / 100.0 == pytest.approx(counts.sum(), rel=0.05)
    assert trained.score(X, counts) > 0.85
    np.testing.assert_allclose(trained.predict(7 * X + 3), rate, rtol=1e-3, atol=1e-2)  # in any unit


def test_the_offset_is_the_highest_quantile_that_costs_no_correlation_of_bins(trained):
    X, counts = calcium(12, seed=4)
    estimate, model = trained._outputs(X.astype("float32")).numpy(), copy.deepcopy(trained).calibrate(X, counts)
    spikes, offsets = counts.reshape(12, 100, 4).sum(axis=2), np.quantile(estimate, np.arange(20) / 20)
    rates = [np.maximum(estimate - offset, 0).reshape(12, 100, 4).sum(axis=2) for offset in offsets]
    known = np.flatnonzero(spikes.any(axis=1))
    correlations = np.array([np.mean([np.corrcoef(rate[n], spikes[n])[0, 1] for n in known]) for rate in rates])
    expected = offsets[np.flatnonzero(correlations > correlations.max() - 1e-3)[-1]]
    assert model.offset == pytest.approx(expected, abs=1e-4)
    assert model.predict(X).sum() / 100.0 == pytest.approx(counts.sum(), rel=1e-3)


def test_rates_of_long_traces_do_not_depend_on_the_stretch_and_constant_ones_are_zero(trained):
    trace = calcium(1, 3000, seed=2)[0][0]

    def read(start, end):
        return trace[start:end, None]

    whole = trace_rate(trained, read, 3000)
    for start, end in ((0, 1), (17, 900), (1999, 3000)):
        np.testing.assert_allclose(trace_rate(trained, read, 3000, start, end), whole[start:end], atol=1e-4)
    np.testing.assert_array_equal(trained.predict(np.full((2, 400), 5.0)), 0)


def test_it_is_stored_and_cloned_like_the_others(trained, tmp_path):
    X, counts = calcium(30, seed=3)
    loaded = load(save(trained, tmp_path))
    assert type(loaded) is RateNetwork
    assert (loaded.gain, loaded.offset) == (trained.gain, trained.offset)
    np.testing.assert_array_equal(loaded.predict(X), trained.predict(X))
    again, other = (create("s2s", window_samples=400, max_epochs=1, seed=seed).fit(X, counts) for seed in (0, 1))
    same = create("s2s", window_samples=400, max_epochs=1).fit(X, counts)
    np.testing.assert_array_equal(same.predict(X), again.predict(X))
    assert not np.array_equal(other.predict(X), again.predict(X))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((6, 400)), np.zeros((6, 400)), "y: there is not a single spike in the windows"),
        (np.ones((6, 400)), np.full((6, 400), -1), "y must be spikes per sample, 0 or more"),
        (np.ones((6, 400)), np.zeros((6, 300)), "y must have one value per sample of X"),
        (np.full((6, 400), np.nan), np.ones((6, 400)), "NaN or infinite; fill them"),
    ],
)
def test_bad_windows(X, y, message):
    with pytest.raises(ValueError, match=message):
        create("s2s", window_samples=400, max_epochs=1).fit(X, y)


def test_what_it_cannot_be_made_of():
    with pytest.raises(ValueError, match="target_samples must be odd, not 10"):
        S2S(target_samples=10)
    untrained, (X, counts) = create("s2s", window_samples=400).initialize(), calcium(6)
    with pytest.raises(ValueError, match="the estimate does not rise with the spikes"):
        untrained.calibrate(np.ones_like(X), counts)
