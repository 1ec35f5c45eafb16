"""What a new NWB file needs besides its data: the session, the subject, the devices and the electrodes."""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from hdmf.backends.io import HDMFIO
from hdmf.common import DynamicTable, VectorData, VectorIndex
from hdmf.utils import get_docval
from pynwb import NWBHDF5IO, H5DataIO, NWBFile
from pynwb.core import NWBContainer
from pynwb.device import Device, DeviceModel
from pynwb.ecephys import ElectrodeGroup, ElectrodesTable
from pynwb.file import Subject
from spikeinterface.core import BaseRecording, SortingAnalyzer

import dlvolt
from dlvolt.io.nwb_files import is_zarr

SESSION_FIELDS = (
    "session_description",
    "session_start_time",
    "timestamps_reference_time",
    "session_id",
    "experimenter",
    "experiment_description",
    "institution",
    "lab",
    "keywords",
    "notes",
    "pharmacology",
    "protocol",
    "related_publications",
    "slices",
    "data_collection",
    "surgery",
    "virus",
    "stimulus_notes",
)
METADATA = ("NWBFile", "Subject", "ElectrodeGroup")
TIME_FIELDS = ("session_start_time", "timestamps_reference_time")


def open_source(path: str | Path) -> HDMFIO:
    """Open an NWB file to read, HDF5 or, where hdmf-zarr is installed, Zarr."""
    if not is_zarr(Path(path)):
        return NWBHDF5IO(str(path), "r")
    try:
        from hdmf_zarr import NWBZarrIO
    except ImportError as error:
        raise ImportError(f"source: to read {path}, a Zarr folder, run: pip install hdmf-zarr") from error
    return NWBZarrIO(str(path), mode="r")


def check_session(source_file: NWBFile, recording: BaseRecording) -> None:
    """Raise if the recording is annotated as one of another NWB file."""
    identifier = recording.get_annotation("nwb_identifier")
    if identifier is not None and identifier != source_file.identifier:
        raise ValueError(
            f"source: is the NWB file '{source_file.identifier}', and the recording is of '{identifier}'; give the NWB "
            "file of this recording."
        )


def new_file(
    source_file: NWBFile | None, recording: BaseRecording | None, metadata: dict[str, dict[str, Any]]
) -> NWBFile:
    """Return a new file with the session and subject of the source or else the recording, overridden by metadata."""
    if unknown := set(metadata) - set(METADATA):
        raise ValueError(f"metadata: has {sorted(unknown)}; its keys are {', '.join(map(repr, METADATA))}.")

    session: dict[str, Any] = {"session_description": "Units found by spike sorting or spike detection."}
    if source_file is not None:
        session |= {name: source_file.fields.get(name) for name in SESSION_FIELDS}
    elif recording is not None:
        session |= {name: recording.get_annotation(name) for name in TIME_FIELDS}
    session = {name: _in_memory(value) for name, value in session.items() if value is not None}
    session = _override(session, metadata.get("NWBFile", {}))
    if "session_start_time" not in session:
        raise ValueError(
            "metadata: an NWB file needs the time at which its session started, and the recording does not "
            'tell; give metadata={"NWBFile": {"session_start_time": "2024-05-31T14:30:00+02:00"}}, or the '
            "NWB file of the recording as source."
        )
    session.setdefault("was_generated_by", [["dlvolt", dlvolt.__version__]])
    nwbfile = NWBFile(**{"identifier": str(uuid.uuid4())} | session)

    subject = metadata.get("Subject", {})
    if "date_of_birth" in subject:
        subject = subject | {"date_of_birth": _as_time(subject["date_of_birth"])}
    if source_file is not None and source_file.subject is not None:
        nwbfile.subject = copy_container(source_file.subject, Subject, **subject)
    elif subject:
        nwbfile.subject = Subject(**subject)
    return nwbfile


