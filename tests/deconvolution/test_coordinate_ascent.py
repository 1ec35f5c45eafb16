import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from problems import random_events, random_templates, tensor

from dlvolt.deconvolution import AmplitudePrior, Events, compose, log_joint, low_rank, sweep, synthesize

SEEDS = st.integers(0, 2**32 - 1)


def smallest_distance(events):
    """Of two events of one unit; infinite where no unit has two."""
    return min((int(d) for k in events.units.unique() for d in events.times[events.units == k].diff()), default=np.inf)


@given(
    seed=SEEDS,
    num_units=st.integers(1, 4),
    num_channels=st.integers(1, 4),
    width=st.integers(1, 12),
    rank=st.integers(1, 3),
    rate=st.floats(0, 2),
    noise_variance=st.floats(0.2, 3),
    event_cost=st.floats(0, 8),
)
def test_log_joint_never_decreases(seed, num_units, num_channels, width, rank, rate, noise_variance, event_cost):
    rng = np.random.default_rng(seed)
    prior = AmplitudePrior(rate, noise_variance, event_cost)
    truth = random_templates(rng, num_units, num_channels, width, rank)
    num_samples = width + int(rng.integers(0, 6 * width + 10))
    num_times = num_samples - width + 1
    recording = synthesize(random_events(rng, num_units, num_times, width), truth, num_samples)
    recording = recording + tensor(rng.normal(size=recording.shape))

    templates = random_templates(rng, num_units, num_channels, width, rank)
    events = random_events(rng, num_units, num_times, separation=width)
    reached = log_joint(recording, events, templates, prior)
    for _ in range(4):
        events, templates = sweep(recording, events, templates, prior)
        before, reached = reached, log_joint(recording, events, templates, prior)
        assert reached >= before - 1e-9 * abs(before)

        assert smallest_distance(events) >= width
        full = compose(templates)
        np.testing.assert_allclose(full.flatten(1).norm(dim=1), 1)
        assert torch.all(torch.linalg.matrix_rank(full, rtol=1e-9) <= rank)
        assert torch.all(events.amplitudes > 0)
        assert len(events.times) == 0 or 0 <= events.times.min() <= events.times.max() < num_times


def test_sweeps_find_templates_and_events():
    rng = np.random.default_rng(5)
    truth = random_templates(rng, 2, 4, 15, rank=2)
    times = torch.tensor([0, 30, 80, 130, 10, 60, 88, 145])
    units = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    true_events = Events(times, units, tensor([9, 12, 10, 11, 10, 8, 9, 12]))  # two pairs overlap
    recording = synthesize(true_events, truth, 160) + 0.05 * tensor(rng.normal(size=(4, 160)))
    templates = low_rank(compose(truth) + 0.1 * tensor(rng.normal(size=(2, 4, 15))), 2)
    nothing = Events(times[:0], units[:0], true_events.amplitudes[:0])
    events, found = nothing, templates
    for _ in range(6):
        events, found = sweep(recording, events, found, AmplitudePrior(event_cost=10.0))
    assert events.times.tolist() == times.tolist()
    assert events.units.tolist() == units.tolist()
    np.testing.assert_allclose(events.amplitudes, true_events.amplitudes, atol=0.2)
    np.testing.assert_allclose((compose(found) * compose(truth)).sum(dim=(1, 2)), 1, atol=1e-3)


def test_a_silent_unit_keeps_its_template_and_the_input_is_left_alone():
    rng = np.random.default_rng(6)
    templates = random_templates(rng, 2, 3, 8)
    original = [part.clone() for part in templates]
    event = Events(torch.tensor([5]), torch.tensor([1]), tensor([7.0]))
    recording = synthesize(event, templates, 30) + 0.05 * tensor(rng.normal(size=(3, 30)))
    events, swept = sweep(recording, event, templates, AmplitudePrior(event_cost=12.0))
    assert (events.times.tolist(), events.units.tolist()) == ([5], [1])
    for part, before, after in zip(templates, original, swept, strict=True):
        assert torch.equal(part, before)
        assert torch.equal(part[0], after[0])
    assert not torch.equal(compose(swept)[1], compose(templates)[1])
