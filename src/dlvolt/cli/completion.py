"""``dlvolt completion``."""

from __future__ import annotations

import argparse

from dlvolt.cli.arguments import Commands, Parser


def add_command(commands: Commands) -> None:
    """Add ``dlvolt completion`` and its flags."""
    command = commands.add_parser(
        "completion",
        help="print a script that completes commands and flags in a shell",
        description="Print what a shell sources to complete dlvolt's commands and flags; needs the package shtab.",
        epilog="Example: dlvolt completion bash > ~/.local/share/bash-completion/completions/dlvolt",
    )
    command.set_defaults(run=completion, verbose=False)
    command.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def completion(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt completion``."""
    try:
        import shtab
    except ImportError:
        parser.error("completion: needs the package shtab; pip install shtab")
    print(shtab.complete(parser, args.shell))
