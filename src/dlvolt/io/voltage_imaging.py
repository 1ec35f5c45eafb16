"""Traces of ROIs from NWB: any RoiResponseSeries of a file, HDF5 or Zarr, local or streamed."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.extractors.nwbextractors import read_file_from_backend

from dlvolt.io.errors import unreadable
from dlvolt.io.lazy import LazySegment
from dlvolt.io.nwb_files import (
    NWB_FILE,
    child,
    find_groups,
    is_zarr,
    number,
    read_clock,
    read_conversion,
    read_indicator,
    read_session,
    text,
)
from dlvolt.io.rois import set_roi_probe

STREAM_MODES = ("fsspec", "remfile", "zarr")
BLOCK = 2**20  # pixels of masks that are read at a time
PIXEL_LIMIT_UM = 1000.0  # no microscope's pixels are as large: the unit of the grid spacing was forgotten
MICROMETRES = {"meters": 1e6, "millimeters": 1e3, "micrometers": 1.0, "microns": 1.0, "nanometers": 1e-3}
MICROMETRES |= {"metres": 1e6, "m": 1e6, "mm": 1e3, "micrometres": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3}


def read_voltage_imaging(
    path: str | Path,
    series: str | None = None,
    *,
    stream_mode: str | None = None,
    cache: bool = False,
    stream_cache_path: str | Path | None = None,
    storage_options: dict[str, Any] | None = None,
) -> VoltageImagingRecording:
    """Open the traces of ROIs in an NWB file.

    Parameters
    ----------
    path : path or str
        An NWB file with a RoiResponseSeries: HDF5, a Zarr folder, or with a `stream_mode` a URL.
    series : str, optional
        The series to read: its path (e.g. ``"processing/ophys/Fluorescence/RoiResponseSeries"``) or as much of the
        end of it as tells it from the others. Needed only where there are several.
    stream_mode : {"fsspec", "remfile", "zarr"}, optional
        How to read a URL: HDF5 through fsspec (needs aiohttp) or remfile, or Zarr.
    cache : bool, default: False
        With ``"fsspec"``, keep what was read on disk.
    stream_cache_path : path, optional
        Where to keep it, by default in a temporary folder.
    storage_options : dict, optional
        Credentials for ``"zarr"``. They are not saved, so a recording opened with them cannot be saved as JSON.

    Returns
    -------
    BaseRecording
        A channel for each of the N ROIs of the series. The traces are read as they are asked for; the file's
        conversion and offset, if any, are applied. Channel ids are the ids of the ROIs in their table.

        Properties, as far as the file tells: ``centroid`` (N, 2), x and y of the centre of the ROI's mask (or of a
        column of centroids), in the ``centroid_unit``, "um" if the size of a pixel is known, else "pixels";
        ``num_pixels`` of the mask; ``plane``, the name of the imaging plane; ``roi_row``, the row in the table.
        Centroids in µm, if no two are the same, are also the probe.

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
    ImportError
        If a package is missing that the `stream_mode` needs.
    ValueError
        If it is no NWB file or cannot be read as one; if it has no RoiResponseSeries, none of that name, or several to
        choose from; if the data are transposed, (ROI, time), or do not fit the ROIs; if there is neither a rate nor
        timestamps that ascend and have a common interval; or if `stream_mode` does not fit the path.
    """
    if stream_mode is None:
        if "://" in str(path):
            raise ValueError(
                f"stream_mode: {path} is not on this machine; give 'fsspec' or 'remfile' to read HDF5 from "
                "there, 'zarr' to read Zarr."
            )
        path = Path(path).absolute()
        if not path.exists():
            raise FileNotFoundError(f"path: there is no file {path}.")
        if path.is_file() and not h5py.is_hdf5(path):
            raise ValueError(f"path: {path} is not an NWB file: it is not HDF5; see traces_to_recording for others.")
        if path.is_dir() and not is_zarr(path):
            raise ValueError(f"path: {path} is not an NWB file: a folder must be Zarr; give the file.")
    elif stream_mode not in STREAM_MODES:
        raise ValueError(f"stream_mode: must be one of {', '.join(STREAM_MODES)}, or None, not {stream_mode!r}.")
    try:
        return VoltageImagingRecording(
            str(path),
            series,
            stream_mode=stream_mode,
            cache=cache,
            stream_cache_path=None if stream_cache_path is None else str(Path(stream_cache_path).absolute()),
            storage_options=storage_options,
        )
    except (ValueError, ImportError, FileNotFoundError):
        raise
    except Exception:  # of a damaged file: of any kind
        with unreadable("path", path, "HDF5 or Zarr"):
            raise


class VoltageImagingRecording(BaseRecording):
    """The traces of a RoiResponseSeries; see `read_voltage_imaging`, which checks the path.

    Parameters
    ----------
    file_path : str
        Absolute path or URL of the file.
    series, stream_mode, cache, stream_cache_path, storage_options
        As for `read_voltage_imaging`.
    metadata : dict, optional
        What `read_metadata` returned. It is kept with the recording, so that a worker need not read the masks.
    """

    def __init__(
        self,
        file_path: str,
        series: str | None = None,
        stream_mode: str | None = None,
        cache: bool = False,
        stream_cache_path: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        access = dict(
            file_path=file_path,
            stream_mode=stream_mode,
            cache=cache,
            stream_cache_path=stream_cache_path,
            storage_options=storage_options,
        )
        file = open_nwb(access)
        try:
            metadata = read_metadata(file, file_path, series) if metadata is None else metadata
            data = _SeriesData(file, access, metadata)
            clock = dict(sampling_frequency=metadata["sampling_frequency"], t_start=metadata["t_start"])
            if metadata["t_start"] is None:
                timestamps = child(file, file[metadata["series"]], "timestamps")
                clock = dict(time_vector=np.asarray(timestamps[:], dtype="float64"))
        except Exception:
            _close(file)  # so that the user can mend it
            raise
        BaseRecording.__init__(self, metadata["sampling_frequency"], metadata["channel_ids"], data.dtype)
        self.add_recording_segment(LazySegment(data.data.shape[0], data.read, **clock))

        self.annotate(**metadata["annotations"])
        for name, values in metadata["properties"].items():
            self.set_property(name, np.asarray(values))
        if metadata["properties"].get("centroid_unit", [None])[0] == "um":
            set_roi_probe(self, np.array(metadata["properties"]["centroid"]))

        if storage_options is not None:  # these may be secrets; SpikeInterface's NWB readers do the same
            self._serializability.update(json=False, pickle=False)
        self._kwargs = access | dict(series=metadata["series"], metadata=metadata)


class _SeriesData:
    """The data of a series of an NWB file, which each process opens for itself."""

    def __init__(self, file: Any, access: dict[str, Any], metadata: dict[str, Any]) -> None:
        self.access, self.series = access, metadata["series"]
        self.num_channels = len(metadata["channel_ids"])
        self.scale, self.offset = metadata["conversion"], metadata["offset"]
        self._attach(file)
        stored = self.data.dtype.newbyteorder("=")
        self.is_scaled = (self.scale, self.offset) != (1, 0)
        self.dtype = np.result_type(stored, np.float32) if self.is_scaled else stored

    def _attach(self, file: Any) -> None:
        self.data, self.process = child(file, file[self.series], "data"), os.getpid()

    def read(self, start: int, end: int, channels: Sequence[int] | slice) -> np.ndarray:
        """Return some samples of some traces."""
        if self.process != os.getpid():  # a forked process must not share the file of its parent
            self._attach(open_nwb(self.access))
        channels = np.arange(self.num_channels)[channels]
        if self.data.ndim == 1:
            traces = self.data[start:end][:, None][:, channels]
        elif len(channels) == 0:
            traces = np.empty((end - start, 0))
        else:  # one block of the file, as HDF5 is slow with lists of columns and wants them sorted
            first, last = channels.min(), channels.max()
            traces = self.data[start:end, first : last + 1]
            if not np.array_equal(channels, np.arange(first, last + 1)):
                traces = traces[:, channels - first]
        traces = traces.astype(self.dtype, copy=False)
        return traces * self.dtype.type(self.scale) + self.dtype.type(self.offset) if self.is_scaled else traces


def open_nwb(access: dict[str, Any]) -> Any:
    """Open an NWB file, local or streamed, as an `h5py.File` or `zarr.Group`.

    Parameters
    ----------
    access : dict
        Arguments of SpikeInterface's `read_file_from_backend`.

    Raises
    ------
    ImportError
        If a package that is needed for streaming is missing.
    OSError, ValueError
        If the file is not there or not an NWB file.
    """
    path = access["file_path"]
    try:
        file = read_file_from_backend(**access)
    except ModuleNotFoundError as error:
        raise ImportError(f"stream_mode: '{access['stream_mode']}' needs {error.name}; pip install it.") from error
    except (ImportError, OSError):
        raise
    except Exception as error:  # each way of streaming has its own
        raise ValueError(f"path: {path} cannot be opened as an NWB file: {error}.") from error
    if file.attrs.get("neurodata_type") not in NWB_FILE:
        _close(file)
        raise ValueError(f"path: {path} is not an NWB file (of version 2), though it can be read as HDF5 or Zarr.")
    return file


def _close(file: Any) -> None:
    if isinstance(file, h5py.File):  # Zarr holds nothing open
        file.close()


def read_metadata(file: Any, path: str, wanted: str | None) -> dict[str, Any]:
    """Return all that is known of a series except its traces, as values that JSON can hold.

    Parameters
    ----------
    file : h5py.File or zarr.Group
        An NWB file.
    path : str
        Path of the file, for messages.
    wanted : str or None
        Path of the series in the file, or the end of it; None for the only one.

    Returns
    -------
    dict
        ``series`` (path in the file), ``sampling_frequency`` (Hz), ``t_start`` (s; None if the timestamps are not
        those of a steady clock), ``conversion``, ``offset``, ``channel_ids``, ``annotations``, ``properties``.
    """
    name, series = _choose(file, path, wanted)
    where = f"path: '{name}' in {path}"
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
    annotations = {"modality": "optical", "nwb_series": name} | read_session(file)
    if value := _value(file, name):
        annotations["value"] = value
    plane = child(file, table, "imaging_plane")
    plane_annotations, plane_name, pixel_size_um = _describe_plane(plane)
    properties = {"roi_row": rows.tolist()} | _positions(table, rows, pixel_size_um)
    if plane_name:
        properties["plane"] = [plane_name] * len(rows)
    conversion, offset = read_conversion(data)
    candidates = (ids[rows], rows, np.arange(len(rows)))
    return dict(
        series=name,
        sampling_frequency=sampling_frequency,
        t_start=t_start,
        conversion=conversion,
        offset=offset,
        channel_ids=next(c.tolist() for c in candidates if len(np.unique(c)) == len(c)),
        annotations=annotations | plane_annotations,
        properties=properties,
    )


def _data(file: Any, series: Any) -> Any:
    """Return the data of a series, or None if there are none or a group is in their place."""
    data = child(file, series, "data")
    return data if hasattr(data, "shape") else None


def _choose(file: Any, path: str, wanted: str | None) -> tuple[str, Any]:
    """Return the path of the series that is wanted, and its group."""
    found = find_groups(file, "RoiResponseSeries")
    if not found:
        raise ValueError(
            f"path: {path} has no RoiResponseSeries, so no traces of ROIs; see read_recording for electrodes, "
            "read_image_sequence for movies."
        )
    if wanted is None:
        matching, problem = list(found), f"{path} has several RoiResponseSeries"
    else:
        wanted = wanted.strip("/")
        matching = [wanted] if wanted in found else [name for name in found if name.endswith(f"/{wanted}")]
        problem = f"{path} has {'several' if matching else 'no'} RoiResponseSeries '{wanted}'"
    if len(matching) != 1:
        listed = "; ".join(f"'{name}' ({_summary(file, series)})" for name, series in found.items())
        raise ValueError(f"series: {problem}; choose one of {listed}.")
    return matching[0], found[matching[0]]


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
    name, annotations = plane.name.rpartition("/")[2], dict[str, Any](read_indicator(plane))
    if "imaging_rate" in plane and plane["imaging_rate"].dtype.kind in "iuf":
        annotations["imaging_rate_hz"] = number(plane["imaging_rate"])
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
    """Return the properties that the masks of the ROIs give, or else a column of centroids."""
    properties = {}
    moments = _mask_moments(table, rows)
    if moments is not None:
        num_pixels, weight, x, y = moments[:, rows]
        properties["num_pixels"] = num_pixels.astype(int).tolist()
        with np.errstate(invalid="ignore"):  # an empty mask is nowhere
            centroid, unit = np.stack([x, y], axis=1) / weight[:, None], "pixels"
    else:
        centroid, unit = _column_of_centroids(table, rows)
    if centroid is None:
        return properties
    if unit == "pixels" and pixel_size_um is not None:
        centroid, unit = centroid * pixel_size_um, "um"
    return properties | {"centroid": centroid.tolist(), "centroid_unit": [unit] * len(rows)}


def _column_of_centroids(table: Any, rows: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Return x and y of the centroids of the ROIs, and their unit, if the table has a column of them."""
    for name in table.keys():  # noqa: SIM118
        plain = name.lower().replace("_", "")
        if re.fullmatch("(roi)?(centroid|center|centre)s?(um|pixels?|px)?", plain) and table[name].ndim == 2:
            description = text(table[name].attrs.get("description", "")).lower()
            told_um = plain.endswith("um") or re.search(r"\b[uµμ]m\b|micron|micromet", description)
            return np.asarray(table[name][:, :2], dtype="float64")[rows], "um" if told_um else "pixels"
    return None, ""


