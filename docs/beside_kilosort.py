"""Draw which units of dlvolt and Kilosort 4 agree: ``python docs/beside_kilosort.py FOLDER TRUTH FIGURE``.

FOLDER is the one that ``dlvolt evaluate … --sorters dlvolt,kilosort4 --folder FOLDER`` made. TRUTH has the true spikes,
as SpikeInterface saved them. The script prints how many units are in both sortings, and for each other unit the neuron
that it resembles most.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import spikeinterface.full as si


def main(folder, truth, figure):
    names = ("dlvolt", "kilosort4")
    sortings = [si.read_sorter_folder(folder / name, register_recording=False) for name in names]
    both = si.compare_two_sorters(*sortings, *names)
    fig, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    si.plot_agreement_matrix(both, ax=axes, unit_ticks=False, count_text=False)
    axes.set(xlabel="units of Kilosort 4", ylabel="units of dlvolt")
    fig.savefig(figure, dpi=120)

    for name, sorting, partners in zip(names, sortings, both.get_matching(), strict=True):
        alone = partners.index[partners == -1]
        accuracies = si.compare_sorter_to_ground_truth(truth, sorting).agreement_scores
        print(f"{name}: {len(partners) - len(alone)} of {len(partners)} units are in both sortings; the others:")
        for unit in alone:
            print(f"  {unit}: accuracy {accuracies[unit].max():.2f}, for neuron {accuracies[unit].idxmax()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), si.load(sys.argv[2]), Path(sys.argv[3]))
