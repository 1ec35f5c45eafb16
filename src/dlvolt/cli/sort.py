"""``dlvolt sort``."""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import dlvolt
from dlvolt.cli.arguments import (
    ELECTRODE_PARAMETERS,
    Commands,
    Parser,
    add_job_arguments,
    add_nwb_arguments,
    add_recording_arguments,
    add_result_arguments,
    add_sorter_parameters,
    one_line_errors,
)
from dlvolt.cli.compare import agreement, read_units
from dlvolt.cli.destination import check_new_places, nwb_destination
from dlvolt.parameters import SorterParameters


def add_command(commands: Commands) -> None:
    """Add ``dlvolt sort`` and its flags."""
    command = commands.add_parser(
        "sort",
        usage="dlvolt sort SOURCE --out FILE [options]",
        help="sort a recording and write its units to an NWB file",
        description="Sort an extracellular recording and write its units to a new NWB file.",
        epilog='Example: dlvolt sort "2024-05-31/Record Node 101" --out spikes.nwb --probe linear:25',
    )
    command.set_defaults(run=sort)
    add = command.add_argument
    add_recording_arguments(command)
    add(
        "--folder",
        type=Path,
        help="keep SpikeInterface's sorter folder and SortingAnalyzer, and the parameters, versions and log of the "
        "run, in this new folder",
    )
    add("--params", type=Path, metavar="JSON", help="sort with the parameters in this run.json; flags override them")
    add("--phy", type=Path, metavar="FOLDER", help="also write the units for curation in Phy")
    add("--npy", type=Path, metavar="FOLDER", help="also write arrays of NumPy, named as Kilosort's")
    add_result_arguments(command)
    add_nwb_arguments(command)
    add_job_arguments(command)
    add_sorter_parameters(command, ELECTRODE_PARAMETERS)


def sort(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt sort``: check everything that can be wrong, then sort, analyze, write and compare."""
    from dlvolt.io import read_recording

    started = time.monotonic()
    job_kwargs = dict(n_jobs=args.n_jobs, progress_bar=not args.quiet, pool_engine="thread")
    given = {name: getattr(args, name) for name in ELECTRODE_PARAMETERS}
    with one_line_errors(parser):
        parameters = SorterParameters(**given, modality="extracellular", job_kwargs=job_kwargs)
        check_new_places(args)
        recording = read_recording(args.source, stream_name=args.stream, probe=args.probe, reader=args.reader)
        destination = nwb_destination(args, recording)
        other = None if args.compare is None else read_units(args.compare, recording)

    from spikeinterface.sorters import run_sorter

    from dlvolt import exports
    from dlvolt.analysis import analyze
    from dlvolt.cli.describe import what_is_read
    from dlvolt.cli.run_record import logged, write_record
    from dlvolt.io import write_nwb_units

    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlvolt-")))
        folder.mkdir(exist_ok=True)
        stack.enter_context(logged(folder / "log.txt"))
        if not args.quiet:
            print(f"dlvolt: {what_is_read(args.source, recording)}")
        sorting = run_sorter(
            "dlvolt",
            recording,
            folder=folder / "sorter",
            verbose=not args.quiet,
            modality="extracellular",
            **given,
            job_kwargs=job_kwargs,
        )
        analyzer = analyze(sorting, recording, parameters, folder=folder / "analyzer", job_kwargs=job_kwargs)
        write_nwb_units(analyzer, args.out, **destination)
        if args.csv is not None:
            exports.export_csv(analyzer, args.csv)
        if args.npy is not None:
            exports.export_npy(analyzer, args.npy)
        if args.phy is not None and len(sorting.unit_ids):
            exports.export_phy(analyzer, args.phy, parameters=parameters, job_kwargs=job_kwargs)
        elif args.phy is not None:
            warnings.warn(f"--phy: there are no units to curate, so {args.phy} is not written", stacklevel=1)
        print(f"{len(sorting.unit_ids)} units, {sorting.count_total_num_spikes()} spikes: {args.out}")
        record = write_record(
            folder,
            command=["dlvolt", *args.arguments],
            source=str(args.source.absolute()),
            stream=args.stream,
            parameters=given,
            seconds=round(time.monotonic() - started, 1),
            reader=recording.get_annotation("reader"),
            num_units=len(sorting.unit_ids),
            set_aside=sorting.get_annotation("set_aside"),
        )
        if args.report is not None:
            if len(sorting.unit_ids):
                analyzer.compute("spike_locations", method="center_of_mass", **job_kwargs)
            page = dlvolt.report(analyzer, args.report, run=record, warnings=args.warned, overwrite=True)
            print(f"report: {page}")
    if other is not None:
        print(agreement(read_units(args.out, recording), other, args.compare))
