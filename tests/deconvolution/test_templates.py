import numpy as np
import pytest
import torch
from problems import random_events, random_templates, tensor

from dlvolt.deconvolution import (
    NUM_SHIFTS,
    AmplitudePrior,
    compose,
    event_slices,
    fractions,
    log_joint,
    low_rank,
    shift_bank,
    update_templates,
)
from dlvolt.deconvolution.shifts import HALF_WIDTH, interpolation_kernels

NUM_CHANNELS, WIDTH = 5, 12


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("rank", [1, 3, 5, 9])
def test_low_rank(rng, rank):
    matrices = tensor(rng.normal(size=(4, NUM_CHANNELS, WIDTH)))
    templates = low_rank(matrices, rank)
    kept = min(rank, NUM_CHANNELS, WIDTH)
    assert templates.spatial.shape == (4, NUM_CHANNELS, kept)
    assert templates.temporal.shape == (4, kept, WIDTH)
    full = compose(templates)
    np.testing.assert_allclose(full.flatten(1).norm(dim=1), 1)
    assert torch.linalg.matrix_rank(full).tolist() == [kept] * 4
    identity = torch.eye(kept, dtype=full.dtype).expand(4, kept, kept)
    torch.testing.assert_close(templates.spatial.mT @ templates.spatial, identity)
    torch.testing.assert_close(templates.temporal @ templates.temporal.mT, identity)
    assert torch.all(templates.singular_values.diff(dim=1) <= 0)
    np.testing.assert_allclose(templates.singular_values.norm(dim=1), 1)

    # no rank-R unit-norm matrix has a larger inner product: neither random ones nor near ones
    reached = (matrices * full).sum(dim=(1, 2))
    np.testing.assert_allclose(reached, torch.linalg.svdvals(matrices)[:, :rank].norm(dim=1))
    for distance in (0.01, 0.1, 1.0, 10.0):
        others = full + distance * tensor(rng.normal(size=(200, 4, NUM_CHANNELS, WIDTH)))
        u, s, v = torch.linalg.svd(others, full_matrices=False)
        others = u[..., :rank] @ (s[..., :rank, None] * v[..., :rank, :])
        others = others / others.norm(dim=(2, 3), keepdim=True)
        assert torch.all((matrices * others).sum(dim=(2, 3)) <= reached)


@pytest.mark.parametrize("rank", [1, 3])
def test_channels_of_zeros_stay_zero(rng, rank):
    matrices = tensor(rng.normal(size=(3, 8, WIDTH)))
    seen = torch.tensor([[0, 0, 1, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]]).bool()
    templates = low_rank(matrices * seen[:, :, None], rank)
    assert torch.equal(templates.support, seen)
    u, s, v = torch.linalg.svd(matrices * seen[:, :, None], full_matrices=False)
    expected = u[..., :rank] @ (s[:, :rank, None] * v[:, :rank])
    torch.testing.assert_close(compose(templates), expected / expected.norm(dim=(1, 2), keepdim=True))


def test_low_rank_of_zero():
    matrices = torch.ones(2, 3, 4)
    matrices[1] = 0
    with pytest.raises(ValueError, match="matrices"):
        low_rank(matrices, 1)


def test_select_and_to(rng):
    templates = random_templates(rng, 3, NUM_CHANNELS, WIDTH)
    chosen = templates.select(torch.tensor([2, 0]))
    torch.testing.assert_close(compose(chosen), compose(templates)[[2, 0]])
    assert {part.dtype for part in templates.to(torch.float32)} == {torch.float32}


def test_event_slices(rng):
    recording = tensor(rng.normal(size=(NUM_CHANNELS, 40)))
    slices = event_slices(recording, torch.tensor([0, 7, 28]), WIDTH)
    np.testing.assert_array_equal(slices, np.stack([recording[:, t : t + WIDTH] for t in (0, 7, 28)]))
    assert event_slices(recording, torch.tensor([], dtype=torch.long), WIDTH).shape == (0, NUM_CHANNELS, WIDTH)
    channels = torch.tensor([[0, 4], [2, 1], [3, 3]])
    some = event_slices(recording, torch.tensor([0, 7, 28]), WIDTH, channels)
    np.testing.assert_array_equal(some, np.stack([s[c] for s, c in zip(slices, channels, strict=True)]))


@pytest.mark.parametrize("rank", [1, 2])
def test_update_templates_maximises_the_log_joint(rng, rank):
    recording = tensor(rng.normal(size=(NUM_CHANNELS, 150)))
    events = random_events(rng, 1, 150 - WIDTH + 1, separation=WIDTH)
    updated = update_templates(recording, events, rank, WIDTH)
    mean = sum(a * recording[:, t : t + WIDTH] for t, a in zip(events.times.tolist(), events.amplitudes, strict=True))
    torch.testing.assert_close(compose(updated), compose(low_rank(mean[None], rank)))

    best = log_joint(recording, events, updated, AmplitudePrior())
    for _ in range(100):
        other = low_rank(compose(updated) + 0.3 * tensor(rng.normal(size=(1, NUM_CHANNELS, WIDTH))), rank)
        assert log_joint(recording, events, other, AmplitudePrior()) < best


def test_update_templates_finds_the_true_one(rng):
    templates = random_templates(rng, 1, NUM_CHANNELS, WIDTH)
    events = random_events(rng, 1, 150 - WIDTH + 1, separation=WIDTH)
    recording = torch.zeros(NUM_CHANNELS, 150, dtype=torch.float64)
    for time, amplitude in zip(events.times.tolist(), events.amplitudes, strict=True):
        recording[:, time : time + WIDTH] = amplitude * compose(templates)[0]
    torch.testing.assert_close(compose(update_templates(recording, events, 2, WIDTH)), compose(templates))


def test_fractions():
    np.testing.assert_allclose(fractions(), np.arange(-7, 8) / 15, atol=1e-7)


def band_limited(time):
    """A pulse whose spectrum is gone at half the Nyquist frequency."""
    return torch.exp(-((time / 3.5) ** 2)) * torch.cos(2 * torch.pi * 0.08 * time)


def test_shift_bank_of_a_band_limited_signal():
    time = torch.arange(-30, 31, dtype=torch.float64)
    delta = fractions().double()
    bank = shift_bank(band_limited(time).expand(2, 3, -1))
    assert bank.shape == (NUM_SHIFTS, 2, 3, 61)
    expected = band_limited(time - delta[:, None])  # J×D
    np.testing.assert_allclose(bank, expected[:, None, None].expand_as(bank), atol=2e-3)


def test_interpolation_kernels_look_ahead():
    taps = torch.arange(-HALF_WIDTH, HALF_WIDTH + 1, dtype=torch.float64)
    kernels = interpolation_kernels(taps)
    assert kernels.dtype == torch.float64
    for t in (-3.0, 0.0, 2.5):
        expected = band_limited(t + fractions().double())
        np.testing.assert_allclose(kernels @ band_limited(t + taps), expected, atol=2e-3)


def test_the_shift_in_the_middle_is_none(rng):
    signals = tensor(rng.normal(size=(2, 20)))
    torch.testing.assert_close(shift_bank(signals)[NUM_SHIFTS // 2], signals, rtol=0, atol=1e-15)
