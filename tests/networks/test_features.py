import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d, median_filter

from dlvolt.networks import FEATURES, feature_channels, feature_margin, normalise

FS = 1000.0
NOISE = torch.randn(3, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_feature_channels_are_scipys_filters():
    x = NOISE.numpy()
    raw, smoothed, highpass, derivative, median = feature_channels(NOISE, FS).numpy().transpose(1, 0, 2)
    padded = np.pad(x, ((0, 0), (1, 1)), mode="edge")
    np.testing.assert_array_equal(raw, x)
    np.testing.assert_allclose(smoothed, gaussian_filter1d(x, 1, mode="nearest", truncate=3), atol=1e-12)
    np.testing.assert_allclose(highpass, x - gaussian_filter1d(x, 10, mode="nearest", truncate=3), atol=1e-12)
    np.testing.assert_allclose(derivative, np.stack([np.convolve(row, [0.5, 0, -0.5], "valid") for row in padded]))
    np.testing.assert_array_equal(median, median_filter(x, size=(1, 11), mode="nearest"))


def test_filters_have_the_same_length_in_milliseconds_at_any_rate():
    slow = torch.sin(2 * torch.pi * 20 * torch.arange(400, dtype=torch.float64) / 1000)[None]  # 20 Hz
    fast = torch.sin(2 * torch.pi * 20 * torch.arange(2000, dtype=torch.float64) / 5000)[None]
    at_1_kHz, at_5_kHz = feature_channels(slow, 1000.0), feature_channels(fast, 5000.0)[..., ::5]
    inside = slice(50, -50)
    np.testing.assert_allclose(at_5_kHz[..., inside], at_1_kHz[..., inside], atol=0.03)


def test_features_come_in_the_order_asked_for():
    everything = feature_channels(NOISE, FS)
    some = feature_channels(NOISE, FS, ("median", "raw"))
    assert torch.equal(some, everything[:, [FEATURES.index("median"), FEATURES.index("raw")]])
    with pytest.raises(ValueError, match=r"features: there is no 'lowpass'; take from raw, smoothed"):
        feature_channels(NOISE, FS, ("lowpass",))


@pytest.mark.parametrize("sampling_frequency", [200.0, 1000.0, 3328.0])
def test_features_depend_on_samples_within_the_margin_and_no_others(sampling_frequency):
    margin = feature_margin(sampling_frequency)
    x = torch.zeros(1, 4 * margin + 1, dtype=torch.float64)
    x[0, 2 * margin] = 1.0
    touched = (feature_channels(x, sampling_frequency) != 0).any(dim=1)[0].nonzero()[:, 0] - 2 * margin
    assert (touched.min(), touched.max()) == (-margin, margin)


@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_normalised_windows_know_no_units(scale, offset):
    np.testing.assert_allclose(normalise(scale * NOISE + offset), normalise(NOISE), atol=1e-6)


def test_white_noise_comes_out_with_variance_one_whatever_swims_in_it():
    noise = torch.randn(1, 20000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    time = torch.arange(20000) / 20000
    swings = 30 * torch.sin(2 * torch.pi * 40 * time) - 50 * time
    spikes = torch.zeros(20000)
    spikes[::100] = 20.0
    assert normalise(7 * noise).std().item() == pytest.approx(1, abs=0.03)
    trace = 7 * (noise + swings + spikes)
    assert (trace.std() / normalise(trace).std()).item() == pytest.approx(7, rel=0.05)


def test_constant_and_coarse_windows_stay_finite():
    x = torch.full((3, 100), 0.1)
    x[1, 50:] = 5.0  # a single step
    x[2, ::7] = 1.1  # most steps are zero
    constant, step, coarse = normalise(x)
    assert not constant.any()
    assert 0 < step.std() < 100
    assert 0 < coarse.std() < 100
    assert not normalise(torch.tensor([[3.0]])).any()
