"""Extracellular traces with known spikes, raw or filtered, to train on; and scores on SpikeInterface's recordings.

Electrodes, neurons and templates come from SpikeInterface's generators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d
from scipy.signal import butter, sosfilt, sosfiltfilt
from spikeinterface.core import BaseRecording, BaseSorting, estimate_templates, get_channel_distances
from spikeinterface.core.generate import (
    generate_channel_locations,
    generate_ground_truth_recording,
    generate_templates,
    generate_unit_locations,
)
from spikeinterface.preprocessing import bandpass_filter
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from .draws import Range, log_uniform

VISIBLE = 3.5  # spikes count where the peak of their template is at least so many standard deviations of the noise
SPIKE_BAND_HZ = (300.0, 6000.0)  # in which noise and peak are measured, however the traces were filtered
DEVIATION_S = 1e-4  # standard deviation of the targets around a spike, as noise moves its extremum
WINDOWS = 4  # length of a simulated recording, in windows
MARGIN_MS = 15.0  # simulated before and after the recording, and cut off
BEFORE_MS, AFTER_MS = 4.0, 10.0  # extent of a template, ringing of filters included
JITTER = 4  # sub-sample positions of spikes
REFRACTORY_MS = 1.5

TOLERANCE_S = 4e-4
NEAR_UM = 50.0  # a unit may also be found on channels so close to its main channel
PEERS = ("by_channel", "locally_exclusive")
TEST_RECORDINGS = ((4, 6, 30e3, 6.0), (4, 6, 20e3, 12.0), (32, 24, 30e3, 8.0), (32, 24, 40e3, 20.0))  # N, U, Hz, µV
TEST_S, TEST_SEED = 20.0, 1001


@dataclass(frozen=True)
class ExtracellularSettings:
    """Ranges from which recordings and units draw their properties, uniformly or, over decades, log-uniformly."""

    num_channels: tuple[int, int] = (1, 16)
    spacing_um: Range = (10.0, 60.0)
    units_per_channel: Range = (0.3, 2.0)
    snr: Range = (1.5, 40.0)
    "Peak of a unit's template on its main channel, in standard deviations of the noise."
    firing_rate_hz: Range = (0.5, 40.0)
    bursting: float = 0.3
    "Fraction of the units that fire bursts, in which spikes become smaller."
    upward: float = 0.15
    "Fraction of the units whose spikes go up, and of the recordings whose sign is turned."
    depolarization_ms: Range = (0.06, 0.5)
    repolarization_ms: Range = (0.15, 1.2)
    recovery_ms: Range = (0.3, 2.5)
    afterpotential: Range = (0.0, 0.7)
    "Height of a spike's second phase, in units of the first."
    smooth_ms: Range = (0.02, 0.12)
    derivative: Range = (-0.6, 0.6)
    "Weight of a template's derivative that is added to it, for a greater variety of shapes."
    amplitude_deviation: Range = (0.0, 0.2)
    "Standard deviation of the heights of a unit's spikes."
    noise_level: Range = (0.5, 2.0)
    noise_exponent: Range = (0.0, 1.8)
    "β of the spectrum 1 / f^β above the spike band's lower end, from white to nearly brown."
    common_noise: Range = (0.0, 0.7)
    "Fraction of the noise's variance that all channels share."
    slow: Range = (0.3, 100.0)
    "Standard deviation of field potential and drift, in standard deviations of the noise."
    hum: Range = (0.1, 10.0)
    "Amplitude of line noise, in standard deviations of the noise."
    step: Range = (1e-4, 0.3)
    "Step of the digitised traces, in standard deviations of the noise. Traces are in units of steps."


def simulate_extracellular(
    num_samples: int, sampling_frequency: float, *, settings: ExtracellularSettings | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate a short recording, raw or filtered, of 1 to 16 electrodes.

    Units near and far fire single spikes and bursts, most of them negative, and their spikes overlap. Noise is white
    to brown and partly shared by all channels; field potential, drift and line noise add to it. Most recordings are
    band-pass filtered, with zero or with minimum phase, and some are referenced to the mean of the channels. The spikes
    of a unit count on the channels where the peak of its template is at least 3.5 standard deviations of the noise,
    both between 300 and 6000 Hz; fainter ones are in the traces, but do not count.

    Parameters
    ----------
    num_samples : int
        Number of samples T.
    sampling_frequency : float
        Above 12,000 Hz.
    settings : ExtracellularSettings, optional
        Ranges from which properties are drawn.
    seed : int, default: 0
        Same seed, same recording.

    Returns
    -------
    traces : np.ndarray, shape (T, N), float32
        Traces of N channels, in steps of the analog-to-digital converter.
    spikes : np.ndarray, shape (T, N), bool
        True at the extremum of each spike that counts.
    """
    if sampling_frequency <= 2 * SPIKE_BAND_HZ[1]:
        raise ValueError(f"sampling_frequency: must be above {2 * SPIKE_BAND_HZ[1]:g} Hz, not {sampling_frequency:g}")
    settings = settings or ExtracellularSettings()
    rng = np.random.default_rng(seed)
    num_channels = int(rng.integers(*settings.num_channels, endpoint=True))
    margin = round(MARGIN_MS / 1000 * sampling_frequency)
    length = num_samples + 2 * margin

    band = draw_filter(sampling_frequency, rng)
    noise = band(draw_noise(length, num_channels, sampling_frequency, settings, rng), axis=0)  # T×N
    templates = band(draw_templates(num_channels, sampling_frequency, settings, rng), axis=1)  # U×L×N×J
    if num_channels >= 4 and rng.random() < 0.3:  # the mean of the channels is the reference
        noise -= noise.mean(axis=1, keepdims=True)
        templates -= templates.mean(axis=2, keepdims=True)
    level = spike_band(noise, sampling_frequency, axis=0).std(axis=0)  # N
    snr = np.abs(spike_band(templates[..., 0], sampling_frequency, axis=1)).max(axis=1) / level  # U×N
    gain = log_uniform(rng, settings.snr, len(templates)) / snr.max(axis=1)  # U
    frames, units, heights = draw_spikes(len(templates), length, sampling_frequency, settings, rng)

    center, width = round(BEFORE_MS / 1000 * sampling_frequency), templates.shape[1]
    traces = np.pad(noise, ((width, width), (0, 0)))
    between = rng.integers(JITTER, size=len(frames))
    for start, unit, jitter, height in zip(frames + width - center, units, between, heights * gain[units], strict=True):
        traces[start : start + width] += height * templates[unit, ..., jitter]
    traces = traces[width:-width]

    extrema = np.abs(templates[..., 0]).argmax(axis=1) - center  # U×N
    events, channels = np.nonzero((snr * gain[:, None] >= VISIBLE)[units])
    samples = frames[events] + extrema[units[events], channels]
    inside = (samples >= 0) & (samples < length)
    spikes = np.zeros(traces.shape, dtype=bool)
    spikes[samples[inside], channels[inside]] = True

    turn = -1 if rng.random() < settings.upward else 1
    cut = slice(margin, margin + num_samples)
    step = turn * log_uniform(rng, settings.step) * level.min()
    return np.round(traces[cut] / step).astype("float32"), spikes[cut]


