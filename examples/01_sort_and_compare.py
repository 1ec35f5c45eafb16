"""
Sort a recording and compare with the truth
===========================================

Half a minute of eight units on sixteen channels is simulated, sorted, compared with the truth and written to NWB.
"""

# %%
# Simulate
# --------
# SpikeInterface places the units around a probe, lets them fire at random, and adds noise.

import tempfile
from pathlib import Path

import spikeinterface as si
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.extractors import read_nwb_sorting
from spikeinterface.sorters import run_sorter

import dlvolt

folder = Path(tempfile.mkdtemp())
recording, truth = si.generate_ground_truth_recording(
    durations=[30.0],
    num_channels=16,
    num_units=8,
    generate_sorting_kwargs=dict(firing_rates=(3.0, 10.0), refractory_period_ms=4.0),
    generate_unit_locations_kwargs=dict(minimum_z=5.0, maximum_z=40.0, minimum_distance=20.0),
    noise_kwargs=dict(noise_levels=8.0),
    seed=5,
)
recording = recording.save(folder=folder / "recording", progress_bar=False)
print(recording)

# %%
# Sort
# ----
# This is one line: SpikeInterface knows ``"dlvolt"`` once the package is installed.

sorting = run_sorter("dlvolt", recording, folder=folder / "sorted")
print(sorting)

# %%
# Compare
# -------
# Accuracy is hits / (hits + misses + false positives) for the best match of each true unit.

comparison = compare_sorter_to_ground_truth(truth, sorting, exhaustive_gt=True)
print(comparison.get_performance())

# %%
# Look
# ----
# An analyzer computes waveforms, quality metrics and locations. The summary shows the units beside the truth.

from dlvolt.analysis import analyze
from dlvolt.parameters import SorterParameters
from dlvolt.plotting import plot_sorting_summary

analyzer = analyze(sorting, recording, SorterParameters(), job_kwargs=dict(progress_bar=False))
figure = plot_sorting_summary(analyzer, truth)

# %%
# Write
# -----
# The NWB file has a units table, as archives want it. A simulated session has no start, so it is given here.

path = dlvolt.write_nwb_units(
    analyzer, folder / "spikes.nwb", metadata={"NWBFile": {"session_start_time": "2026-01-01T12:00:00+00:00"}}
)
units = read_nwb_sorting(path, sampling_frequency=recording.sampling_frequency)
print(units)
