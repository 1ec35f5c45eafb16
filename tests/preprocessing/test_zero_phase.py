import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import butter, fftconvolve, sosfiltfilt

from dlvolt.preprocessing.zero_phase import ZeroPhaseFilter, highpass_taps


def symmetric(half_length, seed=0):
    taps = np.random.default_rng(seed).normal(size=2 * half_length + 1)
    return (taps + taps[::-1]) / np.abs(taps).sum()


def convolved(traces, taps):
    """What `scipy.signal` makes of it, from where all taps see a sample."""
    return fftconvolve(traces, taps[:, None], axes=0, mode="same")


def filtered(traces, taps, near):
    zero_phase = ZeroPhaseFilter(taps, near)
    return zero_phase(np.pad(traces, ((zero_phase.margin, zero_phase.margin), (0, 0))))


@given(
    half_length=st.integers(0, 200),
    near=st.integers(0, 30),
    num_samples=st.integers(1, 300),
    num_channels=st.integers(1, 4),
)
def test_any_symmetric_filter_is_applied_exactly(half_length, near, num_samples, num_channels):
    """Also one that is not smooth at all, wherever it is said to become so."""
    taps = symmetric(half_length)
    traces = np.random.default_rng(1).normal(size=(num_samples, num_channels))
    expected = convolved(np.pad(traces, ((half_length, half_length), (0, 0))), taps)[half_length:][:num_samples]
    result = filtered(traces, taps, near)
    assert result.shape == traces.shape
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("sampling_frequency", "freq_min", "half_length"),
    [(30000, 300, 20), (32000, 150, 0), (10000, 300, 7), (30000, 20, 20), (30000, 5000, 3), (20000, 9000, 3)],
)
def test_highpass_filters_are_those_of_scipy(sampling_frequency, freq_min, half_length):
    """Forward and backward, and another filter with them, in little more work than the nearest taps make."""
    more = symmetric(half_length)
    taps = np.convolve(highpass_taps(freq_min, sampling_frequency), more)
    assert len(ZeroPhaseFilter(taps, half_length).moments) == 2 * 3  # as many exponentials as the filter has poles
    traces = np.random.default_rng(0).normal(size=(3000, 2))
    padded = np.pad(traces, ((20_000, 20_000), (0, 0)))
    sections = butter(3, freq_min, "highpass", fs=sampling_frequency, output="sos")
    expected = convolved(sosfiltfilt(sections, padded, axis=0), more)[20_000:23_000]
    np.testing.assert_allclose(filtered(traces, taps, half_length), expected, atol=1e-5 * expected.std())


def test_an_offset_is_subtracted():
    taps, offset = symmetric(10), np.array([65000, 6, 7], dtype="uint16")
    traces = offset + np.random.default_rng(0).integers(0, 100, size=(40, 3)).astype("uint16")
    expected = convolved(traces.astype("float64") - offset, taps)[10:-10]
    np.testing.assert_allclose(ZeroPhaseFilter(taps, near=10)(traces, offset), expected, atol=1e-4)


@pytest.mark.parametrize("taps", [[1.0, 2.0], [1.0, 2.0, 3.0]])
def test_filters_that_shift_phases_are_refused(taps):
    with pytest.raises(ValueError, match=r"^temporal must be symmetric"):
        ZeroPhaseFilter(np.array(taps), near=1)
