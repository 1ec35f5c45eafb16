"""Time and memory of a sorter: ``python docs/time_sorter.py MINUTES CHANNELS [SORTER]`` prints a line of JSON.

The recording is like si_probe32 of docs/benchmarks.md, with three units for four channels, whatever its size. It is
simulated and saved chunk by chunk, up to five minutes; a longer recording repeats these minutes. The sorter then has a
process for itself, with two threads.
"""

import json
import sys
import tempfile

import spikeinterface as si
from benchmark_recordings import si_probe

from dlvolt.evaluation import compare_sorters

MOST_MINUTES = 5.0  # that are simulated

minutes, channels = float(sys.argv[1]), int(sys.argv[2])
sorter = sys.argv[3] if len(sys.argv) > 3 else "dlvolt"
jobs = dict(n_jobs=2, chunk_duration="1s", progress_bar=False)
with tempfile.TemporaryDirectory() as folder:
    times = max(1, round(minutes / MOST_MINUTES))
    recording, truth = si_probe(60 * minutes / times, seed=11, num_channels=channels, num_units=3 * channels // 4)
    recording = recording.astype("float32").save(folder=f"{folder}/recording", **jobs)
    if times > 1:
        truth = si.concatenate_sortings([truth] * times, total_samples_list=[recording.get_num_samples()] * times)
        recording = si.concatenate_recordings([recording] * times)
    (run,) = compare_sorters(recording, [sorter], truth, job_kwargs=jobs).to_dict("records")
if isinstance(run["error"], str):
    sys.exit(run["error"])
measured = {name: round(run[name], 3) for name in ("seconds", "realtime", "peak_memory_gb", "accuracy")}
print(json.dumps({"sorter": sorter, "version": run["version"], "minutes": minutes, "channels": channels} | measured))
