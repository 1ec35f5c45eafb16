"""
Train a network on labels of your own
=====================================

A network is trained on traces of voltage imaging and the times of their spikes, and saved to a folder. SpikeInterface
can use this model, and so can ``dlvolt detect --model my_model``. On the command line the same is

.. code-block:: bash

    dlvolt train traces.npy --labels spikes.csv --sampling-frequency 500 --model unet --out my_model
"""

# %%
# Traces and labels
# -----------------
# Your traces come from files. Here, six neurons of 20 s each are simulated, with bleaching, subthreshold swings, motion
# and shot noise. Labels are the times of the spikes in seconds, one array for each trace; traces of 0 and 1 will do,
# too.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from dlvolt.simulation import VoltageSettings, simulate_voltage

sampling_frequency = 500.0
traces, spike_times, _ = simulate_voltage(
    num_traces=6,
    duration_s=20.0,
    sampling_frequency=sampling_frequency,
    polarity="positive",
    settings=VoltageSettings(snr=(6, 12), firing_rate_hz=(2, 10), silent=0),
    seed=1,
)
print(f"traces {traces.shape}; spikes: {[len(times) for times in spike_times]}")

# %%
# Train
# -----
# The first 70 % of each trace are for training. The next 15 % decide when to stop, and which thresholds on the
# probability serve best. The last 15 % are only for the test. A spike found one sample beside its label is wrong for
# the sample, and right for most questions. So there are scores of samples, scores of events found within 5 ms, and a
# threshold for each.

from dlvolt.networks import create, save
from dlvolt.training import fit

model = create("unet", max_epochs=20)
fit(model, traces, spike_times, sampling_frequency=sampling_frequency)
for name, score in model.test_scores_.items():
    print(f"{name}: {score:.2f}")

# %%
# Keep the model
# --------------
# From now on the folder stands for the model, wherever a model is asked for.

folder = Path(tempfile.mkdtemp())
model.set_params(name="my_model")
print(sorted(file.name for file in save(model, folder / "my_model").iterdir()))

import spikeinterface as si
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

recording = si.NumpyRecording([traces], sampling_frequency)
peaks = detect_peaks(
    recording,
    method="dlvolt",
    method_kwargs=dict(model=folder / "my_model"),
    job_kwargs=dict(progress_bar=False),
)
print(f"{len(peaks)} spikes detected, {sum(map(len, spike_times))} simulated")

# %%
# Look
# ----
# Left: the scores with other thresholds, on all the traces. Right: how well the bands of a mel spectrogram, which are
# the input of ``mel_svm``, tell spikes from the rest.

from dlvolt.evaluation import threshold_sweep
from dlvolt.networks import trace_probability
from dlvolt.plotting import interactive_traces, plot_mel_pca, plot_threshold_sweep
from dlvolt.training import targets

probability = trace_probability(model, lambda start, end: traces[start:end], len(traces))
sweep = threshold_sweep(spike_times, probability, sampling_frequency)
labels = np.stack(targets(spike_times, [len(traces)] * traces.shape[1], sampling_frequency), axis=1)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
plot_threshold_sweep(sweep, left)
plot_mel_pca(traces, labels, sampling_frequency, axes=right)

# %%
# A page for any browser shows the trace, the labels and the probability: drag to zoom, scroll to zoom around the
# cursor, double-click to see everything.

page = interactive_traces(
    traces[:, 0],
    sampling_frequency,
    labels[:, 0],
    probability[:, 0],
    threshold=model.detection_threshold,
    split=(0.7, 0.15, 0.15),
    title="The first neuron",
    path=folder / "first_neuron.html",
)
print(page)
