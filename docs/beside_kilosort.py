"""Draw which units of dlvolt and Kilosort 4 agree: ``python docs/beside_kilosort.py FOLDER TRUTH FIGURE``.

FOLDER is the one that ``dlvolt evaluate … --sorters dlvolt,kilosort4 --folder FOLDER`` made. TRUTH has the true spikes,
as SpikeInterface saved them. The script prints how many units are in both sortings, how far they agree and how each
sorter labels them, and for each other unit its label and the neuron that it resembles most.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import spikeinterface.full as si

LABELS = {"dlvolt": "label", "kilosort4": "KSLabel"}  # the property of units that has the sorter's own label


def main(folder, truth, figure):
    sortings = [si.read_sorter_folder(folder / name, register_recording=False) for name in LABELS]
    both = si.compare_two_sorters(*sortings, *LABELS)
    fig, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    si.plot_agreement_matrix(both, ax=axes, unit_ticks=False, count_text=False)
    axes.set(xlabel="units of Kilosort 4", ylabel="units of dlvolt")
    fig.savefig(figure, dpi=120)

    partners_of_each = both.get_matching()
    pairs = partners_of_each[0][partners_of_each[0] != -1]
    agreement = [both.agreement_scores.at[pair] for pair in pairs.items()]
    print(f"agreement of the units in both sortings: {min(agreement):.2f} to {max(agreement):.2f}")
    for (name, label), sorting, partners in zip(LABELS.items(), sortings, partners_of_each, strict=True):
        labels, alone = pd.Series(sorting.get_property(label), sorting.unit_ids), partners.index[partners == -1]
        counts = labels.drop(alone).value_counts().to_dict()
        accuracies = si.compare_sorter_to_ground_truth(truth, sorting).agreement_scores
        print(
            f"{name}: {len(partners) - len(alone)} of {len(partners)} units are in both sortings {counts}; the others:"
        )
        for unit in alone:
            best = accuracies[unit]
            print(f"  {unit} ({labels[unit]}): accuracy {best.max():.2f}, for neuron {best.idxmax()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), si.load(sys.argv[2]), Path(sys.argv[3]))
