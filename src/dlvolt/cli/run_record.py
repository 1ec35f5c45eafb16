"""The record of a run: ``run.json``, by which it can be repeated, and ``log.txt``, what it printed."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import dlvolt
from dlvolt.cli.arguments import read_json

PACKAGES = ("spikeinterface", "neo", "probeinterface", "numpy", "scipy", "torch", "pynwb", "numba")


def versions() -> dict[str, str]:
    """Return the versions of dlvolt, of Python and of the packages on which its results depend."""
    return {"dlvolt": dlvolt.__version__, "python": platform.python_version()} | {
        package: version(package) for package in PACKAGES
    }


class Tee:
    """A stream that writes to the screen and, except for progress bars, to a log."""

    def __init__(self, screen: TextIO, log: TextIO) -> None:
        self.screen, self.log, self.in_line = screen, log, False

    def write(self, text: str) -> int:
        """Write to both."""
        if "\r" not in text and "\x1b" not in text and (text.strip() or self.in_line):
            self.log.write(text)
            self.in_line = not text.endswith("\n")
        return self.screen.write(text)

    def flush(self) -> None:
        """Flush both."""
        self.log.flush()
        self.screen.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.screen, name)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what is printed also to a file, in a folder that exists."""
    with (
        path.open("w", encoding="utf-8") as log,
        redirect_stdout(Tee(sys.stdout, log)),
        redirect_stderr(Tee(sys.stderr, log)),
    ):
        yield


def write_record(folder: Path, **entries: Any) -> dict[str, Any]:
    """Write ``run.json``, by which ``dlvolt sort --params`` repeats a run, and return what is in it."""
    record = entries | {
        "versions": versions(),
        "platform": platform.platform(),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    (folder / "run.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    return record


def read_parameters(path: Path, known: list[str]) -> dict[str, Any]:
    """Return the parameters in a ``run.json``, or in a JSON file of parameters alone."""
    given = read_json(path, "--params")
    if isinstance(given, dict) and isinstance(given.get("parameters"), dict):
        given = given["parameters"]
    if not isinstance(given, dict):
        raise ValueError(f"--params: {path} must hold an object of parameters, as the run.json of a run's folder")
    if unknown := set(given) - set(known):
        raise ValueError(f"--params: {path} has {', '.join(sorted(unknown))}; the parameters are {', '.join(known)}")
    return given
