"""The flags that several commands have, and errors in one line."""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from dlvolt.parameters import CHOICES, SorterParameters

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording

# sorter parameters that commands give by themselves or by flags of other names
BY_HAND = ("modality", "model", "polarity", "probability_threshold", "shadow_ms", "job_kwargs")
ELECTRODE_PARAMETERS, ROI_PARAMETERS = (
    [each.name for each in fields(SorterParameters) if each.metadata["of"] in (of, "both") and each.name not in BY_HAND]
    for of in ("electrodes", "rois")
)

# name of an argument in errors of the Python functions -> the flag that gives it
FLAGS = dict.fromkeys(("source", "folder", "recording", "traces"), "SOURCE")
FLAGS |= {"stream_name": "--stream", "series": "--stream", "path": "--out", "names": "--traces"}
FLAGS |= {name: f"--{name}" for name in ("probe", "reader", "labels", "model", "sorters", "truth", "report")}
FLAGS |= {"sampling_frequency": "--sampling-frequency"}
EXAMPLE_TIME = "2024-05-31T14:30:00+02:00"

Commands = argparse._SubParsersAction  # what `add_command` of each command adds to


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one line, and which takes flags in full only."""

    commands: Mapping[str, argparse.ArgumentParser]
    verbose = False

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong in one line and exit with code 2."""
        self.exit(2, f"dlvolt: error: {' '.join(message.split())}\n")


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

            def choose(text: str, words: dict[str, Any] = words) -> Any:
                return words.get(text, text)  # an unknown word is rejected by `SorterParameters`

            kind = {"type": choose, "metavar": "|".join(words)}
        else:
            kind = {"type": types[parameter.name], "metavar": types[parameter.name].__name__.upper()}
        group.add_argument(
            f"--{parameter.name.replace('_', '-')}",
            default=parameter.default,
            help=f"{parameter.metadata['description']} (default: {parameter.default})",
            **kind,
        )


def add_recording_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments that tell which recording of electrodes to read, and how."""
    add = command.add_argument
    add(
        "source",
        metavar="SOURCE",
        type=Path,
        help="Open Ephys folder, NWB file, folder saved by SpikeInterface, file or folder of SpikeGLX, Intan, "
        "Blackrock, Plexon, Neuralynx, Maxwell, MEArec and others that Neo reads, or raw file with a JSON beside it",
    )
    add(
        "--stream",
        metavar="NAME",
        help="the stream or ElectricalSeries to sort, or how its name ends, where there are several",
    )
    add("--probe", help="a probeinterface JSON, 'linear', 'linear:PITCH_UM' or 'tetrode'; default: the source's")
    add("--reader", metavar="NAME", help="SpikeInterface's reader to take, e.g. spikeglx; default: by the files")


def add_result_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags that compare the units found, and that write them to more than the NWB file."""
    add = command.add_argument
    add("--compare", type=Path, metavar="UNITS", help="an NWB file or saved sorting to compare the units found with")
    add("--csv", type=Path, metavar="FOLDER", help="also write units.csv and spikes.csv")
    add("--report", type=Path, metavar="FOLDER", help="also write report.html, a page that shows what was found")


def add_trace_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments that tell which traces to read, and how."""
    add = command.add_argument
    add(
        "source",
        metavar="SOURCE",
        type=Path,
        help="NWB file with a RoiResponseSeries or an ElectricalSeries, Open Ephys folder, folder saved by "
        "SpikeInterface, or .npy, .npz, .csv or .mat file of shape (samples, traces)",
    )
    add("--stream", metavar="NAME", help="the series, stream or array to read, where there are several")
    add("--sampling-frequency", type=positive(float), metavar="HZ", help="needed for .npy, .npz, .csv and .mat files")
    add("--probe", help="of electrodes, as for 'dlvolt sort'; default: the source's")


def read_trace_source(args: argparse.Namespace) -> BaseRecording:
    """Open the source of a command that has the arguments of `add_trace_arguments`."""
    from dlvolt.io import read_traces

    return read_traces(
        args.source, stream_name=args.stream, sampling_frequency=args.sampling_frequency, probe=args.probe
    )


def add_nwb_arguments(command: argparse.ArgumentParser) -> None:
    """Add the flags for the NWB file to write, and for its session."""
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
    """Add the flags for workers and progress."""
    command.add_argument("--n-jobs", type=int, default=-1, metavar="N", help="workers; default: one for each core")
    command.add_argument("--quiet", action="store_true", help="no progress, only results")


def iso_time(text: str) -> datetime:
    """Return the time of an ISO text."""
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like {EXAMPLE_TIME}") from error


def positive(kind: type) -> Callable[[str], float]:
    """Return a type for argparse: a positive number of a kind, int or float."""

    def read(text: str) -> float:
        if not (number := kind(text)) > 0:
            raise argparse.ArgumentTypeError(f"must be positive, not {text}")
        return number

    read.__name__ = kind.__name__  # for argparse's error when the text is no number
    return read


def read_json(path: Path, flag: str) -> Any:
    """Read the JSON file that a flag names."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{flag}: {path} is not a JSON file that can be read: {error}") from error


@contextmanager
def one_line_errors(parser: Parser, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors that tell of wrong input, or of a missing package, into one line and exit code 2.

    It is put around the reading and checking of input only: errors elsewhere are faults of dlvolt and keep their
    traceback.
    """
    expected: tuple[type[Exception], ...] = (ValueError, OSError, ImportError, *kinds)
    try:
        yield
    except expected as error:
        if parser.verbose:
            traceback.print_exception(error)
        parser.error(in_flags(error))


def in_flags(message: Exception | Warning | str) -> str:
    """Return a message of the Python functions with the flags in place of the names of arguments."""
    name, colon, rest = str(message).partition(":")
    text = f"{FLAGS.get(name, name)}{colon}{rest}"
    return text.replace("probe=", "--probe").replace("overwrite=True", "--overwrite")
