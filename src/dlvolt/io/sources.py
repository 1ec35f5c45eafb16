"""A recording from whatever the user has: Open Ephys folders, NWB files, SpikeInterface folders, plain trace files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import spikeinterface
from spikeinterface.core import BaseRecording
from spikeinterface.extractors import read_nwb_recording, read_nwb_timeseries
from spikeinterface.extractors.extractor_classes import NwbRecordingExtractor

from dlvolt.io.errors import unreadable
from dlvolt.io.nwb_files import find_groups, is_nwb, opened
from dlvolt.io.open_ephys import is_open_ephys, read_open_ephys
from dlvolt.io.probes import ProbeLike, attach_probe
from dlvolt.io.rigs import NEEDED, RAW_ENDINGS, find_readers, read_rig
from dlvolt.io.rois import is_positive
from dlvolt.io.streams import choose_stream
from dlvolt.io.trace_files import TRACE_SUFFIXES, TraceFileRecording
from dlvolt.io.voltage_imaging import read_voltage_imaging


def read_recording(
    source: str | Path, *, stream_name: str | None = None, probe: ProbeLike | None = None, reader: str | None = None
) -> BaseRecording:
    """Open a recording of electrodes, whichever of the known kinds its file or folder is.

    Parameters
    ----------
    source : path
        An Open Ephys folder, an NWB file with an ElectricalSeries, a folder saved by SpikeInterface, a file or folder
        of SpikeGLX, Intan, Blackrock, Plexon, Neuralynx, Maxwell, MEArec and others that Neo reads, or a raw file
        (``.bin``, ``.dat``, ``.raw``). Beside a raw file lies a JSON file of the same name that tells
        ``sampling_frequency`` (Hz), ``num_channels`` and ``dtype`` and may tell ``gain_to_uV``, ``offset_to_uV``,
        ``time_axis``, ``file_offset``, ``is_filtered`` and ``channel_ids``, as `spikeinterface.core.read_binary`
        takes them.
    stream_name : str, optional
        The stream, or the path of the ElectricalSeries (NWB), to read, or how its name ends; needed only where there
        are several.
    probe : Probe, ProbeGroup, path or str, optional
        The probe, see `dlvolt.io.attach_probe`. By default the source's own; where it has none with usable
        locations, a vertical line is assumed, with a warning.
    reader : str, optional
        The reader to take, as in SpikeInterface's ``read_…``, e.g. ``"spikeglx"``; needed only where it is not clear.

    Returns
    -------
    BaseRecording
        The recording, with a probe. The annotation ``reader`` names the function that read it.

    Raises
    ------
    FileNotFoundError
        If `source` does not exist.
    ValueError
        If `source` is of no known kind or cannot be read, or if `stream_name`, `probe` or `reader` does not fit.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"source: {source} does not exist.")
    candidates = find_readers(source)
    if reader is not None:
        recording = read_rig(source, candidates, stream_name=stream_name, reader=reader)
    elif source.is_dir() and is_open_ephys(source.absolute()):
        return read_open_ephys(source, stream_name=stream_name, probe=probe)
    elif candidates:
        recording = read_rig(source, candidates, stream_name=stream_name)
    elif source.is_file() or is_nwb(source):
        recording = _read_nwb(source, stream_name)
    else:
        recording = _load_spikeinterface(source, stream_name)
    attach_probe(recording, probe)
    return recording


