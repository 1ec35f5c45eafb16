"""
Is it a spike, and whose?
=========================

A channel is filtered, peaks cross a threshold, and each peak leaves a snippet of 1.4 ms. A network tells which snippets
are spikes, and density clustering of which neuron. The recording is 3 s of an Open Ephys session, 16 channels at 40
kHz, if the files are there: in ``shared/data`` beside the checkout, or in the folder that the environment variable
``DLVOLT_SHARED_DATA`` names. Otherwise it is simulated.
"""

# %%
# From the rig
# ------------
# The recording passes a band-pass filter, and a comb that removes the hum of the mains with its first harmonics
# (``freq=60`` in the Americas).

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import spikeinterface.full as si

import dlvolt
from dlvolt.preprocessing import notch_comb

shared_data = Path(os.environ.get("DLVOLT_SHARED_DATA", Path(dlvolt.__file__).parents[3] / "shared" / "data"))
session = shared_data / "open_ephys" / "binary_16ch_40khz" / "Record Node 118"
si.set_global_job_kwargs(n_jobs=1, progress_bar=False)

if session.is_dir():
    recording = dlvolt.read_open_ephys(session, stream_name=f"{session.name}#File_Reader-106.0", probe="linear:25")
else:
    recording, _ = si.generate_ground_truth_recording(durations=[10.0], num_channels=16, num_units=12, seed=0)
filtered = notch_comb(si.bandpass_filter(recording, 300, 8000, dtype="float32"), freq=50, harmonics=[1, 2, 3])
print(filtered)

# %%
# Peaks
# -----
# A threshold of three standard deviations lets most spikes through, and far more noise.

from spikeinterface.sortingcomponents.peak_detection import detect_peaks

peaks = detect_peaks(filtered, method="dlvolt-adaptive")
print(f"{len(peaks)} peaks")

# %%
# Spikes
# ------
# The networks were trained at 30 kHz, on another rig. So snippets are resampled, and scaled by the noise of their
# channel, while the recording streams. Many peaks here are spikes of distant neurons. They are not noise, so by default
# ``classify_peaks`` would keep them for a sorter; with ``threshold="predict"`` only those stay that stand apart on
# their channel.

from dlvolt.electrodes import classify_peaks

labels = classify_peaks(filtered, peaks, model="waveform_cnn", threshold="predict")
spikes = peaks[labels == 1]
print(f"{len(spikes)} spikes")

# %%
# Left: spikes and other snippets of the channel with the most spikes. Right: there is no truth to compare with, but
# there is the other network.

from dlvolt.plotting import plot_confusion, plot_embedding, plot_snippets

channel = np.bincount(spikes["channel_index"]).argmax()
here = (peaks["channel_index"] == channel) & (peaks["sample_index"] > 50)
here &= peaks["sample_index"] < filtered.get_num_samples() - 50
trace = si.scale_to_uV(filtered).get_traces(channel_ids=filtered.channel_ids[[channel]])[:, 0]
snippets = trace[peaks["sample_index"][here][:, None] + np.arange(-19, 37)]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
plot_snippets(snippets, labels[here], filtered.sampling_frequency, axes=left)
of_other = classify_peaks(filtered, peaks, model="waveform_gru", threshold="predict")
plot_confusion(labels, of_other, axes=right)
right.set(xlabel="waveform_gru", ylabel="waveform_cnn")

# %%
# Neurons
# -------
# Each channel is clustered by itself here, so snippets have one channel; with a larger ``radius_um`` they have several.

from spikeinterface.sortingcomponents.clustering import find_clusters_from_peaks

units, of_unit, more = find_clusters_from_peaks(
    filtered,
    spikes,
    method="dlvolt-dbscan",
    method_kwargs=dict(embedding="pca", radius_um=1.0, min_samples=8),
    extra_outputs=True,
)
print(f"{len(units)} clusters; spikes in each: {np.bincount(of_unit[of_unit >= 0]).tolist()}")
local = spikes["channel_index"] == channel
plot_embedding(more["points"][local], of_unit[local])

# %%
# For the archive
# ---------------

sorting = si.NumpySorting.from_samples_and_labels(
    [spikes["sample_index"][of_unit >= 0]], [of_unit[of_unit >= 0]], filtered.sampling_frequency
)
sorting.register_recording(recording)
path = dlvolt.write_nwb_units(
    sorting,
    Path(tempfile.mkdtemp()) / "spikes.nwb",
    metadata={"NWBFile": {"session_start_time": "2022-01-01T12:00:00+00:00", "session_description": "an example"}},
)
print(si.read_nwb_sorting(path, electrical_series_path=None, sampling_frequency=filtered.sampling_frequency))
