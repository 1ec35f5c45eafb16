"""``dlvolt info``."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from dlvolt.cli.arguments import (
    Commands,
    Parser,
    add_recording_arguments,
    one_line_errors,
    positive,
    read_trace_source,
)


def add_command(commands: Commands) -> None:
    """Add ``dlvolt info`` and its flags."""
    command = commands.add_parser(
        "info",
        usage="dlvolt info SOURCE [options]",
        help="tell what is in a file or folder and what would be done with it",
        description="Tell the streams, channels, duration and probe of a recording, and what dlvolt would do with it.",
    )
    command.set_defaults(run=info)
    add_recording_arguments(command)
    command.add_argument(
        "--sampling-frequency", type=positive(float), metavar="HZ", help="of traces in .npy, .npz, .csv and .mat files"
    )


def info(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt info``: read plain traces and NWB files of ROIs as ``detect`` does, all else as ``sort`` does."""
    from dlvolt.cli.describe import describe, list_streams
    from dlvolt.io import read_recording
    from dlvolt.io.streams import SeveralStreams
    from dlvolt.io.trace_files import TRACE_SUFFIXES

    with warnings.catch_warnings(record=True) as caught, one_line_errors(parser):
        warnings.simplefilter("always")
        try:
            if args.source.suffix.lower() in TRACE_SUFFIXES or of_rois_only(args.source):
                recording = read_trace_source(args)
            else:
                recording = read_recording(args.source, stream_name=args.stream, probe=args.probe, reader=args.reader)
        except SeveralStreams as error:
            print(list_streams(args.source, error.streams))
            return
    print(describe(recording, args.source, any("No probe" in str(one.message) for one in caught)))


def of_rois_only(source: Path) -> bool:
    """Whether a source is an NWB file with series of ROIs and none of electrodes, or any NWB file in Zarr."""
    from dlvolt.io.nwb_files import find_groups, is_nwb, is_zarr, opened

    if not is_nwb(source):
        return False
    if is_zarr(source):
        return True
    with opened(source) as file:
        return bool(find_groups(file, "RoiResponseSeries")) and not find_groups(file, "ElectricalSeries")
