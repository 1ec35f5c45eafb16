"""Voltage imaging traces with known spikes, over the whole range of what microscopes and indicators give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import fftconvolve

from .draws import POLARITIES, Range, check_traces, log_uniform, num_frames

FINE_HZ = 5000.0  # lowest rate at which the membrane potential is drawn; each frame averages over its exposure
KERNEL_MS = 200.0  # length of a spike's fluorescence transient


@dataclass(frozen=True)
class VoltageSettings:
    """Ranges from which each trace draws its own properties, uniformly or, where they span decades, log-uniformly.

    Heights are in units of the spike's fluorescence transient, unless said otherwise.
    """

    snr: Range = (2.0, 12.0)
    "Height of a spike in the sampled trace over the standard deviation of the camera's noise, per sample."
    firing_rate_hz: Range = (0.1, 20.0)
    silent: float = 0.05
    "Fraction of traces without a single spike."
    rise_ms: Range = (0.1, 1.5)
    "Time constant with which the indicator follows a depolarisation."
    decay_ms: Range = (0.4, 20.0)
    "Fast time constant with which it returns to rest."
    slow_fraction: Range = (0.0, 0.5)
    "Weight of the slow component of that return, whose time constant is 10 to 60 ms."
    spike_width_ms: Range = (0.5, 4.0)
    "Full width at half height of the action potential, from fast somata to dendrites."
    subthreshold: Range = (0.05, 1.0)
    "Standard deviation of the subthreshold potential; swings span about five of them."
    bleaching: Range = (0.0, 0.5)
    "Fraction of the brightness that is lost by the end of a trace of 20 s."
    contrast: Range = (0.01, 0.3)
    "ΔF/F of a spike."
    motion: Range = (0.05, 4.0)
    "Height of motion artefacts."
    neighbour: Range = (0.1, 0.45)
    "Height of the spikes of another cell in the same ROI; they are not labelled."


def simulate_voltage(
    num_traces: int,
    duration_s: float,
    sampling_frequency: float,
    *,
    polarity: Literal["positive", "negative"] | None = None,
    settings: VoltageSettings | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Simulate fluorescence traces of spiking cells; cell, indicator, camera and rig differ from trace to trace.

    The membrane potential of a cell is a subthreshold process plus spikes, which are more frequent where it is
    depolarised: single ones, bursts, and complex spikes on a slow depolarisation. The indicator low-passes the
    potential, with a fast and a slow decay, and each frame averages over its exposure. Bleaching, motion and heartbeat
    multiply the result; light of another cell, shot noise and line noise are added.

    Parameters
    ----------
    num_traces : int
        Number of traces N.
    duration_s : float
        Duration of each trace, in seconds.
    sampling_frequency : float
        Frames per second of the camera, in Hz.
    polarity : {"positive", "negative"}, optional
        Whether spikes brighten or darken the indicator; each with probability 1/2 by default.
    settings : VoltageSettings, optional
        Ranges from which the properties of each trace are drawn.
    seed : int, default: 0
        Trace n of a seed is the same for any `num_traces`.

    Returns
    -------
    traces : np.ndarray, shape (T, N), float32
        Brightness in camera counts.
    spike_times : list of np.ndarray
        For each trace, the times at which its action potentials peak, in seconds from the start of the first frame.
    polarities : list of str
        "positive" or "negative", for each trace.
    """
    check_traces(num_traces, polarity)
    num_samples = num_frames(duration_s, sampling_frequency)
    settings = settings or VoltageSettings()
    traces = np.empty((num_samples, num_traces), dtype="float32")
    spike_times, polarities = [], []
    for n, rng in enumerate(np.random.default_rng(seed).spawn(num_traces)):
        polarities.append(polarity or str(rng.choice(POLARITIES)))
        sign = 1 if polarities[n] == "positive" else -1
        traces[:, n], times = simulate_trace(num_samples, sampling_frequency, sign, settings, rng)
        spike_times.append(times)
    return traces, spike_times, polarities


