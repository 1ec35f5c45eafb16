"""Conductance-based neurons seen through a voltage indicator and a camera: traces for evaluation, never for training.

Neuron, indicator and camera follow one another as in the experiment. Units are those of the papers: mV, ms,
µF/cm², mS/cm², µA/cm².

The neurons are

- regular spiking and bursting pyramidal cells with M-current and L-type calcium current, Pospischil et al. 2008,
  doi:10.1007/s00422-008-0263-8 (sodium and potassium: Traub and Miles 1991);
- fast spiking interneurons, Wang and Buzsáki 1996, doi:10.1523/JNEUROSCI.16-20-06402.1996;
- CA3 pyramidal cells, which fire complex spikes, Pinsky and Rinzel 1994, doi:10.1007/BF00962717;

each with a dendrite and in-vivo-like synaptic noise (Destexhe et al. 2001, doi:10.1016/S0306-4522(01)00344-X).
"""

from __future__ import annotations

from functools import partial
from math import exp, expm1, sqrt
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from .draws import POLARITIES, check_traces

DT = 0.025  # ms, of the integration
STEPS_PER_SAMPLE = 2
FINE_FREQUENCY = 1000 / (DT * STEPS_PER_SAMPLE)  # Hz, of the membrane potential as returned
WARM_UP_MS = 6000  # before the trace, while the resting drive is adapted until the neuron fires at its rate
SEARCH, GAIN = 1.0, 0.1  # steps of that drive: µA/cm² per second until it fires, and per spike from then on
SPIKE_MV = -15.0  # action potentials peak above this
LOWEST_RATE, HIGHEST_RATE = 0.5, 20.0  # Hz; other neurons are drawn again
EDGE_S = 0.02  # spikes this close to the ends of a trace have no baseline to measure their height from
PYRAMIDAL, INTERNEURON, COMPLEX = range(3)
E_EXCITATION, E_INHIBITION, TAU_EXCITATION, TAU_INHIBITION = 0.0, -75.0, 2.7, 10.5  # mV, ms
SPREAD_EXCITATION, SPREAD_INHIBITION = 0.4, 0.3  # standard deviation of the synaptic conductances over their mean


class Neuron(NamedTuple):
    """Kinetics, conductance densities (mS/cm²) and reversal potentials (mV) of one neuron and its dendrite."""

    kind: int  # PYRAMIDAL, INTERNEURON or COMPLEX
    capacitance: float
    g_leak: float
    e_leak: float
    g_na: float
    g_k: float
    g_m: float = 0.0  # slow potassium: M-current, or after-hyperpolarisation
    tau_m: float = 1000.0
    g_ca: float = 0.0
    g_kc: float = 0.0  # potassium current that calcium opens
    threshold: float = -56.0  # V_T of the Traub-Miles kinetics
    g_axial: float = 1.0
    soma_fraction: float = 0.4  # of the membrane; the rest is shared by the dendritic compartments
    num_compartments: int = 3  # of the dendrite
    excitation: float = 0.02  # mean synaptic conductances
    inhibition: float = 0.06
    target_rate: float = 0.0  # Hz, to which the drive is set during warm-up; 0: the drive is as given


@njit(cache=True, fastmath=True)
def _linoid(x: float, scale: float) -> float:
    """Return x / (1 - exp(-x / scale)), which is `scale` at zero."""
    return scale + 0.5 * x if abs(x) < 1e-6 else -x / expm1(-x / scale)


@njit(cache=True, fastmath=True)
def _relax(gate: float, opening: float, closing: float) -> float:
    """Return the gate one step later: exact for rates (1/ms) that are constant during the step."""
    rate = opening + closing
    return gate + (opening / rate - gate) * -expm1(-DT * rate)


