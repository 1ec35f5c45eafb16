"""``dlvolt demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dlvolt.cli.arguments import Commands, Parser, add_job_arguments, positive


def add_command(commands: Commands) -> None:
    """Add ``dlvolt demo`` and its flags."""
    command = commands.add_parser(
        "demo",
        help="sort a simulated recording and show how right that is",
        description="Simulate one minute of 18 units on 32 channels, sort it, compare with the truth, and write an "
        "NWB file and a figure.",
    )
    command.set_defaults(run=demo)
    command.add_argument("--out", type=Path, default=Path("dlvolt_demo"), metavar="FOLDER", help="default: dlvolt_demo")
    command.add_argument("--duration", type=positive(float), default=60.0, metavar="SECONDS", help="default: 60")
    add_job_arguments(command)


def demo(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt demo``."""
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out: {args.out} is a file; give the name of a folder")
    from dlvolt.cli.run_demo import run_demo

    run_demo(args.out, duration_s=args.duration, n_jobs=args.n_jobs, verbose=not args.quiet)
