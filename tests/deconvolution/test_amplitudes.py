import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import tensor
from scipy.signal import find_peaks

from dlvolt.deconvolution import AmplitudePrior, least_scores, map_amplitudes, map_gain, separated_maxima

PRIORS = [
    AmplitudePrior(),
    AmplitudePrior(rate=0.8, noise_variance=2.0),
    AmplitudePrior(rate=0.3, noise_variance=0.5, event_cost=1.5),
]
GRID = torch.linspace(0, 12, 12001, dtype=torch.float64)
SCORES = torch.linspace(-4, 10, 57, dtype=torch.float64)


def log_joint_of_one_event(score, amplitude, prior):
    """What an event adds to −‖R − a W‖²/2σ² − λ a − cost, for ‖W‖ = 1 and ⟨R, W⟩ = μ."""
    return (
        (2 * score * amplitude - amplitude**2) / (2 * prior.noise_variance) - prior.rate * amplitude - prior.event_cost
    )


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("maximum", [np.inf, 3.0])
def test_amplitudes_maximise_the_log_joint(prior, maximum):
    prior = AmplitudePrior(prior.rate, prior.noise_variance, prior.event_cost, maximum=maximum)
    grid = GRID[maximum >= GRID]
    on_grid = log_joint_of_one_event(SCORES[:, None], grid, prior)
    best, where = on_grid.max(dim=1)
    amplitudes = map_amplitudes(SCORES, prior)
    np.testing.assert_allclose(amplitudes, grid[where], atol=1e-3)
    gain = map_gain(SCORES, amplitudes, prior)
    assert torch.all(gain >= best - 1e-12)
    np.testing.assert_allclose(gain, best, atol=1e-6)


def test_gain_of_the_unbounded_maximiser():
    prior = PRIORS[2]
    amplitudes = map_amplitudes(SCORES, prior)
    expected = amplitudes**2 / (2 * prior.noise_variance) - prior.event_cost
    torch.testing.assert_close(map_gain(SCORES, amplitudes, prior), expected)


def test_bounds_are_those_of_the_unit():
    prior = AmplitudePrior(rate=1.0, minimum=tensor([0.0, 2.0, 3.0]), maximum=tensor([1.5, 9.0, 9.0]))
    scores = tensor([[3.0, 3.0, 3.0], [5.0, 2.9, 4.0]])
    np.testing.assert_array_equal(map_amplitudes(scores, prior), [[1.5, 2.0, 0.0], [1.5, 0.0, 3.0]])
    chosen = prior.select(torch.tensor([2, 0]))
    assert chosen.minimum.tolist() == [3.0, 0.0]
    assert chosen.maximum.tolist() == [1.5, 9.0][::-1]
    assert (chosen.rate, chosen.noise_variance, chosen.event_cost) == (1.0, 1.0, 0.0)


@given(
    typical=st.floats(1, 10),
    precision=st.floats(0.01, 10),
    variance=st.floats(0.5, 2),
    maximum=st.sampled_from([9, 12]),
)
def test_typical_amplitudes_are_preferred(typical, precision, variance, maximum):
    prior = AmplitudePrior(0.1, variance, 2.0, typical=typical, precision=precision, maximum=maximum)
    grid = GRID[maximum >= GRID]
    atypical = precision * (grid - typical) ** 2 / 2
    best, where = (log_joint_of_one_event(SCORES[:, None], grid, prior) - atypical).max(dim=1)
    amplitudes = map_amplitudes(SCORES, prior)
    np.testing.assert_allclose(amplitudes, grid[where], atol=1e-3)
    np.testing.assert_allclose(map_gain(SCORES, amplitudes, prior), best, atol=1e-4)
    least = least_scores(prior, SCORES)
    around = least + tensor([-1e-6, 1e-6])
    below, above = map_gain(around, map_amplitudes(around, prior), prior)
    assert below < 0 < above


def test_costs_are_those_of_the_unit():
    costs = tensor([0.0, 2.0, 5.0])
    prior = AmplitudePrior(rate=0.5, event_cost=costs)
    scores = tensor([[3.0, 3.0, 3.0], [5.0, 2.9, 4.0]])
    amplitudes = map_amplitudes(scores, prior)
    expected = map_gain(scores, amplitudes, AmplitudePrior(rate=0.5)) - costs
    torch.testing.assert_close(map_gain(scores, amplitudes, prior), expected)
    assert prior.select(torch.tensor([2, 0, 2])).event_cost.tolist() == [5.0, 0.0, 5.0]


@given(
    rate=st.floats(0, 2),
    noise_variance=st.floats(0.2, 3),
    event_cost=st.lists(st.floats(0, 10), min_size=3, max_size=3),
    minimum=st.floats(0, 6),
    maximum=st.one_of(st.floats(0.1, 8), st.just(np.inf)),
)
def test_least_scores_are_where_gains_begin(rate, noise_variance, event_cost, minimum, maximum):
    prior = AmplitudePrior(rate, noise_variance, tensor(event_cost), minimum, maximum)
    least = least_scores(prior, SCORES)
    assert least.shape == (3,)
    for scores, does_gain in ((least * (1 + 1e-9) + 1e-9, True), (least * (1 - 1e-9) - 1e-9, False)):
        gain = map_gain(scores, map_amplitudes(scores, prior), prior)
        assert torch.all((gain > 0) == does_gain)


@given(seed=st.integers(0, 2**32 - 1), num_samples=st.integers(1, 80), separation=st.integers(1, 20))
def test_separated_maxima_are_scipys_peaks(seed, num_samples, separation):
    gain = np.random.default_rng(seed).normal(size=num_samples)
    between_walls = np.concatenate([[-np.inf], gain, [-np.inf]])  # so that the two ends count
    expected = find_peaks(between_walls, height=0, distance=separation)[0] - 1
    np.testing.assert_array_equal(separated_maxima(tensor(gain), separation), expected)


def test_separated_maxima_of_a_plateau_and_of_nothing():
    assert separated_maxima(tensor([0, 1, 1, 1, 0]), 1).tolist() == [1]
    assert separated_maxima(tensor([-1, -2, -1]), 1).tolist() == []
    assert separated_maxima(tensor([]), 3).tolist() == []