def read_traces(
    source: str | Path,
    *,
    stream_name: str | None = None,
    sampling_frequency: float | None = None,
    probe: ProbeLike | None = None,
) -> BaseRecording:
    """Open traces that are read one by one: of ROIs, line scans or electrodes.

    Parameters
    ----------
    source : path
        An NWB file with a RoiResponseSeries or an ElectricalSeries, an Open Ephys folder, a folder saved by
        SpikeInterface, or a plain file, see `dlvolt.io.read_trace_file`.
    stream_name : str, optional
        The series (NWB), stream (Open Ephys) or array (``.npz``, ``.mat``) to read, or how its name ends; needed only
        where there are several.
    sampling_frequency : float, optional
        Samples per second; needed for plain files, which do not tell it, and for no others.
    probe : Probe, ProbeGroup, path or str, optional
        The probe, where the traces are those of electrodes, as for `read_recording`.

    Returns
    -------
    BaseRecording
        A channel for each trace. Only traces of electrodes have a probe. The annotation ``reader`` names the function
        that read them.

    Raises
    ------
    FileNotFoundError
        If `source` does not exist.
    ValueError
        If `source` is of no known kind or cannot be read, if `stream_name` or `probe` does not fit, or if the
        sampling frequency is missing, or given where the source tells it.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"source: {source} does not exist.")
    if source.suffix.lower() in TRACE_SUFFIXES and source.is_file():
        recording = TraceFileRecording(source, sampling_frequency, stream_name, argument="source")
        recording.annotate(reader="read_trace_file")
    elif sampling_frequency is not None:
        raise ValueError(f"sampling_frequency: {source} tells its own; leave it out.")
    elif source.is_file() or is_nwb(source):
        recording = _read_nwb_traces(source, stream_name)
    elif is_open_ephys(source.absolute()):
        return read_open_ephys(source, stream_name=stream_name, probe=probe)
    else:
        recording = _load_spikeinterface(source, stream_name)
    if probe is not None:
        attach_probe(recording, probe)
    return recording


def _read_nwb_traces(path: Path, stream_name: str | None) -> BaseRecording:
    if path.is_file() and not h5py.is_hdf5(path):
        kinds = ", ".join(TRACE_SUFFIXES)
        raise ValueError(f"source: {path} is neither an NWB file nor one of {kinds}.")
    with unreadable("source", path, "HDF5"), opened(path) as file:
        optical = list(find_groups(file, "RoiResponseSeries"))
        electrical = list(find_groups(file, "ElectricalSeries"))
    if not optical + electrical:
        raise ValueError(f"source: {path} has neither a RoiResponseSeries nor an ElectricalSeries.")
    listed = {name: f"'{name}'" for name in optical + electrical}
    stream_name = choose_stream(stream_name, listed, path, "several series")
    if stream_name in electrical:
        return _read_nwb(path, stream_name)
    try:
        return read_voltage_imaging(path, stream_name)
    except ValueError as error:  # which calls it path
        raise ValueError(re.sub("^path:", "source:", str(error))) from error


def _load_spikeinterface(folder: Path, stream_name: str | None) -> BaseRecording:
    # SpikeInterface's load() takes any folder for one of its own, and its error then names a missing file.
    if not (folder / "si_folder.json").is_file() and folder.suffix != ".zarr":
        raise ValueError(
            f"source: {folder} is neither an Open Ephys folder nor a recording saved by SpikeInterface, and no "
            "file in it is of a kind that Neo reads."
        )
    loaded = spikeinterface.load(folder)
    if not isinstance(loaded, BaseRecording):
        raise ValueError(f"source: {folder} holds a {type(loaded).__name__}, not a recording.")
    if stream_name is not None:
        raise ValueError(f"stream_name: {folder}, saved by SpikeInterface, has only one stream; leave it out.")
    loaded.annotate(reader="load")
    return loaded


def _read_nwb(path: Path, stream_name: str | None) -> BaseRecording:
    if not path.is_dir() and not h5py.is_hdf5(path):
        told = "is not an NWB file, nor of another kind that is known; name its reader, e.g. 'spikeglx'"
        if path.name.lower().endswith(RAW_ENDINGS):
            beside = path.with_suffix(".json").name
            told = f"is raw binary; write {beside} beside it with {', '.join(sorted(NEEDED))}, or name its reader"
        elif path.suffix.lower() in TRACE_SUFFIXES:
            told = (
                "holds plain traces, which dlvolt detect and dlvolt train take; to sort electrodes, save them as raw "
                "binary with a JSON file beside it, or by SpikeInterface"
            )
        raise ValueError(f"source: {path} {told}.")
    with unreadable("source", path, "HDF5"):
        series = NwbRecordingExtractor.fetch_available_electrical_series_paths(path)
    if not series:
        raise ValueError(
            f"source: {path} has no ElectricalSeries, so there is no recording of electrodes in it; for those of ROIs "
            "see read_voltage_imaging, or dlvolt detect."
        )
    listed = {name: f"'{name}'" for name in series}
    stream_name = choose_stream(stream_name, listed, path, "several ElectricalSeries")
    _check_electrical_series(path, stream_name)

    with unreadable("source", f"'{stream_name}' in {path}", "SpikeInterface"):
        if _locations_repeat(path, stream_name):
            recording = _read_nwb_without_locations(path, stream_name)
        else:
            recording = read_nwb_recording(path, electrical_series_path=stream_name)
        recording.get_traces(segment_index=0, start_frame=0, end_frame=1)
    if not recording.has_time_vector(segment_index=0):  # of Zarr, SpikeInterface has an array of one start
        recording.segments[0]._t_start = float(np.ravel(recording.get_start_time(segment_index=0))[0])
    recording.annotate(reader="read_nwb_recording")
    return recording


def _check_electrical_series(path: Path, name: str) -> None:
    """Raise an error that names an ElectricalSeries of an NWB file if it is not as NWB has it."""
    where = f"source: '{name}' in {path}"
    with unreadable("source", f"'{name}' in {path}", "HDF5 or Zarr"), opened(path) as file:
        series = file[name]
        data, electrodes = (series.get(part) for part in ("data", "electrodes"))
        start, timestamps = (series.get(part) for part in ("starting_time", "timestamps"))
        table = file.get("general/extracellular_ephys/electrodes/id")
        shape: tuple[int, ...] = data.shape if _kind(data) in tuple("iuf") else ()
        rows = electrodes[()] if _kind(electrodes) in tuple("iu") else None
        num_rows = table.shape[0] if _kind(table) and table.ndim == 1 else 0
        rate = start.attrs.get("rate") if _kind(start) else None
        num_times = len(timestamps) if _kind(timestamps) in tuple("iuf") and timestamps.ndim == 1 else None
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(f"{where} has no data of shape (time, electrode), or none that are numbers; mend the file.")
    if rows is None or rows.ndim != 1 or not num_rows or rows.min(initial=0) < 0 or rows.max(initial=0) >= num_rows:
        raise ValueError(f"{where} does not tell which rows of the electrodes table it is of; mend the file.")
    num_columns = shape[1] if len(shape) == 2 else 1
    if num_columns != len(rows):
        raise ValueError(
            f"{where} has {num_columns} columns of data for {len(rows)} electrodes; its data may be transposed."
        )
    if start is not None and not is_positive(rate):
        raise ValueError(f"{where} has a rate which is no positive number, {rate!r:.60}; mend the file.")
    if start is None and num_times != shape[0]:
        raise ValueError(
            f"{where} has neither a rate nor a timestamp for each of its {shape[0]} samples; mend the file."
        )


def _kind(item: Any) -> str:
    """Return the kind of a dataset's values as NumPy has it, ``"f"`` or ``"i"``, or ``""`` for a group or None."""
    return item.dtype.kind if hasattr(item, "dtype") else ""