def simulate_trace(
    num_samples: int, sampling_frequency: float, sign: int, settings: VoltageSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one trace (T,) in camera counts, and its spike times in seconds; see `simulate_voltage`."""
    frame = int(np.ceil(FINE_HZ / sampling_frequency))  # fine samples per frame
    fine_hz = frame * sampling_frequency
    potential = subthreshold_potential(num_samples * frame, fine_hz, rng) * log_uniform(rng, settings.subthreshold)
    spike = spike_transient(fine_hz, settings, rng)
    spike /= sampled_height(spike, frame)

    times, heights = spike_train(potential, fine_hz, settings, rng)
    fluorescence = transients(times, heights, spike, num_samples * frame, fine_hz)
    fluorescence += complex_spike_depolarisation(times, num_samples * frame, fine_hz, rng)
    fluorescence += low_pass(potential, fine_hz, log_uniform(rng, settings.decay_ms))
    if rng.random() < 0.25:
        others, other_heights = spike_train(
            subthreshold_potential(len(potential), fine_hz, rng), fine_hz, settings, rng
        )
        shape = spike if rng.random() < 0.5 else spike_transient(fine_hz, settings, rng)
        shape = shape / sampled_height(shape, frame)
        scale = rng.uniform(*settings.neighbour)
        fluorescence += scale * transients(others, other_heights, shape, len(potential), fine_hz)
    fluorescence = fluorescence.reshape(num_samples, frame).mean(axis=1)  # exposure

    time = np.arange(num_samples) / sampling_frequency
    contrast = log_uniform(rng, settings.contrast)
    noise_level = contrast / log_uniform(rng, settings.snr)
    artefacts = contrast * motion_and_heartbeat(time, settings, rng)
    brightness = bleaching(time, settings, rng) * (1 + sign * contrast * fluorescence + artefacts)
    noise = camera_noise(time, rng) * np.sqrt(np.maximum(brightness, 0))  # shot noise
    return log_uniform(rng, (50, 5000)) * (brightness + noise_level * noise), times


def coloured_noise(num_samples: int, fs: float, corner_hz: float, order: float, rng: np.random.Generator) -> np.ndarray:
    """Return noise of unit variance whose power falls as 1/f^(2 order) beyond a corner frequency."""
    frequency = np.fft.rfftfreq(num_samples, 1 / fs)
    amplitude = (1 + (frequency / corner_hz) ** 2) ** (-order / 2)
    amplitude[0] = 0
    phases = rng.normal(size=(2, len(frequency)))
    noise = np.fft.irfft(amplitude * (phases[0] + 1j * phases[1]), num_samples)
    return noise / (noise.std() + 1e-12)


def subthreshold_potential(num_samples: int, fs: float, rng: np.random.Generator) -> np.ndarray:
    """Return synaptic noise plus a rhythm (delta to gamma) plus up states, scaled to unit variance, shape (T,)."""
    time = np.arange(num_samples) / fs
    potential = coloured_noise(num_samples, fs, log_uniform(rng, (1, 30)), rng.uniform(1, 2), rng)
    if rng.random() < 0.5:
        phase = 2 * np.pi * log_uniform(rng, (1, 60)) * time + coloured_noise(num_samples, fs, 1.0, 1.5, rng)
        envelope = 1 + 0.5 * coloured_noise(num_samples, fs, 1.0, 1.5, rng)
        potential += rng.uniform(0.3, 2) * envelope * np.sin(phase)
    if rng.random() < 0.25:
        slow = coloured_noise(num_samples, fs, log_uniform(rng, (0.3, 3)), 1.5, rng)
        potential += rng.uniform(1, 3) * np.tanh(4 * slow)
    return potential / (potential.std() + 1e-12)


def spike_train(
    potential: np.ndarray, fs: float, settings: VoltageSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the times (s) and relative heights of spikes from an intensity that grows with the potential."""
    if rng.random() < settings.silent:
        return np.empty(0), np.empty(0)
    rate = log_uniform(rng, settings.firing_rate_hz)
    intensity = np.exp(rng.uniform(0, 2) * potential)
    if rng.random() < 0.3:  # silence and activity that last for seconds
        intensity *= coloured_noise(len(potential), fs, 0.2, 1.5, rng) > rng.uniform(-1, 1)
    intensity *= rate / fs / max(intensity.mean(), 1e-12)
    frames = np.flatnonzero(rng.random(len(potential)) < intensity)
    times = (frames + rng.random(len(frames))) / fs
    heights = 1 + rng.uniform(0, 0.2) * rng.normal(size=len(times))

    if rng.random() < 0.5:  # bursts, whose spikes shrink
        more = rng.geometric(rng.uniform(0.3, 0.8), len(times)) * (rng.random(len(times)) < rng.uniform(0, 0.8))
        number = 1 + np.minimum(more, 7)  # of spikes in each
        place = np.concatenate([np.arange(n) for n in number]) if len(number) else np.empty(0)
        interval = log_uniform(rng, (2.5, 15)) / 1000
        times = np.repeat(times, number) + place * interval * rng.uniform(0.75, 1.25, len(place))
        heights = np.repeat(heights, number) * rng.uniform(0.6, 1.0) ** np.minimum(place, 3)
    order = np.argsort(times)
    times, heights = times[order], np.clip(heights[order], 0.3, 1.7)

    refractory = rng.uniform(2, 5) / 1000
    kept: list[int] = []
    for index, time in enumerate(times):
        if time < len(potential) / fs and (not kept or time - times[kept[-1]] > refractory):
            kept.append(index)
    times, heights = times[kept], heights[kept]
    if rng.random() < 0.3 and len(times):  # a spike soon after another is smaller
        recovery = log_uniform(rng, (0.005, 0.1))
        heights[1:] *= 1 - rng.uniform(0, 0.5) * np.exp(-np.diff(times) / recovery)
    return times, heights


def spike_transient(fs: float, settings: VoltageSettings, rng: np.random.Generator) -> np.ndarray:
    """Return the fluorescence of one spike over `KERNEL_MS`; the action potential peaks a quarter of the way in."""
    time = 1000 * np.arange(round(KERNEL_MS / 1000 * fs)) / fs - KERNEL_MS / 4  # ms from the peak
    width = log_uniform(rng, settings.spike_width_ms)
    skew = rng.uniform(0.25, 0.5)  # the rise is faster than the fall
    half_width = np.where(time < 0, skew * width, (1 - skew) * width)
    spike = np.exp(-np.log(2) * (time / half_width) ** 2)

    decay = log_uniform(rng, settings.decay_ms)
    slow_fraction = rng.uniform(*settings.slow_fraction)
    fast = low_pass(spike, fs, decay)
    slow = low_pass(spike, fs, max(log_uniform(rng, (10, 60)), decay))
    fluorescence = (1 - slow_fraction) * fast / fast.max() + slow_fraction * slow / slow.max()
    after = np.maximum(time, 0) / log_uniform(rng, (3, 30))  # a wave after the spike, down (AHP) or up (ADP)
    fluorescence += rng.uniform(-0.4, 0.3) * after * np.exp(1 - after)
    if rng.random() < 0.5:  # depolarisation leads to it
        fluorescence += rng.uniform(0, 0.3) * np.where(time < 0, np.exp(time / log_uniform(rng, (2, 15))), 0)
    return low_pass(fluorescence, fs, log_uniform(rng, settings.rise_ms))


def low_pass(signal: np.ndarray, fs: float, time_constant_ms: float) -> np.ndarray:
    """Return a signal (T,) filtered by a first-order low-pass of the given time constant."""
    time = 1000 * np.arange(round(5 * time_constant_ms / 1000 * fs) + 1) / fs
    kernel = np.exp(-time / time_constant_ms)
    return fftconvolve(signal, kernel / kernel.sum())[: len(signal)]


def sampled_height(transient: np.ndarray, frame: int) -> float:
    """Return the height of a transient in the sampled trace, averaged over where its peak falls in the frame."""
    exposed = np.convolve(transient, np.full(frame, 1 / frame), mode="valid")
    return float(np.mean([exposed[phase::frame].max() for phase in range(frame)]))


def transients(times: np.ndarray, heights: np.ndarray, shape: np.ndarray, num_samples: int, fs: float) -> np.ndarray:
    """Return a trace (T,) with a transient for each spike; its peak is at a quarter of `shape`."""
    impulses = np.zeros(num_samples + len(shape))
    np.add.at(impulses, np.round(times * fs).astype(int), heights)
    peak = len(shape) // 4
    return fftconvolve(impulses, shape)[peak : peak + num_samples]


def complex_spike_depolarisation(
    times: np.ndarray, num_samples: int, fs: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the slow depolarisations (T,) under bursts that make them complex spikes; most traces have none."""
    plateau = np.zeros(num_samples)
    if rng.random() < 0.2:
        in_burst = np.diff(times, prepend=-np.inf) < 0.02
        starts = times[np.flatnonzero(~in_burst[:-1] & in_burst[1:])]
        duration, height = log_uniform(rng, (0.015, 0.08)), log_uniform(rng, (0.3, 2))
        for start in starts:
            long, high = duration * rng.uniform(0.5, 1.5), height * rng.uniform(0.5, 1.5)
            plateau[int(start * fs) : int((start + long) * fs)] += high
        plateau = low_pass(plateau, fs, log_uniform(rng, (2, 8)))
    return plateau


def bleaching(time: np.ndarray, settings: VoltageSettings, rng: np.random.Generator) -> np.ndarray:
    """Return the share of the brightness that is left at each time, a double exponential that begins at 1."""
    lost, fast = rng.uniform(*settings.bleaching), rng.uniform(0, 0.5)
    tau_fast, tau_slow = log_uniform(rng, (0.3, 3)), log_uniform(rng, (5, 50))
    return 1 - lost * (fast * (1 - np.exp(-time / tau_fast)) + (1 - fast) * (1 - np.exp(-time / tau_slow)))


def motion_and_heartbeat(time: np.ndarray, settings: VoltageSettings, rng: np.random.Generator) -> np.ndarray:
    """Return the relative change of brightness by drift, by jerks that return or stay, and by the heartbeat."""
    num_samples, fs = len(time), 1 / max(time[1] - time[0], 1e-9) if len(time) > 1 else 1.0
    height = log_uniform(rng, settings.motion)
    change = height * coloured_noise(num_samples, fs, 0.2, 1.5, rng) * rng.uniform(0, 1)
    if rng.random() < 0.5:
        for start in rng.uniform(0, time[-1] + 1e-9, rng.poisson(log_uniform(rng, (0.05, 0.5)) * time[-1])):
            duration, size = log_uniform(rng, (0.01, 0.5)), height * rng.normal()
            if rng.random() < 0.3:
                change += size / (1 + np.exp(np.clip(-8 * (time - start) / duration, -50, 50)))
            else:
                change += size * np.exp(-0.5 * ((time - start) / (duration / 2.355)) ** 2)
    if rng.random() < 0.4:
        phase = log_uniform(rng, (1, 12)) * time + 0.05 * coloured_noise(num_samples, fs, 0.5, 1.5, rng)
        pulse = np.exp(rng.uniform(1, 4) * (np.cos(2 * np.pi * phase) - 1))
        change += log_uniform(rng, (0.05, 0.7)) * rng.choice([-1, 1]) * pulse
    return change


def camera_noise(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return noise of about unit variance: mostly white, in some traces with hum, outliers or blur between frames."""
    noise = rng.normal(size=len(time))
    if rng.random() < 0.15:
        noise += rng.uniform(0, 0.7) * np.sin(2 * np.pi * (rng.choice([50, 60]) * time + rng.random()))
    if rng.random() < 0.1:
        noise = noise * np.sqrt(3 / rng.chisquare(5, len(time)))  # Student's t
    if rng.random() < 0.15:
        noise = gaussian_filter1d(noise, rng.uniform(0.2, 0.6))
        noise /= noise.std() + 1e-12
    return noise
