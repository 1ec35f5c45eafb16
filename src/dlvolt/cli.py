"""The command line: ``dlvolt sort`` and ``dlvolt demo``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import Field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from dlvolt.parameters import SorterParameters

# What needs SpikeInterface is imported by the functions that use it, so that --help does not wait for it.
if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording, BaseSorting

FLAGS = {"source": "SOURCE", "folder": "SOURCE", "stream_name": "--stream", "probe": "--probe", "path": "--out"}
EXAMPLE_TIME = "2024-05-31T14:30:00+02:00"


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with exit code 2."""
        self.exit(2, f"dlvolt: error: {' '.join(message.split())}\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``dlvolt`` command.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Raises
    ------
    SystemExit
        With code 2 after one line on stderr where the arguments or their files will not do.
    """
    parser = make_parser()
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}; 'dlvolt {args.command} --help' lists those there are")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="spikeinterface")  # about its Python interface
        warnings.showwarning = lambda message, *_: print(f"dlvolt: warning: {in_flags(message)}", file=sys.stderr)
        args.run(parser, args)


def make_parser() -> Parser:
    """Return the parser of the command line; each sorter parameter is a flag."""
    parser = Parser("dlvolt", description="Spike sorting for SpikeInterface and NWB.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    command = commands.add_parser(
        "sort",
        allow_abbrev=False,
        help="sort a recording and write its units to an NWB file",
        description="Sort an extracellular recording and write its units to a new NWB file.",
        epilog='Example: dlvolt sort "2024-05-31/Record Node 101" --out spikes.nwb --probe linear:25',
    )
    command.set_defaults(run=sort)
    add = command.add_argument
    add("source", metavar="SOURCE", type=Path, help="Open Ephys folder, NWB file, or folder saved by SpikeInterface")
    add("--out", type=Path, required=True, metavar="FILE", help="the NWB file to write")
    add("--overwrite", action="store_true", help="replace the NWB file if it exists")
    add("--stream", metavar="NAME", help="the stream or ElectricalSeries to sort, where there are several")
    add("--probe", help="a probeinterface JSON, 'linear', 'linear:PITCH_UM' or 'tetrode'; default: the source's")
    add("--compare", type=Path, metavar="FILE", help="an NWB file whose units are compared with those found")
    add("--folder", type=Path, help="keep SpikeInterface's sorter folder and SortingAnalyzer in this new folder")
    add(
        "--session-start-time",
        type=iso_time,
        metavar="ISO",
        help=f"when the session started, e.g. {EXAMPLE_TIME}; needed where the source does not tell",
    )
    add("--session-description", metavar="TEXT", help="what was recorded; default: the source's")
    add(
        "--metadata",
        type=Path,
        metavar="JSON",
        help='a JSON file {"NWBFile": {…}, "Subject": {…}} with what archives ask for and the source does not tell',
    )
    add_job_arguments(command)
    parameters = command.add_argument_group("sorter parameters")
    types = get_type_hints(SorterParameters)
    for parameter in sorter_parameters():
        flag = f"--{parameter.name.replace('_', '-')}"
        described = f"{parameter.metadata['description']} (default: {parameter.default})"
        if types[parameter.name] is bool:
            kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"type": types[parameter.name], "metavar": types[parameter.name].__name__.upper()}
        parameters.add_argument(flag, default=parameter.default, help=described, **kind)

    command = commands.add_parser(
        "demo",
        allow_abbrev=False,
        help="sort a simulated recording and show how right that is",
        description="Simulate one minute of 18 units on 32 channels, sort it, compare with the truth, and write an "
        "NWB file and a figure.",
    )
    command.set_defaults(run=demo)
    command.add_argument("--out", type=Path, default=Path("dlvolt_demo"), metavar="FOLDER", help="default: dlvolt_demo")
    command.add_argument("--duration", type=float, default=60.0, metavar="SECONDS", help="default: 60")
    add_job_arguments(command)
    return parser


def add_job_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags that say how to run, not what."""
    command.add_argument("--n-jobs", type=int, default=-1, metavar="N", help="workers; default: one for each core")
    command.add_argument("--quiet", action="store_true", help="no progress, only results")


def iso_time(text: str) -> datetime:
    """Read a time."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like {EXAMPLE_TIME}") from error


def sorter_parameters() -> list[Field]:
    """List the sorter's parameters that are flags: all but ``job_kwargs``, which --n-jobs and --quiet make."""
    return [parameter for parameter in fields(SorterParameters) if parameter.name != "job_kwargs"]


@contextmanager
def one_line_errors(parser: Parser) -> Iterator[None]:
    """Turn what is wrong with the input into one line; errors elsewhere are ours and keep their traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        parser.error(in_flags(error))


def in_flags(message: Exception | Warning | str) -> str:
    """Say a message of the Python functions in words of the command line."""
    name, colon, rest = str(message).partition(":")
    text = f"{FLAGS.get(name, name)}{colon}{rest}"
    return text.replace("probe=", "--probe").replace("overwrite=True", "--overwrite")


def demo(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt demo``."""
    if not args.duration > 0:
        parser.error(f"--duration: must be positive, not {args.duration:g}")
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out: {args.out} is a file; give the name of a folder")
    from dlvolt.demo import run_demo

    run_demo(args.out, duration_s=args.duration, n_jobs=args.n_jobs, verbose=not args.quiet)


def sort(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt sort``: check everything that can be wrong, then sort, analyze, write and compare."""
    from dlvolt.io import read_recording, write_nwb_units

    job_kwargs = dict(n_jobs=args.n_jobs, progress_bar=not args.quiet, pool_engine="thread")
    given = {parameter.name: getattr(args, parameter.name) for parameter in sorter_parameters()}
    with one_line_errors(parser):
        parameters = SorterParameters(**given, job_kwargs=job_kwargs)
        if args.folder is not None and args.folder.exists():
            raise FileExistsError(f"--folder: {args.folder} exists; give the name of a new one")
        recording = read_recording(args.source, stream_name=args.stream, probe=args.probe)
        destination = dict(
            source=args.source if args.source.is_file() else None,
            metadata=session_metadata(args, recording),
            overwrite=args.overwrite,
        )
        check_destination(args.out, recording, destination)
        other = None if args.compare is None else read_units(args.compare, recording)

    from spikeinterface.sorters import run_sorter

    from dlvolt.analysis import analyze

    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlvolt-")))
        sorting = run_sorter(
            "dlvolt", recording, folder=folder / "sorter", verbose=not args.quiet, **given, job_kwargs=job_kwargs
        )
        analyzer = analyze(sorting, recording, parameters, folder=folder / "analyzer", job_kwargs=job_kwargs)
        write_nwb_units(analyzer, args.out, **destination)
        print(f"{len(sorting.unit_ids)} units, {sorting.count_total_num_spikes()} spikes: {args.out}")
    if other is not None:
        print(f"\nbest match of each unit in {args.compare}, spikes within 0.4 ms:")
        print(agreement(read_units(args.out, recording), other))


def session_metadata(args: argparse.Namespace, recording: BaseRecording) -> dict[str, dict[str, Any]]:
    """Return the metadata for `write_nwb_units`; see to it that somebody knows when the session started."""
    given = {} if args.metadata is None else read_json(args.metadata)
    session = dict(given.get("NWBFile", {}))
    if args.session_start_time is not None:
        session["session_start_time"] = args.session_start_time
    elif (
        "session_start_time" not in session
        and not args.source.is_file()
        and recording.get_annotation("session_start_time") is None
    ):
        raise ValueError(
            f"--session-start-time: {args.source} does not tell when its session started, which NWB asks for; "
            f"give it, e.g. {EXAMPLE_TIME}"
        )
    if args.session_description is not None:
        session["session_description"] = args.session_description
    return given | {"NWBFile": session}


def read_json(path: Path) -> dict[str, Any]:
    """Read the file of --metadata."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--metadata: {path} is not a JSON file that can be read: {error}") from error
    if not isinstance(given, dict) or not all(isinstance(part, dict) for part in given.values()):
        raise ValueError(f'--metadata: {path} must hold an object like {{"NWBFile": {{…}}, "Subject": {{…}}}}')
    return given


def check_destination(path: Path, recording: BaseRecording, destination: dict[str, Any]) -> None:
    """Write no units beside `path` and throw them away: what will not do must show before the sorting, not after."""
    from spikeinterface.core import NumpySorting

    from dlvolt.io import write_nwb_units
    from dlvolt.io.nwb_units import check_target

    check_target(path, destination["source"], destination["overwrite"])
    empty = NumpySorting.from_unit_dict([{}] * recording.get_num_segments(), recording.sampling_frequency)
    empty.register_recording(recording)
    with tempfile.TemporaryDirectory(prefix=".dlvolt-", dir=path.absolute().parent) as folder:
        write_nwb_units(empty, Path(folder) / "empty.nwb", **destination)


def read_units(path: Path, recording: BaseRecording) -> BaseSorting:
    """Read the units of an NWB file, on the clock of a recording."""
    import h5py
    from spikeinterface.core import NumpySorting
    from spikeinterface.extractors import read_nwb_sorting

    if not path.is_file():
        raise FileNotFoundError(f"--compare: there is no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"--compare: {path} is not an NWB file")
    with h5py.File(path) as file:
        if "spike_times" not in file.get("units", ()):
            raise ValueError(f"--compare: {path} has no units with spike times")
    units = read_nwb_sorting(
        path,
        sampling_frequency=recording.sampling_frequency,
        t_start=recording.get_start_time(segment_index=0),
        load_unit_properties=False,
    )
    return NumpySorting.from_sorting(units)


def agreement(sorting: BaseSorting, other: BaseSorting) -> str:
    """Return a table with the best match of each unit: hits / (hits + misses + false positives)."""
    import pandas as pd
    from spikeinterface.comparison import compare_two_sorters

    if len(sorting.unit_ids) == 0 or len(other.unit_ids) == 0:
        return f"none: {len(sorting.unit_ids)} units against {len(other.unit_ids)}"
    scores = compare_two_sorters(sorting, other).agreement_scores  # units × units of the other
    best = scores.idxmax(axis=1)
    spikes, spikes_of_other = (units.count_num_spikes_per_unit(outputs="dict") for units in (sorting, other))
    table = pd.DataFrame(
        {
            "unit": scores.index,
            "spikes": [spikes[unit] for unit in scores.index],
            "best match": best.to_numpy(),
            "its spikes": [spikes_of_other[unit] for unit in best],
            "agreement": scores.max(axis=1).to_numpy(),
        }
    )
    return table.to_string(index=False, float_format="{:.3f}".format)
