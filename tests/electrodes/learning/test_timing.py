import numpy as np
import pytest

from dlvolt.electrodes.learning.timing import RefractoryPeriod

FS, SECONDS = 30000.0, 60.0
REFRACTORY = RefractoryPeriod(low=30, high=75, num_samples=round(SECONDS * FS))


def neuron(rng, rate):
    """A Poisson train with a refractory period of 3 ms."""
    gaps = 90 + rng.exponential(FS / rate, size=round(2 * rate * SECONDS))
    times = np.cumsum(gaps).astype(int)
    return times[times < SECONDS * FS]


@pytest.mark.parametrize("seed", range(5))
def test_two_neurons_and_only_they_are_told_apart(seed):
    rng = np.random.default_rng(seed)
    one, other = neuron(rng, 15.0), neuron(rng, 15.0)
    together = np.sort(np.concatenate([one, other]))
    assert REFRACTORY.is_broken(together)
    assert not REFRACTORY.is_broken(one)
    assert REFRACTORY.tells_apart(one, other)
    first = rng.random(len(one)) < 0.5  # one neuron in two parts, as large and small spikes
    assert not REFRACTORY.tells_apart(one[first], one[~first])


def test_a_mixture_of_two_neurons_is_not_told_apart_by_chance():
    apart = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        together = np.sort(np.concatenate([neuron(rng, 15.0), neuron(rng, 15.0)]))
        part = rng.random(len(together)) < 0.5
        apart += REFRACTORY.tells_apart(together[part], together[~part])
    assert apart <= 10  # 5 expected


def test_few_spikes_tell_nothing():
    none = np.zeros(0, dtype=int)
    assert not REFRACTORY.is_broken(none)
    assert not REFRACTORY.tells_apart(none, np.array([5, 100]))