@njit(cache=True, fastmath=True)
def _pyramidal(cell: Neuron, v: float, gates: np.ndarray) -> tuple:
    """Return total conductance and current at 0 mV of the soma's channels; `gates` m, h, n, p, q, r move on."""
    u = v - cell.threshold
    gates[0] = m = _relax(gates[0], 0.32 * _linoid(u - 13, 4), 0.28 * _linoid(40 - u, 5))
    gates[1] = h = _relax(gates[1], 0.128 * exp((17 - u) / 18), 4 / (1 + exp((40 - u) / 5)))
    gates[2] = n = _relax(gates[2], 0.032 * _linoid(u - 15, 5), 0.5 * exp((10 - u) / 40))
    p_rate = (3.3 * exp((v + 35) / 20) + exp(-(v + 35) / 20)) / cell.tau_m
    p_open = 1 / (1 + exp(-(v + 35) / 10))
    gates[3] = p = _relax(gates[3], p_rate * p_open, p_rate * (1 - p_open))
    gates[4] = q = _relax(gates[4], 0.055 * _linoid(v + 27, 3.8), 0.94 * exp(-(75 + v) / 17))
    gates[5] = r = _relax(gates[5], 0.000457 * exp(-(13 + v) / 50), 0.0065 / (1 + exp(-(15 + v) / 28)))
    na, k, ca = cell.g_na * m**3 * h, cell.g_k * n**4 + cell.g_m * p, cell.g_ca * q * q * r
    return na + k + ca, 50 * na - 90 * k + 120 * ca


@njit(cache=True, fastmath=True)
def _interneuron(cell: Neuron, v: float, gates: np.ndarray) -> tuple:
    """Return total conductance and current at 0 mV of the soma's channels; `gates` h, n move on."""
    opening, closing = 0.1 * _linoid(v + 35, 10), 4 * exp(-(v + 60) / 18)
    m = opening / (opening + closing)
    gates[0] = h = _relax(gates[0], 5 * 0.07 * exp(-(v + 58) / 20), 5 / (1 + exp(-(v + 28) / 10)))
    gates[1] = n = _relax(gates[1], 5 * 0.01 * _linoid(v + 34, 10), 5 * 0.125 * exp(-(v + 44) / 80))
    na, k = cell.g_na * m**3 * h, cell.g_k * n**4
    return na + k, 55 * na - 90 * k


@njit(cache=True, fastmath=True)
def _complex_soma(cell: Neuron, v: float, gates: np.ndarray) -> tuple:
    """Return total conductance and current at 0 mV of the soma's channels; `gates` h, n move on."""
    u = v + 60
    opening, closing = 0.32 * _linoid(u - 13.1, 4), 0.28 * _linoid(40.1 - u, 5)
    m = opening / (opening + closing)
    gates[0] = h = _relax(gates[0], 0.128 * exp((17 - u) / 18), 4 / (1 + exp((40 - u) / 5)))
    gates[1] = n = _relax(gates[1], 0.016 * _linoid(u - 35.1, 5), 0.25 * exp(0.5 - 0.025 * u))
    na, k = cell.g_na * m * m * h, cell.g_k * n
    return na + k, 60 * na - 75 * k


@njit(cache=True, fastmath=True)
def _complex_dendrite(cell: Neuron, v: float, gates: np.ndarray) -> tuple:
    """Return total conductance and current at 0 mV of the dendrite; `gates` s, c, q and calcium move on."""
    u, calcium = v + 60, gates[5]
    gates[2] = s = _relax(gates[2], 1.6 / (1 + exp(-0.072 * (u - 65))), 0.02 * _linoid(51.1 - u, 5))
    closing = 2 * exp((6.5 - u) / 27)
    opening = exp((u - 10) / 11 - (u - 6.5) / 27) / 18.975 if u <= 50 else closing
    gates[3] = c = _relax(gates[3], opening, closing - opening)
    gates[4] = q = _relax(gates[4], min(2e-5 * calcium, 0.01), 0.001)
    ca = cell.g_ca * s * s
    k = cell.g_m * q + cell.g_kc * c * min(calcium / 250, 1)
    gates[5] += DT * (0.13 * ca * (80 - v) - 0.075 * calcium)
    return ca + k, 80 * ca - 75 * k


