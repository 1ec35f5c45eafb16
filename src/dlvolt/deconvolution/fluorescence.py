"""What a trace of calcium says of the spikes that networks estimate: its own kinetics, and their posterior.

A network knows the indicators that it was trained on; a trace knows its own. In bins of 40 ms, a trace y is ::

    y(t) = a Σ_u h(t - u) s(u) + n(t),    h(t) ∝ exp(-t/τ_decay) - exp(-t/τ_rise),    n ~ noise of spectrum S

with s(u) the spikes in bin u, of which the network says that they are r(u) on average. The two time constants, the
height a and S are those under which a h * r explains most of y. Then, with the mean and the variance of Poisson's
distribution as a prior, and an error of the model that is a part of the transient itself, ::

    s ~ N(r, diag(r + ε)),    y | s ~ N(a h * s, S + diag((m a h * r)²))

has a posterior mean, the solution of linear equations. It is sharper than r where light rises steeply, larger where it
rises more than is expected of r, and r where y is too noisy to tell. The networks have seen y, too, and cells that
light does not rise for as the model says; so the two are pooled, each with the weight 1/2 (C. Genest, J. V. Zidek,
"Combining probability distributions", Statistical Science 1, 1986).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

RISES_S = (0.001, 0.02, 0.04, 0.08, 0.15, 0.3)
DECAYS_S = (0.1, 0.15, 0.22, 0.33, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.5)
BIN_S = 0.04
PADDED_S = 4.0  # at the end, so that the transform's circle does not close
DRIFT_HZ = 0.05  # slower changes are noise, at first
SEGMENT_S = 20.0  # of the noise spectrum
BAND_HZ = (1.0, 3.0)  # in which every recording shows its noise; slow ones show none above
FLOOR = 0.5  # of the noise there, is assumed everywhere
ROUNDS = 3
SHORTEST_S = 10.0  # from which kinetics are learnt
FEWEST = 3.0  # spikes likewise
MISFIT = 0.15  # m
QUIET = 1e-3  # ε, spikes per bin
KEPT = 0.1  # of the networks' rate is left at least, so that bins keep their order
ITERATIONS, PRECISION = 40, 1e-4


class Kinetics(NamedTuple):
    """How light follows spikes in a trace.

    Attributes
    ----------
    rise_s, decay_s : float
        Time constants.
    response : np.ndarray, shape (F,)
        Transform of what a spike adds to the trace, at the frequencies of `padded` bins.
    noise : np.ndarray, shape (F,)
        Variance of a bin's noise at each frequency; the same at all if it is white.
    """

    rise_s: float
    decay_s: float
    response: np.ndarray
    noise: np.ndarray


def refined_rate(trace: np.ndarray, rates: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Let a trace of calcium refine the rates that networks estimate.

    Parameters
    ----------
    trace : np.ndarray, shape (T,)
        Fluorescence or ΔF/F.
    rates : np.ndarray, shape (M, T)
        Spikes per second, by M networks. Their mean is the prior; the posterior is pooled with the first.
    sampling_frequency : float
        Of both, in Hz.

    Returns
    -------
    np.ndarray, shape (T,), float32
        Spikes per second, as many in all as by the first network. It is the first network's rate where the trace is
        constant, shorter than ten seconds, or has less than three spikes.
    """
    first, size = rates[0], max(1, round(BIN_S * sampling_frequency))
    num_bins = len(trace) // size
    if num_bins * BIN_S < SHORTEST_S or first.sum() < FEWEST * sampling_frequency or np.ptp(trace) == 0:
        return first.astype("float32")
    y, *binned = (one[: num_bins * size].reshape(-1, size).mean(axis=1, dtype="float64") for one in (trace, *rates))
    per_bin = size / sampling_frequency
    prior = np.mean(binned, axis=0) * per_bin
    if not prior.any():
        return first.astype("float32")
    y = levelled(y, max(1, round(1 / per_bin)))
    posterior = posterior_mean(y, prior, fit_kinetics(y, prior, per_bin), per_bin)
    own = binned[0] * per_bin
    change = np.sqrt(np.maximum(posterior, KEPT * prior) / np.where(own > 0, own, np.inf))
    refined = first * np.pad(np.repeat(change, size), (0, len(trace) - num_bins * size), mode="edge")
    return (refined * (first.sum(dtype="float64") / refined.sum(dtype="float64"))).astype("float32")


def levelled(y: np.ndarray, num_bins: int) -> np.ndarray:
    """Return a trace less the line between the means of so many bins at either end, in its standard deviations."""
    y = y - np.linspace(y[:num_bins].mean(), y[-num_bins:].mean(), len(y))
    return y / max(y.std(), np.finfo(float).tiny)


def padded(num_bins: int, bin_s: float) -> int:
    """Return the length that so many bins are padded to."""
    return next_fast_len(num_bins + round(PADDED_S / bin_s), real=True)


