"""Whatever a reader raises where a file is not as it should be, as one error in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_CHARACTERS = 300  # of the reader's own words


@contextmanager
def unreadable(argument: str, path: str | Path, reader: str) -> Iterator[None]:
    """Turn any error of somebody else's reader into a ValueError which names the file.

    Readers check what they need only, and a damaged file may make them raise anything: a KeyError, an AttributeError,
    an AssertionError without a text.

    Parameters
    ----------
    argument : str
        Of the caller, which is to be named: ``"source"``.
    path : path
        What is read, with the series where there is one.
    reader : str
        Who reads.

    Raises
    ------
    ValueError
        One line; the reader's own error is its cause.
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
