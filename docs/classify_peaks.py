"""Print how many of the peaks that networks keep are spikes, and how many spikes have such a peak.

``python docs/classify_peaks.py`` makes the table of docs/snippets.md from simulated recordings, for both networks of
snippets in the package and both thresholds.
"""

import itertools

import numpy as np
import pandas as pd
import spikeinterface.full as si
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.electrodes import classify_peaks

NEAR_S = 0.0005  # greatest distance between a peak and its spike
si.set_global_job_kwargs(n_jobs=1, progress_bar=False)


def distance(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the distance from each time to the nearest of some other times, which are sorted."""
    after = np.clip(np.searchsorted(others, times), 1, len(others) - 1)
    return np.minimum(np.abs(times - others[after - 1]), np.abs(times - others[after]))


rows = []
for rate, seed in itertools.product((24_000.0, 30_000.0), (3, 4, 5)):
    recording, truth = si.generate_ground_truth_recording(
        durations=[20.0], sampling_frequency=rate, num_channels=8, num_units=6, seed=seed
    )
    filtered = si.bandpass_filter(recording, 300, 8000, dtype="float32")
    peaks = detect_peaks(filtered, method="dlvolt-adaptive")
    spikes = truth.to_spike_vector()["sample_index"] / rate
    kept = {"all peaks": np.ones(len(peaks), dtype=bool)}
    for model, threshold in itertools.product(("waveform_cnn", "waveform_gru"), ("noise", "predict")):
        kept[f"{model}, {threshold}"] = classify_peaks(filtered, peaks, model=model, threshold=threshold) == 1
    for name, keep in kept.items():
        times = np.sort(peaks["sample_index"][keep]) / rate
        purity, found = np.mean(distance(times, spikes) <= NEAR_S), np.mean(distance(spikes, times) <= NEAR_S)
        rows.append({"kept": name, "rate": rate, "at a spike": purity, "spikes found": found})
table = pd.DataFrame(rows).groupby(["kept", "rate"], sort=False).mean().unstack()
print(table.round(3).to_string())
