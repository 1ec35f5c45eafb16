import math

import numpy as np
import pytest
import torch
from problems import local_templates, random_events, random_templates, tensor

from dlvolt.deconvolution import (
    NUM_SHIFTS,
    AmplitudePrior,
    Events,
    LowRankTemplates,
    compose,
    dense_scores,
    event_waveforms,
    log_joint,
    map_gain,
    residual,
    scores,
    shift_bank,
    synthesize,
)

NUM_UNITS, NUM_CHANNELS, WIDTH, NUM_SAMPLES = 3, 4, 7, 40


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def templates(rng):
    return random_templates(rng, NUM_UNITS, NUM_CHANNELS, WIDTH)


@pytest.fixture
def events(rng):
    return random_events(rng, NUM_UNITS, NUM_SAMPLES - WIDTH + 1, separation=3)  # those of one unit overlap


@pytest.fixture
def recording(rng):
    return tensor(rng.normal(size=(NUM_CHANNELS, NUM_SAMPLES)))


def test_synthesize_is_the_double_sum(events, templates):
    w = compose(templates).numpy()
    a = np.zeros((NUM_UNITS, NUM_SAMPLES - WIDTH + 1))
    a[events.units, events.times] = events.amplitudes
    expected = np.zeros((NUM_CHANNELS, NUM_SAMPLES))
    for k in range(NUM_UNITS):
        for n in range(NUM_CHANNELS):
            expected[n] += np.convolve(a[k], w[k, n])
    np.testing.assert_allclose(synthesize(events, templates, NUM_SAMPLES), expected, atol=1e-12)


def test_synthesize_adds_events_of_the_same_time_and_unit():
    events = Events(torch.tensor([1, 1]), torch.tensor([0, 0]), tensor([2.0, 3.0]))
    templates = LowRankTemplates(tensor([[[1.0]]]), tensor([[1.0]]), tensor([[[1.0, -1.0]]]))
    np.testing.assert_array_equal(synthesize(events, templates, 4), [[0, 5, -5, 0]])


def test_no_events(recording, templates):
    nothing = Events(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), tensor([]))
    assert not synthesize(nothing, templates, NUM_SAMPLES).any()
    torch.testing.assert_close(residual(recording, nothing, templates), recording)
    expected = -recording.square().sum() / 2
    torch.testing.assert_close(log_joint(recording, nothing, templates, AmplitudePrior()), expected)


def test_residual(recording, events, templates):
    made = synthesize(events, templates, NUM_SAMPLES)
    torch.testing.assert_close(residual(recording, events, templates) + made, recording)
    torch.testing.assert_close(residual(made, events, templates), torch.zeros_like(made), rtol=0, atol=1e-14)


def test_events_between_samples(rng):
    templates = local_templates(rng, 6, 9, 21)
    events = random_events(rng, 6, 300 - 21 + 1, separation=5)
    events = events._replace(shifts=torch.from_numpy(rng.integers(0, NUM_SHIFTS, len(events.times))))
    bank = shift_bank(compose(templates))  # J×K×N×D
    expected = torch.zeros(9, 300, dtype=torch.float64)
    for time, unit, amplitude, shift in zip(*events, strict=True):
        expected[:, time : time + 21] += amplitude * bank[shift, unit]
    made = synthesize(events, templates, 300)
    torch.testing.assert_close(made, expected)

    recording = tensor(rng.normal(size=(300, 9))).T  # not contiguous
    before = recording.clone()
    torch.testing.assert_close(residual(recording, events, templates), recording - made)
    assert torch.equal(recording, before)


@pytest.mark.parametrize("on_whole_samples", [True, False])
def test_loops_add_what_tensor_operations_do(rng, on_whole_samples, monkeypatch):
    templates = local_templates(rng, 5, 12, 20)
    events = random_events(rng, 5, 200, separation=5)
    if not on_whole_samples:
        events = events._replace(shifts=torch.from_numpy(rng.integers(NUM_SHIFTS, size=len(events.times))))
    recording = tensor(rng.normal(size=(12, 219)))
    before, in_loops = recording.clone(), residual(recording, events, templates)
    monkeypatch.setattr("dlvolt.deconvolution.loops.runs_in_loops", lambda device: False)
    torch.testing.assert_close(in_loops, residual(recording, events, templates), rtol=0, atol=1e-12)
    torch.testing.assert_close(recording, before, rtol=0, atol=0)  # is left as it was


