import itertools
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import local_templates, random_events, random_templates, tensor, wavelets
from torch.nn.functional import conv1d, pad

from dlvolt.deconvolution import (
    AmplitudePrior,
    Events,
    PreparedTemplates,
    compose,
    cross_correlations,
    dense_scores,
    log_joint,
    low_rank,
    map_amplitudes,
    map_gain,
    neighbours,
    pursue,
    shift_bank,
    synthesize,
)
from dlvolt.deconvolution.pursuit import NEGLIGIBLE_CHANGE, NEGLIGIBLE_CORRELATION, REACH
from dlvolt.deconvolution.shifts import HALF_WIDTH, interpolation_kernels

WIDTH = 10
SEEDS = st.integers(0, 2**32 - 1)


def random_problem(rng, num_units, positive=False, event_cost=4.0, bounded=False):
    """A noisy recording with overlapping events, its templates and a prior."""
    templates = random_templates(rng, num_units, 2, WIDTH, positive=positive)
    num_samples = int(rng.integers(WIDTH, 9 * WIDTH))
    events = random_events(rng, num_units, num_samples - WIDTH + 1, separation=WIDTH // 2, largest=12.0)
    recording = synthesize(events, templates, num_samples) + tensor(rng.normal(size=(2, num_samples)))
    bounds = dict(minimum=tensor(rng.uniform(0, 5, num_units)), maximum=tensor(rng.uniform(7, 12, num_units)))
    return recording, templates, AmplitudePrior(rate=0.1, event_cost=event_cost, **(bounds if bounded else {}))


def greedy(recording, templates, prior, separation):
    """Best first, one event after the other, with dense templates; none is touched again."""
    w = compose(templates).numpy()
    left_over = recording.numpy().copy()
    minimum, maximum = (np.broadcast_to(np.asarray(bound), len(w)) for bound in (prior.minimum, prior.maximum))

    def best_amplitudes_and_gains():  # K×(T-D+1)
        windows = np.lib.stride_tricks.sliding_window_view(left_over, WIDTH, axis=1)  # N×(T-D+1)×D
        score = np.einsum("knd,ntd->kt", w, windows)
        amplitude = np.maximum(score - prior.noise_variance * prior.rate, 0)
        amplitude = np.where(amplitude < minimum[:, None], 0, np.minimum(amplitude, maximum[:, None]))
        quadratic = (score * amplitude - amplitude**2 / 2) / prior.noise_variance
        return amplitude, quadratic - prior.rate * amplitude - prior.event_cost

    found = []
    free = np.ones((len(w), recording.shape[1] - WIDTH + 1), dtype=bool)
    while free.any():
        amplitudes, gains = best_amplitudes_and_gains()
        gains = np.where(free, gains, -np.inf)
        k, t = np.unravel_index(gains.argmax(), gains.shape)
        if gains[k, t] <= 0:
            break
        found.append((t, k, amplitudes[k, t]))
        left_over[:, t : t + WIDTH] -= amplitudes[k, t] * w[k]
        free[k, max(0, t - separation + 1) : t + separation] = False
    return Events(*(torch.tensor([event[part] for event in found]) for part in range(3)))


def dense_cross_correlations(templates):
    """What a unit event of each of K templates adds to the scores of each, K×K×(2D-1)."""
    full = compose(templates)  # K×N×D
    return conv1d(pad(full, (full.shape[2] - 1,) * 2), full)


def in_rounds(recording, templates, prior, separation):
    """The pursuit without its economies: all gains in each round, all units, one event after the other."""
    num_units, _, width = templates.temporal.shape
    correlations = shift_bank(dense_cross_correlations(templates))  # J×K×K×(2D-1)
    rivals = (correlations[len(correlations) // 2].abs().amax(dim=2) > NEGLIGIBLE_CORRELATION) | torch.eye(
        num_units
    ).bool()
    kernels = interpolation_kernels(recording)

    num_times = recording.shape[1] - width + 1
    num_bins = -(-num_times // width) + 2
    mu = dense_scores(pad(recording, (width, (num_bins - 1) * width - num_times)), compose(templates))
    allowed = torch.zeros_like(mu, dtype=torch.bool)
    allowed[:, width : width + num_times] = True

    beside = [(step, rival) for step in (-1, 0, 1) for rival in range(num_units)]
    events = {}  # [unit, time, shift, amplitude, in doubt] by number
    number = itertools.count()

    def cell(event):
        return event[0], event[1] // width

    def rivals_of(unit, time_bin):
        return [(rival, time_bin + step) for step, rival in beside if rivals[unit, rival]]

    def maximised(event):
        """The event at the best place nearby that keeps twice the distance from others of its unit."""
        k, t, j, a, _ = event
        own = [other for other in events.values() if other[0] == k and other is not event]
        best = (-np.inf,)
        for step in range(-REACH, REACH + 1):
            target = t + 2 * step
            free = width <= target < width + num_times and all(abs(other[1] - target) >= separation for other in own)
            if step and not free:
                continue
            around = mu[k, t + step - HALF_WIDTH : t + step + HALF_WIDTH + 1].clone()
            for tap in range(2 * HALF_WIDTH + 1):
                lag = step + tap - HALF_WIDTH
                around[tap] += a * correlations[j, k, k, width - 1 + lag] if abs(lag) < width else 0
            for shift, score in enumerate((kernels @ around).tolist()):
                if score > best[0]:
                    best = (score, t + step, shift)
        score, t, j = best
        of_unit = prior.select(torch.tensor(k))
        amplitude = map_amplitudes(tensor(score), of_unit)
        gain = map_gain(tensor(score), amplitude, of_unit)
        return [k, t, j, float(amplitude) if gain > 0 else 0.0, False]

    def one_round():
        gain = map_gain(mu.T, map_amplitudes(mu.T, prior), prior).T.masked_fill(~allowed, -np.inf)
        best, offset = gain.view(num_units, num_bins, width).max(dim=2)  # K×bins
        first = {(k, b): (0, float(best[k, b])) for k in range(num_units) for b in range(num_bins) if best[k, b] > 0}
        for index, event in events.items():
            if event[4]:
                first[cell(event)] = max(first.get(cell(event), (0, 0)), (1, event[3], index))
        winners = [
            key for key, turn in first.items() if all(first.get(other, (0, 0)) <= turn for other in rivals_of(*key))
        ]
        changes = []
        moves = {first[key][2]: maximised(events[first[key][2]]) for key in winners if first[key][0] == 1}
        scores_before = mu.clone()
        for index, new in moves.items():
            old = events[index]
            old[4] = False
            if new[1:3] != old[1:3] or abs(new[3] - old[3]) > NEGLIGIBLE_CHANGE or new[3] == 0:
                changes += [(*old[:3], -old[3]), tuple(new[:4])]
                events[index] = new
                if new[3] == 0:
                    del events[index]
        taken = []
        for k, b in winners:
            if first[k, b][0] == 0:
                t = int(offset[k, b]) + b * width
                score, shift = (kernels @ scores_before[k, t - HALF_WIDTH : t + HALF_WIDTH + 1]).max(dim=0)
                taken.append([k, t, int(shift), float(map_amplitudes(score, prior.select(torch.tensor(k)))), False])
                allowed[k, t - separation + 1 : t + separation] = False
        held = list(events.values())
        for event in taken:
            for other in held:
                if cell(other) in rivals_of(*cell(event)):
                    other[4] = event[4] = True
        events.update(zip(number, taken, strict=False))
        for k, t, j, a in changes + [tuple(event[:4]) for event in taken]:
            mu[:, t - width + 1 : t + width] -= a * correlations[j, k]
        return len(winners) > 0

    while one_round():
        pass
    for event in events.values():
        event[4] = True
    while one_round():
        pass
    return sorted((t - width, k, a, j) for k, t, j, a, _ in events.values())


def as_array(events):
    return torch.stack([events.times.double(), events.units.double(), events.amplitudes.double()], dim=1).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_correlations(dtype):
    templates = random_templates(np.random.default_rng(0), 3, 4, 6).to(dtype)
    w = compose(templates).double().numpy()
    expected = np.zeros((3, 3, 11))
    for j in range(3):
        for k in range(3):
            for lag in range(-5, 6):
                for d in range(6):
                    if 0 <= d + lag < 6:
                        expected[j, k, 5 + lag] += w[j, :, d + lag] @ w[k, :, d]
    correlations = cross_correlations(templates)
    assert correlations.dtype == dtype
    np.testing.assert_allclose(correlations.view(3, 3, 11), expected, atol=1e-6)
    np.testing.assert_allclose(correlations[::4, 5], 1, atol=1e-6)


def test_cross_correlations_are_those_of_neighbours():
    templates = local_templates(np.random.default_rng(1), 12, 16, 9)
    near, expected = neighbours(templates.support), dense_cross_correlations(templates)
    correlations = cross_correlations(templates)
    assert len(correlations) < 12 * 12
    spread_out = torch.zeros_like(expected)
    for j, of_unit in enumerate(correlations.split(list(map(len, near)))):
        spread_out[j, near[j]] = of_unit
    torch.testing.assert_close(spread_out, expected)


def test_is_better_than_the_one_by_one_greedy_order():
    differences = []
    for seed in range(30):
        recording, templates, prior = random_problem(np.random.default_rng(seed), 3)
        events, first = (find(recording, templates, prior, WIDTH) for find in (pursue_whole_samples, greedy))
        differences.append(
            float(log_joint(recording, events, templates, prior)) - float(log_joint(recording, first, templates, prior))
        )
    assert np.mean(differences) > 1
    assert np.mean(np.array(differences) > -1e-9) > 0.9


def pursue_whole_samples(recording, templates, prior, separation):
    with shifts(1):
        return pursue(recording, templates, prior, separation)._replace(shifts=None)


def shifts(number):
    """A context in which there are fewer sub-sample positions, as random templates are not band-limited."""
    return patch("dlvolt.deconvolution.shifts.NUM_SHIFTS", number)


@settings(max_examples=8)  # the reference is slow
@given(
    seed=SEEDS,
    num_units=st.integers(1, 12),
    separation=st.integers(1, WIDTH),
    num_shifts=st.sampled_from([1, 7]),
    bounded=st.booleans(),
    event_cost=st.one_of(st.floats(0, 8), st.none()),
)
def test_is_that_without_economies(seed, num_units, separation, num_shifts, bounded, event_cost):
    rng = np.random.default_rng(seed)
    templates = local_templates(rng, num_units, 12, WIDTH)
    num_samples = int(rng.integers(WIDTH, 20 * WIDTH))
    truth = random_events(rng, num_units, num_samples - WIDTH + 1, separation=WIDTH, largest=12.0)
    recording = synthesize(truth, templates, num_samples) + tensor(rng.normal(size=(12, num_samples)))
    bounds = dict(minimum=tensor(rng.uniform(0, 5, num_units)), maximum=tensor(rng.uniform(7, 12, num_units)))
    costs = tensor(rng.uniform(0, 8, num_units)) if event_cost is None else event_cost
    prior = AmplitudePrior(rate=0.1, event_cost=costs, **(bounds if bounded else {}))
    with shifts(num_shifts), patch("dlvolt.deconvolution.pursuit.MOST_TURNS", 10**6):
        events = pursue(recording, templates, prior, separation)
        expected = in_rounds(recording, templates, prior, separation)
    assert [*zip(*(x.tolist() for x in (events.times, events.units, events.shifts)), strict=True)] == [
        (t, k, j) for t, k, _, j in expected
    ]
    np.testing.assert_allclose(events.amplitudes, [a for _, _, a, _ in expected], atol=1e-9)


def test_loops_find_what_tensor_operations_do(monkeypatch):
    rng = np.random.default_rng(3)
    templates = local_templates(rng, 12, 12, WIDTH)
    truth = random_events(rng, 12, 400 * WIDTH, separation=WIDTH, largest=12.0)
    recording = synthesize(truth, templates, 401 * WIDTH) + tensor(rng.normal(size=(12, 401 * WIDTH)))
    prior = AmplitudePrior(rate=0.1, event_cost=tensor(rng.uniform(0, 8, 12)))
    in_loops = pursue(recording, templates, prior, 5)
    monkeypatch.setattr("dlvolt.deconvolution.loops.runs_in_loops", lambda device: False)
    in_tensors = pursue(recording, templates, prior, 5)
    assert len(in_loops.times) > 100
    for one, other in zip(in_loops, in_tensors, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("in_loops", [True, False])
def test_work_is_bounded_where_nothing_is_a_sum_of_templates(in_loops, monkeypatch):
    monkeypatch.setattr("dlvolt.deconvolution.loops.runs_in_loops", lambda device: in_loops)
    rng = np.random.default_rng(1)
    templates, num_bins = random_templates(rng, 6, 2, WIDTH), 6
    recording = tensor(rng.normal(size=(2, num_bins * WIDTH), scale=20.0))
    prior = AmplitudePrior(rate=0.1, event_cost=4.0)
    monkeypatch.setattr("dlvolt.deconvolution.pursuit.MOST_TURNS", 4)
    few = pursue(recording, templates, prior, 1)
    monkeypatch.setattr("dlvolt.deconvolution.pursuit.MOST_TURNS", 50)
    more = pursue(recording, templates, prior, 1)
    assert len(more.times) > 4 * (num_bins + 1)
    assert len(few.times) <= 4 * (num_bins + 1)  # of units that all share channels


@given(seed=SEEDS, num_units=st.integers(1, 4), separation=st.integers(1, WIDTH), num_shifts=st.sampled_from([1, 7]))
def test_events_obey_separation_and_bounds(seed, num_units, separation, num_shifts):
    recording, templates, prior = random_problem(np.random.default_rng(seed), num_units, bounded=True, event_cost=1.0)
    with shifts(num_shifts):
        events = pursue(recording, templates, prior, separation)
    assert torch.all(events.times.diff() >= 0)
    for unit in range(num_units):
        assert torch.all(events.times[events.units == unit].diff() >= separation)
    of_event = prior.select(events.units)
    assert torch.all(events.amplitudes >= of_event.minimum)
    assert torch.all(events.amplitudes <= of_event.maximum)
    assert torch.all((events.times >= 0) & (events.times <= recording.shape[1] - WIDTH))
    assert torch.all((events.shifts >= 0) & (events.shifts < num_shifts))


@given(seed=SEEDS, num_units=st.integers(1, 4), event_cost=st.floats(0, 10))
def test_log_joint_is_no_less_than_that_of_silence(seed, num_units, event_cost):
    recording, templates, prior = random_problem(np.random.default_rng(seed), num_units, event_cost=event_cost)
    events = pursue_whole_samples(recording, templates, prior, WIDTH)
    silence = events.select(torch.zeros_like(events.times, dtype=torch.bool))
    reached, start = (log_joint(recording, some, templates, prior) for some in (events, silence))
    assert reached >= start
    assert len(events.times) == 0 or reached > start


def injected(device="cpu", dtype=torch.float64):
    """Three units on four channels whose events overlap, at sub-sample shifts, in weak noise."""
    rng = np.random.default_rng(7)
    width = 41
    _, pulses = wavelets(width)
    footprints = tensor([[1, 0.6, 0.2, 0], [0, 0.5, 1, 0.3], [0.3, 0, 0.4, 1.0]])
    templates = low_rank(footprints[:, :, None] * pulses[:, None], 1)
    # alone: 0, 42, 180, 359; the others overlap with one of another unit
    truth = Events(
        times=torch.tensor([0, 42, 100, 103, 180, 230, 238, 246, 359]),
        units=torch.tensor([0, 1, 2, 0, 1, 0, 1, 2, 2]),
        amplitudes=tensor([9, 12, 11, 14, 10, 15, 11, 9, 12]),
        shifts=torch.tensor([7, 0, 14, 4, 9, 2, 11, 7, 6]),
    )
    recording = synthesize(truth, templates, 400) + 0.02 * tensor(rng.normal(size=(4, 400)))
    return recording.to(device, dtype), templates.to(device, dtype), truth


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_injected_events_come_back(device, dtype):
    recording, templates, truth = injected(device, dtype)
    events = pursue(recording, templates, AmplitudePrior(rate=0.01, event_cost=12.5), separation=20)
    assert events.amplitudes.dtype == dtype
    assert {field.device.type for field in events} == {device}
    assert events.times.tolist() == truth.times.tolist()
    assert events.units.tolist() == truth.units.tolist()
    np.testing.assert_allclose(events.amplitudes.cpu(), truth.amplitudes, rtol=0.05)
    alone = torch.tensor([0, 1, 4, 8])
    assert events.shifts.cpu()[alone].tolist() == truth.shifts[alone].tolist()
    np.testing.assert_allclose(events.amplitudes.cpu()[alone], truth.amplitudes[alone], rtol=0.01)


def test_templates_may_be_prepared():
    recording, templates, _ = injected()
    prior = AmplitudePrior(event_cost=12.5)
    events = pursue(recording, templates, prior, separation=20)
    again = pursue(recording, templates, prior, 20, prepared=PreparedTemplates.of(templates))
    assert all(torch.equal(a, b) for a, b in zip(events, again, strict=True))


def test_no_events_in_silence():
    _, templates, _ = injected()
    recording = torch.zeros(4, 41, dtype=torch.float64)  # T = D
    events = pursue(recording, templates, AmplitudePrior(), separation=20)
    assert [len(field) for field in events] == [0, 0, 0, 0]
    assert events.amplitudes.dtype == torch.float64
