"""The kinetics of calcium, and what they make of rates, where they are known."""

import numpy as np
import pytest
from scipy.signal import fftconvolve

from dlvolt.deconvolution import fluorescence
from dlvolt.deconvolution.fluorescence import BIN_S, fit_kinetics, levelled, posterior_mean, refined_rate
from dlvolt.evaluation import rate_scores

FS = 100.0


def cell(rise_s, decay_s, noise, seed=0, duration_s=200.0, rate_hz=1.0):
    """A trace whose spikes are as bright as 1 at most, and its spikes per sample, at 100 Hz."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rate_hz / FS, round(duration_s * FS))
    t = np.arange(round(8 * decay_s * FS)) / FS
    transient = np.exp(-t / decay_s) - np.exp(-t / rise_s)
    trace = fftconvolve(counts, transient / transient.max())[: len(counts)]
    slow = np.interp(
        np.arange(len(counts)), np.arange(0, len(counts) + 6000, 6000), rng.normal(size=len(counts) // 6000 + 2)
    )
    return trace + noise * rng.normal(size=len(counts)) + 0.3 * slow + 10, counts


def blurred(counts, deviation_s=0.15):
    """What a network may say that knows not quite when."""
    t = np.arange(-round(4 * deviation_s * FS), round(4 * deviation_s * FS) + 1) / FS
    kernel = np.exp(-0.5 * (t / deviation_s) ** 2)
    return np.maximum(fftconvolve(counts, kernel / kernel.sum(), mode="same"), 0) * FS


def binned(x):
    return x.reshape(-1, round(BIN_S * FS)).sum(axis=1)


@pytest.mark.parametrize(("rise_s", "decay_s"), [(0.02, 0.33), (0.04, 1.0), (0.15, 2.0)])
def test_kinetics_are_recovered(rise_s, decay_s):
    trace, counts = cell(rise_s, decay_s, 0.3)
    y = levelled(binned(trace), 25)
    found = fit_kinetics(y, binned(counts), BIN_S)
    assert (found.rise_s, found.decay_s) == (rise_s, decay_s)
    height = np.fft.irfft(found.response).max() * binned(trace).std() / round(BIN_S * FS)
    assert height == pytest.approx(1, rel=0.2)  # of a spike's light, as a bin of 40 ms shows it


def test_white_noise_is_found_white():
    trace, counts = cell(0.02, 0.5, 0.5)
    y = levelled(binned(trace), 25)
    found = fit_kinetics(y, binned(counts), BIN_S)
    expected = 0.5**2 * round(BIN_S * FS) / np.var(binned(trace))
    half = len(found.noise) // 2
    assert found.noise[half:].mean() == pytest.approx(expected, rel=0.2)


def test_the_posterior_solves_its_equations():
    trace, counts = cell(0.04, 0.5, 0.3, duration_s=20.0)
    y, rate = levelled(binned(trace), 25), binned(blurred(counts)) / FS
    kinetics = fit_kinetics(y, rate, BIN_S)
    num, length = len(y), fluorescence.padded(len(y), BIN_S)

    def matrix(response):
        rows = [np.fft.irfft(np.fft.rfft(one, length) * response, length)[:num] for one in np.eye(num)]
        return np.transpose(rows)

    light = matrix(kinetics.response)
    usual = fluorescence.in_band(kinetics.noise, np.fft.rfftfreq(length, BIN_S))
    certainty = 1 / np.sqrt(1 + (fluorescence.MISFIT * (light @ rate)) ** 2 / usual)
    precision = certainty[:, None] * matrix(1 / kinetics.noise) * certainty
    prior = np.diag(1 / (rate + fluorescence.QUIET))
    change = np.linalg.solve(prior + light.T @ precision @ light, light.T @ precision @ (y - light @ rate))
    np.testing.assert_allclose(posterior_mean(y, rate, kinetics, BIN_S), np.maximum(rate + change, 0), atol=2e-3)


@pytest.mark.parametrize(("rise_s", "decay_s"), [(0.02, 0.5), (0.08, 1.4)])
def test_a_trace_sharpens_a_blurred_rate_and_keeps_the_number_of_spikes(rise_s, decay_s):
    trace, counts = cell(rise_s, decay_s, 0.2)
    rate = blurred(counts)
    refined = refined_rate(trace, np.stack([rate, rate]), FS)
    before, after = (rate_scores(counts, one)["correlation"].item() for one in (rate, refined))
    assert after > before + 0.05
    assert refined.sum() == pytest.approx(rate.sum(), rel=1e-4)
    assert refined.dtype == "float32"


def test_a_trace_of_noise_changes_little():
    rate = blurred(cell(0.02, 0.5, 0.2)[1])
    noise = np.random.default_rng(1).normal(size=len(rate))
    refined = refined_rate(noise, rate[None], FS)
    assert np.corrcoef(rate, refined)[0, 1] > 0.97


def test_units_of_the_trace_do_not_matter():
    trace, counts = cell(0.02, 0.5, 0.3)
    rate = blurred(counts)[None]
    np.testing.assert_allclose(
        refined_rate(500 * trace - 30, rate, FS), refined_rate(trace, rate, FS), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("num_samples", [3, 900, 20000])
def test_too_little_to_learn_from_leaves_the_first_networks_rate(num_samples):
    trace, counts = cell(0.02, 0.5, 0.3)
    rates = np.stack([blurred(counts), np.ones(len(counts))])[:, :num_samples]
    if num_samples == 20000:
        rates[0] = 0.01  # two spikes
    np.testing.assert_allclose(refined_rate(trace[:num_samples], rates, FS), rates[0], rtol=1e-6)
    constant = np.full(num_samples, 7.0)
    np.testing.assert_allclose(refined_rate(constant, rates, FS), rates[0], rtol=1e-6)
