"""Train the six architectures on the same traces, score them on neurons of another kind, and time them.

``python docs/compare_networks.py`` writes ``networks.csv`` and ``networks.png`` beside itself, for docs/networks.md.
Given names of models, it measures only these, and leaves the other rows as they are.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from spikeinterface import NumpyRecording
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.detection import adaptive_matched_filter, gaussian_threshold
from dlvolt.evaluation import EventScores, event_scores
from dlvolt.networks import create, load, save
from dlvolt.plotting import plot_model_comparison
from dlvolt.simulation import VoltageSettings, simulate_biophysical, simulate_voltage
from dlvolt.training import fit

TABLE, FIGURE = (Path(__file__).with_name(f"networks.{kind}") for kind in ("csv", "png"))
FS = 1000.0  # Hz
SEED = 10
SNRS = (6, 3)
FEW = dict(max_epochs=15, patience=5)  # a laptop trains so many epochs in minutes
NETWORKS = {  # settings that differ from the published ones; few data need small batches, a quarter of the published
    "mel_svm": {},
    "tcn": dict(FEW, batch_size=8),
    "transformer": dict(FEW, batch_size=8),
    "bilstm": dict(FEW, batch_size=8),
    "fcn": dict(FEW, batch_size=32),
    "unet": dict(FEW, batch_size=32),
}
BASELINES = {"gaussian_threshold": gaussian_threshold, "adaptive_matched_filter": adaptive_matched_filter}
EVERYTHING = [*NETWORKS, "voltage", *BASELINES]
TIMED_SAMPLES, REPEATS = 2**16, 5
COLUMNS = [*(f"F1, SNR {snr}" for snr in SNRS), "samples per second", "parameters", "training (s)", "F1 per sample"]
PLACES = {name: ((0, 9), "center") for name in BASELINES} | dict.fromkeys(("voltage", "bilstm"), ((-12, 0), "right"))


def main(names):
    table = pd.read_csv(TABLE, index_col="model") if TABLE.exists() else pd.DataFrame()
    tests = {snr: simulate_biophysical(8, 20.0, FS, float(snr), seed=SEED) for snr in SNRS}
    for name in names:
        row = baseline_row(BASELINES[name], tests) if name in BASELINES else network_row(name, tests)
        print(name, row, flush=True)
        table = pd.concat([table.drop(index=name, errors="ignore"), pd.DataFrame([row], index=[name])])
        table = table.reindex(index=[name for name in EVERYTHING if name in table.index], columns=COLUMNS)
        table.convert_dtypes().to_csv(TABLE, index_label="model", float_format="%.3f")
    draw(table)


def network_row(name, tests):
    """Train a network, unless it is trained already, and measure it."""
    row = {}
    if name in NETWORKS:
        start = time.process_time()
        model = trained(name)
        row = {"training (s)": round(time.process_time() - start), "F1 per sample": round(model.test_scores_["f1"], 3)}
    else:
        model = load(name, device="cpu")
    traces, _, _ = tests[SNRS[0]]
    num_windows = TIMED_SAMPLES // model.window_samples
    windows = traces.ravel("F")[: num_windows * model.window_samples].reshape(num_windows, -1)
    with tempfile.TemporaryDirectory() as folder:
        find = partial(network_spikes, save(model, folder), told=name in NETWORKS)
        return {
            "parameters": sum(value.numel() for value in model.state().values()),
            "samples per second": per_second(windows.size, lambda: model.predict_proba(windows)),
            **row,
            **scores(find, tests),
        }


def baseline_row(detect, tests):
    """Measure a baseline, which needs no training."""

    def find(traces, polarities):
        return [detect(trace, FS, polarity) for trace, polarity in zip(traces.T, polarities, strict=True)]

    traces, _, polarities = tests[SNRS[0]]
    return {
        "parameters": 0,
        "samples per second": per_second(traces.size, lambda: find(traces, polarities)),
        **scores(find, tests),
    }


def trained(name):
    """Return a network trained on simulated traces; `fit` chooses its thresholds on their validation part."""
    settings = VoltageSettings(snr=(3, 10), firing_rate_hz=(1, 20), silent=0)
    traces, spike_times, _ = simulate_voltage(24, 10.0, FS, polarity="positive", settings=settings, seed=SEED)
    model = create(name, spike_polarity="positive", device="cpu", **NETWORKS[name])
    return fit(model, traces, spike_times, sampling_frequency=FS, seed=SEED)


def network_spikes(folder, traces, polarities, told):
    """Return the frames of the spikes in each trace, whose polarity the network is told or infers."""
    peaks = detect_peaks(
        NumpyRecording([traces], FS),
        method="dlvolt",
        method_kwargs=dict(model=folder, polarity=polarities if told else "auto", device="cpu", refine=False),
        job_kwargs=dict(n_jobs=1, progress_bar=False),
    )
    return [peaks["sample_index"][peaks["channel_index"] == channel] for channel in range(traces.shape[1])]


def scores(find, tests):
    """Return the F1 of all spikes, found within 5 ms, at each SNR."""
    row = {}
    for snr, (traces, spike_times, polarities) in tests.items():
        each = zip(spike_times, find(traces, polarities), strict=True)
        total = sum((event_scores(true, frames / FS) for true, frames in each), EventScores())
        row[f"F1, SNR {snr}"] = round(total.f1, 3)
    return row


def per_second(num_samples, run):
    """Return how many samples one core does in a second, to two digits."""
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()  # the time of this process only, whatever else the machine does
        run()
        seconds.append(time.process_time() - start)
    return int(float(f"{num_samples / np.median(seconds):.2g}"))


def draw(table):
    figure, panels = plt.subplots(len(SNRS), figsize=(7, 8), layout="constrained")
    for snr, axes in zip(SNRS, panels, strict=True):
        columns = {f"F1, SNR {snr}": "f1", "samples per second": "samples_per_second"}
        plot_model_comparison(table.rename(columns=columns), axes)
        axes.get_legend().remove()  # there is room for the names
        axes.set_title(f"SNR {snr}; area: number of parameters")
        for name, row in table.iterrows():
            at = row["samples per second"], row[f"F1, SNR {snr}"]
            offset, align = PLACES.get(name, ((12, 0), "left"))
            axes.annotate(name, at, offset, textcoords="offset points", ha=align, va="center", fontsize="small")
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(EVERYTHING)}; default: all")
    torch.set_num_threads(1)
    main(parser.parse_args().names or EVERYTHING)
