"""
Compare light with electrodes
=============================

A camera sees six neurons at 500 frames per second, while a pipette on each records at 20,000 samples per second. The
electrodes tell how many of the spikes are found in the light. A second way to find spikes in the light shows how far
two methods agree.
"""

# %%
# Simulate
# --------
# The membrane potential is that of conductance-based neurons, and both instruments record it. The pipette, outside of
# the cell, records the capacitive current, which is proportional to the slope of the potential. The camera records the
# light of an indicator, averaged over each frame.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import spikeinterface.full as si

from dlvolt.simulation.biophysical import (
    FINE_FREQUENCY,
    camera,
    fluorescence,
    indicator_response,
    random_neuron_voltage,
)

duration_s, camera_frequency = 20.0, 500.0
signal_to_noise = (3, 4, 5, 6, 8, 10)  # of each neuron's spikes in the light
rng = np.random.default_rng(1)
light, current = [], []
for snr in signal_to_noise:
    potential, _, spike_times = random_neuron_voltage(rng, duration_s)  # mV, at 20 kHz
    response = indicator_response(rng, potential)
    clean = fluorescence(rng, response, spike_times, camera_frequency, sign=1)
    light.append(camera(rng, clean, spike_times, camera_frequency, snr))
    current.append(np.gradient(potential) + rng.normal(0, 0.3, len(potential)))

cells = [f"cell {n}" for n in range(len(light))]
movie = si.NumpyRecording([np.stack(light, axis=1).astype("float32")], camera_frequency, channel_ids=cells)
movie.annotate(modality="optical")
patch = si.NumpyRecording([np.stack(current, axis=1).astype("float32")], FINE_FREQUENCY, channel_ids=cells)
print(movie, patch, sep="\n")

# %%
# Spikes of the electrodes
# ------------------------
# The threshold is eight standard deviations of the noise, which spikes reach and noise does not. These spikes are the
# truth.

from spikeinterface.sortingcomponents.peak_detection import detect_peaks

peaks = detect_peaks(
    patch,
    method="by_channel",
    method_kwargs=dict(peak_sign="pos", detect_threshold=8.0, exclude_sweep_ms=1.0),
    job_kwargs=dict(progress_bar=False),
)
truth = si.NumpySorting.from_peaks(peaks, FINE_FREQUENCY, patch.channel_ids)
print(truth.count_num_spikes_per_unit(outputs="array"))

# %%
# Spikes of the light
# -------------------
# They are found by dlvolt's sorter, where a network proposes spikes, and by a matched filter that is learnt from each
# trace.

from dlvolt.detection import adaptive_matched_filter

folder = Path(tempfile.mkdtemp())
network = si.run_sorter("dlvolt", movie, folder=folder / "network")
found = {
    cell: adaptive_matched_filter(movie.get_traces(channel_ids=[cell])[:, 0], camera_frequency)
    for cell in movie.channel_ids
}
matched_filter = si.NumpySorting.from_unit_dict(found, camera_frequency)

# %%
# Compare with the electrodes
# ---------------------------
# SpikeInterface compares sortings that are on one clock, with a tolerance that a camera must be able to meet. A frame
# takes 2 ms, and a spike is anywhere within it; SpikeInterface's default tolerance of 0.4 ms is less than a frame.
# dlvolt brings both sortings to one clock, chooses the tolerance, and compares units of the same name, as an ROI shows
# one known neuron.

from dlvolt.evaluation import compare_sortings, compare_to_ground_truth, comparison_tolerance_ms

print(f"tolerance: {comparison_tolerance_ms(truth, network):g} ms")
for name, sorting in (("network", network), ("matched filter", matched_filter)):
    comparison = compare_to_ground_truth(truth, sorting)
    print(name, comparison.get_performance()[["accuracy", "precision", "recall"]].astype(float).round(2), sep="\n")

# %%
# Where nobody knows the truth, the two are compared with each other: spikes found by both / spikes found by either.

agreement = compare_sortings(network, matched_filter, sorting1_name="network", sorting2_name="matched filter")
print(np.diag(agreement.agreement_scores).round(2))

# %%
# Left: with a tolerance below the default, spikes that were found count as missed, and as false as well; with a larger
# one, little changes. Right: spikes are hard to find in noise, and in bursts, as those of cells 2 and 5.

tolerances_ms = np.arange(0.5, 6.1, 0.5)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for sorting, name, colour, shift in (
    (network, "network", "#0072B2", -0.2),
    (matched_filter, "matched filter", "#E69F00", 0.2),
):
    accuracy = [
        compare_to_ground_truth(truth, sorting, tolerance_ms=tolerance_ms).get_performance()["accuracy"]
        for tolerance_ms in tolerances_ms
    ]
    left.plot(tolerances_ms, np.mean(accuracy, axis=1), "o-", color=colour, markersize=4, label=name)
    by_default = compare_to_ground_truth(truth, sorting).get_performance()["accuracy"]
    right.bar(np.arange(len(cells)) + shift, by_default, width=0.4, color=colour)
left.axvline(comparison_tolerance_ms(truth, network), color="#999999", linestyle="--", zorder=0, label="default")
left.set(xlabel="tolerance (ms)", ylabel="mean accuracy", ylim=(0, 1.02))
left.legend(frameon=False)
right.set_xticks(range(len(cells)), [f"{cell}\nSNR {snr}" for cell, snr in zip(cells, signal_to_noise, strict=True)])
right.set(ylabel="accuracy", ylim=(0, 1.02))
for axes in (left, right):
    axes.spines[["top", "right"]].set_visible(False)

# %%
# The last figure shows a stretch of the light, with the spikes of the electrodes above those of the network.

from dlvolt.plotting import plot_roi_traces
from dlvolt.preprocessing import delta_f_over_f

figure = plot_roi_traces(delta_f_over_f(movie), network, truth=truth)
