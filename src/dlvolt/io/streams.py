"""Which of several streams or series of a source is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording


class SeveralStreams(ValueError):
    """A source has several streams or series, and none was chosen; `streams` has the name of each, in quotes, first."""

    def __init__(self, problem: str, streams: Iterable[str]) -> None:
        self.streams = list(streams)
        super().__init__(f"{problem}; choose one of {'; '.join(self.streams)}.")


def neo_reader(extractor: type[BaseRecording], path: Path) -> Any:
    """Return Neo's reader of the files that one of SpikeInterface's readers takes, after it has read their header."""
    return extractor.get_neo_io_reader(extractor.NeoRawIOClass, **extractor.map_to_neo_kwargs(path))


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


def choose_stream(
    wanted: str | None,
    streams: Mapping[str, str],
    path: Path,
    problem: str,
    *,
    likely: Sequence[str] | None = None,
    argument: str = "stream_name",
) -> str:
    """Return the full name of the stream that is wanted, else of the only likely one; by default all are likely.

    `wanted` is a name or how it ends after a ``/`` or ``#``: ``"B"`` for ``"acquisition/B"``. `streams` maps each name
    to its description, and `problem` says what the file or folder has where it is not one likely stream.
    """
    if wanted is None:
        likely = list(streams) if likely is None else likely
        if len(likely) != 1:
            raise SeveralStreams(f"{argument}: {path} has {problem}", [streams[name] for name in likely or streams])
        return likely[0]
    wanted = wanted.strip("/")
    if wanted in streams:
        return wanted
    meant = [name for name in streams if name.endswith((f"/{wanted}", f"#{wanted}"))]
    if len(meant) != 1:
        told = f"{len(meant)} end with" if meant else "there is no"
        raise ValueError(f"{argument}: {told} '{wanted}' in {path}; it has {', '.join(streams.values()) or 'none'}.")
    return meant[0]
