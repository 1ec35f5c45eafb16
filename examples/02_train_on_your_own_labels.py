"""
Train a network on labels of your own
=====================================

Traces of voltage imaging and the times of their spikes go in, a folder with a trained model comes out. SpikeInterface
can use it, and so can ``dlvolt detect --model my_model``. The same on the command line is

.. code-block:: bash

    dlvolt train traces.npy --labels spikes.csv --sampling-frequency 500 --model unet --out my_model
"""

# %%
# Traces and labels
# -----------------
# Yours come from files. Here, six neurons of 20 s each are simulated, with bleaching, subthreshold swings, motion and
# shot noise. Labels are the times of the spikes in seconds, one array for each trace; traces of 0 and 1 will do, too.

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
# The first 70 % of each trace are for training. The next 15 % say when to stop, and which threshold on the
# probability serves best. The last 15 % are only for the test, whose scores are those of samples.

from dlvolt.networks import create, save
from dlvolt.training import fit

model = create("unet", max_epochs=20)
fit(model, traces, spike_times, sampling_frequency=sampling_frequency)
print(model.test_scores_)

# %%
# Score spikes, not samples
# -------------------------
# A spike found one sample beside its label is wrong for the sample, and right for most questions. So let us choose the
# threshold by the spikes of the validation part that are found within 5 ms, and count those of the test part.

from dlvolt.evaluation import EventScores, best_threshold, event_scores, threshold_sweep
from dlvolt.networks import trace_probability

probability = trace_probability(model, lambda start, end: traces[start:end], len(traces))


def part(start, stop):
    """Return probabilities and spike times between two fractions of the recording."""
    first, last = (round(fraction * len(traces)) for fraction in (start, stop))
    times = [train - first / sampling_frequency for train in spike_times]
    duration = (last - first) / sampling_frequency
    return probability[first:last], [train[(train >= 0) & (train < duration)] for train in times]


validation, true_in_validation = part(0.7, 0.85)
sweep = threshold_sweep(true_in_validation, validation, sampling_frequency)
threshold = best_threshold(sweep)

from dlvolt.detection import shadow

test, true_in_test = part(0.85, 1.0)
frames, channels = shadow(test, threshold, shadow_samples=1)
found = [frames[channels == n] / sampling_frequency for n in range(len(true_in_test))]
scores = sum(map(event_scores, true_in_test, found), EventScores())
print(
    f"threshold {threshold:g}; test: precision {scores.precision:.2f}, recall {scores.recall:.2f}, F1 {scores.f1:.2f}"
)

# %%
# Keep the model
# --------------
# From now on it is known by its folder, wherever a model is asked for.

folder = Path(tempfile.mkdtemp())
model.set_params(threshold=threshold, name="my_model")
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
# The sweep, and how the bands of a mel spectrogram tell spikes from the rest, which is all that ``mel_svm`` has.

from dlvolt.plotting import interactive_traces, plot_mel_pca, plot_threshold_sweep
from dlvolt.training import targets

labels = np.stack(targets(spike_times, [len(traces)] * traces.shape[1], sampling_frequency), axis=1)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
plot_threshold_sweep(sweep, left)
plot_mel_pca(traces, labels, sampling_frequency, axes=right)

# %%
# And a page to look around in, with trace, labels and what the model says, which any browser opens: drag to zoom,
# scroll to zoom around the cursor, double-click to see everything.

page = interactive_traces(
    traces[:, 0],
    sampling_frequency,
    labels[:, 0],
    probability[:, 0],
    threshold=threshold,
    split=(0.7, 0.15, 0.15),
    title="The first neuron",
    path=folder / "first_neuron.html",
)
print(page)
