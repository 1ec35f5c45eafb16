"""Which of several streams or series of a source is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np


class SeveralStreams(ValueError):
    """A source has several streams or series, and none was chosen.

    Parameters
    ----------
    problem : str
        The argument that chooses, and what is wrong: ``"stream_name: session.nwb has several series"``.
    streams : iterable of str
        The streams to choose from, the name of each in quotes and what else is known of it; kept as an attribute.
    """

    def __init__(self, problem: str, streams: Iterable[str]) -> None:
        self.streams = list(streams)
        super().__init__(f"{problem}; choose one of {'; '.join(self.streams)}.")


def streams_of_header(header: dict) -> dict[str, np.ndarray]:
    """Map the name of each signal stream of a Neo header to its channels."""
    channels = header["signal_channels"]
    return {stream["name"]: channels[channels["stream_id"] == stream["id"]] for stream in header["signal_streams"]}


def describe_streams(streams: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Map the name of each stream with channels to a text with its name, number of channels and sampling frequency."""
    return {
        name: f"'{name}' ({len(channels)} channels, {channels['sampling_rate'][0]:g} Hz)"
        for name, channels in streams.items()
        if len(channels)
    }


def find_stream(wanted: str, streams: Mapping[str, str], path: Path) -> str:
    """Return the full name of the stream with a name, or with a name that ends so after a ``/`` or ``#``.

    Parameters
    ----------
    wanted : str
        The name or its end: ``"B"`` for ``"acquisition/B"``.
    streams : mapping of str to str
        The name of each stream, and its description for the error.
    path : Path
        The file or folder, for the error.

    Raises
    ------
    ValueError
        If no stream or more than one is meant.
    """
    if wanted in streams:
        return wanted
    meant = [name for name in streams if name.endswith((f"/{wanted}", f"#{wanted}"))]
    if len(meant) != 1:
        listed = ", ".join(streams.values()) or "none"
        raise ValueError(f"stream_name: there is no '{wanted}' in {path}; it has {listed}.")
    return meant[0]
