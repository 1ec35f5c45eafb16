"""
From a voltage imaging file to spikes
=====================================

From an NWB file with the fluorescence of ROIs, dlvolt makes spikes, pictures and an NWB file with a units table.
Without the pictures, this is one line:

.. code-block:: bash

    dlvolt detect session.nwb --out spikes.nwb
"""

# %%
# A file
# ------
# Your file comes from a microscope. This one is simulated: half a minute of a dozen neurons at 500 frames per second,
# with an indicator that dims when a neuron fires. Some masks overlap, so that an ROI takes up light of its neighbour.

import tempfile
from pathlib import Path

import pandas as pd
import spikeinterface.full as si

import dlvolt
from dlvolt.simulation import write_simulated_imaging

folder = Path(tempfile.mkdtemp())
simulated = write_simulated_imaging(folder / "session.nwb", duration_s=30.0, snr=8.0, polarity="negative", seed=4)
print(f"light leaks (from, to): {simulated.leaks}")

# %%
# Read it
# -------
# Each channel of the recording is an ROI. The recording has the metadata of the file, such as the indicator and the
# location of each ROI.

recording = dlvolt.read_voltage_imaging(simulated.path)
print(recording)
print({name: recording.get_annotation(name) for name in ("modality", "indicator", "imaging_rate_hz")})
print(recording.get_property("centroid")[:3], recording.get_property("centroid_unit")[0])

# %%
# Find the spikes
# ---------------
# The call is the same as for electrodes, as the recording says that its channels are ROIs. A network infers whether
# spikes point up or down and proposes them; a model of each trace decides. Each ROI becomes a unit with the ROI's id,
# also one that never fires.

sorting = si.run_sorter("dlvolt", recording, folder=folder / "sorted")
columns = ["polarity", "snr", "firing_rate", "expected_precision", "num_complex_spikes", "crosstalk_from"]
print(pd.DataFrame({name: sorting.get_property(name) for name in columns}, index=sorting.unit_ids).round(2).to_string())

# %%
# Look at it
# ----------
# A map shows where ROIs are, how often they fire, and which ROI's light leaks into which.

from dlvolt.plotting import plot_roi_map, plot_roi_traces, plot_spike_triggered_average

figure = plot_roi_map(sorting, recording)

# %%
# Two seconds of ΔF/F are turned over so that spikes point up, with the spikes found and, as this is a simulation, the
# true ones. Blue is the subthreshold potential.

traces = dlvolt.roi_traces(recording, sorting, ["delta_f_over_f", "subthreshold"])
relative, slow = traces["delta_f_over_f"], traces["subthreshold"]
figure = plot_roi_traces(relative, sorting, subthreshold=slow, truth=simulated.sorting, window_s=(10.0, 12.0))

# %%
# The mean trace around a spike has a band of one standard deviation to either side. It is wide where spikes come in
# bursts.

figure = plot_spike_triggered_average(relative, sorting)

# %%
# Compare with the truth
# ----------------------
# Accuracy is hits / (hits + misses + false positives). ROIs 1 and 2 are cells that fire complex spikes: on their
# depolarisations some spikes are missed, and some are reported that do not exist. And an ROI that takes up a
# neighbour's light shows the neighbour's spikes, too. With ``refine=False`` the network decides alone.

from dlvolt.evaluation import compare_to_ground_truth

alone = si.run_sorter("dlvolt", recording, folder=folder / "sorted_by_network", refine=False)
for name, found in (("network and model", sorting), ("network alone", alone)):
    comparison = compare_to_ground_truth(simulated.sorting, found)
    print(name, comparison.get_performance()[["accuracy", "precision", "recall"]].astype(float).round(2), sep="\n")

# %%
# Write it
# --------
# Session, subject, imaging plane and ROIs are copied from the source; each unit points to its ROI.

path = dlvolt.write_nwb_units(sorting, folder / "spikes.nwb", source=simulated.path)

from pynwb import read_nwb

units = read_nwb(path).units
print(units.colnames)
print(units.to_dataframe()[["unit_name", "polarity", "spike_times"]])
