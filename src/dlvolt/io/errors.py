"""What readers raise where a file is not as it should be, as one ValueError that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_CHARACTERS = 300  # of the reader's own words


@contextmanager
def unreadable(argument: str, path: str | Path, reader: str) -> Iterator[None]:
    """Turn any error of another package's `reader` into a ValueError of one line that names the caller's `argument`.

    Readers check only what they need, and a damaged file may make them raise anything: a KeyError, an AttributeError,
    an AssertionError without a text.
    """
    try:
        yield
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if len(text) > MAX_CHARACTERS:
            text = f"{text[:MAX_CHARACTERS]} …"
        raise ValueError(
            f"{argument}: {reader} cannot read {path}, which may be damaged or not whole: {text}"
        ) from error


@contextmanager
def reading(path: Path, argument: str = "source") -> Iterator[None]:
    """Turn any error of NumPy, pandas, SciPy or tifffile for a bad file into a ValueError that names the file."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{argument}: {path} cannot be read as {path.suffix or 'TIFF'}: {error}") from error
