"""
Detect spikes in a voltage imaging trace
========================================

The pretrained model ``voltage`` needs no training and no threshold, and infers whether spikes point up or down.
On the command line the same is

.. code-block:: bash

    dlvolt detect trace.npz --stream trace --sampling-frequency 400 --out spikes.nwb --session-start-time 2024-05-31
"""

# %%
# A trace
# -------
# The trace is that of a neuron in layer 1 of mouse cortex, at about 400 frames per second (nel-lab/volpy), if the file
# is there: in the folder ``shared/data`` beside the checkout, or in that which the environment variable
# ``DLVOLT_SHARED_DATA`` names. Otherwise a neuron is simulated.

import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import spikeinterface as si

import dlvolt

sampling_frequency = 400.0
shared_data = Path(os.environ.get("DLVOLT_SHARED_DATA", Path(dlvolt.__file__).parents[3] / "shared" / "data"))
real = shared_data / "voltage" / "volpy_l1_neuron.npz"
if real.is_file():
    trace, reference = np.load(real)["trace"], np.load(real)["volpy_spike_frames"]
    name = "VolPy"
else:
    from dlvolt.simulation import VoltageSettings, simulate_voltage

    settings = VoltageSettings(snr=(5, 6), firing_rate_hz=(2, 4), silent=0)
    traces, (times,), _ = simulate_voltage(1, 50.0, sampling_frequency, settings=settings, seed=1)
    trace, reference = traces[:, 0], np.round(times * sampling_frequency).astype(int)
    name = "simulated"

recording = si.NumpyRecording([trace[:, np.newaxis]], sampling_frequency)
print(recording)

# %%
# Spikes
# ------
# SpikeInterface's own function detects them, with the method of dlvolt: a network proposes spikes, and a model that is
# learnt from the trace decides. Each peak is a spike, with its sample, its channel, and the value of the trace.

from spikeinterface.sortingcomponents.peak_detection import detect_peaks

peaks = detect_peaks(
    recording, method="dlvolt", method_kwargs=dict(model="voltage"), job_kwargs=dict(progress_bar=False)
)
found = peaks["sample_index"]
print(f"{len(found)} spikes; they point {recording.get_property('polarity')[0]}")

# %%
# The detected spikes are compared with those of the reference. (VolPy's spikes are those that another program found,
# not the truth.)

from dlvolt.evaluation import event_scores

scores = event_scores(reference / sampling_frequency, found / sampling_frequency)
print(f"{scores.num_matched} of {scores.num_true} ({name}) are among the {scores.num_found} found")

# %%
# The probability of a spike
# --------------------------
# A preprocessor returns the probability that the network gives to each sample, as a recording. The figure shows it
# around the second in which most spikes were found.

from dlvolt.preprocessing import spike_probability

probability = spike_probability(recording, model="voltage").get_traces()[:, 0]
second = int(np.bincount(found // int(sampling_frequency)).argmax()) if len(found) else 0
first, last = (int(s * sampling_frequency) for s in (max(second - 0.5, 0), second + 1.5))
time = np.arange(len(trace)) / sampling_frequency

figure, axes = plt.subplots(3, 1, figsize=(10, 7), layout="constrained", gridspec_kw=dict(height_ratios=(3, 3, 1.5)))
for panel, window in zip(axes, (slice(None), slice(first, last), slice(first, last)), strict=True):
    inside = found[(found >= time[window][0] * sampling_frequency) & (found <= time[window][-1] * sampling_frequency)]
    values = probability if panel is axes[2] else trace
    panel.plot(time[window], values[window], color="#333333", linewidth=0.7)
    panel.plot(time[inside], values[inside], ".", color="#D55E00", markersize=7, label="detected")
    panel.set_xlim(time[window][[0, -1]])
    panel.spines[["top", "right"]].set_visible(False)
in_window = reference[(reference >= first) & (reference < last)]
axes[1].vlines(time[in_window], *axes[1].get_ylim(), color="#0072B2", alpha=0.4, linewidth=1, label=name, zorder=0)
axes[1].legend(frameon=False, loc="upper right")
axes[0].set(ylabel="fluorescence (a.u.)")
axes[1].set(ylabel="fluorescence (a.u.)")
axes[2].set(ylabel="probability\nof a spike", xlabel="time (s)", ylim=(0, 1.05))
