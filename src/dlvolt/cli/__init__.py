"""The command line: ``dlvolt sort``, ``detect``, ``train``, ``evaluate``, ``info``, ``demo`` and ``completion``.

Exit codes: 0, done; 1, failed, by no fault of the input; 2, the arguments or their files will not do, with one line
that says why; 130, stopped by Ctrl-C.

Each command is a file: `add_command` adds its flags, and a function of its name runs it. These functions import what
needs SpikeInterface, so that ``--help`` does not wait for it.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from dlvolt import __version__
from dlvolt.cli import completion, demo, detect, evaluate, info, sort, train
from dlvolt.cli.arguments import ELECTRODE_PARAMETERS, Parser, in_flags, one_line_errors
from dlvolt.cli.interrupt import in_one_line
from dlvolt.cli.run_record import read_parameters


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the ``dlvolt`` command with these arguments, by default those of the process."""
    parser = make_parser()
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}; {meant(parser, args.command, unknown)}")
    parser.verbose = args.verbose
    if "source" in args and not args.source.exists():  # checked first, as the readers take seconds to import
        parser.error(f"SOURCE: {args.source} does not exist.")
    args.arguments = list(sys.argv[1:] if arguments is None else arguments)
    if getattr(args, "params", None) is not None:
        with one_line_errors(parser):
            parser.commands[args.command].set_defaults(**read_parameters(args.params, ELECTRODE_PARAMETERS))
        args = parser.parse_args(arguments, argparse.Namespace(arguments=args.arguments))
    with warnings.catch_warnings():
        if not args.verbose:
            warnings.filterwarnings("ignore", module="spikeinterface")  # they are about its Python interface
            logging.getLogger("neo").setLevel(logging.ERROR)  # Neo warns each time a file is opened
        args.warned = []
        warnings.showwarning = partial(warn, args.warned)
        with in_one_line():
            args.run(parser, args)


def warn(warned: list[str], message: Warning | str, *_: Any) -> None:
    """Print a warning in one line, and add it to a list."""
    warned.append(in_flags(message))
    print(f"dlvolt: warning: {warned[-1]}", file=sys.stderr)


def meant(parser: Parser, command: str, unknown: Sequence[str]) -> str:
    """Return a hint at the flags that may have been meant by unknown arguments."""
    flags = [flag for action in parser.commands[command]._actions for flag in action.option_strings]
    close = [get_close_matches(word.partition("=")[0], flags, n=1) for word in unknown if word.startswith("--")]
    if any(close):
        return f"did you mean {', '.join(flag for found in close for flag in found)}?"
    return f"'dlvolt {command} --help' lists those there are"


def make_parser() -> Parser:
    """Return the parser of the command line, in which each sorter parameter is a flag."""
    parser = Parser(
        "dlvolt",
        description="Spike sorting and spike detection for SpikeInterface and NWB.",
        epilog="Exit codes: 0 done; 1 failed; 2 the arguments or their files will not do; 130 stopped by Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"dlvolt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in (sort, detect, train, evaluate, info, demo):
        command.add_command(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--verbose", action="store_true", help="also warnings of libraries, and where errors arose"
        )
    completion.add_command(commands)
    parser.commands = commands.choices
    return parser