def fit_kinetics(y: np.ndarray, rate: np.ndarray, bin_s: float) -> Kinetics:
    """Return the kinetics and the noise under which spikes explain most of a trace.

    Parameters
    ----------
    y : np.ndarray, shape (T,)
        The trace, levelled.
    rate : np.ndarray, shape (T,)
        Expected spikes in each bin.
    bin_s : float
        Duration of a bin.

    Returns
    -------
    Kinetics
        Of all pairs of `RISES_S` and `DECAYS_S`; the height is not negative.
    """
    length = padded(len(y), bin_s)
    constants, responses = transients(length, bin_s)
    frequencies = rfftfreq(length, bin_s)
    light, explained = rfft(y, length), responses * rfft(rate, length)  # F, kinetics×F
    drift = np.maximum(frequencies / DRIFT_HZ, 0.03) ** 4
    noise = (1 + drift) / drift
    for _ in range(ROUNDS):
        agreement = (explained.conj() * (light / noise)).real.sum(axis=1)
        power = (np.abs(explained) ** 2 / noise).sum(axis=1)
        best = np.argmax(np.maximum(agreement, 0) ** 2 / power)
        height = max(agreement[best], 0) / power[best]
        noise = spectrum(y - height * irfft(explained[best], length)[: len(y)], frequencies, bin_s)
    rise_s, decay_s = constants[best]
    return Kinetics(rise_s, decay_s, height * responses[best], noise)


@lru_cache(maxsize=4)
def transients(length: int, bin_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of time constants, rise and decay, and the transform of each one's transient, shape (pairs, F).

    A spike may be anywhere in its bin, and the light of a bin is its mean.
    """
    pairs = np.array([(rise, decay) for rise in RISES_S for decay in DECAYS_S if rise < decay])
    frequencies = rfftfreq(length, bin_s)
    rise, decay = (1 / (1 + 2j * np.pi * frequencies * each[:, None]) for each in pairs.T)
    return pairs, rise * decay * np.sinc(frequencies * bin_s) ** 2 * (pairs[:, 1:] / bin_s)


def spectrum(left: np.ndarray, frequencies: np.ndarray, bin_s: float) -> np.ndarray:
    """Return the spectrum of noise by Welch's method, nowhere far below what it is from 1 to 3 Hz."""
    num_bins = min(round(SEGMENT_S / bin_s), len(left)) // 2 * 2
    window = np.hanning(num_bins + 1)[:-1]
    pieces = np.lib.stride_tricks.sliding_window_view(left, num_bins)[:: num_bins // 2] * window
    power = np.mean(np.abs(rfft(pieces)) ** 2, axis=0) / (window @ window)
    power = np.interp(frequencies, rfftfreq(num_bins, bin_s), power)
    return np.maximum(power, FLOOR * in_band(power, frequencies) + np.finfo(float).tiny)


def in_band(power: np.ndarray, frequencies: np.ndarray) -> float:
    """Return the mean of a spectrum from 1 to 3 Hz."""
    return float(power[(frequencies > BAND_HZ[0]) & (frequencies < BAND_HZ[1])].mean())


def posterior_mean(y: np.ndarray, rate: np.ndarray, kinetics: Kinetics, bin_s: float) -> np.ndarray:
    """Return the expected spikes in each bin, given the trace, shape (T,); not negative.

    With s = r + V^(1/2) u and V = diag(r + ε), the equations are (1 + V^(1/2) Hᵀ N⁻¹ H V^(1/2)) u = V^(1/2) Hᵀ N⁻¹ (y -
    H r), which conjugate gradients solve in some tens of steps. The model's error is taken into account by dividing
    light and transients by its standard deviation.
    """
    length, num_bins = padded(len(y), bin_s), len(y)
    response, deviation = kinetics.response, np.sqrt(rate + QUIET)

    def filtered(x: np.ndarray, by: np.ndarray) -> np.ndarray:
        return irfft(rfft(x, length) * by, length)[:num_bins]

    expected = filtered(rate, response)
    usual = in_band(kinetics.noise, rfftfreq(length, bin_s))
    certainty = 1 / np.sqrt(1 + (MISFIT * expected) ** 2 / usual)

    def back(light: np.ndarray) -> np.ndarray:  # V^(1/2) Hᵀ N⁻¹
        return deviation * filtered(certainty * filtered(certainty * light, 1 / kinetics.noise), response.conj())

    right = back(y - expected)
    u, rest = np.zeros(num_bins), right
    step, size = rest, rest @ rest
    least = PRECISION**2 * size
    for _ in range(ITERATIONS):
        if size <= least:
            break
        image = step + back(filtered(deviation * step, response))
        length_of_step = size / (step @ image)
        u, rest = u + length_of_step * step, rest - length_of_step * image
        size, former = rest @ rest, size
        step = rest + size / former * step
    return np.maximum(rate + deviation * u, 0)
