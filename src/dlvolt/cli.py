"""The command line: ``dlvolt sort``, ``detect``, ``train``, ``evaluate``, ``info``, ``demo`` and ``completion``.

Exit codes: 0, done; 1, something that is no fault of the input went wrong; 2, the arguments or their files will not do,
said in one line; 130, stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

import dlvolt
from dlvolt import __version__
from dlvolt.interrupt import in_one_line
from dlvolt.parameters import CHOICES, ROI_TRACES, SorterParameters
from dlvolt.run_record import read_parameters, versions
from dlvolt.whole import check_new_folder, written_whole

# What needs SpikeInterface is imported by the functions that use it, so that --help does not wait for it.
if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import BaseRecording, BaseSorting

BY_HAND = ("modality", "model", "polarity", "probability_threshold", "shadow_ms", "job_kwargs")  # flags, or none
ELECTRODE_PARAMETERS, ROI_PARAMETERS = (
    [each.name for each in fields(SorterParameters) if each.metadata["of"] in (of, "both") and each.name not in BY_HAND]
    for of in ("electrodes", "rois")
)

FLAGS = {  # what the Python functions call a flag
    "source": "SOURCE",
    "folder": "SOURCE",
    "recording": "SOURCE",
    "traces": "SOURCE",
    "stream_name": "--stream",
    "sampling_frequency": "--sampling-frequency",
    "probe": "--probe",
    "reader": "--reader",
    "path": "--out",
    "labels": "--labels",
    "series": "--stream",
    "model": "--model",
    "names": "--traces",
    "sorters": "--sorters",
    "truth": "--truth",
    "report": "--report",
}
EXAMPLE_TIME = "2024-05-31T14:30:00+02:00"

CARD = """# {out.name}

`{model}` of dlvolt {version}, trained on {source.name} with the labels {labels.name}, seed {seed}, settings {settings}.

Tested on the last 15 % of each trace. {scores}.
"""


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line."""

    commands: Mapping[str, argparse.ArgumentParser]
    verbose = False

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
        parser.error(f"unknown arguments: {' '.join(unknown)}; {meant(parser, args.command, unknown)}")
    parser.verbose = args.verbose
    if "source" in args and not args.source.exists():  # said at once: what reads it takes seconds to import
        parser.error(f"SOURCE: {args.source} does not exist.")
    args.arguments = list(sys.argv[1:] if arguments is None else arguments)
    if getattr(args, "params", None) is not None:
        with one_line_errors(parser):
            parser.commands[args.command].set_defaults(**read_parameters(args.params, ELECTRODE_PARAMETERS))
        args = parser.parse_args(arguments, argparse.Namespace(arguments=args.arguments))
    with warnings.catch_warnings():
        if not args.verbose:
            warnings.filterwarnings("ignore", module="spikeinterface")  # about its Python interface
            logging.getLogger("neo").setLevel(logging.ERROR)  # it warns each time a file is opened
        args.warned = []
        warnings.showwarning = partial(warn, args.warned)
        with in_one_line():
            args.run(parser, args)


def warn(warned: list[str], message: Warning | str, *_: Any) -> None:
    """Show a warning in a line, and remember it."""
    warned.append(in_flags(message))
    print(f"dlvolt: warning: {warned[-1]}", file=sys.stderr)


def meant(parser: Parser, command: str, unknown: Sequence[str]) -> str:
    """Tell which flags may have been meant by unknown ones."""
    flags = [flag for action in parser.commands[command]._actions for flag in action.option_strings]
    close = [get_close_matches(word.partition("=")[0], flags, n=1) for word in unknown if word.startswith("--")]
    if any(close):
        return f"did you mean {', '.join(flag for found in close for flag in found)}?"
    return f"'dlvolt {command} --help' lists those there are"


