"""Print how many spikes the networks of calcium see in noise alone, and where the baseline swings, for docs/calcium.md.

``python docs/simulated_calcium.py`` needs no recordings.
"""

import numpy as np
from spikeinterface import NumpyRecording

from dlvolt.preprocessing import spike_rate
from dlvolt.simulation import CalciumSettings, simulate_calcium

NETWORKS = ("calcium", "s2s")
NUM_TRACES, DURATION_S = 16, 300.0
FRAME_RATES = (7.5, 10.0, 15.0, 30.0, 100.0)  # Hz, of noise alone
RATE = 30.0  # Hz, of the cells
DRIFTS = ((0.1, 0.1), (0.1, 2.0))  # of `CalciumSettings`: a baseline that is steady, and one that swings


def spikes_per_second(traces, sampling_frequency, model):
    recording = NumpyRecording([traces], sampling_frequency)
    return spike_rate(recording, model=model, refine=False).get_traces().mean(axis=0)


def main():
    for frame_rate in FRAME_RATES:
        noise = np.random.default_rng(0).normal(100, 5, (round(DURATION_S * frame_rate), NUM_TRACES))
        rates = (f"{name} {spikes_per_second(noise, frame_rate, name).mean():.2f}" for name in NETWORKS)
        print(f"noise at {frame_rate:g} Hz, spikes per second:", *rates)
    for drift in DRIFTS:
        traces, times = simulate_calcium(NUM_TRACES, DURATION_S, RATE, settings=CalciumSettings(drift=drift))
        true = sum(map(len, times)) / DURATION_S
        ratios = (f"{name} {spikes_per_second(traces, RATE, name).sum() / true:.2f}" for name in NETWORKS)
        print(f"drift of {drift[0]:g} to {drift[1]:g}, estimated over true number of spikes:", *ratios)


if __name__ == "__main__":
    main()
