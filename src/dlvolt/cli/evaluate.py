"""``dlvolt evaluate``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dlvolt.cli.arguments import Commands, Parser, add_recording_arguments, one_line_errors, positive
from dlvolt.cli.compare import read_units
from dlvolt.whole import check_parent, written_whole

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import BaseRecording, BaseSorting


def add_command(commands: Commands) -> None:
    """Add ``dlvolt evaluate`` and its flags."""
    command = commands.add_parser(
        "evaluate",
        usage="dlvolt evaluate SOURCE [options]",
        help="run several sorters on a recording and compare them",
        description="Run sorters on a recording, one after the other, and compare accuracy, time and memory; without "
        "the true spikes, compare the sorters with each other.",
        epilog="Example: dlvolt evaluate recording.nwb --truth truth.nwb --sorters dlvolt,kilosort4 --out sorters.csv",
    )
    command.set_defaults(run=evaluate)
    add = command.add_argument
    add_recording_arguments(command)
    add(
        "--truth", type=Path, metavar="UNITS", help="an NWB file or a sorting saved by SpikeInterface, with true spikes"
    )
    add("--partial-truth", action="store_true", help="the truth has some of the units only; others are no mistake")
    add(
        "--sorters",
        type=lambda names: names.split(","),
        metavar="NAME,NAME",
        help="as SpikeInterface calls them; default: dlvolt, and what is installed of lupin, tridesclous2, "
        "spykingcircus2, mountainsort5 and kilosort4",
    )
    add("--duration", type=positive(float), metavar="SECONDS", help="sort only so much from the start; default: all")
    add("--threads", type=positive(int), default=-1, metavar="N", help="for each sorter; default: one for each core")
    add("--out", type=Path, metavar="CSV", help="write the table to this file")
    add("--plot", type=Path, metavar="IMAGE", help="draw accuracy against time; needs --truth")
    add("--folder", type=Path, help="keep what the sorters write in this new folder")
    add("--overwrite", action="store_true", help="replace the table and the plot if they exist")
    add("--quiet", action="store_true", help="no progress, only results")


def evaluate(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt evaluate``: check everything that can be wrong, then run the sorters, compare and draw."""
    from dlvolt.evaluation import compare_sorters
    from dlvolt.evaluation.sorters import check_sorters, check_truth
    from dlvolt.io import read_recording

    with one_line_errors(parser):
        sorters = check_sorters(args.sorters)
        check_outputs(args)
        recording = read_recording(args.source, stream_name=args.stream, probe=args.probe, reader=args.reader)
        truth = None if args.truth is None else read_units(args.truth, recording, "--truth")
        if args.duration is not None:
            recording, truth = first_seconds(args.duration, recording, truth)
        if truth is not None:
            check_truth(truth, recording)

    table = compare_sorters(
        recording,
        sorters,
        truth,
        exhaustive_gt=not args.partial_truth,
        job_kwargs=dict(n_jobs=args.threads),
        folder=args.folder,
        verbose=not args.quiet,
    )
    print(neat(table))
    if args.out is not None:
        with written_whole(args.out) as path:
            table.to_csv(path, index=False, float_format="%.4f")
    if table["error"].notna().all():
        sys.exit(1)
    if args.plot is not None:
        from matplotlib.figure import Figure

        from dlvolt.plotting import plot_accuracy_against_time
        from dlvolt.plotting.canvas import save_figure

        save_figure(plot_accuracy_against_time(table, Figure(figsize=(6, 4), layout="constrained")), args.plot)


def check_outputs(args: argparse.Namespace) -> None:
    """Raise if ``evaluate`` cannot write what it is asked for."""
    if args.folder is not None and args.folder.exists():
        raise FileExistsError(f"--folder: {args.folder} exists; give the name of a new one")
    for flag, path in (("--out", args.out), ("--plot", args.plot)):
        if path is None:
            continue
        check_parent(path, flag)
        if path.is_dir() or (path.exists() and not args.overwrite):
            raise FileExistsError(f"{flag}: {path} exists; give the name of a new file, or --overwrite a file")
    if args.plot is not None:
        from matplotlib.figure import Figure

        kinds = Figure().canvas.get_supported_filetypes()
        if args.plot.suffix.lower().removeprefix(".") not in kinds:
            raise ValueError(f"--plot: {args.plot} has no ending that tells its format; give one of {', '.join(kinds)}")
        if args.truth is None:
            raise ValueError("--plot: draws accuracy, which takes the true spikes; give --truth")


def first_seconds(
    duration_s: float, recording: BaseRecording, truth: BaseSorting | None
) -> tuple[BaseRecording, BaseSorting | None]:
    """Return the first seconds of a recording and of its true spikes."""
    if recording.get_num_segments() > 1:
        raise ValueError(f"--duration: there are {recording.get_num_segments()} segments; it is for recordings of one")
    if duration_s > recording.get_total_duration():
        raise ValueError(f"--duration: the recording lasts {recording.get_total_duration():g} s only")
    if truth is not None:
        truth = truth.frame_slice(0, round(duration_s * truth.sampling_frequency))
    return recording.frame_slice(0, round(duration_s * recording.sampling_frequency)), truth


def neat(table: pd.DataFrame) -> str:
    """Return the table of `compare_sorters` as text, with the errors of sorters that failed below it."""
    failed = table[table["error"].notna()]
    lines = [f"{run.sorter}: {run.error}" for run in failed.itertuples()]
    if len(failed) < len(table):
        decimals = dict(seconds=1, realtime=1, peak_memory_gb=2)
        formatters = {name: f"{{:.{places}f}}".format for name, places in decimals.items()}
        done = table.drop(index=failed.index, columns="error")
        lines.insert(0, done.to_string(index=False, formatters=formatters, float_format="{:.3f}".format))
    return "\n".join(lines)
