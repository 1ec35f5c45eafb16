"""Time and memory of the sorter's optical mode: ``python docs/time_optical.py NUM_ROIS MINUTES [--rate HZ]``.

The ROIs are 24 simulated neurons of one indicator, 20 s each, repeated. Peak memory is that of the whole process, with
Python and its libraries; a recording of a single ROI shows how much these take. With ``--detection`` the script also
times the detector by itself, in chunks of 1 s and of 10 s, with the model of the trace and with the network alone.
"""

import argparse
import itertools
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import spikeinterface.full as si
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

import dlvolt
from dlvolt.simulation import simulate_biophysical

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("num_rois", type=int)
parser.add_argument("minutes", type=float)
parser.add_argument("--rate", type=float, default=500.0, help="frames per second")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--detection", action="store_true", help="time the detector, too")
args = parser.parse_args()
num_samples = round(60 * args.minutes * args.rate)


def timed(call, *given, **more):
    """Return the result of a call and two times in s: that of the clock, and that of the processor on all cores."""
    clock, processor = time.perf_counter(), time.process_time()
    result = call(*given, **more)
    return result, time.perf_counter() - clock, time.process_time() - processor


neurons, _, _ = simulate_biophysical(24, 20.0, args.rate, 4.0, polarity="negative", seed=0)
which = np.random.default_rng(0).integers(neurons.shape[1], size=args.num_rois)
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "traces.npy"
    traces = np.lib.format.open_memmap(path, "w+", neurons.dtype, (num_samples, args.num_rois))
    for start in range(0, num_samples, len(neurons)):
        traces[start : start + len(neurons)] = neurons[: num_samples - start, which]
    del traces
    recording = dlvolt.traces_to_recording(path, args.rate)
    jobs, folder = dict(n_jobs=args.threads), Path(folder) / "sorted"
    sorting, seconds, processor = timed(si.run_sorter, "dlvolt", recording, folder=folder, job_kwargs=jobs)
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    roi_seconds = 60 * args.minutes * args.num_rois
    print(
        f"{args.num_rois} ROIs x {args.minutes:g} min at {args.rate:g} Hz: {seconds:.0f} s, {gigabytes:.2f} GB, "
        f"{sorting.count_total_num_spikes()} spikes; {roi_seconds / processor:.0f} x real time per ROI and core"
    )
    for chunk, refine in itertools.product(("1s", "10s"), (True, False)) if args.detection else ():
        job_kwargs = dict(jobs, pool_engine="thread", progress_bar=False, chunk_duration=chunk)
        method = dict(method="dlvolt", method_kwargs=dict(refine=refine))
        _, _, processor = timed(detect_peaks, recording, **method, job_kwargs=job_kwargs)
        what = "detection" if refine else "the network alone"
        print(f"{what}, chunks of {chunk}: {roi_seconds / processor:.0f} x real time per ROI and core")
