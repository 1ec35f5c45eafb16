"""Recordings made with the Open Ephys GUI, in its binary and its legacy format."""

from __future__ import annotations

import json
import os
import re
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from neo.rawio.openephysrawio import RECORD_SIZE, OpenEphysRawIO
from spikeinterface.core import BaseRecording, append_recordings
from spikeinterface.extractors.extractor_classes import (
    OpenEphysBinaryRecordingExtractor,
    OpenEphysLegacyRecordingExtractor,
)

from dlvolt.io.errors import unreadable
from dlvolt.io.probes import ProbeLike, attach_probe
from dlvolt.io.streams import choose_stream, describe_streams, neo_reader, streams_of_header

# Analog inputs, headstage accelerometers and sync lines, e.g. ADC1, A1_AUX2, AP_SYNC.
_AUXILIARY = re.compile(r"(^|_)(ADC|AUX|SYNC)\d*$", re.IGNORECASE)
_SOFTWARE_TIME = re.compile(r"milliseconds since midnight Jan 1st 1970 UTC\):\s*(\d+)")
_SETTINGS_DATE = re.compile(r"<DATE>(\d+ \w+ \d+ \d+:\d+:\d+)</DATE>")


def read_open_ephys(
    folder: str | Path, *, stream_name: str | None = None, probe: ProbeLike | None = None
) -> BaseRecording:
    """Read an Open Ephys recording, binary or legacy.

    Parameters
    ----------
    folder : path
        Any folder of the recording's tree: the session, a Record Node, an experiment or a recording. The
        recordings of one experiment become the segments. The legacy format is also split into segments where its
        timestamps have gaps, with a warning.
    stream_name : str, optional
        The continuous stream to read; needed only where there are several neural ones.
    probe : Probe, ProbeGroup, path or str, optional
        The probe, see `dlvolt.io.attach_probe`. By default the one in the settings file (Neuropixels); else
        a vertical line is assumed, with a warning.

    Returns
    -------
    BaseRecording
        The N neural channels of the stream, without ADC and AUX channels. Where the files tell when the
        recording started, the annotations ``session_start_time`` and ``timestamps_reference_time`` (when
        the recording's time zero was) hold it in ISO format, with a UTC offset only if the files give one.

    Raises
    ------
    FileNotFoundError
        If `folder` does not exist.
    ValueError
        If `folder` is not one Open Ephys recording that can be read, or if `stream_name` or `probe` does not fit.
    """
    extractor_class, folder = _locate(folder)
    _check_structure(folder)
    with unreadable("folder", folder, "Neo"):
        reader = neo_reader(extractor_class, folder)
    stream_name = _choose_stream(streams_of_header(reader.header), stream_name, folder)

    with unreadable("folder", folder, "Neo"):
        recording = extractor_class(folder, stream_name=stream_name)
    settings_file = _settings_file(reader, folder, stream_name)
    names = recording.get_property("channel_name")
    auxiliary = [i for i, name in zip(recording.channel_ids, names, strict=True) if _AUXILIARY.search(name)]
    if len(auxiliary) < recording.get_num_channels():  # a stream of ADC channels asked for by name stays whole
        recording = recording.remove_channels(auxiliary)
    if extractor_class is OpenEphysLegacyRecordingExtractor:
        recording = _without_gaps(recording, reader, folder)

    _start_at_zero(recording, folder)
    start = _start_of_recording(settings_file, folder)
    if start is not None:
        time_zero = start - timedelta(seconds=float(recording.get_start_time(segment_index=0)))
        recording.annotate(session_start_time=start.isoformat(), timestamps_reference_time=time_zero.isoformat())
    recording.annotate(reader="read_open_ephys")
    attach_probe(recording, probe)
    return recording


def _check_structure(folder: Path) -> None:
    """Raise if a ``structure.oebin`` lacks what Neo asks for."""
    for oebin in sorted(folder.rglob("structure.oebin")):
        try:
            structure = json.loads(oebin.read_text(encoding="utf8"))
        except ValueError as error:
            raise ValueError(f"folder: {oebin} is no JSON, so it may not be whole: {error}.") from error
        if not isinstance(structure, dict) or "continuous" not in structure:
            raise ValueError(f"folder: {oebin} has no entry 'continuous', so it tells of no recorded channels.")
        if "events" not in structure and (oebin.parent / "events").exists():
            raise ValueError(
                f"folder: {oebin} has no entry 'events', for which Neo looks as there is a folder of this name; add "
                '"events": [] to the file, or take the folder away.'
            )


def _without_gaps(recording: BaseRecording, reader: OpenEphysRawIO, folder: Path) -> BaseRecording:
    """Split the segments of a legacy recording at the gaps in its timestamps.

    Neo fills gaps with zeros, and fails on chunks that begin or end in one.
    """
    stretches, num_gaps, lost_samples = [], 0, 0
    for segment in range(recording.get_num_segments()):
        at, whole = 0, recording.select_segments([segment])
        for first, last in _gaps([records["timestamp"] for records in reader._sigs_memmap[segment].values()]):
            num_gaps, lost_samples = num_gaps + (last > at), lost_samples + max(0, last - max(at, first))
            if first > at:
                stretches.append(whole.frame_slice(at, first))
            at = max(at, last)
        stretches.append(whole.frame_slice(at, whole.get_num_samples()) if at else whole)
    if not num_gaps:
        return recording
    warnings.warn(
        f"The timestamps of {folder} have {num_gaps} gaps, of {lost_samples / recording.sampling_frequency:.3g} s in "
        "all; each stretch between them is a segment.",
        stacklevel=3,
    )
    return append_recordings(stretches)


