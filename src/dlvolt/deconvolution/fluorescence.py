"""What a trace of calcium says about the spikes that networks estimate: its kinetics, and the posterior of the spikes.

A network knows the indicators that it was trained on, and a trace shows its own. In bins of 40 ms, a trace y is ::

    y(t) = a Σ_u h(t - u) s(u) + n(t),    h(t) ∝ exp(-t/τ_decay) - exp(-t/τ_rise),    n ~ noise of spectrum S

with s(u) the spikes in bin u. Networks expect r(u) spikes there. The two time constants, the height a and S are those
with which a h * r explains most of y. Then, with the mean and the variance of a Poisson distribution as a prior, and an
error of the model that is a part m of the transients themselves, ::

    s ~ N(r, diag(r + ε)),    y | s ~ N(a h * s, S + diag((m a h * r)²))

and the posterior mean of s solves linear equations. It is sharper than r where light rises steeply, larger where light
rises more than r makes expect, and r where y is too noisy to tell. Networks have seen y, too, and they have seen cells
whose light does other things than the model allows for. So the two are pooled, each with the weight 1/2 (C. Genest,
J. V. Zidek, "Combining probability distributions", Statistical Science 1, 1986).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.sparse.linalg import LinearOperator, cg

from .traces import noise_spectrum, without_trend

RISES_S = (0.001, 0.02, 0.04, 0.08, 0.15, 0.3)
DECAYS_S = (0.1, 0.15, 0.22, 0.33, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 4.5)
BIN_S = 0.04
PADDED_S = 4.0  # zeros after the trace, so that transients at its end do not wrap around to its beginning
DRIFT_HZ = 0.05  # before the noise spectrum is known, slower changes are taken for noise
SEGMENT_S = 20.0  # length of the segments of which the noise spectrum is the mean
BAND_HZ = (1.0, 3.0)  # band in which every recording shows its noise; slow ones show none above
FLOOR = 0.5  # least noise at any frequency, relative to that in the band
ROUNDS = 3  # of kinetics, then noise
SHORTEST_S = 10.0  # shortest trace from which kinetics are learnt
FEWEST = 3.0  # fewest spikes from which they are
MISFIT = 0.15  # m
QUIET = 1e-3  # ε, spikes per bin
KEPT = 0.1  # least posterior mean, relative to the prior's, so that bins keep the order of their rates
ITERATIONS, PRECISION = 40, 1e-4  # most steps of conjugate gradients, and the relative residual at which they end


class Kinetics(NamedTuple):
    """How light follows spikes in a trace, and its noise, at the F frequencies of `padded` bins."""

    rise_s: float
    decay_s: float
    response: np.ndarray  # F, complex; Fourier transform of what a spike adds to the trace, a h
    noise: np.ndarray  # F; spectrum S: the variance of a bin's noise at each frequency


def refined_rate(trace: np.ndarray, rates: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return the rate that networks estimate of the spikes in a trace of calcium, refined by the trace itself, in Hz.

    The trace, shape (T,), is fluorescence or ΔF/F; the rates are those of M networks, Hz, shape (M, T). Their mean is
    the prior, and the posterior mean is pooled with the first of them. The result, shape (T,), has as many spikes as
    the first, and is the first if the trace is constant, shorter than ten seconds, or has less than three spikes.
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
    change = np.sqrt(np.maximum(posterior, KEPT * prior) / np.where(own > 0, own, np.inf))  # pooled rate / own rate
    refined = first * np.pad(np.repeat(change, size), (0, len(trace) - num_bins * size), mode="edge")
    return (refined * (first.sum(dtype="float64") / refined.sum(dtype="float64"))).astype("float32")


def levelled(y: np.ndarray, num_bins: int) -> np.ndarray:
    """Return a trace without trend, see `without_trend`, in units of its standard deviation, shape (T,)."""
    y = without_trend(y, num_bins)
    return y / max(y.std(), np.finfo(float).tiny)


def padded(num_bins: int, bin_s: float) -> int:
    """Return the length to which so many bins are padded for Fourier transforms."""
    return next_fast_len(num_bins + round(PADDED_S / bin_s), real=True)


def fit_kinetics(y: np.ndarray, rate: np.ndarray, bin_s: float) -> Kinetics:
    """Return the kinetics and the noise with which spikes explain most of a trace, by generalised least squares.

    The trace y (T,) is in bins and `levelled`, and `rate` (T,) is the number of spikes expected in each bin. The time
    constants are the best pair of `RISES_S` and `DECAYS_S`, and the height is not negative.
    """
    length = padded(len(y), bin_s)
    constants, responses = transients(length, bin_s)
    frequencies = rfftfreq(length, bin_s)
    light, explained = rfft(y, length), responses * rfft(rate, length)  # F, kinetics×F
    drift = np.maximum(frequencies / DRIFT_HZ, 0.03) ** 4
    noise = (1 + drift) / drift  # white above DRIFT_HZ, steep below
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
    """Return pairs of time constants, rise and decay, s, and the Fourier transforms of h for each, shape (pairs, F).

    Transients are averaged over the bin of their spike, which may be anywhere in it, and over the bins of the trace.
    """
    pairs = np.array([(rise, decay) for rise in RISES_S for decay in DECAYS_S if rise < decay])
    frequencies = rfftfreq(length, bin_s)
    rise, decay = (1 / (1 + 2j * np.pi * frequencies * each[:, None]) for each in pairs.T)
    return pairs, rise * decay * np.sinc(frequencies * bin_s) ** 2 * (pairs[:, 1:] / bin_s)


def spectrum(left: np.ndarray, frequencies: np.ndarray, bin_s: float) -> np.ndarray:
    """Return the spectrum of noise at some frequencies (F,), but at least half of what it is from 1 to 3 Hz."""
    num_bins = min(round(SEGMENT_S / bin_s), len(left)) // 2 * 2
    power = np.interp(frequencies, rfftfreq(num_bins, bin_s), noise_spectrum(left, num_bins, centred=False))
    return np.maximum(power, FLOOR * in_band(power, frequencies) + np.finfo(float).tiny)


def in_band(power: np.ndarray, frequencies: np.ndarray) -> float:
    """Return the mean of a spectrum from 1 to 3 Hz."""
    return float(power[(frequencies > BAND_HZ[0]) & (frequencies < BAND_HZ[1])].mean())


def posterior_mean(y: np.ndarray, rate: np.ndarray, kinetics: Kinetics, bin_s: float) -> np.ndarray:
    """Return the posterior mean of the spikes in each bin, but no less than zero.

    Let H be the convolution with a h, N the covariance of the noise and the model's error, and V = diag(r + ε). With
    s = r + V^(1/2) u, the equations are (1 + V^(1/2) Hᵀ N⁻¹ H V^(1/2)) u = V^(1/2) Hᵀ N⁻¹ (y - H r). Conjugate
    gradients solve them in some tens of steps. N⁻¹ is C S⁻¹ C, where C is the certainty of each bin: 1 if no light is
    expected there, and less the more the model's error exceeds the noise. Arguments are as for `fit_kinetics`.
    """
    length, num_bins = padded(len(y), bin_s), len(y)
    response, deviation = kinetics.response, np.sqrt(rate + QUIET)

    def filtered(x: np.ndarray, by: np.ndarray) -> np.ndarray:
        return irfft(rfft(x, length) * by, length)[:num_bins]

    expected = filtered(rate, response)
    typical_noise = in_band(kinetics.noise, rfftfreq(length, bin_s))
    certainty = 1 / np.sqrt(1 + (MISFIT * expected) ** 2 / typical_noise)

    def back(light: np.ndarray) -> np.ndarray:  # V^(1/2) Hᵀ N⁻¹
        return deviation * filtered(certainty * filtered(certainty * light, 1 / kinetics.noise), response.conj())

    def left_side(u: np.ndarray) -> np.ndarray:
        return u + back(filtered(deviation * u, response))

    right_side = back(y - expected)
    matrix = LinearOperator((num_bins, num_bins), left_side, dtype=right_side.dtype)
    u, _ = cg(matrix, right_side, maxiter=ITERATIONS, atol=PRECISION * np.linalg.norm(right_side))
    return np.maximum(rate + deviation * u, 0)
