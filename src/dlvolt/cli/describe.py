"""What is in a source, and what would be done with it: the text of ``dlvolt info``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording

from dlvolt.parameters import SorterParameters
from dlvolt.preprocessing.spike_rate import MODEL as MODEL_OF_CALCIUM
from dlvolt.sorter import check, choose_modality


def describe(recording: BaseRecording, source: Path, assumed_probe: bool) -> str:
    """Return lines that tell what a recording is and what ``dlvolt sort`` or ``dlvolt detect`` would do with it.

    The probe may be an assumed one, if the source has none.
    """
    modality = choose_modality(recording)
    ids = recording.channel_ids
    lengths = [recording.get_duration(segment_index=segment) for segment in range(recording.get_num_segments())]
    lines = {
        "source": str(source),
        "read by": read_by(recording),
        "channels": f"{len(ids)} ({ids[0]} to {ids[-1]}), {recording.get_dtype()}",
        "sampling": f"{recording.sampling_frequency:g} Hz",
        "duration": f"{sum(lengths):.2f} s"
        + (f" in {len(lengths)} segments: {', '.join(f'{length:.2f}' for length in lengths)}" if lengths[1:] else ""),
        "first sample at": f"{recording.get_start_time(segment_index=0):g} s",
    }
    if modality == "extracellular":  # fluorescence has neither, and needs none
        lines |= {"microvolts": _scale(recording), "probe": _probe(recording, assumed_probe)}
    lines["session start"] = recording.get_annotation("session_start_time") or "not told; NWB asks for it"
    lines["would be done"] = _plan(recording, modality)
    return _aligned(lines)


def list_streams(source: Path, streams: Sequence[str]) -> str:
    """Return lines that tell which streams a source has if it has several."""
    return _aligned(
        {
            "source": str(source),
            "streams": "\n".join(streams),
            "would be done": f"nothing yet: choose one of the {len(streams)} streams with --stream",
        }
    )


def _aligned(lines: dict[str, str]) -> str:
    """Return a column of names and beside it their texts, which may have several lines."""
    width = max(map(len, lines)) + 2
    return "\n".join(f"{name:<{width}}{text}".replace("\n", "\n" + " " * width) for name, text in lines.items())


def read_by(recording: BaseRecording) -> str:
    """Return the reader of a recording, and the stream if the reader knows several."""
    stream = recording.get_annotation("reader_stream") or recording.get_annotation("nwb_series")
    reader = recording.get_annotation("reader") or type(recording).__name__
    return f"{reader}, stream '{stream}'" if stream else reader


def what_is_read(source: Path, recording: BaseRecording) -> str:
    """Return a line that tells what was read, and by which reader."""
    of_segments = f", {recording.get_num_segments()} segments" if recording.get_num_segments() > 1 else ""
    return (
        f"{source} by {read_by(recording)}: "
        f"{recording.get_num_channels()} channels, {recording.sampling_frequency:g} Hz, "
        f"{recording.get_total_duration():.1f} s{of_segments}"
    )


def _scale(recording: BaseRecording) -> str:
    if not recording.has_scaleable_traces():
        return "the source does not tell its gain; spikes are found all the same"
    gains = np.unique(np.round(recording.get_channel_gains(), 6))
    return f"{', '.join(f'{gain:g}' for gain in gains[:3])} for each digit"


def _probe(recording: BaseRecording, assumed: bool) -> str:
    if not recording.has_probe():
        return "none"
    locations = recording.get_channel_locations()  # (N, 2 or 3), µm
    extent = " × ".join(f"{span:g}" for span in np.ptp(locations, axis=0))
    names = sorted({str(probe.model_name or probe.name or "of unknown model") for probe in recording.get_probes()})
    groups = len(np.unique(recording.get_channel_groups()))
    told = " (assumed: a vertical line; give --probe)" if assumed else ""
    return f"{', '.join(names)}, {groups} group(s), {extent} µm{told}"


def _plan(recording: BaseRecording, modality: str) -> str:
    problem = _problem(recording, modality=modality)
    if problem and modality == "optical" and not _problem(recording, modality="optical", model=MODEL_OF_CALCIUM):
        return (
            f"dlvolt detect --model {MODEL_OF_CALCIUM}, if these are traces of calcium: a rate and spikes for each "
            f"of the {recording.get_num_channels()}; for spikes of voltage the frame rate is too low"
        )
    if problem:
        return f"nothing yet: {problem}"
    if modality == "optical":
        return f"dlvolt detect: a unit for each of the {recording.get_num_channels()} traces, by a neural network"
    from dlvolt.electrodes.motion import why_not
    from dlvolt.electrodes.stages import MIN_CHANNELS_FOR_REFERENCE

    referenced = recording.get_num_channels() >= MIN_CHANNELS_FOR_REFERENCE
    reason = why_not(recording)
    return (
        "dlvolt sort: filter from 300 Hz, "
        + ("subtract the median over channels, " if referenced else "")
        + "whiten, cluster peaks, learn templates, deconvolve; drift is "
        + (f"not followed, as {reason}" if reason else "followed where it is seen")
    )


def _problem(recording: BaseRecording, **parameters: Any) -> str:
    """Return why a recording cannot be sorted with some parameters, or "" if it can."""
    try:
        check(recording, SorterParameters(**parameters))
    except (ValueError, OSError) as error:
        return str(error).removeprefix("recording: ")
    return ""
