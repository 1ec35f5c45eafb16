import numpy as np
import pytest

from dlvolt.deconvolution.traces import noise_spectrum, without_trend


@pytest.mark.parametrize("centred", [True, False])
def test_the_spectrum_of_white_noise_is_its_variance(centred):
    noise = np.random.default_rng(0).normal(scale=3.0, size=100_000)
    power = noise_spectrum(noise, 50, centred=centred)
    assert power.shape == (26,)
    np.testing.assert_allclose(power[2:], 9, rtol=0.1)


def test_the_mean_is_no_noise_if_segments_are_centred():
    assert not noise_spectrum(np.full(100, 5.0), 20, centred=True).any()
    assert noise_spectrum(np.full(100, 5.0), 20, centred=False)[0] > 25


def test_a_line_is_a_trend():
    np.testing.assert_allclose(without_trend(np.full(50, 7.0), 10), 0)
    assert np.ptp(without_trend(np.arange(1000.0), 1)) < 1e-9
