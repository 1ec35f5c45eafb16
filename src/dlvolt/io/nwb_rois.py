"""What units of ROIs need in an NWB file: imaging planes, the ROIs of the units, and traces of the ROIs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hdmf.common import DynamicTableRegion, VectorData
from hdmf.data_utils import GenericDataChunkIterator
from pynwb import H5DataIO, NWBFile, TimeSeries
from pynwb.base import ProcessingModule
from pynwb.ophys import (
    DfOverF,
    Fluorescence,
    ImageSegmentation,
    ImagingPlane,
    OpticalChannel,
    PlaneSegmentation,
    RoiResponseSeries,
)
from spikeinterface.core import BaseRecording, BaseSorting, SortingAnalyzer, concatenate_recordings

import dlvolt
from dlvolt.io.nwb_session import channel_property, copy_container, copy_rows

CHUNK_SHAPE = (4096, 64)  # samples and ROIs: 1 MiB in HDF5, and one trace is read without all the others

UNIT_DESCRIPTIONS = {
    "polarity": "sign of the spikes in the fluorescence: 'positive' where the indicator brightens with a spike, "
    "'negative' where it dims",
    "model_name": "name of the neural network which proposed the spikes",
    "model_version": "version of the neural network which proposed the spikes",
    "decided_by": "what decided on the spikes: 'model', a model of the trace that was learnt from the trace itself, or "
    "'network', the neural network alone; empty if the ROI has no signal",
    "threshold": "spike probability (0 to 1) from which on a peak is a spike",
    "snr": "median height of the unit's spikes over the trace in the 10 ms before, in standard deviations of the noise "
    "between consecutive samples; NaN if there are no spikes",
    "firing_rate": "number of spikes over the duration of the recording, in Hz",
    "expected_precision": "mean spike probability of the unit's spikes, the fraction (0 to 1) of them expected to be "
    "true; NaN if there are no spikes",
    "flag": "what is wrong with the trace of the ROI: 'dead' if it is flat or has no values, 'gaps' if some of its "
    "values are missing; empty if nothing is",
    "crosstalk_fraction": "fraction (0 to 1) of the unit's spikes which are taken for cross-talk from another ROI",
    "crosstalk_from": "unit_name of the ROI from which most of the cross-talk comes; empty if there is none",
    "num_bursts": "number of bursts",
    "num_complex_spikes": "number of complex spikes, that is, slow depolarisations which carry several spikelets",
    "spike_probability": "probability of each spike (0 to 1), from the neural network and the model of the trace",
    "spike_label": "the event each spike belongs to: 'single', 'burst' or 'complex' (a complex spike)",
    "spike_crosstalk": "whether each spike is taken for cross-talk from another ROI",
}

# name -> (container in NWB, description); all are dimensionless
TRACES = {
    "fluorescence": (Fluorescence, "Fluorescence of each ROI, in arbitrary units."),
    "delta_f_over_f": (DfOverF, "ΔF/F of each ROI: the change in fluorescence relative to its baseline."),
    "subthreshold": (DfOverF, "Subthreshold ΔF/F of each ROI: the trace without its spikes."),
    "spike_probability": (None, "Probability (0 to 1) of a spike at each sample of each ROI, from a neural network."),
}


class Rois(NamedTuple):
    """Which ROI each of the K units is."""

    names: list[str]  # of the units
    channels: np.ndarray  # (K,), indices of the channels of the recording
    table: PlaneSegmentation | None = None
    rows: np.ndarray | None = None  # (K,), of the table

    def region(self, description: str) -> DynamicTableRegion:
        """Return the rows as a region of the table."""
        return DynamicTableRegion(name="rois", description=description, data=self.rows, table=self.table)


def is_optical(sorting: BaseSorting, recording: BaseRecording | None) -> bool:
    """Whether units are those of ROIs, by the annotation ``modality`` of their recording or their own."""
    return "optical" in [known.get_annotation("modality") for known in (recording, sorting) if known is not None]


def optical_description(sorting: BaseSorting) -> str:
    """Return a description of the units table that names the network that found the units."""
    names, versions = (sorting.get_property(name) for name in ("model_name", "model_version"))
    if names is None or versions is None:
        return "Units found in voltage imaging, one for each ROI."
    models = sorted({f"'{name}' version {version}" for name, version in zip(names, versions, strict=True)})
    found_by = f" by the neural network {' and '.join(models)} of dlvolt {dlvolt.__version__}" if models else ""
    return f"Units found in voltage imaging, one for each ROI{found_by}."


def add_rois(
    nwbfile: NWBFile,
    source_file: NWBFile | None,
    sorting: BaseSorting,
    recording: BaseRecording | None,
    channels: BaseRecording | SortingAnalyzer | None,
) -> Rois | None:
    """Carry imaging planes and tables of ROIs over from the source, and return which ROIs the units are.

    It is None if there is no source and the channels, that is, the ROIs of the recording, are not known.
    """
    if channels is None:
        if source_file is None:
            return None
        raise ValueError(
            "sorting_or_analyzer: has no recording, so which ROIs of the source its units are is not known; call "
            "sorting.register_recording(dlvolt.read_voltage_imaging(source)) first."
        )
    tables = {} if source_file is None else _carry_planes(source_file, nwbfile)
    names = [str(unit_id) for unit_id in sorting.unit_ids]
    rois = Rois(names, _find_channels(names, channels))
    series_path = None if recording is None else recording.get_annotation("nwb_series")
    table = _find_table(source_file, tables, series_path) if tables else None
    if table is None:
        return rois
    return rois._replace(table=table, rows=_find_rows(table, channels)[rois.channels])


def _carry_planes(source_file: NWBFile, nwbfile: NWBFile) -> dict[str, PlaneSegmentation]:
    """Copy imaging planes and tables of ROIs to a file; return the new tables by the ``object_id`` of the old ones."""
    for plane in source_file.imaging_planes.values():
        channels = [copy_container(channel, OpticalChannel) for channel in plane.optical_channel]
        device = nwbfile.devices[plane.device.name]
        nwbfile.add_imaging_plane(copy_container(plane, ImagingPlane, optical_channel=channels, device=device))
    copies = {}
    for table in [item for item in source_file.objects.values() if isinstance(item, PlaneSegmentation)]:
        plane = nwbfile.imaging_planes[table.imaging_plane.name]
        replaced = {"imaging_plane": plane, "reference_images": None} | copy_rows(table)
        copies[table.object_id] = copy_container(table, PlaneSegmentation, **replaced)
        _place(nwbfile, copies[table.object_id], table)
    return copies


def _place(nwbfile: NWBFile, copied: PlaneSegmentation, table: PlaneSegmentation) -> None:
    """Add the copy of a table to a file, in a module and segmentation named as those of the original."""
    old_module, old_segmentation = (table.get_ancestor(kind) for kind in ("ProcessingModule", "ImageSegmentation"))
    module = _module(nwbfile) if old_module is None else _module(nwbfile, old_module.name, old_module.description)
    name = "ImageSegmentation" if old_segmentation is None else old_segmentation.name
    if name not in module.data_interfaces:
        module.add(ImageSegmentation(name=name))
    module[name].add_plane_segmentation(copied)


def _module(nwbfile: NWBFile, name: str = "ophys", description: str | None = None) -> ProcessingModule:
    if name in nwbfile.processing:
        return nwbfile.processing[name]
    return nwbfile.create_processing_module(name, description or "ROIs of optical physiology and their traces")


def _find_channels(names: list[str], channels: BaseRecording | SortingAnalyzer) -> np.ndarray:
    """Return the index of the channel, that is, ROI, that has the name of each unit."""
    index = {str(channel_id): i for i, channel_id in enumerate(channels.channel_ids)}
    for name in names:
        if name not in index:
            raise ValueError(
                f"sorting_or_analyzer: unit '{name}' is none of the {len(index)} ROIs of its recording; an optical "
                "unit has the name of its ROI, which rename_units(...) gives it."
            )
    return np.array([index[name] for name in names], dtype=np.int64)


def _find_table(
    source_file: NWBFile, tables: dict[str, PlaneSegmentation], series_path: str | None
) -> PlaneSegmentation | None:
    """Return the table to which the series of the recording refers, or else the only one."""
    if series_path is not None:
        return tables.get(_find_series(source_file, series_path).rois.table.object_id)
    if len(tables) > 1:
        listed = ", ".join(f"'{table.name}'" for table in tables.values())
        raise ValueError(
            f"source: it has {len(tables)} tables of ROIs, {listed}, and the recording does not tell which is its own; "
            "read it with dlvolt.read_voltage_imaging, or annotate it with the path of its series in the source, as in "
            'recording.annotate(nwb_series="processing/ophys/Fluorescence/RoiResponseSeries").'
        )
    return next(iter(tables.values()))


def _find_series(source_file: NWBFile, path: str) -> RoiResponseSeries:
    manager = source_file.read_io.manager
    found = {
        manager.get_builder(item).path.removeprefix("root/"): item
        for item in source_file.objects.values()
        if isinstance(item, RoiResponseSeries)
    }
    if path.strip("/") not in found:
        listed = ", ".join(f"'{name}'" for name in found) or "none"
        raise ValueError(
            f"source: there is no RoiResponseSeries '{path}', of which the recording is, in it; it has {listed}; give "
            "the NWB file of this recording."
        )
    return found[path.strip("/")]


def _find_rows(table: PlaneSegmentation, channels: BaseRecording | SortingAnalyzer) -> np.ndarray:
    """Return the row of each of the N channels in the table."""
    rows = channel_property(channels, "roi_row")
    if rows is None:
        raise ValueError(
            f"source: its table of ROIs '{table.name}' has {len(table)} rows, and the recording does not tell which "
            "are its ROIs; read it with dlvolt.read_voltage_imaging, or tell the row of each channel, as in "
            'recording.set_property("roi_row", [0, 1, 2]).'
        )
    if np.any((rows < 0) | (rows >= len(table))):
        raise ValueError(
            f"source: its table of ROIs '{table.name}' has {len(table)} rows, and the recording's 'roi_row' goes from "
            f"{min(rows)} to {max(rows)}; give the NWB file of this recording."
        )
    return np.asarray(rows, dtype=np.int64)


def roi_columns(rois: Rois | None, channels: BaseRecording | SortingAnalyzer | None) -> list[VectorData]:
    """Return the columns that tell where the units are: the rows of their ROIs, or else what the recording knows."""
    if rois is None:
        return []
    if rois.table is not None:
        # One row for each unit and no index: SpikeInterface and pandas read the row, not a list of one.
        return [rois.region("the ROI of the unit")]
    known = {name: channel_property(channels, name) for name in ("centroid", "centroid_unit", "num_pixels", "plane")}
    known = {name: np.asarray(values) for name, values in known.items() if values is not None}
    columns = {}
    if "centroid" in known:
        unit = {"um": "in µm", "pixels": "in pixels"}.get(str(known.get("centroid_unit", [""])[0]), "in unknown units")
        centroid = known["centroid"].astype(float)  # (N, 2)
        columns["roi_x"] = f"x (column) of the centre of the ROI, {unit}", centroid[:, 0]
        columns["roi_y"] = f"y (row) of the centre of the ROI, {unit}", centroid[:, 1]
    if "num_pixels" in known:
        columns["roi_num_pixels"] = "number of pixels of the ROI", known["num_pixels"].astype(np.int64)
    if "plane" in known:
        columns["roi_plane"] = "imaging plane of the ROI", known["plane"].astype(str)
    return [
        VectorData(name=name, description=description, data=values[rois.channels])
        for name, (description, values) in columns.items()
    ]


def check_traces(traces: dict[str, BaseRecording], sorting: BaseSorting, recording: BaseRecording | None) -> None:
    """Raise if traces are not of the ROIs and samples of the recording."""
    if recording is None:
        raise ValueError(
            "traces: the sorting has no recording to tell what their channels and times are; call the sorting's "
            "register_recording(recording) first."
        )
    if not is_optical(sorting, recording):
        raise ValueError(
            "traces: are those of ROIs, which the channels of the recording are not; if they are, tell so with "
            'recording.annotate(modality="optical").'
        )
    wanted, names = _timing(recording), {str(channel_id) for channel_id in recording.channel_ids}
    for name, trace in traces.items():
        if not isinstance(trace, BaseRecording):
            raise TypeError(f"traces: '{name}' is a {type(trace).__name__}; give a recording.")
        if _timing(trace) != wanted:
            raise ValueError(
                f"traces: '{name}' has {_timing(trace)}, and the recording of the sorting has {wanted}; give traces "
                "computed from this recording."
            )
        if {str(channel_id) for channel_id in trace.channel_ids} != names:
            raise ValueError(
                f"traces: '{name}' has other channels than the {len(names)} ROIs of the recording; traces have the "
                "channel ids of the recording, which rename_channels(...) gives them."
            )


def _timing(recording: BaseRecording) -> str:
    samples = " + ".join(str(recording.get_num_samples(segment)) for segment in range(recording.get_num_segments()))
    return f"{samples} samples at {recording.sampling_frequency:.9g} Hz"


def add_traces(nwbfile: NWBFile, traces: dict[str, BaseRecording], times: np.ndarray, rois: Rois) -> None:
    """Add the traces of the units to the processing module "ophys".

    `times` (T,), s, are those of the samples of all segments. Without a table of ROIs the traces are plain TimeSeries.
    """
    if not rois.names:
        return
    module = _module(nwbfile)
    for name, trace in traces.items():
        channel_ids = {str(channel_id): channel_id for channel_id in trace.channel_ids}
        trace = trace.select_channels([channel_ids[unit] for unit in rois.names])
        container, description = TRACES.get(name, (None, f"Trace '{name}' of each ROI."))
        series = {
            "name": name,
            "description": f"{description} Column n is of row n of the units table.",
            "data": H5DataIO(_TraceChunks(trace), compression="gzip", shuffle=True),
            "unit": "n.a.",
            **_sampling(times, trace.sampling_frequency),
        }
        if rois.table is None:
            module.add(TimeSeries(**series))
            continue
        series = RoiResponseSeries(rois=rois.region("the ROI of each column of the data"), **series)
        if container is None:
            module.add(series)
        else:
            if container.__name__ not in module.data_interfaces:
                module.add(container(name=container.__name__))  # before the series, which must be in the table's file
            module[container.__name__].add_roi_response_series(series)


def _sampling(times: np.ndarray, sampling_frequency: float) -> dict[str, Any]:
    """Return times as start and rate if they are regular, which archives ask for, else as timestamps."""
    ticks = np.arange(len(times)) / sampling_frequency
    if np.allclose(times, times[0] + ticks, rtol=1e-15, atol=1e-9):
        return {"starting_time": float(times[0]), "rate": float(sampling_frequency)}
    if len(np.unique(np.round(np.diff(times), 9))) == 1:  # as nwbinspector has it
        return {"starting_time": float(times[0]), "rate": float((len(times) - 1) / (times[-1] - times[0]))}
    return {"timestamps": times}


class _TraceChunks(GenericDataChunkIterator):
    """The traces (T, N) of all segments of a recording, from one stretch of time to the next."""

    def __init__(self, recording: BaseRecording) -> None:
        self.recording = recording if recording.get_num_segments() == 1 else concatenate_recordings([recording])
        num_samples, num_rois = self._get_maxshape()
        samples, some_rois = min(num_samples, CHUNK_SHAPE[0]), min(num_rois, CHUNK_SHAPE[1])
        super().__init__(chunk_shape=(samples, some_rois), buffer_shape=(samples, num_rois))

    def _get_data(self, selection: tuple[slice, slice]) -> np.ndarray:
        samples, channels = selection
        return self.recording.get_traces(start_frame=samples.start, end_frame=samples.stop)[:, channels]

    def _get_maxshape(self) -> tuple[int, int]:
        return self.recording.get_num_samples(), self.recording.get_num_channels()

    def _get_dtype(self) -> np.dtype:
        return np.dtype(self.recording.get_dtype())