@njit(cache=True, fastmath=True)
def integrate(cell: Neuron, current: np.ndarray, compartment: int, rng: np.random.Generator) -> tuple:
    """Integrate one neuron by exponential Euler; return the potentials (T,) of its soma and of one compartment, in mV.

    The current (T_ms,) flows into the soma, in µA/cm². A neuron with a `target_rate` warms up on the end of it.
    Compartments of the dendrite are counted from the soma outward. Potentials are at `FINE_FREQUENCY`.
    """
    steps_per_ms = round(1 / DT)
    num_steps = len(current) * steps_per_ms
    soma, dendrite = np.empty((2, num_steps // STEPS_PER_SAMPLE), dtype=np.float32)
    v, above, fired, bias = cell.e_leak, False, False, 0.0
    tree = np.full(cell.num_compartments, float(cell.e_leak))
    gates = np.array([0.05, 0.6, 0.1, 0.05, 0.0, 0.0])
    noise = np.zeros((2, 2))  # excitation and inhibition of soma and dendrite, in standard deviations
    to_soma = cell.g_axial / cell.soma_fraction
    to_tree = cell.g_axial * cell.num_compartments / (1 - cell.soma_fraction)
    decay_e, decay_i = exp(-DT / TAU_EXCITATION), exp(-DT / TAU_INHIBITION)
    kick_e, kick_i = sqrt(1 - decay_e**2), sqrt(1 - decay_i**2)

    warm_up = WARM_UP_MS * steps_per_ms if cell.target_rate > 0 else 0
    for step in range(-warm_up, num_steps):
        for place in range(2):
            noise[place, 0] = noise[place, 0] * decay_e + kick_e * rng.standard_normal()
            noise[place, 1] = noise[place, 1] * decay_i + kick_i * rng.standard_normal()
        g_e = cell.excitation * np.maximum(1 + SPREAD_EXCITATION * noise[:, 0], 0.0)
        g_i = cell.inhibition * np.maximum(1 + SPREAD_INHIBITION * noise[:, 1], 0.0)

        if cell.kind == PYRAMIDAL:
            g, i = _pyramidal(cell, v, gates)
        elif cell.kind == INTERNEURON:
            g, i = _interneuron(cell, v, gates)
        else:
            g, i = _complex_soma(cell, v, gates)
        g += cell.g_leak + g_e[0] + g_i[0] + to_soma
        i += cell.g_leak * cell.e_leak + E_EXCITATION * g_e[0] + E_INHIBITION * g_i[0] + to_soma * tree[0]
        i += bias + current[(step % num_steps) // steps_per_ms]
        v_before, v = v, i / g + (v - i / g) * exp(-DT * g / cell.capacitance)

        inward = v_before
        for k in range(cell.num_compartments):
            g = cell.g_leak + g_e[1] + g_i[1] + to_tree
            i = cell.g_leak * cell.e_leak + E_EXCITATION * g_e[1] + E_INHIBITION * g_i[1] + to_tree * inward
            if k + 1 < cell.num_compartments:
                g, i = g + to_tree, i + to_tree * tree[k + 1]
            if k == 0 and cell.kind == COMPLEX:
                g_active, i_active = _complex_dendrite(cell, tree[0], gates)
                g, i = g + g_active, i + i_active
            inward, tree[k] = tree[k], i / g + (tree[k] - i / g) * exp(-DT * g / cell.capacitance)

        if step < 0:
            spiked = v > SPIKE_MV and not above
            fired, above = fired or spiked, v > SPIKE_MV
            bias += DT / 1000 * (GAIN * cell.target_rate if fired else SEARCH) - GAIN * spiked
        elif step % STEPS_PER_SAMPLE == 0:
            soma[step // STEPS_PER_SAMPLE], dendrite[step // STEPS_PER_SAMPLE] = v, tree[compartment]
    return soma, dendrite


def simulate_biophysical(
    num_traces: int,
    duration_s: float,
    sampling_frequency: float,
    snr: float,
    *,
    compartment: str = "soma",
    polarity: str | None = None,
    seed: int,
) -> tuple[np.ndarray, list[np.ndarray], list[str]]:
    """Simulate neurons of different kinds, each with its own indicator and camera.

    Parameters
    ----------
    num_traces : int
        Number of neurons N.
    duration_s : float
        Duration of each trace, in seconds; 1 or more.
    sampling_frequency : float
        Frames per second of the camera, 100 to 10,000 Hz; each frame is exposed for all of its duration.
    snr : float
        Median height of isolated spikes over the baseline just before them, in standard deviations of the noise.
    compartment : {"soma", "dendrite"}
        What the camera looks at. Back-propagated spikes are smaller and wider.
    polarity : {"positive", "negative"}, optional
        Whether the indicator brightens or dims when the neuron fires; each with probability 1/2 by default.
    seed : int
        Same seed, same traces.

    Returns
    -------
    traces : np.ndarray, shape (T, N), float32
        Fluorescence in camera counts.
    spike_times : list of np.ndarray
        For each trace, the times of the peaks of the somatic action potentials, in seconds from the first frame's
        beginning.
    polarities : list of str
        "positive" or "negative", for each trace.
    """
    if compartment not in ("soma", "dendrite"):
        raise ValueError(f'compartment: must be "soma" or "dendrite", not {compartment!r}')
    check_traces(num_traces, polarity)
    if not duration_s >= 1:
        raise ValueError(f"duration_s: must be 1 s or more, so that every neuron fires, not {duration_s}")
    if not 100 <= sampling_frequency <= FINE_FREQUENCY / 2:
        raise ValueError(f"sampling_frequency: must be 100 to {FINE_FREQUENCY / 2:.0f} Hz, not {sampling_frequency}")
    if not snr > 0:
        raise ValueError(f"snr: must be positive, not {snr}")

    traces, spike_times, polarities = [], [], []
    for rng in np.random.default_rng(seed).spawn(num_traces):
        signs = POLARITIES if polarity is None else (polarity,)
        sign = signs[rng.integers(len(signs))]
        soma, dendrite, times = random_neuron_voltage(rng, duration_s)
        response = indicator_response(rng, soma if compartment == "soma" else dendrite)
        clean = fluorescence(rng, response, times, sampling_frequency, 1 if sign == "positive" else -1)
        traces.append(camera(rng, clean, times, sampling_frequency, snr))
        spike_times.append(times)
        polarities.append(sign)
    return np.stack(traces, axis=1).astype("float32"), spike_times, polarities


def random_neuron(rng: np.random.Generator) -> Neuron:
    """Draw a neuron: half of them pyramidal cells, a quarter interneurons, a quarter with complex spikes."""

    def vary(value: float, spread: float = 0.15) -> float:
        return value * rng.lognormal(0, spread)

    kind = rng.choice([PYRAMIDAL, INTERNEURON, COMPLEX], p=[0.5, 0.25, 0.25])
    neuron = partial(Neuron, kind=int(kind), excitation=vary(0.02, 0.4), inhibition=vary(0.06, 0.4))
    if kind == PYRAMIDAL:
        return neuron(
            capacitance=1.0,
            g_leak=vary(0.05, 0.3),
            e_leak=rng.uniform(-75, -68),
            g_na=vary(50),
            g_k=vary(5),
            g_m=vary(0.15, 0.4),
            tau_m=rng.uniform(600, 1200),
            g_ca=rng.choice([0.0, rng.uniform(0.01, 0.05)]),
            threshold=rng.uniform(-61, -54),
            g_axial=vary(0.5, 0.3),
            soma_fraction=rng.uniform(0.45, 0.75),
            target_rate=rng.uniform(2, 8),
        )
    if kind == INTERNEURON:
        return neuron(
            capacitance=1.0,
            g_leak=vary(0.1),
            e_leak=rng.uniform(-68, -63),
            g_na=vary(35),
            g_k=vary(9),
            g_axial=vary(0.3),
            soma_fraction=rng.uniform(0.5, 0.75),
            target_rate=rng.uniform(3, 15),
        )
    return neuron(
        capacitance=3.0,
        g_leak=vary(0.1),
        e_leak=rng.uniform(-63, -58),
        g_na=vary(30),
        g_k=vary(15),
        g_m=vary(0.8),
        g_ca=vary(9.0),
        g_kc=vary(15),
        g_axial=vary(2.1, 0.3),
        soma_fraction=0.5,
        num_compartments=1,
        target_rate=rng.uniform(1, 8),
    )


def random_drive(rng: np.random.Generator, duration_ms: int) -> np.ndarray:
    """Return slow input in mV, shape (T_ms,): theta and delta waves that wax and wane, and plateaus."""

    def slow_noise(sigma_ms: float) -> np.ndarray:
        noise = gaussian_filter1d(rng.standard_normal(duration_ms + 1000), sigma_ms)[:duration_ms]
        return noise / noise.std()

    time_s = np.arange(duration_ms) / 1000
    drive = np.zeros(duration_ms)
    for low, high, amplitude in ((5, 9, 2.0), (1, 3.5, 2.0)):
        phase = 2 * np.pi * rng.uniform(low, high) * time_s + slow_noise(300)
        drive += rng.uniform(0.2, 1) * amplitude * np.abs(slow_noise(500)) * np.sin(phase)
    plateaus = np.zeros(duration_ms)
    for start in np.flatnonzero(rng.random(duration_ms) < 0.15 / 1000):
        plateaus[start : start + rng.integers(200, 1500)] += rng.uniform(1, 4)
    return drive + gaussian_filter1d(plateaus, 10)


def random_neuron_voltage(rng: np.random.Generator, duration_s: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the potentials (T,) of soma and dendrite in mV at `FINE_FREQUENCY`, and the spike times in seconds.

    Neurons are drawn until one fires at a rate from `LOWEST_RATE` to `HIGHEST_RATE`.
    """
    duration_ms = int(np.ceil(1000 * duration_s))
    while True:
        cell = random_neuron(rng)
        conductance = cell.g_leak + cell.excitation + cell.inhibition
        current = random_drive(rng, duration_ms) * conductance
        soma, dendrite = integrate(cell, current, int(rng.integers(cell.num_compartments)), rng)
        soma, dendrite = (voltage[: round(duration_s * FINE_FREQUENCY)] for voltage in (soma, dendrite))
        times = spike_peaks(soma) / FINE_FREQUENCY
        inside = np.count_nonzero((times > EDGE_S) & (times < duration_s - EDGE_S))
        if max(3, LOWEST_RATE * duration_s) <= inside and len(times) <= HIGHEST_RATE * duration_s:
            return soma, dendrite, times


def spike_peaks(soma: np.ndarray) -> np.ndarray:
    """Return the samples at which somatic action potentials peak."""
    return find_peaks(soma, height=SPIKE_MV, prominence=15, distance=round(FINE_FREQUENCY / 1000))[0]  # 1 ms apart


@njit(cache=True, fastmath=True)
def _follow(target: np.ndarray, tau_on: float, tau_off: float) -> np.ndarray:
    """Return the first-order response to `target`, rising with one time constant (samples), falling with another."""
    response = np.empty_like(target)
    on, off = -expm1(-1 / tau_on), -expm1(-1 / tau_off)
    y = target[0]
    for t in range(len(target)):
        y += (on if target[t] > y else off) * (target[t] - y)
        response[t] = y
    return response


def indicator_response(rng: np.random.Generator, voltage: np.ndarray) -> np.ndarray:
    """Return the indicator's response to a membrane potential (mV): mildly nonlinear, with a fast and a slow part."""
    half, slope = rng.uniform(-50, 0), rng.uniform(25, 60)  # mV
    target = 1 / (1 + np.exp(-(voltage.astype("float64") - half) / slope))
    samples_per_ms = FINE_FREQUENCY / 1000
    tau_on, tau_off = rng.uniform(0.5, 2.0), rng.uniform(1.0, 3.5)
    tau_slow, slow_fraction = rng.uniform(10, 30), rng.uniform(0.1, 0.4)
    fast = _follow(target, tau_on * samples_per_ms, tau_off * samples_per_ms)
    slow = _follow(target, tau_slow * samples_per_ms, tau_slow * samples_per_ms)
    return (1 - slow_fraction) * fast + slow_fraction * slow


def expose(signal: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return the mean of a signal at `FINE_FREQUENCY` over each frame."""
    total = np.concatenate([[0], np.cumsum(signal)])
    num_frames = int(len(signal) / FINE_FREQUENCY * sampling_frequency + 1e-6)
    borders = np.arange(num_frames + 1) * (FINE_FREQUENCY / sampling_frequency)
    return np.diff(np.interp(borders, np.arange(len(total)), total)) * (sampling_frequency / FINE_FREQUENCY)


def fluorescence(
    rng: np.random.Generator, response: np.ndarray, times: np.ndarray, sampling_frequency: float, sign: int
) -> np.ndarray:
    """Return the noise-free trace in camera counts: indicator × bleaching × motion × heartbeat."""
    sampled = expose(response, sampling_frequency)
    num_samples = len(sampled)
    height = spike_height(sampled, times, sampling_frequency)
    relative = (sampled - np.median(sampled)) / height
    sensitivity = min(rng.uniform(0.04, 0.15), 0.8 / np.abs(relative).max())  # the dye cannot dim below darkness
    delta_f = 1 + sign * sensitivity * relative

    time_s = np.arange(num_samples) / sampling_frequency
    depth, fast_share = rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.5)
    fast, slow = np.exp(-time_s / rng.uniform(1, 4)), np.exp(-time_s / rng.uniform(20, 60))
    bleaching = 1 - depth * (1 - fast_share * fast - (1 - fast_share) * slow)

    def wander(sigma_s: float) -> np.ndarray:
        knots = gaussian_filter1d(rng.standard_normal(int(time_s[-1] * 50) + 500), 50 * sigma_s)[250:]
        return np.interp(time_s, np.arange(len(knots)) / 50, knots / knots.std())

    motion = rng.uniform(0.002, 0.015) * wander(rng.uniform(0.5, 2))
    jumps = np.zeros(num_samples)
    for start in np.flatnonzero(rng.random(num_samples) < 0.15 / sampling_frequency):
        jumps[start : start + round(rng.uniform(0.05, 0.4) * sampling_frequency)] += rng.normal(0, 0.03)
    motion += gaussian_filter1d(jumps, 0.012 * sampling_frequency)
    phase = 2 * np.pi * rng.uniform(4, 10) * time_s + 0.5 * wander(1)
    heartbeat = rng.uniform(0.001, 0.008) * (np.sin(phase) + 0.4 * np.sin(2 * phase + rng.uniform(0, 2 * np.pi)))
    return 10 ** rng.uniform(2, 3.3) * delta_f * bleaching * (1 + motion + heartbeat)


def camera(
    rng: np.random.Generator, clean: np.ndarray, times: np.ndarray, sampling_frequency: float, snr: float
) -> np.ndarray:
    """Return a trace with shot noise, of a variance proportional to brightness, that gives spikes the wanted SNR."""
    noise_sd = spike_height(clean, times, sampling_frequency) / snr
    return clean + noise_sd * np.sqrt(clean / clean.mean()) * rng.standard_normal(len(clean))


def spike_height(clean: np.ndarray, times: np.ndarray, sampling_frequency: float) -> float:
    """Return the median height of isolated spikes over their baseline in a noise-free trace of either polarity.

    Isolated are those without another in the 50 ms before and the 20 ms after; if there are none, all count. The
    height is the largest deviation, from 1 ms before to 5 ms after the spike, from the median of 8 to 2 ms before.
    """
    gaps = np.diff(times, prepend=-np.inf, append=np.inf)
    inside = (times > EDGE_S) & (times < len(clean) / sampling_frequency - EDGE_S)
    isolated = (gaps[:-1] > 0.05) & (gaps[1:] > 0.02) & inside
    heights = []
    for time in times[isolated] if isolated.any() else times[inside]:
        before = clean[int((time - 0.008) * sampling_frequency) : int((time - 0.002) * sampling_frequency)]
        after = clean[int((time - 0.001) * sampling_frequency) : int((time + 0.005) * sampling_frequency) + 1]
        deviations = after - np.median(before)
        heights.append(deviations[np.argmax(np.abs(deviations))])
    return float(abs(np.median(heights)))