def _locations_repeat(path: Path, series_path: str) -> bool:
    """Whether two electrodes of one group have the same location, as when unknown locations were written as 0."""
    with opened(path) as file:
        electrodes = file["general/extracellular_ephys/electrodes"]
        if "rel_x" not in electrodes or "rel_y" not in electrodes:
            return False
        names = ["rel_x", "rel_y"] + (["rel_z"] if "rel_z" in electrodes else [])
        columns = [electrodes[name][:] for name in names]
        _, group = np.unique(electrodes["group_name"][:], return_inverse=True)
        rows = np.stack([*columns, group], axis=1)[file[series_path]["electrodes"][:]]
    return len(np.unique(rows, axis=0)) < len(rows)


def _read_nwb_without_locations(path: Path, series_path: str) -> BaseRecording:
    """Read an ElectricalSeries as a plain time series, since SpikeInterface refuses electrodes at equal locations."""
    recording = read_nwb_timeseries(path, timeseries_path=series_path)
    with opened(path) as file:
        series = file[series_path]
        attributes = series["data"].attrs
        channel_conversion = series["channel_conversion"][:] if "channel_conversion" in series else 1.0
        gain_to_volts = attributes.get("conversion", 1.0) * channel_conversion
        offset_to_volts = attributes.get("offset", 0.0)
        electrodes = file["general/extracellular_ephys/electrodes"]
        names = electrodes["channel_name"] if "channel_name" in electrodes else electrodes["id"]
        names = names.asstr() if isinstance(names, h5py.Dataset) and names.dtype.kind == "O" else names
        channel_ids = names[:][series["electrodes"][:]]
    recording = recording.rename_channels(channel_ids)
    recording.set_channel_gains(gain_to_volts * 1e6)
    recording.set_channel_offsets(offset_to_volts * 1e6)
    return recording
