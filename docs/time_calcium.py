"""Print how many times faster than real time rates of calcium are estimated, for docs/calcium.md.

``python docs/time_calcium.py`` needs no recordings. Times are those of the processor, for one ROI and with one thread.
"""

import time
from functools import partial

import numpy as np
import torch

from dlvolt.deconvolution.fluorescence import refined_rate
from dlvolt.networks import load, trace_rate
from dlvolt.simulation import simulate_calcium
from dlvolt.training.calcium import RATE
from dlvolt.training.fit import over_trace

MINUTES = 20


def measure(name, duration_s, run):
    run()
    start = time.process_time()
    run()
    print(f"{name}: {duration_s / (time.process_time() - start):,.0f} times faster than real time")


def main():
    traces, _ = simulate_calcium(1, 60.0 * MINUTES, RATE)
    trace, rates = traces[:, 0], []
    for name in ("calcium", "s2s"):
        network = load(name, device="cpu")
        windows = trace[: len(trace) // network.window_samples * network.window_samples]
        windows = windows.reshape(-1, network.window_samples)
        measure(f"{name}, windows", windows.size / RATE, partial(network.predict, windows))
        estimate = partial(over_trace, trace_rate, network, trace)
        measure(f"{name}, the trace", trace.size / RATE, estimate)
        rates.append(estimate())
    measure("its kinetics", trace.size / RATE, partial(refined_rate, trace, np.stack(rates), RATE))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
