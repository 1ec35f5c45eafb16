"""Compare the precision of units that their false-discovery rates imply with the true one.

``python docs/false_discovery.py FOLDER…`` writes ``false_discovery.csv`` and ``false_discovery.png`` beside itself.
Each FOLDER is made by ``benchmark_recordings.py``. The true precision of a unit is the share of its spikes that are of
the neuron with which it is matched, 0 without one; the estimated precision is one minus the property ``fdr``.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import spikeinterface.full as si


def precisions(folder: Path) -> pd.DataFrame:
    """Return a row for each unit of a sorted recording: its estimated and its true precision."""
    recording, truth = si.load(folder / "recording"), si.load(folder / "truth")
    sorting = si.run_sorter("dlvolt", recording, folder=folder / "sorted", remove_existing_folder=True)
    comparison = si.compare_sorter_to_ground_truth(truth, sorting, exhaustive_gt=True)
    neuron_of = {unit: neuron for neuron, unit in comparison.hungarian_match_12.items()}
    precision = comparison.get_performance()["precision"]
    return pd.DataFrame(
        {
            "recording": folder.name,
            "amplitude": sorting.get_property("amplitude"),
            "label": sorting.get_property("label"),
            "estimated": 1 - sorting.get_property("fdr"),
            "true": [precision[neuron_of[unit]] if unit in neuron_of else 0.0 for unit in sorting.unit_ids],
        }
    )


table = pd.concat([precisions(Path(folder)) for folder in sys.argv[1:]]).round(3)
here = Path(__file__).parent
table.to_csv(here / "false_discovery.csv", index=False)
off = (table["estimated"] - table["true"]).abs().groupby(table["label"]).agg(["size", "mean"])
print("difference of estimated and true precision", off.round(3).to_string(), sep="\n")
by_recording = table.groupby(["recording", "label"])["true"].agg(["size", "mean", "min"])
print("true precision", by_recording.round(3).to_string(), sep="\n")

figure, axes = plt.subplots(figsize=(4, 4), layout="constrained")
for label, own in table.groupby("label"):
    axes.scatter(own["estimated"], own["true"], s=8 + own["amplitude"], alpha=0.6, label=label)
axes.plot([0.7, 1], [0.7, 1], color="grey", linewidth=0.8)
axes.set(xlabel="estimated precision of a unit", ylabel="true precision", xlim=(0.78, 1.01), ylim=(-0.05, 1.05))
axes.legend(title="label")
figure.savefig(here / "false_discovery.png", dpi=150)
