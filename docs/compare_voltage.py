"""Score spike detection in voltage imaging on traces that no network was trained on, and how right probabilities are.

``python docs/compare_voltage.py`` writes ``voltage.csv`` and ``reliability.png`` beside itself. With the path of a file
of membrane potentials (arrays ``NAME_vm_mv``, ``NAME_fs`` and ``NAME_spike_times_s``), it adds these, as the indicator
and the camera of `dlvolt.simulation.biophysical` would show them.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.signal import fftconvolve, find_peaks, welch
from spikeinterface import NumpyRecording
from spikeinterface.core.node_pipeline import run_node_pipeline

from dlvolt.detection import NetworkPeakDetector, adaptive_matched_filter
from dlvolt.detection.baselines import upright_highpassed
from dlvolt.evaluation import event_scores
from dlvolt.evaluation.events import match_events
from dlvolt.simulation import simulate_biophysical
from dlvolt.simulation.biophysical import FINE_FREQUENCY, camera, fluorescence, indicator_response

TABLE, FIGURE = (Path(__file__).with_name(name) for name in ("voltage.csv", "reliability.png"))
SEEDS, CELLS, DURATION_S = (201, 202), 10, 20.0
CONDITIONS = {
    "500 Hz, SNR 4": (500.0, 4.0, "soma"),
    "1 kHz, SNR 3": (1000.0, 3.0, "soma"),
    "1 kHz, SNR 6": (1000.0, 6.0, "soma"),
    "3,328 Hz, SNR 5, dendrites": (3328.0, 5.0, "dendrite"),
}
PATCHED = [(rate, snr) for rate in (400.0, 500.0, 1000.0, 2000.0) for snr in (3.0, 5.0)]
COLUMNS = ["network alone", "network and model", "matched filter, told the polarity", "oracle"]
BEFORE_S, AFTER_S = 0.02, 0.04  # of the oracle's template


def main(path):
    table, chances, hits = pd.DataFrame(columns=["traces", *COLUMNS]), [], []
    for name, (rate, snr, compartment) in CONDITIONS.items():
        traces = []
        for seed in SEEDS:
            several, times, signs = simulate_biophysical(
                CELLS, DURATION_S, rate, snr, compartment=compartment, seed=seed
            )
            traces += zip(several.T, times, signs, strict=True)
        table.loc[name], *found = row(traces, rate)
        chances += found[0]
        hits += found[1]
        print(table.loc[[name]].to_string(), flush=True)
    table.loc["mean"] = table.mean()
    if path is not None:
        for rate, snr in PATCHED:
            name = f"patch clamp, {rate:g} Hz, SNR {snr:g}"
            table.loc[name], *_ = row(patched(path, rate, snr), rate)
            print(table.loc[[name]].to_string(), flush=True)
        table.loc["mean, patch clamp"] = table.iloc[-len(PATCHED) :].mean()
    table.astype({"traces": int}).to_csv(TABLE, index_label="", float_format="%.3f")
    off = np.array([abs(p.mean() - true.mean()) for p, true in zip(chances, hits, strict=True) if len(p)])
    print(
        f"expected and true precision of {len(off)} traces differ by {off.mean():.3f} on average, "
        f"by less than 0.05 in {np.mean(off < 0.05):.0%}"
    )
    draw(np.concatenate(chances), np.concatenate(hits))


def row(traces, rate):
    """Return the mean F1 of the traces by each method, and for each trace probability and truth of what is found."""
    each, chances, hits = [], [], []
    for trace, times, sign in traces:
        recording = NumpyRecording([trace[:, None]], rate)
        alone, _ = detected(recording, refine=False)
        frames, probability = detected(recording)
        found = np.zeros(len(frames))
        found[match_events(times, frames / rate)[:, 1]] = 1
        chances.append(probability)
        hits.append(found)
        filtered = adaptive_matched_filter(trace, rate, sign)
        f1 = [event_scores(times, some / rate).f1 for some in (alone, frames, filtered)]
        each.append([*f1, oracle(trace, rate, times, sign)])
    return [len(each), *np.mean(each, axis=0)], chances, hits


def detected(recording, **kwargs):
    detector = NetworkPeakDetector(recording, device="cpu", return_output=(True, True), **kwargs)
    job_kwargs = dict(n_jobs=1, progress_bar=False, chunk_duration="64s")
    peaks, probability = run_node_pipeline(recording, [detector], job_kwargs, job_name="detect")
    return peaks["sample_index"], probability


def oracle(trace, rate, times, sign):
    """Return the F1 of a matched filter that is given the mean waveform, the spectrum and the best threshold."""
    x = upright_highpassed(trace, rate, sign, 2.0)
    before, after, frames = round(BEFORE_S * rate), round(AFTER_S * rate), np.floor(times * rate).astype(int)
    inside = frames[(frames >= before) & (frames < len(x) - after)]
    template = x[inside[:, None] + np.arange(-before, after)].mean(axis=0)
    template -= np.linspace(template[0], template[-1], len(template))
    train = np.bincount(frames, minlength=len(x))[: len(x)]
    left = x - fftconvolve(train, template)[before : before + len(x)]
    frequencies, power = welch(left, rate, nperseg=min(len(x), round(rate)))
    noise = np.interp(np.fft.rfftfreq(len(x), 1 / rate), frequencies[1:], power[1:])
    aligned = np.roll(np.pad(template, (0, len(x) - len(template))), -before)
    score = np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(aligned).conj() / noise, len(x))
    peaks = find_peaks(score, distance=max(1, round(0.002 * rate)))[0]
    thresholds = np.quantile(score[peaks], np.linspace(1 - min(1, 2 * len(times) / len(peaks)), 1, 100))
    return max(event_scores(times, peaks[score[peaks] >= threshold] / rate).f1 for threshold in thresholds)


def patched(path, rate, snr):
    """Yield membrane potentials, each seen through an indicator and a camera: trace, spike times, polarity."""
    with np.load(path) as arrays:
        for number, name in enumerate(sorted(key[: -len("_vm_mv")] for key in arrays if key.endswith("_vm_mv"))):
            own, times = float(arrays[f"{name}_fs"]), arrays[f"{name}_spike_times_s"]
            voltage = arrays[f"{name}_vm_mv"].astype("float64")
            fine = np.arange(round(len(voltage) / own * FINE_FREQUENCY)) / FINE_FREQUENCY
            voltage = np.interp(fine, np.arange(len(voltage)) / own, voltage)
            rng = np.random.default_rng([number, int(rate), int(snr)])
            sign = rng.choice([-1, 1])
            clean = fluorescence(rng, indicator_response(rng, voltage), times, rate, sign)
            inside = times[times < len(clean) / rate]
            trace = camera(rng, clean, inside, rate, snr).astype("float32")
            yield trace, inside, "positive" if sign > 0 else "negative"


def draw(chances, hits):
    """Draw the part of spikes that is true against their probability, and print the expected calibration error."""
    tenth = np.minimum((chances * 10).astype(int), 9)
    counts = np.bincount(tenth, minlength=10)
    mean, true = (np.bincount(tenth, values, 10) / np.maximum(counts, 1) for values in (chances, hits))
    error = counts @ np.abs(mean - true) / len(chances)
    print(f"{len(chances)} spikes found, expected calibration error {error:.3f}")
    figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    some = counts > 0
    axes.scatter(mean[some], true[some], s=5 + 200 * counts[some] / counts.max(), color="C0")
    axes.set(xlabel="probability", ylabel="part of spikes that is true", xlim=(0, 1), ylim=(0, 1))
    axes.set_title(f"expected calibration error {error:.3f}", fontsize="medium")
    figure.savefig(FIGURE, dpi=150)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", type=Path, help="a file of membrane potentials")
    torch.set_num_threads(1)
    main(parser.parse_args().path)
