"""Checks, before the work, that the commands can write what they are to write."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlvolt.cli.arguments import EXAMPLE_TIME, read_json
from dlvolt.whole import check_new_folder, check_parent

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording


def nwb_destination(args: argparse.Namespace, recording: BaseRecording) -> dict[str, Any]:
    """Return the arguments of `write_nwb_units` for --out; raise if it could not write the file.

    An empty units table is written beside the file and deleted: what will not do must show before the sorting.
    """
    import numpy as np
    from spikeinterface.core.base import minimum_spike_dtype

    from dlvolt.io import write_nwb_units
    from dlvolt.io.nwb_files import is_nwb
    from dlvolt.io.nwb_units import check_target
    from dlvolt.sortings import as_sorting

    source = args.source if is_nwb(args.source) else None
    metadata = session_metadata(args, source, recording)
    check_target(args.out, source, args.overwrite)
    destination = dict(source=source, metadata=metadata, overwrite=args.overwrite)
    empty = as_sorting(np.zeros(0, minimum_spike_dtype), np.arange(0), recording, np.arange(0))
    empty.register_recording(recording)
    with tempfile.TemporaryDirectory(prefix=".dlvolt-", dir=args.out.absolute().parent) as folder:
        write_nwb_units(empty, Path(folder) / "empty.nwb", **destination)
    return destination


def session_metadata(
    args: argparse.Namespace, source: Path | None, recording: BaseRecording
) -> dict[str, dict[str, Any]]:
    """Return the metadata for `write_nwb_units`; raise if nothing tells when the session started."""
    given = {} if args.metadata is None else read_json(args.metadata, "--metadata")
    if not isinstance(given, dict) or not all(isinstance(part, dict) for part in given.values()):
        raise ValueError(f'--metadata: {args.metadata} must hold an object like {{"NWBFile": {{…}}, "Subject": {{…}}}}')
    flags = {name: getattr(args, name) for name in ("session_start_time", "session_description")}
    session = given.get("NWBFile", {}) | {name: value for name, value in flags.items() if value is not None}
    told = source is not None or recording.get_annotation("session_start_time") is not None
    if not told and "session_start_time" not in session:
        raise ValueError(
            f"--session-start-time: {args.source} does not tell when its session started, which NWB asks for; "
            f"give it, e.g. {EXAMPLE_TIME}"
        )
    return given | {"NWBFile": session}


def check_new_places(args: argparse.Namespace) -> None:
    """Raise if one of the folders cannot be made that are to be written beside the NWB file."""
    for flag in ("folder", "phy", "csv", "npy"):
        if getattr(args, flag, None) is not None:
            check_new_folder(getattr(args, flag), f"--{flag}")
    if args.report is None:
        return
    from dlvolt.reporting.page import check_page

    check_page(args.report, args.overwrite)
    check_parent(args.report, "--report")
