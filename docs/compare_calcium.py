"""Score spike rates from calcium on cells that the networks have not seen, with and without the trace's own kinetics.

``python docs/compare_calcium.py FOLDER``, with a folder of labelled recordings (`dlvolt.training.calcium`), writes
``calcium.csv`` beside itself. Each of the five members of the packaged `calcium` answers for the fifth of the cells
that it was trained without; ``s2s`` is the packaged one, which has seen all cells. With ``--leave-out`` the script
prints the scores, for each indicator, of a `calcium` that is trained for three thousand windows without that indicator:
alone, and refined by the trace.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import wilcoxon

from dlvolt.networks import load
from dlvolt.training.calcium import folds, indicators, members, read_labelled, score, summary, train

TABLE = Path(__file__).with_name("calcium.csv")
ROWS = {
    "OGB-1": "OGB-1 (DS01, DS02, set 4)",
    "GCaMP6f": "GCaMP6f (DS09 to DS11, DS27)",
    "GCaMP6s": "GCaMP6s (DS12 to DS15, set 5)",
    "jRCaMP1a": "jRCaMP1a (DS19)",
    "GCaMP8": "GCaMP8 (DS30, DS32)",
    "spikefinder_6": "set 6",
    "spikefinder's": "sets like spikefinder's",
    "all": "all",
}
SCORES = ["correlation", "rank", "auc"]


def main(folder, leave_out):
    recordings = read_labelled(folder)
    if leave_out is not None:
        return unseen_indicators(recordings, leave_out)
    fold, s2s = folds(recordings), load("s2s", device="cpu")
    ways = {"`calcium` alone": [], "`calcium`, refined": [], "`calcium+s2s`, refined": []}
    for number, member in enumerate(members(load("calcium", device="cpu"))):
        unseen = [one for one, own in zip(recordings, fold, strict=True) if own == number]
        for name, models, refine in zip(ways, (member, member, [member, s2s]), (False, True, True), strict=True):
            ways[name].append(score(models, unseen, refine=refine))
    cells = {name: pd.concat(tables) for name, tables in ways.items()}
    table = pd.DataFrame({name: summary(one)[SCORES].apply(line, axis=1) for name, one in cells.items()})
    table.insert(0, "cells", summary(cells["`calcium` alone"])["cells"])
    table.loc[list(ROWS)].rename(ROWS).to_csv(TABLE, index_label="")
    print(pd.read_csv(TABLE).to_string())
    alone = cells.pop("`calcium` alone")
    for name, one in cells.items():
        gain = (one["correlation"] - alone["correlation"]).dropna()
        better, p = (gain > 0).sum(), wilcoxon(gain).pvalue
        counts = one["count_ratio"].median() / alone["count_ratio"].median()
        print(
            f"{name}: {gain.mean():+.4f}, better in {better} of {len(gain)}, p = {p:.1g}; {counts:.3f} as many spikes"
        )


def line(scores):
    return " / ".join(f"{one:.3f}" for one in scores)


def unseen_indicators(recordings, names):
    groups = indicators(recordings)
    for name in names or np.unique(groups):
        model = train(
            "calcium", [one for one, own in zip(recordings, groups, strict=True) if own != name], num_windows=3000
        )
        unseen = [one for one, own in zip(recordings, groups, strict=True) if own == name]
        for refine in (False, True):
            print(name, "refined" if refine else "alone", line(score(model, unseen, refine=refine)[SCORES].mean()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="labelled recordings")
    parser.add_argument("--leave-out", nargs="*", metavar="INDICATOR", help="these, or all")
    torch.set_num_threads(1)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.leave_out)
