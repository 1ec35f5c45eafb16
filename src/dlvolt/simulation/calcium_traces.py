"""Phenomenological fluorescence of calcium: cells, indicators and microscopes of many kinds, with known spikes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import fftconvolve

from .draws import Range, check_traces, log_uniform, num_frames
from .voltage_traces import coloured_noise

FINE_HZ = 500.0  # lowest rate at which calcium is simulated; each frame averages over its exposure
KERNEL_DECAYS = 6  # time constants after which a transient has ended


@dataclass(frozen=True)
class CalciumSettings:
    """Ranges that each trace draws its properties from, log-uniformly."""

    snr: Range = (1.0, 10.0)
    "ΔF/F of one spike, at its peak, over the standard deviation of the noise, per frame."
    firing_rate_hz: Range = (0.1, 5.0)
    "Mean over the trace; the rate itself waxes and wanes within seconds."
    rise_s: Range = (0.005, 0.1)
    "Time constant with which a transient rises."
    decay_s: Range = (0.2, 1.5)
    "Time constant with which it decays."
    contrast: Range = (0.05, 0.5)
    "ΔF/F of a single spike."
    nonlinearity: Range = (0.8, 1.5)
    "Exponent: above 1, spikes that come together are brighter than their sum."
    drift: Range = (0.1, 2.0)
    "Standard deviation of the slow drift of the baseline, in transients of one spike."


def simulate_calcium(
    num_traces: int,
    duration_s: float,
    sampling_frequency: float,
    *,
    settings: CalciumSettings | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Simulate fluorescence traces of spiking cells; cell, indicator and noise differ from trace to trace.

    Parameters
    ----------
    num_traces : int
        Number of traces N.
    duration_s : float
        Duration of each trace, in seconds.
    sampling_frequency : float
        Frames per second, in Hz.
    settings : CalciumSettings, optional
        Ranges from which the properties of each trace are drawn.
    seed : int, default: 0
        Trace n of a seed is the same for any `num_traces`.

    Returns
    -------
    traces : np.ndarray, shape (T, N), float32
        Brightness.
    spike_times : list of np.ndarray
        For each trace, the times of its spikes in seconds from the start of the first frame, ascending.
    """
    check_traces(num_traces)
    num_samples = num_frames(duration_s, sampling_frequency)
    settings = settings or CalciumSettings()
    draws = np.random.default_rng(seed).spawn(num_traces)
    cells = [simulate_cell(num_samples, sampling_frequency, settings, rng) for rng in draws]
    traces, spike_times = zip(*cells, strict=True)
    return np.transpose(traces).astype("float32"), list(spike_times)


def simulate_cell(
    num_samples: int, sampling_frequency: float, settings: CalciumSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one trace (T,) and its spike times; see `simulate_calcium`."""
    frame = int(np.ceil(FINE_HZ / sampling_frequency))  # fine samples per frame
    fine_hz, num_fine = frame * sampling_frequency, num_samples * frame
    intensity = np.exp(rng.uniform(0, 2) * coloured_noise(num_fine, fine_hz, 0.3, 1.0, rng))
    intensity *= log_uniform(rng, settings.firing_rate_hz) / intensity.mean()
    counts = rng.poisson(intensity / fine_hz)

    rise, decay = log_uniform(rng, settings.rise_s), log_uniform(rng, settings.decay_s)
    time = np.arange(round(KERNEL_DECAYS * (decay + rise) * fine_hz)) / fine_hz
    transient = np.exp(-time / decay) * (1 - np.exp(-time / rise))
    calcium = fftconvolve(counts, transient / transient.max())[:num_fine].clip(min=0)
    calcium = calcium ** log_uniform(rng, settings.nonlinearity)
    calcium = calcium.reshape(num_samples, frame).mean(axis=1)  # exposure

    drift = log_uniform(rng, settings.drift) * coloured_noise(num_samples, sampling_frequency, 0.02, 1.0, rng)
    noise = rng.normal(size=num_samples) / log_uniform(rng, settings.snr)
    trace = 1 + log_uniform(rng, settings.contrast) * (calcium + drift + noise)
    return log_uniform(rng, (50, 5000)) * trace, np.repeat(np.arange(num_fine), counts) / fine_hz
