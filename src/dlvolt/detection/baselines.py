"""What networks are compared with: a Gaussian-smoothed threshold, and an adaptive whitened matched filter.

References
----------
C. Cai, J. Friedrich, A. Singh, M. H. Eybposh, E. A. Pnevmatikakis, K. Podgorski, A. Giovannucci, "VolPy: automated and
scalable analysis pipelines for voltage imaging datasets", PLOS Computational Biology 17(4), 2021. The matched filter
is in the spirit of what the paper describes.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, fftconvolve, find_peaks, sosfiltfilt, welch

from dlvolt.robust import GAUSSIAN_MAD

BALANCE = 0.25  # exponent that weighs spikes missed against noise taken for spikes
TEMPLATE_SPIKES = 50  # the strongest spikes, whose mean is the template
FLOOR = 1e-2  # in parts of the largest noise power: frequencies without noise are not blown up


def gaussian_threshold(
    trace: np.ndarray,
    sampling_frequency: float,
    polarity: str = "positive",
    *,
    smoothing_ms: float = 1.0,
    threshold: float = 4.0,
    highpass_hz: float = 10.0,
    refractory_ms: float = 2.0,
) -> np.ndarray:
    """Detect spikes as peaks of the smoothed trace above a multiple of its noise.

    Parameters
    ----------
    trace : np.ndarray, shape (T,)
        Fluorescence or voltage.
    sampling_frequency : float
        Samples per second.
    polarity : {"positive", "negative"}
        Which way spikes go.
    smoothing_ms : float, default: 1.0
        Standard deviation of the Gaussian.
    threshold : float, default: 4.0
        Height of a spike over the median, in robust standard deviations of the smoothed trace.
    highpass_hz : float, default: 10.0
        Corner of the high-pass filter that the trace goes through first.
    refractory_ms : float, default: 2.0
        Of two peaks that are closer than this, only the larger one is a spike.

    Returns
    -------
    np.ndarray, shape (E,), int
        Samples of the spikes, ascending.

    Raises
    ------
    ValueError
        If the trace is not one-dimensional and finite, or the polarity unknown.
    """
    upright = upright_highpassed(trace, sampling_frequency, polarity, highpass_hz)
    smoothed = gaussian_filter1d(upright, smoothing_ms / 1000 * sampling_frequency)
    noise = np.median(np.abs(smoothed - np.median(smoothed))) / GAUSSIAN_MAD
    distance = max(1, round(refractory_ms / 1000 * sampling_frequency))
    peaks, _ = find_peaks(smoothed, height=np.median(smoothed) + threshold * noise, distance=distance)
    return peaks if noise > 0 else peaks[:0]


def adaptive_matched_filter(
    trace: np.ndarray,
    sampling_frequency: float,
    polarity: str = "positive",
    *,
    num_iterations: int = 2,
    highpass_hz: float = 10.0,
    window_ms: float = 12.0,
    refractory_ms: float = 2.0,
) -> np.ndarray:
    """Detect spikes with a whitened matched filter that is learnt from the trace itself.

    The first spikes are the peaks above an adaptive threshold. Then, as often as asked for, the trace is whitened by
    the noise spectrum between the spikes and correlated with the mean of the strongest ones, and the new spikes are the
    peaks above an adaptive threshold.

    Parameters
    ----------
    trace, sampling_frequency, polarity, highpass_hz, refractory_ms
        As for `gaussian_threshold`.
    num_iterations : int, default: 2
        How often the template is learnt.
    window_ms : float, default: 12.0
        Length of the template.

    Returns
    -------
    np.ndarray, shape (E,), int
        Samples of the spikes, ascending.

    Raises
    ------
    ValueError
        As `gaussian_threshold`.
    """
    upright = upright_highpassed(trace, sampling_frequency, polarity, highpass_hz)
    distance = max(1, round(refractory_ms / 1000 * sampling_frequency))
    reach = max(1, round(window_ms / 2000 * sampling_frequency))
    spikes = adaptive_threshold(upright, distance)
    for _ in range(num_iterations):
        inside = spikes[(spikes >= reach) & (spikes < len(upright) - reach)]
        if len(inside) == 0:
            break
        white = whiten(upright, inside, reach)
        strongest = inside[np.argsort(upright[inside])[-TEMPLATE_SPIKES:]]
        template = white[strongest[:, None] + np.arange(-reach, reach + 1)].mean(axis=0)
        spikes = adaptive_threshold(fftconvolve(white, template[::-1], mode="same"), distance)
    return spikes


def adaptive_threshold(trace: np.ndarray, distance: int = 1) -> np.ndarray:
    """Detect peaks above the threshold that best separates spikes from noise.

    Peaks below the median height are taken for noise, which is as wide above the median as below. The threshold z is
    where F(z)^p - G(z)^p is largest: F counts the peaks above z, G those that noise alone would have there, and
    p = 1/4 weighs spikes missed against noise taken for spikes.

    Parameters
    ----------
    trace : np.ndarray, shape (T,)
        A trace whose spikes point up.
    distance : int, default: 1
        Of two peaks that are closer than this many samples, only the larger one is a spike.

    Returns
    -------
    np.ndarray, shape (E,), int
        Samples of the spikes, ascending.
    """
    peaks, _ = find_peaks(trace)
    if len(peaks) < 2:
        return peaks[:0]
    heights = np.sort(trace[peaks])
    median = np.median(heights)
    mirrored = np.sort(2 * median - heights[heights <= median])  # noise above the median
    above = np.arange(len(heights), 0, -1)  # F at each height
    noise = len(mirrored) - np.searchsorted(mirrored, heights)  # G
    threshold = heights[np.argmax(above**BALANCE - noise**BALANCE)]
    if threshold <= median:
        return peaks[:0]
    spikes, _ = find_peaks(trace, height=threshold, distance=distance)
    return spikes


def whiten(trace: np.ndarray, spikes: np.ndarray, reach: int) -> np.ndarray:
    """Return a trace (T,) of mean zero with its noise made white and its phases kept.

    The noise spectrum is estimated from what is farther than `reach` samples from the `spikes`, given as samples (E,).
    """
    quiet = np.ones(len(trace), dtype=bool)
    quiet[np.clip(spikes[:, None] + np.arange(-reach, reach + 1), 0, len(trace) - 1)] = False
    noise = trace[quiet] if quiet.sum() > 4 * reach else trace
    frequencies, power = welch(noise, nperseg=min(len(noise), 16 * reach), detrend=False)
    frequencies, power = frequencies[1:-1], power[1:-1]  # Welch's density has half the power at both ends
    response = 1 / np.sqrt(power + FLOOR * power.max())
    spectrum = np.fft.rfft(trace)
    return np.fft.irfft(spectrum * np.interp(np.fft.rfftfreq(len(trace)), frequencies, response), n=len(trace))


def upright_highpassed(trace: np.ndarray, sampling_frequency: float, polarity: str, highpass_hz: float) -> np.ndarray:
    """Return a finite trace (T,) high-pass filtered and with its spikes pointing up, float64."""
    trace = np.asarray(trace, dtype="float64")
    if trace.ndim != 1 or len(trace) < 2 or not np.isfinite(trace).all():
        raise ValueError(f"trace must be of shape (T,) and finite; this one has shape {trace.shape}")
    if polarity not in ("positive", "negative"):
        raise ValueError(f"polarity must be 'positive' or 'negative', not {polarity!r}")
    sections = butter(2, highpass_hz, "highpass", fs=sampling_frequency, output="sos")
    highpassed = sosfiltfilt(sections, trace, padlen=min(len(trace) - 1, round(3 * sampling_frequency / highpass_hz)))
    return highpassed if polarity == "positive" else -highpassed
