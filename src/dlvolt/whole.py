"""Files and folders that are there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the place where a file or folder is to be written, beside its own, and move it there when it is whole.

    The place is in a hidden folder: on the same file system, and gone with all its content on failure.

    Parameters
    ----------
    path : Path
        Where it is to be; its folder exists. A file that is there is replaced.
    """
    with tempfile.TemporaryDirectory(prefix=".dlvolt-", dir=path.absolute().parent) as beside:
        made = Path(beside) / path.name
        yield made
        os.replace(made, path)


def check_new_folder(folder: Path, argument: str) -> None:
    """Raise where a folder is there already or cannot be made, before any work."""
    if folder.exists():
        raise FileExistsError(f"{argument}: {folder} exists; give the name of a new folder")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(f"{argument}: there is no folder {folder.absolute().parent} to put {folder.name} in")