def test_event_waveforms(rng, templates, events):
    events = events._replace(shifts=torch.from_numpy(rng.integers(0, 7, len(events.times))))
    channels = torch.from_numpy(rng.integers(0, NUM_CHANNELS, (len(events.times), 2)))
    bank = shift_bank(compose(templates))  # J×K×N×D
    expected = [a * bank[j, k, n] for (_, k, a, j), n in zip(zip(*events, strict=True), channels, strict=True)]
    torch.testing.assert_close(event_waveforms(events, templates, channels), torch.stack(expected))


def test_select_events(events):
    chosen = events.select(events.units == 1)
    assert len(chosen.times) > 0
    assert set(chosen.units.tolist()) == {1}
    assert chosen.shifts is None
    torch.testing.assert_close(chosen.amplitudes, events.amplitudes[events.units == 1])


def test_log_joint(recording, events, templates):
    prior = AmplitudePrior(rate=0.7, noise_variance=1.6, event_cost=2.5)
    x, w = recording.numpy(), compose(templates).numpy()
    error = x.copy()
    for time, unit, amplitude in zip(*(field.numpy() for field in events[:3]), strict=True):
        error[:, time : time + WIDTH] -= amplitude * w[unit]
    expected = -(error**2).sum() / (2 * 1.6) - 0.7 * events.amplitudes.sum() - 2.5 * len(events.times)
    assert float(log_joint(recording, events, templates, prior)) == pytest.approx(float(expected))


def test_log_joint_with_a_cost_of_each_unit(recording, events, templates):
    costs = tensor([1.0, 2.0, 4.0])
    free = log_joint(recording, events, templates, AmplitudePrior())
    with_costs = log_joint(recording, events, templates, AmplitudePrior(event_cost=costs))
    torch.testing.assert_close(free - with_costs, costs[events.units].sum())


def test_an_event_raises_the_log_joint_by_its_gain(recording, templates):
    prior = AmplitudePrior(0.3, 1.6, 2.5, typical=tensor([2.0, 3.0, 4.0]), precision=tensor([0.5, 1.0, 2.0]))
    one = Events(torch.tensor([2]), torch.tensor([1]), tensor([2.2]))
    silence = one.select(torch.zeros(1, dtype=torch.bool))
    before, after = (log_joint(recording, events, templates, prior) for events in (silence, one))
    score = dense_scores(recording, compose(templates))[one.units, one.times]
    torch.testing.assert_close(after - before, map_gain(score, one.amplitudes, prior.select(one.units))[0])


@pytest.mark.parametrize("amplitude", [-0.1, 0.9, 3.1])
def test_log_joint_outside_the_bounds(recording, templates, amplitude):
    prior = AmplitudePrior(minimum=tensor([0.0, 1.0, 0.0]), maximum=tensor([5.0, 3.0, 5.0]))
    one = Events(torch.tensor([2]), torch.tensor([1]), tensor([amplitude]))
    assert log_joint(recording, one, templates, prior) == -math.inf
    for inside in (1.0, 3.0):
        one = one._replace(amplitudes=tensor([inside]))
        assert torch.isfinite(log_joint(recording, one, templates, prior))


def test_dense_scores(recording, templates):
    x, w = recording.numpy(), compose(templates).numpy()
    expected = np.zeros((NUM_UNITS, NUM_SAMPLES - WIDTH + 1))
    for k in range(NUM_UNITS):
        for t in range(NUM_SAMPLES - WIDTH + 1):
            for n in range(NUM_CHANNELS):
                for d in range(WIDTH):
                    expected[k, t] += x[n, t + d] * w[k, n, d]
    np.testing.assert_allclose(dense_scores(recording, compose(templates)), expected, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_low_rank_scores_equal_dense_ones(rng, rank, dtype, tolerance):
    templates = random_templates(rng, 6, 9, 31, rank).to(dtype)
    recording = tensor(rng.normal(size=(9, 200)), dtype)
    fast = scores(recording, templates)
    assert fast.dtype == dtype
    torch.testing.assert_close(fast, dense_scores(recording, compose(templates)), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("num_units", [1, 40])
@pytest.mark.parametrize("padding", [0, 1, 8])
def test_scores_of_local_templates_in_padded_recordings(rng, num_units, padding):
    templates = local_templates(rng, num_units, 50, 9)
    recording = tensor(rng.normal(size=(50, 200)))
    padded = torch.nn.functional.pad(recording, (padding, padding))
    expected = dense_scores(padded, compose(templates))
    torch.testing.assert_close(scores(recording, templates, padding), expected)
    out = torch.full((num_units, expected.shape[1] + 4), 7.0, dtype=torch.float64)
    scores(recording, templates, padding, out=out[:, 2:-2])
    torch.testing.assert_close(out[:, 2:-2], expected)
    assert torch.all(out[:, [0, 1, -2, -1]] == 7)
