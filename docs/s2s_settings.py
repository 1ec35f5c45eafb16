"""Score `s2s` with other settings on cells it has not seen: ``python docs/s2s_settings.py FOLDER``.

FOLDER has labelled recordings (`dlvolt.training.calcium`). One fold of the cells is left out, and scored. The script
prints a table, and draws ``s2s_settings.png`` beside itself.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from dlvolt.plotting import plot_rate_scores
from dlvolt.training.calcium import folds, read_labelled, score, summary, train


def main(folder):
    recordings = read_labelled(folder)
    fold = folds(recordings)
    seen, unseen = ([one for one, own in zip(recordings, fold == 0, strict=True) if own == part] for part in (0, 1))

    def scores(**settings):
        return summary(score(train("s2s", seen, num_windows=2000, **settings), unseen))

    layers = {h: scores(num_hidden=h, target_samples=11) for h in (0, 1, 3)}
    widths = {n: layers[3] if n == 11 else scores(num_hidden=3, target_samples=n) for n in (1, 11, 33)}
    figure, panels = plt.subplots(1, 2, figsize=(6.4, 2.5), sharey=True, layout="constrained")
    for axes, tables, name in zip(
        panels, (layers, widths), ("hidden layers", "samples of the target's Gaussian"), strict=True
    ):
        for group in ("spikefinder's", "all"):
            table = pd.DataFrame({value: scored.loc[group] for value, scored in tables.items()}).T.rename_axis(name)
            print(group, table[["cells", "correlation", "rank", "auc"]].round(3).to_string(), sep="\n")
        plot_rate_scores(table, axes)  # of all cells
    panels[1].set_ylabel("")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
