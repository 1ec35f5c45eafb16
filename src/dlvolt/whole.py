"""Files and folders that are written as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path for a file or folder, and move what was written there to `path` when it is whole.

    The temporary path is in a hidden folder beside `path`: on the same file system, and deleted with all its content
    on failure. A file that is at `path` is replaced.
    """
    with tempfile.TemporaryDirectory(prefix=".dlvolt-", dir=path.absolute().parent) as beside:
        made = Path(beside) / path.name
        yield made
        os.replace(made, path)


def check_parent(path: Path, argument: str) -> None:
    """Raise if there is no folder to put a file or folder in."""
    parent = path.absolute().parent
    if not parent.is_dir():
        raise FileNotFoundError(f"{argument}: there is no folder {parent} to put {path.name} in")


def check_new_folder(folder: Path, argument: str) -> None:
    """Raise if a folder exists already or cannot be made, before any work."""
    if folder.exists():
        raise FileExistsError(f"{argument}: {folder} exists; give the name of a new folder")
    check_parent(folder, argument)
