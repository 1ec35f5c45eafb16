"""
Estimate spike rates in calcium imaging
=======================================

Two pretrained networks, ``calcium`` and ``s2s``, estimate spikes per second from fluorescence. The kinetics of each
trace refine this rate, and spikes are made of it.
"""

# %%
# Fluorescence with known spikes
# ------------------------------
# Six cells are simulated, at 30 frames per second for two minutes. The light around them hardly swings: swings of a
# second or so, as large as a transient, would be taken for spikes.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import spikeinterface.full as si

from dlvolt.evaluation import rate_scores
from dlvolt.preprocessing import spike_rate
from dlvolt.simulation import CalciumSettings, simulate_calcium

sampling_frequency = 30.0
settings = CalciumSettings(
    snr=(1, 3), firing_rate_hz=(0.5, 3), rise_s=(0.02, 0.05), decay_s=(0.4, 0.8), drift=(0.1, 0.5)
)
traces, spike_times = simulate_calcium(6, 120.0, sampling_frequency, settings=settings, seed=1)
recording = si.NumpyRecording(traces, sampling_frequency, channel_ids=[f"roi{n}" for n in range(6)])
recording.annotate(modality="calcium")

# %%
# The rate of spikes
# ------------------
# The rate is a lazy recording with the same samples. Its integral is the expected number of spikes.

rate = spike_rate(recording).get_traces()  # T×N, spikes per second
counts = np.transpose([np.histogram(times, np.arange(len(rate) + 1) / sampling_frequency)[0] for times in spike_times])
sums = rate.sum(axis=0) / sampling_frequency, counts.sum(axis=0)
for roi, expected, true in zip(recording.channel_ids, *sums, strict=True):
    print(f"{roi}: {expected:.0f} spikes expected, {true} in truth")

# %%
# The scores of the spikefinder challenge tell how right the rate is, frame by frame, for each cell.

print(rate_scores(counts, rate, bin_samples=1).round(2))

# %%
# Spikes
# ------
# The sorter makes one unit of each ROI, in the same kind of sorting as from electrodes.

sorting = si.run_sorter("dlvolt", recording, folder=Path(tempfile.mkdtemp()) / "sorted")
print(sorting.count_num_spikes_per_unit())

# %%
# The figure shows twenty seconds of one cell.

cell, window = int(np.argmax(counts.sum(axis=0))), slice(round(20 * sampling_frequency), round(40 * sampling_frequency))
time = np.arange(len(rate)) / sampling_frequency
found = sorting.get_unit_spike_train(recording.channel_ids[cell]) / sampling_frequency
figure, axes = plt.subplots(3, 1, figsize=(10, 5), sharex=True, layout="constrained", height_ratios=(3, 3, 1))
axes[0].plot(time[window], traces[window, cell], color="#333333", linewidth=0.8)
axes[0].set_ylabel("fluorescence")
axes[1].plot(time[window], rate[window, cell], color="#0072B2", linewidth=0.8)
axes[1].set_ylabel("spikes per second")
axes[2].eventplot([spike_times[cell], found], colors=["#333333", "#D55E00"], lineoffsets=[1, 0], linelengths=0.8)
axes[2].set(yticks=[0, 1], yticklabels=["found", "true"], xlabel="time (s)", xlim=time[window][[0, -1]])
for panel in axes:
    panel.spines[["top", "right"]].set_visible(False)
