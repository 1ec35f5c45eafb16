"""Traces of ROIs from NWB: any RoiResponseSeries of a file, HDF5 or Zarr."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from spikeinterface.core import BaseRecording

from dlvolt.io.errors import unreadable
from dlvolt.io.lazy import LazySegment
from dlvolt.io.nwb_files import NWB_FILE, child, find_groups, is_zarr, opened, read_clock, text
from dlvolt.io.rois import set_roi_probe
from dlvolt.io.streams import choose_stream

BLOCK = 2**22  # pixels of masks that are read at a time
PIXEL_LIMIT_UM = 1000.0  # no microscope's pixels are as large: the unit of the grid spacing was forgotten
MICROMETRES = {"meters": 1e6, "millimeters": 1e3, "micrometers": 1.0, "microns": 1.0, "nanometers": 1e-3}
MICROMETRES |= {"metres": 1e6, "m": 1e6, "mm": 1e3, "micrometres": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3}


def read_voltage_imaging(path: str | Path, series: str | None = None) -> VoltageImagingRecording:
    """Open the traces of ROIs in an NWB file.

    Parameters
    ----------
    path : path
        An NWB file with a RoiResponseSeries: HDF5, or a Zarr folder.
    series : str, optional
        The series to read: its path (e.g. ``"processing/ophys/Fluorescence/RoiResponseSeries"``) or as much of the
        end of it as tells it from the others. Needed only where there are several.

    Returns
    -------
    BaseRecording
        A channel for each of the N ROIs of the series. The traces are read as they are asked for; the file's
        conversion and offset, if any, are applied. Channel ids are the ids of the ROIs in their table.

        Properties, as far as the file tells: ``centroid`` (N, 2), x and y of the centre of the ROI's mask, in the
        ``centroid_unit``, "um" if the size of a pixel is known, else "pixels"; ``num_pixels`` of the mask; ``plane``,
        the name of the imaging plane; ``roi_row``, the row in the table. Centroids in µm, if no two are the same, are
        also the probe.

        Annotations: ``modality="optical"``; ``indicator``, ``imaging_rate_hz``, ``pixel_size_um``, if known;
        ``value``, "fluorescence" or "delta_f_over_f", if the series says so; ``session_start_time`` and
        ``timestamps_reference_time``, in ISO format; ``nwb_identifier``, which tells the file from those of other
        sessions.

        Timestamps that are those of a steady clock to a hundredth of a frame give the sampling frequency and the start
        time. Others are kept as the time vector. The sampling frequency is then that of the mean interval; where frames
        are missing, of the time that each of them takes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read as NWB; if it has no RoiResponseSeries, none of that name, or several to choose from; or if
        the data of the series do not fit its ROIs or its times.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file {path}.")
    if path.is_file() and not h5py.is_hdf5(path):
        raise ValueError(f"path: {path} is not an NWB file: it is not HDF5; see traces_to_recording for others.")
    if path.is_dir() and not is_zarr(path):
        raise ValueError(f"path: {path} is not an NWB file: a folder must be Zarr; give the file.")
    try:
        return VoltageImagingRecording(str(path), series)
    except ValueError:
        raise
    except Exception:  # of a damaged file: of any kind
        with unreadable("path", path, "HDF5 or Zarr"):
            raise


