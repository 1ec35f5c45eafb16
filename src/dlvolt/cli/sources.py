"""What the commands read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording


def read_trace_source(args: argparse.Namespace) -> BaseRecording:
    """Open the source of a command that has the arguments of `add_trace_arguments`."""
    from dlvolt.io import read_traces

    return read_traces(
        args.source, stream_name=args.stream, sampling_frequency=args.sampling_frequency, probe=args.probe
    )


def what_is_read(source: Path, recording: BaseRecording) -> str:
    """Return a line that tells what was read, and by which reader."""
    from dlvolt.cli.describe import read_by

    of_segments = f", {recording.get_num_segments()} segments" if recording.get_num_segments() > 1 else ""
    return (
        f"{source} by {read_by(recording)}: "
        f"{recording.get_num_channels()} channels, {recording.sampling_frequency:g} Hz, "
        f"{recording.get_total_duration():.1f} s{of_segments}"
    )
