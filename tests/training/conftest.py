import numpy as np
import pytest


@pytest.fixture(scope="session")
def labelled():
    """Makes a trace with obvious spikes of three samples, and its 0/1 labels."""

    def make(num_samples=3000, seed=0):
        rng = np.random.default_rng(seed)
        times = 20 + np.cumsum(rng.integers(15, 60, num_samples // 15))
        spikes = np.isin(np.arange(num_samples), times[times < num_samples - 5]).astype(int)
        return rng.normal(size=num_samples) + 15 * np.convolve(spikes, [1, 0.5, 0.25])[:num_samples], spikes

    return make