def _override(session: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Override fields of a session; another start time moves the reference time of its timestamps along with it."""
    known, given = (
        {name: _as_time(value) if name in TIME_FIELDS else value for name, value in fields.items()}
        for fields in (session, given)
    )
    merged = known | given
    if "session_start_time" in given and TIME_FIELDS[1] in known and TIME_FIELDS[1] not in given:
        time_zero_after_start = known["timestamps_reference_time"] - known["session_start_time"]
        merged["timestamps_reference_time"] = given["session_start_time"] + time_zero_after_start
    return merged


def _as_time(value: datetime | str) -> datetime:
    time = pd.Timestamp(value).to_pydatetime()  # pandas reads every ISO form, unlike Python 3.10
    return time if time.tzinfo is not None else time.astimezone()


def _in_memory(value: Any) -> Any:
    return list(value[:]) if isinstance(value, h5py.Dataset) else value


def copy_container(container: NWBContainer, cls: type[NWBContainer], **replaced: Any) -> NWBContainer:
    """Return a copy of a container of another file as the core type `cls`, without the fields of extensions."""
    arguments = {argument["name"] for argument in get_docval(cls.__init__)}
    fields = {"name": container.name} | dict(container.fields)
    known = {name: _in_memory(v) for name, v in fields.items() if name in arguments and v is not None}
    # Built as pynwb builds what it reads: only so does it accept the deprecated fields of old files.
    copied = NWBContainer.__new__(cls, in_construct_mode=True)
    copied.__init__(**known | replaced)
    copied._in_construct_mode = False
    return copied


def copy_rows(table: DynamicTable, **replaced: Any) -> dict[str, Any]:
    """Return the rows of a table of another file as arguments for a new one, with the data of some columns replaced."""
    columns: dict[str, VectorData] = {}
    for column in reversed(table.columns):  # the target of an index comes after it
        if isinstance(column, VectorIndex):
            target = columns[column.target.name]
            copied = VectorIndex(name=column.name, data=np.asarray(column.data[:]), target=target)
        else:
            data = replaced[column.name] if column.name in replaced else _to_copy(column.data)
            copied = VectorData(name=column.name, description=column.description, data=data)
        columns[column.name] = copied
    return {"id": np.asarray(table.id[:]), "columns": list(columns.values()), "colnames": table.colnames}


def _to_copy(data: Any) -> Any:
    """Return the data of a column; masks in HDF5, which may be gigabytes, are left to HDF5 to copy."""
    is_mask = isinstance(data, h5py.Dataset) and (
        data.dtype.kind == "V" or (data.dtype.kind in "biuf" and data.ndim > 1)
    )
    return H5DataIO(data, link_data=False) if is_mask else data[:]


def carry_devices(source_file: NWBFile, nwbfile: NWBFile) -> None:
    """Copy the devices and their models from one file to another."""
    for model in source_file.device_models.values():
        nwbfile.add_device_model(copy_container(model, DeviceModel))
    for device in source_file.devices.values():
        model = device.fields.get("model")
        replaced = {"model": nwbfile.device_models[model.name]} if model is not None else {}
        nwbfile.add_device(copy_container(device, Device, **replaced))


def add_electrodes(
    nwbfile: NWBFile,
    source_file: NWBFile | None,
    channels: BaseRecording | SortingAnalyzer | None,
    group_metadata: dict[str, str],
) -> np.ndarray | None:
    """Add electrode groups and electrodes to a file: those of the source, or else those of the channels' probe.

    The return value is the row of each of the N channels in the electrodes table, or None if there are no channels or
    they have no probe.
    """
    if source_file is not None:
        _carry_electrodes(source_file, nwbfile)
    if channels is None or (isinstance(channels, BaseRecording) and not channels.has_probe()):
        return None
    if unknown := set(group_metadata) - {"location", "description"}:
        raise ValueError(f"metadata: ElectrodeGroup has {sorted(unknown)}; its keys are 'location' and 'description'.")
    if nwbfile.electrodes is not None:
        return _match_electrodes(nwbfile.electrodes, channels)
    _describe_electrodes(nwbfile, channels, group_metadata)
    return np.arange(channels.get_num_channels())


def _carry_electrodes(source_file: NWBFile, nwbfile: NWBFile) -> None:
    for group in source_file.electrode_groups.values():
        device = nwbfile.devices[group.device.name]
        nwbfile.add_electrode_group(copy_container(group, ElectrodeGroup, device=device))
    if source_file.electrodes is not None:
        names = [str(name) for name in source_file.electrodes["group_name"].data[:]]
        if not set(names) <= set(nwbfile.electrode_groups):  # then the references, which in Zarr are pickles
            names = [group.name for group in source_file.electrodes["group"].data[:]]
        groups = [nwbfile.electrode_groups[name] for name in names]
        nwbfile.electrodes = ElectrodesTable(**copy_rows(source_file.electrodes, group=groups))


def _match_electrodes(table: ElectrodesTable, channels: BaseRecording | SortingAnalyzer) -> np.ndarray:
    """Return the row of each channel, which `read_nwb_recording` names by the column channel_name, else by the id."""
    names = table["channel_name"].data if "channel_name" in table.colnames else table.id.data
    rows = pd.DataFrame({"channel": [str(name) for name in names], "group": table["group_name"].data})
    wanted = pd.DataFrame(
        {"channel": [str(i) for i in channels.channel_ids], "group": _property_or(channels, "group", 0)}
    )
    for keys in (["channel"], ["channel", "group"]):  # the probes of one file may name their channels alike
        index = pd.MultiIndex.from_frame(rows[keys].astype(str))
        if index.is_unique:
            found = index.get_indexer(pd.MultiIndex.from_frame(wanted[keys].astype(str)))
            if np.all(found >= 0):
                return found
    channel_ids = list(wanted["channel"])
    raise ValueError(
        f"source: its electrodes table does not have, once each, the {len(wanted)} channels of the "
        f"recording, from {channel_ids[0]} to {channel_ids[-1]}; give the NWB file of this recording."
    )


def channel_property(channels: BaseRecording | SortingAnalyzer, name: str) -> np.ndarray | None:
    """Return a property of the N channels, also of an analyzer without its recording, or None if it is not known."""
    if isinstance(channels, SortingAnalyzer):
        return channels.rec_attributes["properties"].get(name)
    return channels.get_property(name)


def _property_or(channels: BaseRecording | SortingAnalyzer, name: str, default: Any) -> np.ndarray:
    values = channel_property(channels, name)
    return np.full(channels.get_num_channels(), default) if values is None else np.asarray(values)


def _describe_electrodes(
    nwbfile: NWBFile, channels: BaseRecording | SortingAnalyzer, group_metadata: dict[str, str]
) -> None:
    probes = channels.get_probegroup().probes
    names = {str(probe.model_name or probe.name) for probe in probes if probe.model_name or probe.name}
    device = nwbfile.devices.get("probe") or nwbfile.create_device(
        name="probe", description=" and ".join(sorted(names)) or f"{len(probes)} probe(s) of unknown model"
    )
    channel_groups = _property_or(channels, "group", 0)
    location = group_metadata.get("location", "unknown")
    groups = {}
    for group in np.unique(channel_groups):
        name = group if isinstance(group, str) else f"group{group}"
        description = group_metadata.get("description", f"channels of group {group} of the recording")
        groups[group] = nwbfile.electrode_groups.get(name) or nwbfile.create_electrode_group(
            name=name, description=description, location=location, device=device
        )
    nwbfile.add_electrode_column(name="channel_name", description="identifier of the channel in the recording")
    for channel_id, group, area, position in zip(
        channels.channel_ids,
        channel_groups,
        _property_or(channels, "brain_area", location),
        channels.get_channel_locations(),
        strict=True,
    ):
        nwbfile.add_electrode(
            group=groups[group],
            location=str(area) or location,
            rel_x=float(position[0]),
            rel_y=float(position[1]),
            channel_name=str(channel_id),
        )
