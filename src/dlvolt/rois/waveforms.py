"""The prior of the template of spikes: their waveforms over all indicators and cells, at a sampling frequency."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

NUM_DRAWS = 256  # simulated waveforms
NUM_COMPONENTS = 20  # principal components; all others together have less than a thousandth of the variance


class Waveforms(NamedTuple):
    """A Gaussian distribution of waveforms of unit height."""

    mean: np.ndarray  # (L,), the mean fluorescence of a spike
    components: np.ndarray  # (J, L), principal components, scaled: the covariance is ``components.T @ components``
    num_before: int  # the sample at which the action potential peaks


@lru_cache(maxsize=16)
def expected_waveforms(sampling_frequency: float) -> Waveforms:
    """Return the distribution of the waveforms of spikes at a sampling frequency.

    It has the mean and the principal components of the spikes of `dlvolt.simulation.simulate_voltage`, on which the
    network `voltage` is trained: with fast and slow indicators, of somata and dendrites, with and without
    after-potentials. Each waveform is averaged over its possible positions within a frame.
    """
    from dlvolt.simulation.voltage_traces import FINE_HZ, VoltageSettings, sampled_height, spike_transient

    frame = int(np.ceil(FINE_HZ / sampling_frequency))  # fine samples per frame
    rng, settings = np.random.default_rng(0), VoltageSettings()
    exposure = np.convolve(np.full(frame, 1 / frame), np.full(frame, 1 / frame))  # of a frame that begins anywhere
    drawn = []
    for _ in range(NUM_DRAWS):
        fine = spike_transient(frame * sampling_frequency, settings, rng)
        peak = len(fine) // 4
        drawn.append(np.convolve(fine / sampled_height(fine, frame), exposure, mode="same")[peak % frame :: frame])
    length = min(len(waveform) for waveform in drawn)
    waveforms = np.array([waveform[:length] for waveform in drawn])  # draws×L
    mean = waveforms.mean(axis=0)
    _, scales, directions = np.linalg.svd((waveforms - mean) / np.sqrt(NUM_DRAWS), full_matrices=False)
    return Waveforms(mean, scales[:NUM_COMPONENTS, None] * directions[:NUM_COMPONENTS], peak // frame)