def _mask_moments(table: Any, rows: np.ndarray) -> np.ndarray | None:
    """Return the number of pixels of each mask and its sums of weight, weight·x and weight·y, shape (4, ROIs).

    Memory is bounded by a block of pixels. Masks of rows that are not asked for may be left out.
    """
    for name in ("pixel_mask", "voxel_mask"):
        if name in table and f"{name}_index" in table:
            return _moments_of_pixels(table[name], np.asarray(table[f"{name}_index"][:], dtype="int64"))
    if "image_mask" in table and table["image_mask"].ndim in (3, 4):
        return _moments_of_images(table["image_mask"], rows)
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


def _moments_of_images(masks: Any, rows: np.ndarray) -> np.ndarray:
    moments = np.zeros((4, len(masks)))
    wanted = np.isin(np.arange(len(masks)), rows)
    for block in _blocks(masks):
        if wanted[block[0]].any():
            weight = np.maximum(np.nan_to_num(masks[block]), 0).astype("float64")
            weight = weight.reshape(*weight.shape[:3], -1)  # ROI, x, y, z
            along_x, along_y = weight.sum(axis=(2, 3)), weight.sum(axis=(1, 3))
            moments[0, block[0]] += np.count_nonzero(weight, axis=(1, 2, 3))
            moments[1, block[0]] += along_x.sum(axis=1)
            moments[2, block[0]] += along_x @ np.arange(masks.shape[1])[block[1]]
            moments[3, block[0]] += along_y @ np.arange(masks.shape[2])[block[2]]
    return moments


def _blocks(masks: Any) -> Iterator[tuple[slice, ...]]:
    """Iterate over the chunks of an array in the file, or the ROIs if it has none, so that each is read once."""
    lengths = masks.chunks or (1, *masks.shape[1:])
    starts = (range(0, size, length) for size, length in zip(masks.shape, lengths, strict=True))
    for corner in product(*starts):
        yield tuple(slice(start, start + length) for start, length in zip(corner, lengths, strict=True))
