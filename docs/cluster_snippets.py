"""Compare PCA with the autoencoder on simulated recordings with several neurons per channel.

``python docs/cluster_snippets.py`` writes ``snippet_clusters.csv`` and ``snippet_clusters.png`` beside itself.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import spikeinterface.full as si
from sklearn.metrics import adjusted_rand_score
from spikeinterface.sortingcomponents.clustering import find_clusters_from_peaks
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.plotting.canvas import BLUE, ORANGE

HERE = Path(__file__).parent
PROBES = {"1 channel, 3 neurons": (1, 3), "4 channels, 5 neurons": (4, 5), "4 channels, 8 neurons": (4, 8)}
SEEDS = range(5)
TOLERANCE = 12  # samples, between a peak and its spike


def simulate(num_channels, num_units, seed):
    recording, sorting = si.generate_ground_truth_recording(
        durations=[60.0],
        sampling_frequency=30_000.0,
        num_channels=num_channels,
        num_units=num_units,
        generate_probe_kwargs=dict(num_columns=1 if num_channels == 1 else 2, xpitch=25, ypitch=25),
        generate_sorting_kwargs=dict(firing_rates=8.0, refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(margin_um=10.0, minimum_z=5.0, maximum_z=25.0, minimum_distance=10.0),
        seed=seed,
    )
    return si.bandpass_filter(recording, 300, 8000, dtype="float32"), sorting


def true_labels(peaks, sorting):
    """Return the unit of each peak, -1 where no spike is near."""
    spikes = sorting.to_spike_vector()
    after = np.clip(np.searchsorted(spikes["sample_index"], peaks["sample_index"]), 1, len(spikes) - 1)
    nearest = after - (
        peaks["sample_index"] - spikes["sample_index"][after - 1]
        < np.abs(spikes["sample_index"][after] - peaks["sample_index"])
    )
    near = np.abs(spikes["sample_index"][nearest] - peaks["sample_index"]) <= TOLERANCE
    return np.where(near, spikes["unit_index"][nearest], -1)


def measure(recording, sorting, peaks, embedding):
    found, labels = find_clusters_from_peaks(
        recording, peaks, method="dlvolt-dbscan", method_kwargs=dict(embedding=embedding)
    )
    truth = true_labels(peaks, sorting)
    known = truth >= 0
    clustered = si.NumpySorting.from_samples_and_labels(
        [peaks["sample_index"][labels >= 0]], [labels[labels >= 0]], recording.sampling_frequency
    )
    comparison = si.compare_sorter_to_ground_truth(sorting, clustered, exhaustive_gt=True)
    accuracy = comparison.get_performance()["accuracy"].astype(float)
    return dict(ari=adjusted_rand_score(truth[known], labels[known]), clusters=len(found)), accuracy.to_numpy()


def main():
    si.set_global_job_kwargs(n_jobs=1, progress_bar=False)
    rows, accuracies = [], {}
    for probe, (num_channels, num_units) in PROBES.items():
        for seed in SEEDS:
            recording, sorting = simulate(num_channels, num_units, seed)
            peaks = detect_peaks(
                recording, method="locally_exclusive", method_kwargs=dict(detect_threshold=5, radius_um=100)
            )
            for embedding in ("pca", "autoencoder"):
                scores, accuracy = measure(recording, sorting, peaks, embedding)
                accuracies.setdefault((probe, embedding), []).extend(accuracy)
                rows.append(dict(probe=probe, embedding=embedding, seed=seed, **scores, accuracy=accuracy.mean()))
                print(rows[-1], flush=True)
    table = (
        pd.DataFrame(rows)
        .groupby(["probe", "embedding"], sort=False)
        .agg(ari=("ari", "mean"), ari_sd=("ari", "std"), accuracy=("accuracy", "mean"), clusters=("clusters", "mean"))
    )
    table.round(3).to_csv(HERE / "snippet_clusters.csv")
    print(table.round(3).to_string())

    figure, panels = plt.subplots(1, len(PROBES), figsize=(9, 3.2), layout="constrained", sharey=True)
    for axes, probe in zip(panels, PROBES, strict=True):
        for embedding, colour in (("pca", BLUE), ("autoencoder", ORANGE)):
            ranked = np.sort(accuracies[probe, embedding])[::-1]
            ari = table.loc[(probe, embedding), "ari"]
            axes.plot(
                np.arange(1, len(ranked) + 1), ranked, "o-", ms=3, color=colour, label=f"{embedding}, ARI {ari:.2f}"
            )
        axes.set(title=probe, xlabel="units of five recordings, best first", ylim=(-0.02, 1.02))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    panels[0].set_ylabel("accuracy")
    figure.savefig(HERE / "snippet_clusters.png", dpi=110)


if __name__ == "__main__":
    main()
