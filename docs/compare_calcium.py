"""Score spike rates from calcium on cells that the networks have not seen, with and without the trace's own kinetics.

``python docs/compare_calcium.py FOLDER``, with a folder of labelled recordings (`dlvolt.training.calcium`), writes
``calcium.csv`` beside itself. Each of the five members of the packaged `calcium` answers for the fifth of the cells
that it was trained without; ``s2s`` is the packaged one, which has seen all cells. With one of its options the script
prints other scores, and writes nothing:

- ``--leave-out``, for each indicator, those of a `calcium` that is trained for three thousand windows without that
  indicator: alone, and refined by the trace;
- ``--models s2s oasis`` those of packaged networks, or of OASIS, on all cells;
- ``--offsets 0 1 2`` those of the members of `calcium` if more or less of their estimate counts as zero.
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


def main(recordings):
    s2s = load("s2s", device="cpu")
    ways = {"`calcium` alone": [], "`calcium`, refined": [], "`calcium+s2s`, refined": []}
    for member, unseen in members_and_unseen(recordings):
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


def members_and_unseen(recordings):
    """Yield each member of `calcium`, with the recordings of the cells that it was trained without."""
    fold = folds(recordings)
    for number, member in enumerate(members(load("calcium", device="cpu"))):
        yield member, [one for one, own in zip(recordings, fold, strict=True) if own == number]


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


def packaged(recordings, names):
    for name in names:
        print(name, summary(score([load(name, device="cpu")], recordings)).round(3).to_string(), sep="\n")


def other_offsets(recordings, factors):
    for factor in factors:
        tables = []
        for member, unseen in members_and_unseen(recordings):
            tables.append(score(member.set_params(offset=factor * member.offset), unseen))
        scores = summary(pd.concat(tables)).loc[["spikefinder's", "all"], SCORES]
        print(f"{factor:g} x the offset:", *(f"{name} {line(row)}" for name, row in scores.iterrows()), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="labelled recordings")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--leave-out", nargs="*", metavar="INDICATOR", help="these, or all")
    other.add_argument("--models", nargs="+", metavar="NAME", help="packaged networks, or oasis")
    other.add_argument("--offsets", nargs="+", type=float, metavar="FACTOR", help="times the offset of calcium")
    torch.set_num_threads(1)
    arguments = parser.parse_args()
    labelled = read_labelled(arguments.folder)
    if arguments.leave_out is not None:
        unseen_indicators(labelled, arguments.leave_out)
    elif arguments.models:
        packaged(labelled, arguments.models)
    elif arguments.offsets:
        other_offsets(labelled, arguments.offsets)
    else:
        main(labelled)