def make_parser() -> Parser:
    """Return the parser of the command line; each sorter parameter is a flag."""
    parser = Parser(
        "dlvolt",
        description="Spike sorting and spike detection for SpikeInterface and NWB.",
        epilog="Exit codes: 0 done; 1 failed; 2 the arguments or their files will not do; 130 stopped by Ctrl-C.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dlvolt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    command = commands.add_parser(
        "sort",
        usage="dlvolt sort SOURCE --out FILE [options]",
        allow_abbrev=False,
        help="sort a recording and write its units to an NWB file",
        description="Sort an extracellular recording and write its units to a new NWB file.",
        epilog='Example: dlvolt sort "2024-05-31/Record Node 101" --out spikes.nwb --probe linear:25',
    )
    command.set_defaults(run=sort)
    add = command.add_argument
    add_recording_arguments(command)
    add("--compare", type=Path, metavar="UNITS", help="an NWB file or saved sorting to compare the units found with")
    add(
        "--folder",
        type=Path,
        help="keep SpikeInterface's sorter folder and SortingAnalyzer, and the parameters, versions and log of the "
        "run, in this new folder",
    )
    add("--params", type=Path, metavar="JSON", help="sort with the parameters in this run.json; flags override them")
    add("--phy", type=Path, metavar="FOLDER", help="also write the units for curation in Phy")
    add_csv_argument(command)
    add("--npy", type=Path, metavar="FOLDER", help="also write arrays of NumPy, named as Kilosort's")
    add_report_argument(command)
    add_nwb_arguments(command)
    add_job_arguments(command)
    add_sorter_parameters(command, ELECTRODE_PARAMETERS)

    command = commands.add_parser(
        "detect",
        usage="dlvolt detect SOURCE --out FILE [options]",
        allow_abbrev=False,
        help="detect the spikes of each ROI with a network and write them to an NWB file",
        description="Find spikes in voltage or calcium imaging, a unit for each ROI, and write them to a new NWB file.",
        epilog="Example: dlvolt detect traces.npy --sampling-frequency 500 --model voltage --out spikes.nwb "
        "--session-start-time 2024-05-31T14:30:00+02:00",
    )
    command.set_defaults(run=detect)
    add_trace_arguments(command)
    add = command.add_argument
    add("--model", default="voltage", metavar="NAME", help="pretrained weights or a model's folder; default: voltage")
    add("--threshold", type=float, help="least spike probability; default: the model's")
    add("--shadow-ms", type=float, metavar="MS", help="a spike suppresses weaker ones so near; default: the model's")
    add(
        "--polarity",
        choices=("auto", "positive", "negative"),
        default="auto",
        help="which way spikes point; default: auto, inferred for each trace",
    )
    add(
        "--traces",
        nargs="+",
        choices=ROI_TRACES,
        default=[],
        help="also write these traces of each ROI to the NWB file",
    )
    add("--compare", type=Path, metavar="UNITS", help="an NWB file or saved sorting to compare the units found with")
    add_csv_argument(command)
    add_report_argument(command)
    add_sorter_parameters(command, ROI_PARAMETERS)
    add_nwb_arguments(command)
    add_job_arguments(command)

    command = commands.add_parser(
        "train",
        usage="dlvolt train SOURCE --labels FILE --model NAME --out FOLDER [options]",
        allow_abbrev=False,
        help="train a network on labelled traces",
        description="Train a network on the first 70 % of labelled traces, choose when to stop and the threshold by "
        "the next 15 %, test on the last 15 %, and save it for 'dlvolt detect --model'.",
        epilog="Example: dlvolt train traces.npy --labels spikes.csv --sampling-frequency 500 --model bilstm "
        "--out my_model --set hidden_size=32",
    )
    command.set_defaults(run=train)
    add_trace_arguments(command)
    add = command.add_argument
    add(
        "--labels",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV or .npz with 'channel' (0, 1, …) and 'time_s' of each spike, or 0/1 traces (.npy, .npz, .csv)",
    )
    add(
        "--model",
        required=True,
        metavar="NAME",
        help="the architecture: mel_svm, tcn, transformer, bilstm, fcn or unet; for calcium, s2s or calcium",
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="the new folder for the model")
    add("--overwrite", action="store_true", help="replace the model in the folder if there is one")
    add("--epochs", type=positive(int), dest="max_epochs", metavar="N", help="at most so many; default: as published")
    add("--lr", type=positive(float), metavar="RATE", help="learning rate; default: as published")
    add("--seed", type=int, default=0, metavar="N", help="same seed, same model; default: 0")
    add(
        "--set",
        type=setting,
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="another setting of the model, e.g. hidden_size=32; may be given several times",
    )
    add("--quiet", action="store_true", help="no progress, only results")

    command = commands.add_parser(
        "evaluate",
        usage="dlvolt evaluate SOURCE [options]",
        allow_abbrev=False,
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

    command = commands.add_parser(
        "info",
        usage="dlvolt info SOURCE [options]",
        allow_abbrev=False,
        help="tell what is in a file or folder and what would be done with it",
        description="Tell the streams, channels, duration and probe of a recording, and what dlvolt would do with it.",
    )
    command.set_defaults(run=info)
    add_recording_arguments(command)
    command.add_argument(
        "--sampling-frequency", type=positive(float), metavar="HZ", help="of traces in .npy, .npz, .csv and .mat files"
    )

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
    for command in commands.choices.values():
        command.add_argument(
            "--verbose", action="store_true", help="also warnings of libraries, and where errors arose"
        )

    command = commands.add_parser(
        "completion",
        allow_abbrev=False,
        help="print a script that completes commands and flags in a shell",
        description="Print what a shell sources to complete dlvolt's commands and flags; needs the package shtab.",
        epilog="Example: dlvolt completion bash > ~/.local/share/bash-completion/completions/dlvolt",
    )
    command.set_defaults(run=completion, verbose=False)
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    parser.commands = commands.choices
    return parser


def add_sorter_parameters(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Add a flag for each of these parameters of the sorter."""
    group = command.add_argument_group("sorter parameters")
    types = get_type_hints(SorterParameters)
    for parameter in fields(SorterParameters):
        if parameter.name not in names:
            continue
        if types[parameter.name] is bool:
            kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        elif parameter.name in CHOICES:
            words = {str(choice).lower(): choice for choice in CHOICES[parameter.name]}
            kind = {"type": partial(_choice, words), "metavar": "|".join(words)}
        else:
            kind = {"type": types[parameter.name], "metavar": types[parameter.name].__name__.upper()}
        group.add_argument(
            f"--{parameter.name.replace('_', '-')}",
            default=parameter.default,
            help=f"{parameter.metadata['description']} (default: {parameter.default})",
            **kind,
        )


def _choice(words: dict[str, Any], text: str) -> Any:
    """Return what a word stands for, itself if that is nothing: the parameters say what is wrong with it."""
    return words.get(text, text)


def add_stream_argument(command: argparse.ArgumentParser, what: str) -> None:
    """Add the flag that chooses one of several streams."""
    command.add_argument("--stream", metavar="NAME", help=f"{what}, where there are several")


def add_recording_arguments(command: argparse.ArgumentParser) -> None:
    """Add the recording of electrodes and what tells how to read it."""
    add = command.add_argument
    add(
        "source",
        metavar="SOURCE",
        type=Path,
        help="Open Ephys folder, NWB file, folder saved by SpikeInterface, file or folder of SpikeGLX, Intan, "
        "Blackrock, Plexon, Neuralynx, Maxwell, MEArec and others that Neo reads, or raw file with a JSON beside it",
    )
    add_stream_argument(command, "the stream or ElectricalSeries to sort, or how its name ends")
    add("--probe", help="a probeinterface JSON, 'linear', 'linear:PITCH_UM' or 'tetrode'; default: the source's")
    add("--reader", metavar="NAME", help="SpikeInterface's reader to take, e.g. spikeglx; default: by the files")


def add_csv_argument(command: argparse.ArgumentParser) -> None:
    """Add the tables of units and of spikes."""
    command.add_argument("--csv", type=Path, metavar="FOLDER", help="also write units.csv and spikes.csv")


def add_report_argument(command: argparse.ArgumentParser) -> None:
    """Add the page that shows what was found."""
    command.add_argument(
        "--report", type=Path, metavar="FOLDER", help="also write report.html, a page that shows what was found"
    )


def add_trace_arguments(command: argparse.ArgumentParser) -> None:
    """Add the source of traces and what tells how to read it."""
    command.add_argument(
        "source",
        metavar="SOURCE",
        type=Path,
        help="NWB file with a RoiResponseSeries or an ElectricalSeries, Open Ephys folder, folder saved by "
        "SpikeInterface, or .npy, .npz, .csv or .mat file of shape (samples, traces)",
    )
    add_stream_argument(command, "the series, stream or array to read")
    command.add_argument(
        "--sampling-frequency", type=positive(float), metavar="HZ", help="needed for .npy, .npz, .csv and .mat files"
    )
    command.add_argument("--probe", help="of electrodes, as for 'dlvolt sort'; default: the source's")


def add_nwb_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags that say which NWB file is written and what is known about its session."""
    add = command.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="the NWB file to write")
    add("--overwrite", action="store_true", help="replace the NWB file if it exists")
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
        help='a JSON file {"NWBFile": {…}, "Subject": {…}, "ElectrodeGroup": {"location": …}} with what archives ask '
        "for and the source does not tell",
    )


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


