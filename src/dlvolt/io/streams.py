"""Which of several streams is meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class SeveralStreams(ValueError):
    """A source has several streams or series, and none was chosen.

    Parameters
    ----------
    what : str
        The argument that chooses and what there is, ``"stream_name: session.nwb has several series"``.
    streams : sequence of str
        Those to choose from: the name in quotes, and what else is known of it.

    Attributes
    ----------
    streams : list of str
        Those to choose from.
    """

    def __init__(self, what: str, streams: Sequence[str]) -> None:
        self.streams = list(streams)
        super().__init__(f"{what}; choose one of {'; '.join(self.streams)}.")


def find_stream(wanted: str, streams: Iterable[str]) -> str | None:
    """Find a stream by its name or by how the name ends.

    Parameters
    ----------
    wanted : str
        The name, or what follows a ``/`` or ``#`` in it: ``"B"`` for ``"acquisition/B"``.
    streams : iterable of str
        The names there are.

    Returns
    -------
    str or None
        The name in full, None if no stream or more than one is meant.
    """
    streams = list(streams)
    if wanted in streams:
        return wanted
    meant = [name for name in streams if name.endswith((f"/{wanted}", f"#{wanted}"))]
    return meant[0] if len(meant) == 1 else None
