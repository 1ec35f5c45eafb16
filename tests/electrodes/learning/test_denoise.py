import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlvolt.electrodes.learning.denoise import KNOWN, NUM_SEEING, TemporalPrior, denoised

NUM_SAMPLES = 40
TIMES = torch.arange(NUM_SAMPLES)


def spike(width, norm=1.0, num_channels=6):
    """A waveform that decays over channels, shape (N, D)."""
    course = torch.exp(-(((TIMES - 12) / width) ** 2)) - 0.4 * torch.exp(-(((TIMES - 20) / (2 * width)) ** 2))
    waveform = torch.exp(-torch.arange(num_channels) / 2.0)[:, None] * course
    return norm * waveform / waveform.norm()


WAVEFORMS = torch.stack([spike(2.0, 20.0), spike(3.0, 40.0), spike(4.0, 15.0), spike(1.0, KNOWN - 1)])
PRIOR = TemporalPrior.of(WAVEFORMS)


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


@given(num_spikes=st.integers(3, 10_000), num_places=st.sampled_from([1, 3]), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_the_posterior_mean_is_that_of_a_normal_prior(num_spikes, num_places, seed):
    mean = torch.randn(num_places, 6, NUM_SAMPLES, generator=torch.Generator().manual_seed(seed)) + spike(2.5, 9.0)
    covariance = PRIOR.directions @ PRIOR.variances.diag() @ PRIOR.directions.T
    noise = num_places / num_spikes
    energy = max(float(mean.square().sum() / num_places) - 6 * NUM_SAMPLES * noise, 16.0)
    covariance = energy * covariance / NUM_SEEING
    expected = (covariance @ torch.linalg.inv(covariance + noise * torch.eye(NUM_SAMPLES)) @ mean.mT).mT
    np.testing.assert_allclose(PRIOR.shrunk(mean, num_spikes), expected, atol=2e-4)


def test_the_prior_is_of_large_waveforms_each_counted_once():
    assert float(PRIOR.variances.sum()) == pytest.approx(1)
    covariance = PRIOR.directions @ PRIOR.variances.diag() @ PRIOR.directions.T
    alike = [waveform.T @ waveform / waveform.square().sum() for waveform in WAVEFORMS[:3]]  # the fourth is small
    expected = 0.9 * torch.stack(alike).mean(dim=0) + 0.1 / NUM_SAMPLES * torch.eye(NUM_SAMPLES)
    np.testing.assert_allclose(covariance, expected, atol=1e-5)
    assert TemporalPrior.of(WAVEFORMS[3:]) is None
    assert TemporalPrior.of(WAVEFORMS[:0]) is None


@pytest.mark.parametrize("num_spikes", [12, 50, 200])
def test_means_of_few_spikes_come_closer_to_the_neuron(num_spikes):
    generator, neuron = torch.Generator().manual_seed(num_spikes), spike(2.5, 7.0, num_channels=16)
    closer = []
    for _ in range(20):
        mean = neuron + torch.randn(16, NUM_SAMPLES, generator=generator) / num_spikes**0.5
        with_prior, without = (denoised(mean[None], num_spikes, 3, prior)[0] for prior in (PRIOR, None))
        closer.append(cosine(with_prior, neuron) - cosine(without, neuron))
    assert np.mean(closer) > (0.02 if num_spikes == 12 else 0)
    assert np.min(closer) > -0.01


def test_what_many_spikes_show_stays_though_it_is_unlike_all_others():
    odd = spike(2.0, 20.0)
    odd = odd.roll(10, dims=1) * torch.sin(TIMES / 2.0)
    odd *= 20 / odd.norm()
    assert cosine(PRIOR.shrunk(odd[None], 5000)[0], odd) > 0.999
