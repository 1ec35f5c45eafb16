"""Put measurements into the benchmark page: ``python docs/plot_sorters.py [RESULTS …] [--scaling RESULTS …]``.

The measurements replace earlier ones of the same sorter and recording in ``sorters.csv`` and ``sorter_scaling.csv``
beside this file. From these tables the script makes ``sorters.inc``, ``sorter_scaling.inc`` and ``sorters.png``.
RESULTS are tables that ``dlvolt evaluate --out NAME.csv`` wrote, where NAME is that of the recording, or files with a
line of JSON for each run, which says its ``dataset``. For the scaling they are the lines that ``time_sorter.py``
printed.
"""

import argparse
from pathlib import Path

import pandas as pd
from benchmark_recordings import RECORDINGS
from spikeinterface.sorters.sorterlist import sorter_dict

from dlvolt.evaluation.sorters import SORTERS
from dlvolt.plotting import plot_accuracy_against_time

HERE = Path(__file__).parent


def main(results, scaling_results):
    runs = update(HERE / "sorters.csv", results, dataset=[*RECORDINGS], sorter=[*SORTERS])
    by_recording = runs.groupby("dataset")
    runs["fastest"] = by_recording["seconds"].transform("min") == runs["seconds"]
    runs["best"] = by_recording["accuracy"].transform("max") == runs["accuracy"]
    versions = runs[["sorter", "version"]].dropna().drop_duplicates().itertuples(index=False)
    paragraphs = [
        "Mean accuracy over the true units / seconds for the whole call, the best in bold:",
        wide(runs, accuracy_and_time),
        "Units with an accuracy of 0.8 or more / units beyond the true ones: false positive, redundant or overmerged:",
        wide(runs, units_and_beyond),
        "![Accuracy against time](sorters.png)",
        f"Versions: {', '.join(map(' '.join, versions))}.",
    ]
    (HERE / "sorters.inc").write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")
    plot_accuracy_against_time(runs).savefig(HERE / "sorters.png", dpi=150)

    scaling = update(HERE / "sorter_scaling.csv", scaling_results, sorter=[*SORTERS], channels=None, minutes=None)
    line = "{run.sorter} {run.channels} {run.minutes:g} {run.seconds:.0f} {run.realtime:.1f} {run.peak_memory_gb:.2f}"
    rows = [line.format(run=run).split() for run in scaling.itertuples()]
    head = ["sorter", "channels", "minutes", "seconds", "× real time", "peak memory (GB)"]
    (HERE / "sorter_scaling.inc").write_text(markdown(head, rows) + "\n", encoding="utf-8")


def update(file, results, **keys):
    """Add results to a table and return it, ordered by its keys; a list of names gives the order of its key."""
    tables = [read(Path(path)) for path in [file, *results] if Path(path).exists()]
    table = pd.concat(tables)[tables[0].columns]
    table = table.drop_duplicates([*keys], keep="last")
    table = table.sort_values([*keys], key=lambda key: key.map(keys[key.name].index) if keys[key.name] else key)
    table.to_csv(file, index=False)
    return table


def read(path):
    """Read runs. A missing recording is the name of the file, a missing version that of the installed sorter."""
    if path.suffix == ".csv":
        table = pd.read_csv(path, dtype={"version": str})
    else:
        table = pd.read_json(path, lines=True, precise_float=True, dtype={"version": str})
    if "dataset" not in table and "minutes" not in table:
        table.insert(0, "dataset", path.stem)
    if "version" not in table:
        table["version"] = [sorter_dict[name].get_sorter_version() for name in table["sorter"]]
    return table


def accuracy_and_time(run):
    if pd.isna(run.accuracy):
        return "fails"
    accuracy, seconds = f"{run.accuracy:.3f}", f"{run.seconds:.0f}"
    return f"{f'**{accuracy}**' if run.best else accuracy} / {f'**{seconds}**' if run.fastest else seconds}"


def units_and_beyond(run):
    if pd.isna(run.accuracy):
        return "fails"
    return (
        f"{run.well_detected:.0f} of {run.true_units:.0f} / {run.false_positive + run.redundant + run.overmerged:.0f}"
    )


def wide(runs, cell):
    """Return a table with a row for each recording and a column for each sorter."""
    cells = {(run.dataset, run.sorter): cell(run) for run in runs.itertuples()}
    datasets = dict.fromkeys(runs["dataset"])
    sorters = sorted(set(runs["sorter"]), key=SORTERS.index)
    rows = [[dataset, *(cells.get((dataset, sorter), "–") for sorter in sorters)] for dataset in datasets]
    unbroken = [[cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in row] for row in rows]
    return markdown(["recording", *sorters], unbroken)


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*")
    parser.add_argument("--scaling", nargs="*", default=[], metavar="RESULTS")
    args = parser.parse_args()
    main(args.results, args.scaling)