class VoltageImagingRecording(BaseRecording):
    """The traces of a RoiResponseSeries; see `read_voltage_imaging`, which checks the path.

    `metadata` is what `read_metadata` returned. It is kept with the recording, so that a worker need not read the
    masks. The file is opened anew for each chunk, so that processes do not share it and users can mend it.
    """

    def __init__(self, file_path: str, series: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        with opened(Path(file_path)) as file:
            if metadata is None:
                metadata = read_metadata(file, Path(file_path), series)
            data = child(file, file[metadata["series"]], "data")
            num_samples, dtype = data.shape[0], data.dtype.newbyteorder("=")
            clock = dict(sampling_frequency=metadata["sampling_frequency"], t_start=metadata["t_start"])
            if metadata["t_start"] is None:
                timestamps = child(file, file[metadata["series"]], "timestamps")
                clock = dict(time_vector=np.asarray(timestamps[:], dtype="float64"))
        if (metadata["conversion"], metadata["offset"]) != (1, 0):
            dtype = np.result_type(dtype, np.float32)
        BaseRecording.__init__(self, metadata["sampling_frequency"], metadata["channel_ids"], dtype)
        read = partial(_read_traces, Path(file_path), metadata, dtype)
        self.add_recording_segment(LazySegment(num_samples, read, **clock))

        self.annotate(**metadata["annotations"])
        for name, values in metadata["properties"].items():
            self.set_property(name, np.asarray(values))
        if metadata["properties"].get("centroid_unit", [None])[0] == "um":
            set_roi_probe(self, np.array(metadata["properties"]["centroid"]))
        self._kwargs = dict(file_path=file_path, series=metadata["series"], metadata=metadata)


def _read_traces(
    path: Path, metadata: dict[str, Any], dtype: np.dtype, start: int, end: int, channels: Sequence[int] | slice
) -> np.ndarray:
    """Return some samples of some traces, shape (T, N)."""
    channels = np.arange(len(metadata["channel_ids"]))[channels]
    with opened(path) as file:
        data = child(file, file[metadata["series"]], "data")
        if data.ndim == 1:
            traces = data[start:end][:, None][:, channels]
        elif len(channels) == 0:
            traces = np.empty((end - start, 0))
        else:  # one block of the file, as HDF5 is slow with lists of columns and wants them sorted
            first, last = channels.min(), channels.max()
            traces = data[start:end, first : last + 1][:, channels - first]
    traces = traces.astype(dtype, copy=False)
    scale, offset = metadata["conversion"], metadata["offset"]
    return traces if (scale, offset) == (1, 0) else traces * dtype.type(scale) + dtype.type(offset)


def read_metadata(file: Any, path: Path, wanted: str | None) -> dict[str, Any]:
    """Return all that is known of a series except its traces, as values that JSON can hold.

    `wanted` is the path of the series in the file, or the end of it; None for the only one.
    """
    if file.attrs.get("neurodata_type") not in NWB_FILE:
        raise ValueError(f"path: {path} is not an NWB file (of version 2), though it can be read as HDF5 or Zarr.")
    found = find_groups(file, "RoiResponseSeries")
    if not found:
        raise ValueError(
            f"path: {path} has no RoiResponseSeries, so no traces of ROIs; see read_recording for electrodes, "
            "read_image_sequence for movies."
        )
    described = {name: f"'{name}' ({_summary(file, each)})" for name, each in found.items()}
    name = choose_stream(wanted, described, path, "several RoiResponseSeries", argument="series")
    series, where = found[name], f"path: '{name}' in {path}"
    data = _data(file, series)
    if data is None or data.dtype.kind not in "iuf" or 0 in data.shape or len(data.shape) > 2:
        raise ValueError(f"{where} has no data of shape (time, ROI), or none that are numbers; mend the file.")
    table, rows = _rois(file, series, where)
    num_traces = 1 if data.ndim == 1 else data.shape[1]
    if len(rows) != num_traces and len(rows) == data.shape[0]:
        raise ValueError(
            f"{where} is transposed: its data are {data.shape}, of {len(rows)} ROIs, and NWB has time first; "
            "write it again with data.T."
        )
    ids = np.asarray(table["id"][:])
    if len(rows) != num_traces or rows.min() < 0 or rows.max() >= len(ids):
        raise ValueError(
            f"{where} has data of shape {data.shape} for {len(rows)} ROIs, and its ROI table has {len(ids)} "
            "rows; mend the file."
        )
    sampling_frequency, t_start = read_clock(file, series, len(data), where)
    annotations = {"reader": "read_voltage_imaging", "modality": "optical", "nwb_series": name}
    session = {"nwb_identifier": "identifier"}
    session |= {field: field for field in ("session_start_time", "timestamps_reference_time")}
    annotations |= {annotation: text(file[field]) for annotation, field in session.items() if field in file}
    if value := _value(file, name):
        annotations["value"] = value
    plane_annotations, plane_name, pixel_size_um = _describe_plane(child(file, table, "imaging_plane"))
    properties = {"roi_row": rows.tolist()} | _positions(table, rows, pixel_size_um)
    if plane_name:
        properties["plane"] = [plane_name] * len(rows)
    candidates = (ids[rows], rows, np.arange(len(rows)))
    return dict(
        series=name,
        sampling_frequency=sampling_frequency,
        t_start=t_start,
        conversion=float(data.attrs.get("conversion", 1.0)),
        offset=float(data.attrs.get("offset", 0.0)),
        channel_ids=next(c.tolist() for c in candidates if len(np.unique(c)) == len(c)),
        annotations=annotations | plane_annotations,
        properties=properties,
    )


def _data(file: Any, series: Any) -> Any:
    """Return the data of a series, or None if there are none or a group is in their place."""
    data = child(file, series, "data")
    return data if hasattr(data, "shape") else None


def _summary(file: Any, series: Any) -> str:
    data, start = _data(file, series), child(file, series, "starting_time")
    shape = "no data" if data is None else f"shape {data.shape}"
    return f"{shape}, {start.attrs['rate']:g} Hz" if start is not None and "rate" in start.attrs else shape


def _value(file: Any, series_path: str) -> str | None:
    """Return what the values of a series are, from its name and from the type or the name of its container."""
    container, _, name = series_path.rpartition("/")
    container_type = text(file[container or "/"].attrs.get("neurodata_type", ""))
    if container_type == "DfOverF" or _is_relative(name):
        return "delta_f_over_f"
    if container_type == "Fluorescence":
        return "fluorescence"
    return "delta_f_over_f" if _is_relative(container.rpartition("/")[2]) else None


def _is_relative(name: str) -> bool:
    return re.search("dff|foverf", name.lower().replace("_", "")) is not None


def _rois(file: Any, series: Any, where: str) -> tuple[Any, np.ndarray]:
    """Return the ROI table of a series and the rows of its ROIs."""
    rois = child(file, series, "rois")
    mend = "mend the file, or give the numbers alone to traces_to_recording"
    if rois is None:
        raise ValueError(f"{where} does not say which ROIs its data are of ('rois' is missing); {mend}.")
    target, table = rois.attrs.get("table"), None
    if isinstance(target, h5py.Reference):
        if target and h5py.h5r.get_name(target, file.id) is not None:
            table = rois.file[target]
    elif target is not None:  # hdmf-zarr
        table = file.get(target.get("value", target)["path"])
    if table is None or "id" not in table:
        raise ValueError(f"{where} has no ROI table, or one without ids; {mend}.")
    return table, np.asarray(rois[:], dtype="int64")


def _describe_plane(plane: Any) -> tuple[dict[str, Any], str, np.ndarray | None]:
    """Return the annotations that an imaging plane gives, its name, and the size of a pixel in µm, if known."""
    if plane is None:
        return {}, "", None
    name, annotations = plane.name.rpartition("/")[2], dict[str, Any]()
    indicator = text(plane["indicator"]) if "indicator" in plane else ""
    if indicator.lower() not in ("", "unknown"):
        annotations["indicator"] = indicator
    if "imaging_rate" in plane and plane["imaging_rate"].dtype.kind in "iuf":
        annotations["imaging_rate_hz"] = float(np.ravel(plane["imaging_rate"][()])[0])
    if "grid_spacing" not in plane:
        return annotations, name, None

    spacing, unit = np.ravel(plane["grid_spacing"][()])[:2], text(plane["grid_spacing"].attrs.get("unit", "meters"))
    pixel_size_um = np.asarray(spacing, dtype="float64") * MICROMETRES.get(unit.lower(), np.nan)
    if len(spacing) < 2 or not np.all((pixel_size_um > 0) & (pixel_size_um < PIXEL_LIMIT_UM)):
        warnings.warn(
            f"The grid spacing of imaging plane '{name}', {spacing} {unit}, is no width and height of pixels, so "
            "positions stay in pixels; mend grid_spacing or its unit in the file.",
            stacklevel=5,
        )
        return annotations, name, None
    x, y = pixel_size_um.tolist()
    annotations["pixel_size_um"] = x if x == y else [x, y]
    return annotations, name, pixel_size_um


def _positions(table: Any, rows: np.ndarray, pixel_size_um: np.ndarray | None) -> dict[str, list]:
    """Return the properties that the masks of the ROIs give."""
    moments = _mask_moments(table)
    if moments is None:
        return {}
    num_pixels, weight, x, y = moments[:, rows]
    with np.errstate(invalid="ignore"):  # an empty mask is nowhere
        centroid = np.stack([x, y], axis=1) / weight[:, None]
    if pixel_size_um is not None:
        centroid = centroid * pixel_size_um
    return {
        "num_pixels": num_pixels.astype(int).tolist(),
        "centroid": centroid.tolist(),
        "centroid_unit": ["pixels" if pixel_size_um is None else "um"] * len(rows),
    }


def _mask_moments(table: Any) -> np.ndarray | None:
    """Return the number of pixels of each mask and its sums of weight, weight·x and weight·y, (4, rows of the table).

    Masks, which may be gigabytes, are read in blocks.
    """
    for name in ("pixel_mask", "voxel_mask"):
        if name in table and f"{name}_index" in table:
            return _moments_of_pixels(table[name], np.asarray(table[f"{name}_index"][:], dtype="int64"))
    if "image_mask" in table and table["image_mask"].ndim in (3, 4):
        return _moments_of_images(table["image_mask"])
    return None


def _moments_of_pixels(masks: Any, ends: np.ndarray) -> np.ndarray:
    moments = np.zeros((4, len(ends)))
    for start in range(0, ends[-1], BLOCK):
        pixels = masks[start : min(start + BLOCK, ends[-1])]
        roi = np.searchsorted(ends, np.arange(start, start + len(pixels)), side="right")
        weight = np.maximum(np.nan_to_num(pixels["weight"]), 0)
        summands = (weight > 0, weight, weight * pixels["x"], weight * pixels["y"])
        moments += [np.bincount(roi, values, len(ends)) for values in summands]
    return moments


def _moments_of_images(masks: Any) -> np.ndarray:
    moments = np.zeros((4, len(masks)))
    num_rois = max(1, BLOCK // math.prod(masks.shape[1:]))
    for start in range(0, len(masks), num_rois):
        weight = np.maximum(np.nan_to_num(masks[start : start + num_rois]), 0).astype("float64")
        weight = weight.reshape(*weight.shape[:3], -1)  # ROI, x, y, z
        along_x, along_y = weight.sum(axis=(2, 3)), weight.sum(axis=(1, 3))
        moments[:, start : start + num_rois] = (
            np.count_nonzero(weight, axis=(1, 2, 3)),
            along_x.sum(axis=1),
            along_x @ np.arange(masks.shape[1]),
            along_y @ np.arange(masks.shape[2]),
        )
    return moments