def _gaps(timestamps: list[np.ndarray]) -> list[tuple[int, int]]:
    """List the gaps in the timestamps of the records of each channel: the first sample of each, and that after it."""
    gaps = set()
    for of_channel in timestamps:
        starts = np.asarray(of_channel - of_channel[0])
        before = np.flatnonzero(np.diff(starts) > RECORD_SIZE)
        gaps |= set(zip((starts[before] + RECORD_SIZE).tolist(), starts[before + 1].tolist(), strict=True))
    return sorted(gaps)


def _start_at_zero(recording: BaseRecording, folder: Path) -> None:
    """Start segments at 0 s whose timestamps are negative, as the -1 that a lost clock gives."""
    for segment in range(recording.get_num_segments()):
        start = recording.get_start_time(segment_index=segment)
        if start < 0:
            recording.shift_times(-start, segment_index=segment)
            warnings.warn(
                f"The timestamps of segment {segment} of {folder} start at {start:.3g} s, as where the rig lost its "
                "clock; its time is counted from its first sample.",
                stacklevel=3,
            )


def is_open_ephys(folder: Path) -> bool:
    """Whether there is an Open Ephys recording, binary or legacy, in or right above a folder."""
    return bool(_binary_recordings(folder)) or any(folder.rglob("*.continuous"))


def _binary_recordings(folder: Path) -> list[Path]:
    """List the recording folders in a folder, or else the one in which it lies (``recording1/continuous/…``)."""
    recordings = sorted(oebin.parent for oebin in folder.rglob("structure.oebin"))
    return recordings or [up for up in folder.parents[:2] if (up / "structure.oebin").is_file()]


def _locate(folder: str | Path) -> tuple[type[BaseRecording], Path]:
    """Return the reader for the format of a folder, and the folder of the same tree that this reader takes."""
    folder = Path(os.path.abspath(folder))  # its parents are looked at; resolve() would lose symlinked names
    if not folder.exists():
        raise FileNotFoundError(f"folder: {folder} does not exist.")
    if not folder.is_dir():
        raise ValueError(f"folder: {folder} is a file; give the Open Ephys folder which holds it.")

    binary = _binary_recordings(folder)
    legacy = sorted({file.parent for file in folder.rglob("*.continuous")})
    if not binary and not legacy:
        raise ValueError(
            f"folder: {folder} is not an Open Ephys recording: there is neither a structure.oebin (binary "
            "format) nor a .continuous file (legacy format) in it."
        )
    sessions = sorted({_session_folder(recording) for recording in binary}) + legacy
    if len(sessions) > 1:
        raise ValueError(f"folder: {folder} holds several recordings; give one of {_quoted(sessions)}.")
    experiments = sorted({recording.parent for recording in binary})
    if len({experiment.name for experiment in experiments}) > 1:
        raise ValueError(f"folder: {folder} holds several experiments; give one of {_quoted(experiments)}.")
    if legacy:
        return OpenEphysLegacyRecordingExtractor, legacy[0]
    return OpenEphysBinaryRecordingExtractor, folder if folder in binary[0].parents else binary[0]


def _session_folder(recording_folder: Path) -> Path:
    """``session/[Record Node 101/]experiment1/recording1`` -> ``session``."""
    node = recording_folder.parents[1]
    return node.parent if node.name.startswith("Record") else node


def _quoted(items: list) -> str:
    return ", ".join(f"'{item}'" for item in items)


def _choose_stream(streams: dict[str, np.ndarray], stream_name: str | None, folder: Path) -> str:
    """Return the full name of the stream that is asked for, else that of the only neural one."""
    described = describe_streams(streams)
    neural = [name for name in described if _is_neural(name, streams[name])]
    if stream_name is None and not neural:
        all_streams = "; ".join(described.values()) or "none"
        raise ValueError(f"folder: {folder} has no stream of neural channels; its streams are {all_streams}.")
    return choose_stream(stream_name, described, folder, "several neural streams", likely=neural)


def _is_neural(name: str, channels: np.ndarray) -> bool:
    return "NI-DAQmx" not in name and not all(_AUXILIARY.search(channel) for channel in channels["name"])


def _settings_file(reader: object, folder: Path, stream_name: str) -> Path:
    if not hasattr(reader, "folder_structure"):  # legacy
        return folder / "settings.xml"
    node, _, _ = stream_name.rpartition("#")
    (experiment,) = reader.folder_structure[node]["experiments"].values()
    return Path(experiment["settings_file"])


def _start_of_recording(settings_file: Path, folder: Path) -> datetime | None:
    """Return when recording started: in UTC by the messages of the GUI (0.6 on), else in local time by its settings."""
    for messages in sorted(folder.rglob("sync_messages.txt")):
        if found := _SOFTWARE_TIME.search(messages.read_text(encoding="utf8")):
            return datetime.fromtimestamp(int(found[1]) / 1000, tz=timezone.utc)
    if settings_file.is_file() and (found := _SETTINGS_DATE.search(settings_file.read_text(encoding="utf8"))):
        return datetime.strptime(found[1], "%d %b %Y %H:%M:%S")
    return None