def positive(kind: type) -> Callable[[str], float]:
    """Return what reads a positive number."""

    def read(text: str) -> float:
        if not (number := kind(text)) > 0:
            raise argparse.ArgumentTypeError(f"must be positive, not {text}")
        return number

    read.__name__ = kind.__name__  # argparse names it when the text is no number
    return read


def setting(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; values are JSON (64, 0.1, true, [32, 64]) or else plain words."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, tuple(parsed) if isinstance(parsed, list) else parsed


@contextmanager
def one_line_errors(parser: Parser, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what is wrong with the input into one line; errors elsewhere are ours and keep their traceback."""
    try:
        yield
    except (ValueError, OSError, ImportError, *kinds) as error:  # ImportError: of a package that is not installed
        if parser.verbose:
            traceback.print_exception(error)
        parser.error(in_flags(error))


def in_flags(message: Exception | Warning | str) -> str:
    """Say a message of the Python functions in words of the command line."""
    name, colon, rest = str(message).partition(":")
    text = f"{FLAGS.get(name, name)}{colon}{rest}"
    return text.replace("probe=", "--probe").replace("overwrite=True", "--overwrite")


def completion(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt completion``."""
    try:
        import shtab
    except ImportError:
        parser.error("completion: needs the package shtab; pip install shtab")
    print(shtab.complete(make_parser(), args.shell))


def info(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt info``: electrodes first, else traces."""
    from dlvolt.info import describe, list_streams
    from dlvolt.io import read_recording, read_traces
    from dlvolt.io.streams import SeveralStreams
    from dlvolt.io.trace_files import TRACE_SUFFIXES

    with warnings.catch_warnings(record=True) as caught, one_line_errors(parser):
        warnings.simplefilter("always")
        try:
            if args.source.suffix.lower() in TRACE_SUFFIXES or of_rois_only(args.source):
                recording = read_traces(
                    args.source, stream_name=args.stream, sampling_frequency=args.sampling_frequency, probe=args.probe
                )
            else:
                recording = read_recording(args.source, stream_name=args.stream, probe=args.probe, reader=args.reader)
        except SeveralStreams as error:
            print(list_streams(args.source, error.streams))
            return
    print(describe(recording, args.source, any("No probe" in str(one.message) for one in caught)))


def of_rois_only(source: Path) -> bool:
    """Whether a source is an NWB file with no series of electrodes, but one of ROIs."""
    import h5py

    from dlvolt.io.voltage_imaging import find_groups, is_nwb, is_zarr

    if not is_nwb(source):
        return False
    if is_zarr(source):
        return True
    with h5py.File(source) as file:
        return bool(find_groups(file, "RoiResponseSeries")) and not find_groups(file, "ElectricalSeries")


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
    from dlvolt.io import read_recording

    started = time.monotonic()
    job_kwargs = dict(n_jobs=args.n_jobs, progress_bar=not args.quiet, pool_engine="thread")
    given = {name: getattr(args, name) for name in ELECTRODE_PARAMETERS}
    with one_line_errors(parser):
        parameters = SorterParameters(**given, modality="extracellular", job_kwargs=job_kwargs)
        for flag in ("folder", "phy", "csv", "npy"):
            if getattr(args, flag) is not None:
                check_new_folder(getattr(args, flag), f"--{flag}")
        check_report(args)
        recording = read_recording(args.source, stream_name=args.stream, probe=args.probe, reader=args.reader)
        destination = nwb_destination(args, recording)
        other = None if args.compare is None else read_units(args.compare, recording)

    from spikeinterface.sorters import run_sorter

    from dlvolt import exports, run_record
    from dlvolt.analysis import analyze
    from dlvolt.io import write_nwb_units

    with ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlvolt-")))
        folder.mkdir(exist_ok=True)
        stack.enter_context(run_record.logged(folder / "log.txt"))
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
        record = run_record.write_record(
            folder,
            command=["dlvolt", *args.arguments],
            source=args.source,
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
            run = json.loads(record.read_text(encoding="utf-8"))
            page = dlvolt.report(analyzer, args.report, run=run, warnings=args.warned, overwrite=True)
            print(f"report: {page}")
    if other is not None:
        print(agreement(read_units(args.out, recording), other, args.compare))


def what_is_read(source: Path, recording: BaseRecording) -> str:
    """Tell in one line what was read by which reader."""
    from dlvolt.info import read_by

    of_segments = f", {recording.get_num_segments()} segments" if recording.get_num_segments() > 1 else ""
    return (
        f"{source} by {read_by(recording)}: "
        f"{recording.get_num_channels()} channels, {recording.sampling_frequency:g} Hz, "
        f"{recording.get_total_duration():.1f} s{of_segments}"
    )


def detect(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt detect``: check everything that can be wrong, then detect, write and compare."""
    from dlvolt import optical
    from dlvolt.evaluation import comparison_tolerance_ms
    from dlvolt.exports import export_csv
    from dlvolt.io import write_nwb_units
    from dlvolt.sorter import check, choose_modality

    given = {name: getattr(args, name) for name in (*ROI_PARAMETERS, "model", "polarity")}
    given["probability_threshold"] = "auto" if args.threshold is None else args.threshold
    given["shadow_ms"] = "auto" if args.shadow_ms is None else args.shadow_ms
    with one_line_errors(parser):
        check_report(args)
        if args.csv is not None:
            check_new_folder(args.csv, "--csv")
        recording = read_trace_source(args)
        electrodes = choose_modality(recording) == "extracellular"
        if electrodes:
            if args.traces:
                raise ValueError("--traces: are those of ROIs; SOURCE is of electrodes")
            given["crosstalk"] = "ignore"
        parameters = SorterParameters(
            **given, modality="optical", job_kwargs=dict(n_jobs=args.n_jobs, progress_bar=not args.quiet)
        )
        check(recording, parameters)
        optical.check_traces(recording, args.traces, parameters)
        destination = nwb_destination(args, recording)
        other = None if args.compare is None else read_units(args.compare, recording)

    if not args.quiet:
        print(f"dlvolt: {what_is_read(args.source, recording)}")
    sorting = optical.sort_rois(recording, parameters, verbose=not args.quiet)
    sorting.register_recording(recording)
    if electrodes:
        sorting.annotate(modality="extracellular")
        for name in ("spike_label", "num_bursts", "num_complex_spikes"):  # the slow depolarisation is not seen there
            sorting.delete_property(name)
    traces = optical.roi_traces(recording, sorting, args.traces, parameters)
    write_nwb_units(sorting, args.out, traces=traces, **destination)
    if args.csv is not None:
        export_csv(sorting, args.csv)
    print(f"{len(sorting.unit_ids)} units, {sorting.count_total_num_spikes()} spikes: {args.out}")
    if args.report is not None:
        run = dict(source=str(args.source), parameters=given, versions=versions(), command=["dlvolt", *args.arguments])
        print(f"report: {dlvolt.report(sorting, args.report, run=run, warnings=args.warned, overwrite=True)}")
    if other is not None:
        print(agreement(sorting, other, args.compare, comparison_tolerance_ms(sorting, other)))


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

        figure = plot_accuracy_against_time(table, Figure(figsize=(6, 4), layout="constrained"))
        with written_whole(args.plot) as path:
            figure.savefig(path, dpi=150)


def train(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt train``: check everything that can be wrong, then train, test and save."""
    from dlvolt.io import read_label_file

    with one_line_errors(parser):
        if not args.out.absolute().parent.is_dir():
            raise FileNotFoundError(f"--out: there is no folder {args.out.absolute().parent} to put {args.out.name} in")
        if args.out.exists() and not (args.out.is_dir() and args.overwrite):
            raise FileExistsError(f"--out: {args.out} exists; give the name of a new folder, or --overwrite")
        recording = read_trace_source(args)
        labels = read_label_file(args.labels, recording.get_num_channels())

        from dlvolt.networks import create, save
        from dlvolt.training import fit

        given = {name: getattr(args, name) for name in ("max_epochs", "lr") if getattr(args, name) is not None}
        model = create(args.model, name=args.out.name, **given | dict(args.settings))
    with one_line_errors(parser, TypeError, RuntimeError):  # in which odd values of --set end
        fit(
            model,
            recording.get_traces(),
            labels,
            sampling_frequency=recording.sampling_frequency,
            seed=args.seed,
            verbose=not args.quiet,
        )
    kinds = {
        "auc": "25 Hz: correlation {correlation:.3f}, rank {rank:.3f}, AUC {auc:.3f}; estimated by true spikes: "
        "{count_ratio:.2f}",
        "f1": "samples: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}; events within 5 ms: precision "
        "{event_precision:.3f}, recall {event_recall:.3f}, F1 {event_f1:.3f}",
    }
    found = model.test_scores_
    scores = kinds["auc" if "auc" in found else "f1"].format(**found)
    save(model, args.out, card=CARD.format(version=__version__, scores=scores, **vars(args)))
    print(f"test: {scores}: {args.out}")


def read_trace_source(args: argparse.Namespace) -> BaseRecording:
    """Open the source of ``detect`` or ``train``."""
    from dlvolt.io import read_traces

    return read_traces(
        args.source, stream_name=args.stream, sampling_frequency=args.sampling_frequency, probe=args.probe
    )


def nwb_destination(args: argparse.Namespace, recording: BaseRecording) -> dict[str, Any]:
    """Return how `write_nwb_units` is to write --out, once it is sure that it can."""
    from dlvolt.io.voltage_imaging import is_nwb

    source = args.source if is_nwb(args.source) else None
    destination = dict(source=source, metadata=session_metadata(args, source, recording), overwrite=args.overwrite)
    check_destination(args.out, recording, destination)
    return destination


def session_metadata(
    args: argparse.Namespace, source: Path | None, recording: BaseRecording
) -> dict[str, dict[str, Any]]:
    """Return the metadata for `write_nwb_units`; see to it that somebody knows when the session started."""
    given = {} if args.metadata is None else read_json(args.metadata)
    session = dict(given.get("NWBFile", {}))
    if args.session_start_time is not None:
        session["session_start_time"] = args.session_start_time
    elif (
        "session_start_time" not in session
        and source is None
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
    import numpy as np
    from spikeinterface.core.base import minimum_spike_dtype

    from dlvolt.io import write_nwb_units
    from dlvolt.io.nwb_units import check_target
    from dlvolt.stages import as_sorting

    check_target(path, destination["source"], destination["overwrite"])
    empty = as_sorting(np.zeros(0, minimum_spike_dtype), recording, np.arange(0))
    empty.register_recording(recording)
    with tempfile.TemporaryDirectory(prefix=".dlvolt-", dir=path.absolute().parent) as folder:
        write_nwb_units(empty, Path(folder) / "empty.nwb", **destination)


def check_outputs(args: argparse.Namespace) -> None:
    """Check that ``evaluate`` can write what it is asked for."""
    if args.folder is not None and args.folder.exists():
        raise FileExistsError(f"--folder: {args.folder} exists; give the name of a new one")
    for flag, path in (("--out", args.out), ("--plot", args.plot)):
        if path is None:
            continue
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{flag}: there is no folder {path.absolute().parent} to put {path.name} in")
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
    """Cut a recording and its true spikes."""
    if recording.get_num_segments() > 1:
        raise ValueError(f"--duration: there are {recording.get_num_segments()} segments; it is for recordings of one")
    if duration_s > recording.get_total_duration():
        raise ValueError(f"--duration: the recording lasts {recording.get_total_duration():g} s only")
    if truth is not None:
        truth = truth.frame_slice(0, round(duration_s * truth.sampling_frequency))
    return recording.frame_slice(0, round(duration_s * recording.sampling_frequency)), truth


def neat(table: pd.DataFrame) -> str:
    """Return the table of `compare_sorters` for people, what went wrong below it."""
    failed = table[table["error"].notna()]
    lines = [f"{run.sorter}: {run.error}" for run in failed.itertuples()]
    if len(failed) < len(table):
        decimals = dict(seconds=1, realtime=1, peak_memory_gb=2)
        formatters = {name: f"{{:.{places}f}}".format for name, places in decimals.items()}
        done = table.drop(index=failed.index, columns="error")
        lines.insert(0, done.to_string(index=False, formatters=formatters, float_format="{:.3f}".format))
    return "\n".join(lines)


def read_units(path: Path, recording: BaseRecording, flag: str = "--compare") -> BaseSorting:
    """Read the units of an NWB file, on the clock of a recording, or a sorting saved by SpikeInterface."""
    import h5py
    from spikeinterface.core import BaseSorting, NumpySorting, load
    from spikeinterface.extractors import read_nwb_sorting

    from dlvolt.io.nwb_units import into_segments

    if path.is_dir():
        known = any((path / name).is_file() for name in ("si_folder.json", "spikeinterface_log.json"))
        units = load(path) if known or path.suffix == ".zarr" else None
        if not isinstance(units, BaseSorting):
            raise ValueError(f"{flag}: {path} is not a sorting saved by SpikeInterface")
        return units
    if not path.is_file():
        raise FileNotFoundError(f"{flag}: there is no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{flag}: {path} is not an NWB file")
    with h5py.File(path) as file:
        if "spike_times" not in file.get("units", ()):
            raise ValueError(f"{flag}: {path} has no units with spike times")
        resolution = file["units/spike_times"].attrs.get("resolution", 0.0)
    units = read_nwb_sorting(
        path,
        sampling_frequency=1 / resolution if resolution > 0 else recording.sampling_frequency,
        t_start=recording.get_start_time(segment_index=0),
        load_unit_properties=False,
    )
    if recording.get_num_segments() > 1:
        return into_segments(units, recording)
    return NumpySorting.from_sorting(units)


def check_report(args: argparse.Namespace) -> None:
    """Check that the page can be written where it is asked for."""
    if args.report is None:
        return
    from dlvolt.reporting.page import NAME, check_page

    check_page(args.report, args.overwrite)
    if not args.report.absolute().parent.is_dir():
        raise FileNotFoundError(f"--report: there is no folder {args.report.absolute().parent} to write {NAME} in")


def agreement(sorting: BaseSorting, other: BaseSorting, path: Path, tolerance_ms: float = 0.4) -> str:
    """Return a table with the best match of each unit: hits / (hits + misses + false positives)."""
    import pandas as pd

    from dlvolt.evaluation import compare_sortings

    if len(sorting.unit_ids) == 0 or len(other.unit_ids) == 0:
        return f"\nnone to compare: {len(sorting.unit_ids)} units against {len(other.unit_ids)}"
    comparison = compare_sortings(sorting, other, tolerance_ms=tolerance_ms, match="agreement")
    scores = comparison.agreement_scores  # units × units of the other
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
    title = f"best match of each unit in {path}, spikes within {tolerance_ms:g} ms:"
    return f"\n{title}\n{table.to_string(index=False, float_format='{:.3f}'.format)}"
