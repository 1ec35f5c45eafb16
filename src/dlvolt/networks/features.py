"""The input of networks: normalised windows, filtered into feature channels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from dlvolt.robust import GAUSSIAN_MAD

FEATURES = ("raw", "smoothed", "highpass", "derivative", "median")
SMOOTHING_MS = 1.0  # standard deviation of the Gaussian that smooths
BASELINE_MS = 10.0  # standard deviation of the Gaussian whose output the high-pass filter subtracts
MEDIAN_MS = 10.0  # length of the median filter
TRUNCATION = 3.0  # standard deviations at which Gaussians end
NOISE_SAMPLES = 51  # length of the moving average from which the noise of calcium fluorescence deviates, at 100 Hz


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Subtract the median of each window and divide by its noise.

    Parameters
    ----------
    x : torch.Tensor, shape (B, T)
        Windows.

    Returns
    -------
    torch.Tensor, shape (B, T)
        Windows of median 0 in which white noise has variance 1; zeros for a constant window. The noise is told by the
        median step from sample to sample, which slow swings, bleaching and spikes hardly affect; where more than half
        of the steps are zero, as in coarsely digitised traces, by the mean step.
    """
    steps = x.diff(dim=-1).abs()  # B×(T-1)
    if steps.shape[-1] == 0:  # a single sample
        return torch.zeros_like(x)
    typical = steps.median(dim=-1, keepdim=True).values / GAUSSIAN_MAD
    scale = torch.where(typical > 0, typical, steps.mean(dim=-1, keepdim=True)) / math.sqrt(2)
    return in_units(x, scale)


def standardise(x: torch.Tensor) -> torch.Tensor:
    """Return windows (B, T) of median 0 and standard deviation 1; zeros for a constant window.

    For calcium fluorescence: once a slow recording is resampled, steps from sample to sample do not show its noise.
    """
    return in_units(x, x.std(dim=-1, keepdim=True, correction=0))


def in_noise(x: torch.Tensor) -> torch.Tensor:
    """Return windows (B, T) of median 0, in units of their typical deviation from a moving average.

    For calcium fluorescence at 100 Hz, like `standardise`.
    """
    half = NOISE_SAMPLES // 2
    average = F.avg_pool1d(F.pad(x[:, None], (half, half), mode="replicate"), NOISE_SAMPLES, 1)[:, 0]
    return in_units(x, (x - average).abs().median(dim=-1, keepdim=True).values / GAUSSIAN_MAD)


def in_units(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return windows (B, T) minus their median, divided by a scale (B, 1); zeros where the scale is zero."""
    centred = x - x.median(dim=-1, keepdim=True).values
    return torch.where(scale > 0, centred / scale.clamp(min=torch.finfo(x.dtype).tiny), 0.0)


def feature_channels(
    x: torch.Tensor, sampling_frequency: float, features: Sequence[str] = FEATURES
) -> torch.Tensor:  # B×T -> B×C×T
    """Filter windows in up to five ways; beyond either end of a window, its last sample is repeated.

    Parameters
    ----------
    x : torch.Tensor, shape (B, T)
        Windows.
    sampling_frequency : float
        In Hz.
    features : sequence of str
        Which channels, out of "raw", "smoothed" (Gaussian, 1 ms standard deviation), "highpass" (minus a Gaussian
        average, 10 ms standard deviation), "derivative" (central difference, per ms) and "median" (over 10 ms).

    Returns
    -------
    torch.Tensor, shape (B, C, T)
        One channel per feature, in the order asked for.

    Raises
    ------
    ValueError
        If a feature has another name.
    """
    filters = {
        "raw": lambda x: x,
        "smoothed": lambda x: smooth(x, SMOOTHING_MS, sampling_frequency),
        "highpass": lambda x: x - smooth(x, BASELINE_MS, sampling_frequency),
        "derivative": lambda x: derivative(x, sampling_frequency),
        "median": lambda x: median_filter(x, MEDIAN_MS, sampling_frequency),
    }
    if unknown := [name for name in features if name not in filters]:
        raise ValueError(f"features: there is no {unknown[0]!r}; take from {', '.join(FEATURES)}")
    return torch.stack([filters[name](x) for name in features], dim=1)


def feature_margin(sampling_frequency: float) -> int:
    """Return how many samples to either side the feature at one sample depends on."""
    return max(
        len(gaussian(BASELINE_MS, sampling_frequency)) // 2,
        len(gaussian(SMOOTHING_MS, sampling_frequency)) // 2,
        odd_length(MEDIAN_MS, sampling_frequency) // 2,
        1,  # of the derivative
    )


def smooth(x: torch.Tensor, deviation_ms: float, sampling_frequency: float) -> torch.Tensor:
    """Return windows (B, T) convolved with a Gaussian."""
    kernel = gaussian(deviation_ms, sampling_frequency).to(x)  # 2L+1
    return F.conv1d(extend(x, len(kernel) // 2)[:, None], kernel[None, None])[:, 0]


def derivative(x: torch.Tensor, sampling_frequency: float) -> torch.Tensor:
    """Return the central differences of windows (B, T), per ms."""
    padded = extend(x, 1)
    return (padded[:, 2:] - padded[:, :-2]) * (sampling_frequency / 2000)


def median_filter(x: torch.Tensor, length_ms: float, sampling_frequency: float) -> torch.Tensor:
    """Return the running median of windows (B, T).

    All medians are computed at once by forgetful selection: of just over half of the samples, neither the smallest nor
    the largest can be the median, so both are dropped and one more sample is added, until a single one is left.
    """
    length = odd_length(length_ms, sampling_frequency)
    samples = list(extend(x, length // 2).unfold(-1, length, 1).unbind(-1))  # each B×T
    left, samples = samples[: length // 2 + 2], samples[length // 2 + 2 :]
    while len(left) > 1:
        for i in range(1, len(left)):
            left[0], left[i] = torch.minimum(left[0], left[i]), torch.maximum(left[0], left[i])
        for i in range(1, len(left) - 1):
            left[i], left[-1] = torch.minimum(left[i], left[-1]), torch.maximum(left[i], left[-1])
        left = left[1:-1] + samples[:1]
        samples = samples[1:]
    return left[0]


def gaussian(deviation_ms: float, sampling_frequency: float) -> torch.Tensor:
    """Return a Gaussian of unit sum, cut off at three standard deviations, shape (2 L + 1,), float64."""
    deviation = deviation_ms / 1000 * sampling_frequency
    num_lags = math.ceil(TRUNCATION * deviation)
    weights = torch.exp(-0.5 * (torch.arange(-num_lags, num_lags + 1, dtype=torch.float64) / deviation) ** 2)
    return weights / weights.sum()


def odd_length(length_ms: float, sampling_frequency: float) -> int:
    """Return the odd number of samples, at least three, that is closest to a duration."""
    return max(3, 2 * int(length_ms / 1000 * sampling_frequency // 2) + 1)


def extend(x: torch.Tensor, margin: int) -> torch.Tensor:
    """Return windows (B, T) with their first and last sample repeated `margin` times, shape (B, T + 2 margin)."""
    return F.pad(x[:, None], (margin, margin), mode="replicate")[:, 0]