def draw_filter(sampling_frequency: float, rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """Draw the Butterworth filter that all traces of a recording go through; call it as ``filter(traces, axis=…)``."""
    high = rng.uniform(3000.0, 0.45 * sampling_frequency)
    order = int(rng.integers(1, 6))
    if rng.random() < 0.3:  # broadband
        sos = butter(order, high, fs=sampling_frequency, output="sos")
    else:
        sos = butter(order, [rng.uniform(150.0, 600.0), high], "bandpass", fs=sampling_frequency, output="sos")
    return partial(sosfiltfilt if rng.random() < 0.7 else sosfilt, sos)


def spike_band(traces: np.ndarray, sampling_frequency: float, axis: int) -> np.ndarray:
    """Return traces filtered to 300 to 6000 Hz, with zero phase."""
    return sosfiltfilt(butter(3, SPIKE_BAND_HZ, "bandpass", fs=sampling_frequency, output="sos"), traces, axis=axis)


def draw_noise(
    num_samples: int,
    num_channels: int,
    sampling_frequency: float,
    settings: ExtracellularSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the background without spikes: noise, field potential and line noise, shape (T, N)."""
    frequencies = np.fft.rfftfreq(num_samples, 1 / sampling_frequency)[:, None]

    def coloured(spectrum: np.ndarray, common: float) -> np.ndarray:  # of variance 1
        own, shared = (rng.standard_normal((num_samples, count)) for count in (num_channels, 1))
        white = np.sqrt(1 - common) * own + np.sqrt(common) * shared
        gain = spectrum / np.sqrt(np.mean(spectrum**2))
        return np.fft.irfft(gain * np.fft.rfft(white, axis=0), num_samples, axis=0)

    exponent = rng.uniform(*settings.noise_exponent)
    noise = coloured((frequencies + SPIKE_BAND_HZ[0]) ** (-exponent / 2), rng.uniform(*settings.common_noise))
    if rng.random() < 0.7:
        fastest = rng.uniform(10.0, 100.0)  # Hz
        slow = coloured(1 / (frequencies + 2.0) / (1 + (frequencies / fastest) ** 2), rng.uniform(0.5, 1.0))
        noise += log_uniform(rng, settings.slow) * slow
    if rng.random() < 0.3:
        cycles = rng.choice([50.0, 60.0]) * np.arange(num_samples)[:, None] / sampling_frequency + rng.random()
        noise += log_uniform(rng, settings.hum) * np.sin(2 * np.pi * cycles)
    return noise * log_uniform(rng, settings.noise_level, num_channels)


def draw_templates(
    num_channels: int, sampling_frequency: float, settings: ExtracellularSettings, rng: np.random.Generator
) -> np.ndarray:
    """Draw neurons around electrodes, and return their templates, shape (U, L, N, JITTER)."""
    columns = 2 if num_channels % 2 == 0 and rng.random() < 0.5 else 1
    electrodes = generate_channel_locations(num_channels, columns, rng.uniform(*settings.spacing_um))
    num_units = 1 + rng.poisson(rng.uniform(*settings.units_per_channel) * num_channels)
    neurons = generate_unit_locations(
        num_units, electrodes, maximum_z=60.0, minimum_distance=None, seed=int(rng.integers(2**31))
    )
    shapes = ("depolarization_ms", "repolarization_ms", "recovery_ms", "smooth_ms")
    templates = generate_templates(
        electrodes,
        neurons,
        sampling_frequency,
        BEFORE_MS,
        AFTER_MS,
        seed=int(rng.integers(2**31)),
        upsample_factor=JITTER,
        unit_params={name: log_uniform(rng, getattr(settings, name), num_units) for name in shapes}
        | dict(alpha=1.0, positive_amplitude=rng.uniform(*settings.afterpotential, num_units)),
    )
    slope = np.gradient(templates, axis=1)
    slope *= np.abs(templates).max(axis=(1, 2, 3), keepdims=True) / np.abs(slope).max(axis=(1, 2, 3), keepdims=True)
    weight = rng.uniform(*settings.derivative, num_units)[:, None, None, None]
    turn = np.where(rng.random(num_units) < settings.upward, -1, 1)[:, None, None, None]
    return turn * (templates + weight * slope)


def draw_spikes(
    num_units: int,
    num_samples: int,
    sampling_frequency: float,
    settings: ExtracellularSettings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw all spikes of a recording: frames, units and heights, each of shape (E,), by frame."""
    spikes = []
    for unit in range(num_units):
        num_spikes = rng.poisson(log_uniform(rng, settings.firing_rate_hz) * num_samples / sampling_frequency)
        times, heights = rng.uniform(0, num_samples, num_spikes), np.ones(num_spikes)
        if rng.random() < settings.bursting:
            sizes = rng.geometric(0.4, num_spikes)
            interval, decrement = rng.uniform(2.0, 8.0) / 1000 * sampling_frequency, rng.uniform(0.7, 1.0)
            within = np.concatenate([np.arange(size) for size in sizes]) if num_spikes else np.arange(0)
            times = np.repeat(times, sizes) + interval * within * rng.uniform(0.8, 1.2, len(within))
            heights = decrement**within
        order = np.argsort(times)
        times, heights = times[order].astype(int), heights[order]
        kept = np.diff(times, prepend=-np.inf) >= REFRACTORY_MS / 1000 * sampling_frequency
        kept &= times < num_samples
        heights = heights * (1 + rng.uniform(*settings.amplitude_deviation) * rng.standard_normal(len(times)))
        spikes.append((times[kept], np.full(kept.sum(), unit), heights[kept]))
    frames, units, heights = (np.concatenate(one) for one in zip(*spikes, strict=True))
    order = np.argsort(frames, kind="stable")
    return frames[order], units[order], heights[order]


def extracellular_windows(
    num_windows: int, window_samples: int, sampling_frequency: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate windows of extracellular traces, one channel each.

    Parameters
    ----------
    num_windows, window_samples : int
        Number of windows B, and the samples T of each.
    sampling_frequency : float
        Sampling frequency of the windows, in Hz.
    seed : int
        Same seed, same windows.

    Returns
    -------
    X, y : np.ndarray, shape (B, T), float32
        Traces, and targets: Gaussians of height 1 and standard deviation 0.1 ms at the extremum of each spike that
        counts (see `simulate_extracellular`).
    """
    blur = partial(gaussian_filter1d, sigma=DEVIATION_S * sampling_frequency, axis=0, mode="constant")
    at_spike = blur(np.eye(1, 101, 50)[0]).max()
    seeds = np.random.default_rng(seed)
    X, y = (np.empty((num_windows, window_samples), dtype="float32") for _ in range(2))
    first = 0
    while first < num_windows:
        traces, spikes = simulate_extracellular(
            WINDOWS * window_samples, sampling_frequency, seed=int(seeds.integers(2**31))
        )
        targets = (blur(spikes.astype("float32")) / at_spike).clip(max=1)
        end = min(first + WINDOWS * traces.shape[1], num_windows)
        X[first:end] = traces.T.reshape(-1, window_samples)[: end - first]
        y[first:end] = targets.T.reshape(-1, window_samples)[: end - first]
        first = end
    return X, y


def extracellular_scores(model: str | Path) -> pd.DataFrame:
    """Score a saved model, and SpikeInterface's detectors at 5 times the noise, on recordings of its generator.

    Recall is the share of spikes that have a peak within 0.4 ms on the main channel of their unit, or within 50 µm of
    it; precision is the share of peaks on any channel that lie within 0.4 ms of a spike of any unit. All units count,
    however faint.

    Parameters
    ----------
    model : str or path
        Name or folder of the model, see `dlvolt.networks.load`.

    Returns
    -------
    DataFrame
        A row per recording and detector; "raw" is the recording as it is, the others get it band-pass filtered from
        300 to 6000 Hz.
    """
    rows = {}
    for num_channels, num_units, rate, noise in TEST_RECORDINGS:
        recording, sorting = generate_ground_truth_recording(
            [TEST_S],
            rate,
            num_channels,
            num_units,
            generate_sorting_kwargs=dict(firing_rates=(1.0, 15.0), refractory_period_ms=2.0),
            noise_kwargs=dict(noise_levels=noise, strategy="on_the_fly"),
            seed=TEST_SEED,
        )
        filtered = bandpass_filter(recording, 300.0, 6000.0, dtype="float32")
        detectors = {"dlvolt, raw": (recording, "dlvolt"), "dlvolt": (filtered, "dlvolt")}
        detectors |= {peer: (filtered, peer) for peer in PEERS}
        near = near_channels(filtered, sorting)
        for detector, (traces, method) in detectors.items():
            settings = dict(model=model) if method == "dlvolt" else dict(detect_threshold=5.0)
            peaks = detect_peaks(traces, method=method, method_kwargs=settings)
            condition = f"{num_channels} channels, {rate / 1000:g} kHz, noise {noise:g} µV"
            rows[f"{condition}: {detector}"] = peak_scores(peaks, sorting, near)
    return pd.DataFrame.from_dict(rows, orient="index")


def near_channels(recording: BaseRecording, sorting: BaseSorting) -> np.ndarray:
    """Return whether each channel is near the main channel of each unit, shape (U, N)."""
    half = round(1e-3 * recording.sampling_frequency)
    templates = estimate_templates(recording, sorting.to_spike_vector(), sorting.unit_ids, half, half)  # U×L×N
    return get_channel_distances(recording)[np.ptp(templates, axis=1).argmax(axis=1)] <= NEAR_UM


def peak_scores(peaks: np.ndarray, sorting: BaseSorting, near: np.ndarray) -> dict[str, float]:
    """Score the peaks of a recording by its spikes; `near` (U, N) says where those of a unit may be found."""
    reach = TOLERANCE_S * sorting.sampling_frequency
    trains = [sorting.get_unit_spike_train(unit) for unit in sorting.unit_ids]
    matched = [
        within_reach(train, peaks["sample_index"][near[unit][peaks["channel_index"]]], reach)
        for unit, train in enumerate(trains)
    ]
    recall = np.concatenate(matched).mean()
    precision = within_reach(peaks["sample_index"], np.sort(np.concatenate(trains)), reach).mean()
    return dict(precision=precision, recall=recall, f1=2 * precision * recall / (precision + recall))


def within_reach(samples: np.ndarray, others: np.ndarray, reach: float) -> np.ndarray:
    """Return for each of the samples whether one of `others`, which ascend, is within reach."""
    return np.searchsorted(others, samples - reach) < np.searchsorted(others, samples + reach, side="right")
