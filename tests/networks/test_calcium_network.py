import numpy as np
import pytest
import torch

from dlvolt.networks import Calcium, create
from dlvolt.networks.features import in_noise
from dlvolt.training.calcium import ensemble

SMALL = dict(base_channels=8, depth=2)


def walks(num_windows, num_samples, seed=0):
    return torch.randn((num_windows, num_samples), generator=torch.Generator().manual_seed(seed)).cumsum(dim=1)


@pytest.mark.parametrize("num_samples", [1, 3, 16, 401])
def test_as_many_rates_come_out_as_samples_go_in_and_none_is_negative(num_samples):
    torch.manual_seed(0)
    rate = Calcium(2, **SMALL)(walks(3, num_samples))
    assert rate.shape == (3, num_samples)
    assert torch.isfinite(rate).all()
    assert (rate >= 0).all()


def test_a_window_gets_the_same_answer_in_any_company_and_in_any_units():
    torch.manual_seed(0)
    module, x = Calcium(**SMALL), walks(4, 400)
    with torch.no_grad():
        together = module(x)
        torch.testing.assert_close(module(x[2:3]), together[2:3], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(module(40 * x + 7), together, atol=1e-4, rtol=1e-3)


def test_noise_is_what_an_average_takes_away():
    x = walks(2, 300)
    padded = np.pad(x.numpy(), ((0, 0), (25, 25)), mode="edge")
    average = np.lib.stride_tricks.sliding_window_view(padded, 51, axis=1).mean(axis=2)
    noise = torch.from_numpy(np.abs(x.numpy() - average)).median(dim=1, keepdim=True).values / 0.6745
    torch.testing.assert_close(in_noise(x), (x - x.median(dim=1, keepdim=True).values) / noise, rtol=1e-3, atol=1e-3)
    assert not in_noise(torch.full((1, 300), 3.0)).any()


def test_the_loss_is_poisson_and_correlation_of_bins():
    rng = np.random.default_rng(0)
    estimate, counts = rng.random((2, 40)).astype("float32"), rng.poisson(0.3, (2, 40)).astype("float32")
    p, y = (each.reshape(2, 10, 4).sum(axis=2) for each in (estimate, counts))
    poisson = np.mean(p - y * np.log(p + 1e-4))
    correlation = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(p, y, strict=True)])
    loss = Calcium(**SMALL).loss(torch.from_numpy(estimate), torch.from_numpy(counts))
    assert loss.item() == pytest.approx(poisson / 0.15 - correlation, rel=1e-4)


def test_an_ensemble_answers_with_the_mean_of_its_members():
    members = [create("calcium", seed=seed, window_samples=1200, **SMALL).initialize() for seed in range(3)]
    X = walks(4, 400).numpy()
    mean = np.mean([member._outputs(X).numpy() for member in members], axis=0)
    together = ensemble(members, X, mean > np.quantile(mean, 0.9))
    np.testing.assert_allclose(together._outputs(X).numpy(), mean, atol=1e-5)
    assert together.gain > 0
