"""Mel spectrograms with a frame at every sample.

References
----------
S. S. Stevens, J. Volkmann, E. B. Newman, "A scale for the measurement of the psychological magnitude pitch", JASA,
1937; in O'Shaughnessy's form, m = 2595 log10(1 + f / 700).
"""

from __future__ import annotations

import math

import torch

from .features import extend

OVERSAMPLING = 8  # short frames resolve no mel bands, so they are zero-padded to this many times their length


def mel_spectrogram(x: torch.Tensor, sampling_frequency: float, frame: int = 12, num_bands: int = 7) -> torch.Tensor:
    """Return the power in mel bands around each sample.

    Parameters
    ----------
    x : torch.Tensor, shape (B, T)
        Traces.
    sampling_frequency : float
        In Hz.
    frame : int
        Length of the Hann-windowed frames, in samples. The frame of sample t starts at t - frame // 2, and its window
        peaks at t.
    num_bands : int
        Number of triangular bands, equally wide in mel, from 0 to half the sampling frequency.

    Returns
    -------
    torch.Tensor, shape (B, num_bands, T)
        Power, in squared units of the traces. Beyond either end of a trace, its last sample is repeated.
    """
    offsets = torch.arange(frame, dtype=torch.float64) - frame // 2
    taper = (torch.pi * offsets / frame).cos().square().to(x)  # Hann
    padded = extend(x, frame // 2)[:, : x.shape[1] + frame - 1]
    frames = padded.unfold(-1, frame, 1) * taper  # B×T×frame
    power = torch.fft.rfft(frames, n=OVERSAMPLING * frame).abs() ** 2  # B×T×F
    bands = mel_bands(sampling_frequency, power.shape[-1], num_bands).to(x)  # F×num_bands
    return (power @ bands).transpose(1, 2)


def mel_bands(sampling_frequency: float, num_frequencies: int, num_bands: int) -> torch.Tensor:
    """Return triangular filters of unit height, shape (num_frequencies, num_bands)."""
    nyquist = sampling_frequency / 2
    highest = 2595 * math.log10(1 + nyquist / 700)
    corners = 700 * (10 ** (torch.linspace(0, highest, num_bands + 2, dtype=torch.float64) / 2595) - 1)
    low, centre, high = corners[:-2], corners[1:-1], corners[2:]
    frequencies = torch.linspace(0, nyquist, num_frequencies, dtype=torch.float64)[:, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    return torch.minimum(rising, falling).clamp(min=0)
