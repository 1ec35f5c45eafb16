"""Time and memory of the sorter's optical mode: ``python docs/time_optical.py NUM_ROIS MINUTES [SAMPLING_FREQUENCY]``.

The ROIs are 24 simulated neurons of one indicator, 20 s each, repeated. Peak memory is that of the whole process, with
Python and its libraries; a recording of a single ROI shows how much these take.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import spikeinterface.full as si

import dlvolt
from dlvolt.simulation import simulate_biophysical

num_rois, minutes = int(sys.argv[1]), float(sys.argv[2])
rate = float(sys.argv[3]) if len(sys.argv) > 3 else 500.0
neurons, _, _ = simulate_biophysical(24, 20.0, rate, 4.0, polarity="negative", seed=0)
which = np.random.default_rng(0).integers(neurons.shape[1], size=num_rois)
num_samples = round(60 * minutes * rate)

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "traces.npy"
    traces = np.lib.format.open_memmap(path, "w+", neurons.dtype, (num_samples, num_rois))
    for start in range(0, num_samples, len(neurons)):
        traces[start : start + len(neurons)] = neurons[: num_samples - start, which]
    del traces
    recording = dlvolt.traces_to_recording(path, rate)
    start = time.perf_counter()
    sorting = si.run_sorter("dlvolt", recording, folder=Path(folder) / "sorted", job_kwargs=dict(n_jobs=2))
    seconds = time.perf_counter() - start
gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(
    f"{num_rois} ROIs x {minutes:g} min at {rate:g} Hz: {seconds:.0f} s, {gigabytes:.2f} GB, "
    f"{60 * minutes * num_rois / seconds:.0f} x real time per ROI, {sorting.count_total_num_spikes()} spikes"
)
