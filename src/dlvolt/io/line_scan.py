"""Traces of dendritic segments from line scans: images of space × time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike
from spikeinterface.core import BaseRecording, NumpyRecording

from dlvolt.io.errors import reading
from dlvolt.io.frames import Frames, is_image_file, open_frames
from dlvolt.io.lazy import LazySegment
from dlvolt.io.nwb_files import find_groups, read_clock, read_conversion, read_indicator, read_session
from dlvolt.io.roi_masks import mean_dtype
from dlvolt.io.rois import Value, check_roi_ids, check_sampling_frequency, check_value, describe_rois, is_positive

CLEARLY_LONGER = 2  # an axis at least so many times as long as the other is taken for time
NWB_SERIES = ("TimeSeries", "ImageSeries", "OnePhotonSeries", "TwoPhotonSeries")
NWB_IMAGES = ("Image", "GrayscaleImage")


def read_line_scan(
    source: str | Path | np.ndarray,
    line_rate_hz: float | None,
    um_per_pixel: float,
    segments: ArrayLike | None = None,
    *,
    segment_um: float = 10.0,
    time_axis: int | None = None,
    series: str | None = None,
    roi_ids: Sequence[int | str] | None = None,
    value: Value | None = None,
    indicator: str | None = None,
    t_start: float | None = None,
) -> BaseRecording:
    """Read the traces of dendritic segments from a line scan.

    Parameters
    ----------
    source : path or array
        The scanned lines as an image of space × time: an array of shape (H, W), or of shape (P, H, W) for P pages that
        follow each other in time; a ``.npy`` file of such an array, a TIFF file of one or more pages, a folder of such
        files of one page, or an NWB file (HDF5) which holds it as a TwoPhotonSeries, OnePhotonSeries, ImageSeries or
        TimeSeries of lines, time first, or as an image.
    line_rate_hz : float or None
        Lines per second; None where an NWB file tells it.
    um_per_pixel : float
        Length of a pixel along the line, µm.
    segments : array of shape (N, 2), optional
        Where each segment starts and ends, in µm along the line, which begins at 0. A pixel belongs to the segment
        that its centre is in. In ascending order, and no pixel in two. By default the line is divided into equal
        segments.
    segment_um : float, default: 10.0
        About how long the equal segments are, µm.
    time_axis : {0, 1}, optional
        The axis of an image along which time goes: 0 if each row is a line, 1 if each column is. By default the first
        of an NWB series, and of a single image the axis which is at least twice as long as the other; of pages that are
        not single lines it has to be given, as their lengths do not tell.
    series : str, optional
        The path of the series or image in an NWB file, e.g. ``"acquisition/TwoPhotonSeries"``; needed only where there
        are several.
    roi_ids : sequence of int or str, optional
        The names of the segments. By default 0, 1, …
    value : {"fluorescence", "delta_f_over_f"}, optional
        What the numbers are.
    indicator : str, optional
        The name of the indicator. By default what an NWB file tells.
    t_start : float, optional
        Time of the first line, s. By default what an NWB file tells; its timestamps, if irregular, are then kept.

    Returns
    -------
    BaseRecording
        A channel for each segment: the mean over its pixels in each line, float32 or, where that does not hold it,
        float64. The property ``centroid``, and the probe, are the middle of the segment's pixels in µm along the line
        (y is 0), and ``num_pixels`` is their number; the annotation ``same_neuron`` says that spikes which segments
        share are no cross-talk. Lines of a file are read when traces are asked for, and such a
        recording can be saved as JSON. A page of a compressed TIFF file can only be decoded as a whole: if there is but
        one, all lines are then in memory at once.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the source cannot be read or is no line scan, if it is not clear which axis is time, or if a segment is
        empty, out of order or beyond the line.
    """
    check_value(value)
    if not is_positive(um_per_pixel):
        raise ValueError(f"um_per_pixel: must be positive, the length of a pixel along the line, not {um_per_pixel!r}.")
    if time_axis not in (None, 0, 1):
        raise ValueError(f"time_axis: must be 0 if each row is a line, 1 if each column is, not {time_axis!r}.")
    description = dict(value=value, indicator=indicator)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"source: {path} does not exist.")
        if path.is_file() and h5py.is_hdf5(path):
            series = _choose_nwb_series(path, series)
        elif series is not None:
            raise ValueError(f"series: is for NWB files, which {path} is not; leave it out.")
        lines = _open_lines(path, time_axis, series)
        if series is not None:
            told_rate_hz, told_start, told = _read_nwb_facts(path, series, lines.shape[0])
            line_rate_hz = told_rate_hz if line_rate_hz is None else line_rate_hz
            t_start = told_start if t_start is None else t_start
            description = told | {name: item for name, item in description.items() if item is not None}
    elif isinstance(source, np.ndarray) and source.ndim in (2, 3) and source.dtype.kind in "biuf":
        path = None
        lines = _PageLines(source.reshape(-1, *source.shape[-2:]), time_axis, "the array")
    else:
        raise ValueError("source: must be a path, or an array of numbers of shape (H, W), or (P, H, W) for P pages.")
    if line_rate_hz is None:
        raise ValueError("line_rate_hz: the source does not tell how many lines there are per second; give it.")
    check_sampling_frequency(line_rate_hz, "line_rate_hz")
    pixels = _pixels_of_segments(segments, lines.shape[1], um_per_pixel, segment_um)
    roi_ids = check_roi_ids(range(len(pixels)) if roi_ids is None else roi_ids, len(pixels))
    if path is not None:
        return LineScanRecording(
            path, line_rate_hz, um_per_pixel, pixels, roi_ids, lines.time_axis, series, t_start, description
        )
    means = _read_means(lines, pixels, 0, lines.shape[0], slice(None))
    t_starts = None if t_start is None else [t_start]
    recording = NumpyRecording([means], line_rate_hz, t_starts=t_starts, channel_ids=roi_ids)
    _describe(recording, um_per_pixel, pixels, description)
    return recording


class LineScanRecording(BaseRecording):
    """The mean over each segment of the lines in a file, see `read_line_scan`.

    Parameters
    ----------
    file_path : path
    line_rate_hz : float
    um_per_pixel : float
    pixels : list of [int, int]
        The first pixel of each segment, and the one after its last one.
    roi_ids : list of int or str
    time_axis : {0, 1}
    series : str, optional
        The path of the series or image in an NWB file.
    t_start : float, optional
        Time of the first line, s.
    description : dict, optional
        Annotations.
    """

    def __init__(
        self,
        file_path: str | Path,
        line_rate_hz: float,
        um_per_pixel: float,
        pixels: list[list[int]],
        roi_ids: list[int | str],
        time_axis: int,
        series: str | None = None,
        t_start: float | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        lines = _open_lines(Path(file_path), time_axis, series)
        BaseRecording.__init__(self, line_rate_hz, roi_ids, mean_dtype(lines.dtype))
        clock: dict[str, Any] = dict(sampling_frequency=line_rate_hz, t_start=t_start)
        if t_start is None and lines.timestamps is not None:
            clock = dict(time_vector=lines.timestamps)
        self.add_recording_segment(LazySegment(lines.shape[0], partial(_read_means, lines, pixels), **clock))
        _describe(self, um_per_pixel, pixels, description or {})
        self._kwargs = dict(
            file_path=str(Path(file_path).absolute()),
            line_rate_hz=float(line_rate_hz),
            um_per_pixel=float(um_per_pixel),
            pixels=pixels,
            roi_ids=roi_ids,
            time_axis=time_axis,
            series=series,
            t_start=t_start,
            description=description,
        )


class _PageLines:
    """T lines of X pixels in images that follow each other in time."""

    timestamps = None

    def __init__(self, pages: Frames, time_axis: int | None, name: str) -> None:
        num_pages, *page_shape = pages.shape
        self.time_axis = _time_axis(num_pages, page_shape, name) if time_axis is None else time_axis
        self.pages, self.dtype, self.lines_per_page = pages, pages.dtype, page_shape[self.time_axis]
        self.shape = (num_pages * self.lines_per_page, page_shape[1 - self.time_axis])
        self._last_read = (-1, np.empty(0))  # a compressed page is decoded as a whole, but asked for in parts

    def read(self, start: int, end: int) -> np.ndarray:
        """Return some of the lines, shape (T, X)."""
        size = self.lines_per_page
        parts = [np.empty((0, self.shape[1]), self.dtype)]
        for page in range(start // size, -(-end // size)):
            parts.append(self._page(page)[max(start - page * size, 0) : end - page * size])
        return parts[1] if len(parts) == 2 else np.concatenate(parts)

    def _page(self, page: int) -> np.ndarray:
        last_read = self._last_read
        if last_read[0] != page:
            image = self.pages[page]
            last_read = self._last_read = (page, image.T if self.time_axis == 1 else image)
        return last_read[1]


class _NwbLines:
    """T lines of X pixels in an NWB file, which is not held open, so that processes and threads do not share it."""

    def __init__(self, path: Path, time_axis: int | None, series: str) -> None:
        self.path, self.series = path, series
        with reading(path), h5py.File(path) as file:
            is_series, data = isinstance(file[series], h5py.Group), _nwb_data(file[series])
            stamps = file.get(f"{series}/timestamps")
            self.timestamps = None if stamps is None else stamps[:].astype("float64")
            self.scale, self.offset = read_conversion(data)
            self.is_scaled = (self.scale, self.offset) != (1, 0)
            self.dtype = mean_dtype(data.dtype) if self.is_scaled else data.dtype
            shape, axes = _without_ones(data.shape), [axis for axis, length in enumerate(data.shape) if length > 1]
        if time_axis is None and is_series and shape[1] > shape[0]:
            raise ValueError(
                f"time_axis: '{series}' in {path} has {shape[0]} lines of {shape[1]} pixels, so it may be transposed; "
                "give 1 if it is, else 0."
            )
        if time_axis is None:
            time_axis = 0 if is_series else _time_axis(1, shape, f"'{series}' in {path}")
        self.time_axis = time_axis
        self.shape = (shape[time_axis], shape[1 - time_axis])
        self.axes_before = axes[time_axis]

    def read(self, start: int, end: int) -> np.ndarray:
        """Return some of the lines, shape (T, X)."""
        with reading(self.path), h5py.File(self.path) as file:
            lines = _nwb_data(file[self.series])[(slice(None),) * self.axes_before + (slice(start, end),)]
        if self.is_scaled:
            lines = (lines * self.scale + self.offset).astype(self.dtype, copy=False)
        return lines.reshape(self.shape[1], -1).T if self.time_axis == 1 else lines.reshape(-1, self.shape[1])


def _open_lines(path: Path, time_axis: int | None, series: str | None) -> _PageLines | _NwbLines:
    if series is not None:
        return _NwbLines(path, time_axis, series)
    if not is_image_file(path):
        raise ValueError(f"source: {path} is neither a TIFF file, nor a folder of them, nor a .npy or an NWB file.")
    return _PageLines(open_frames(path), time_axis, str(path))


def _time_axis(num_pages: int, page_shape: Sequence[int], name: str) -> int:
    """Return the axis of time in an image; raise if the shape of the image does not tell it."""
    height, width = page_shape
    if num_pages > 1 and (height == 1) != (width == 1):
        return 0 if height == 1 else 1  # each page is a line
    if num_pages == 1 and min(page_shape) > 1 and max(page_shape) >= CLEARLY_LONGER * min(page_shape):
        return 0 if height > width else 1
    pages = f"{num_pages} pages of " if num_pages > 1 else ""
    raise ValueError(
        f"time_axis: {name} has {pages}{height} rows × {width} columns, which does not tell the axis of time; give 0 "
        "if each row is a line, 1 if each column is."
    )


def _pixels_of_segments(
    segments: ArrayLike | None, num_pixels: int, um_per_pixel: float, segment_um: float
) -> list[list[int]]:
    """Return the first pixel of each segment and the one after its last, from where they start and end in µm."""
    length_um = num_pixels * um_per_pixel
    if segments is None:
        if not um_per_pixel <= segment_um < np.inf:
            raise ValueError(f"segment_um: must be at least a pixel, {um_per_pixel:g} µm, not {segment_um}.")
        edges = np.linspace(0, length_um, max(1, round(length_um / segment_um)) + 1)
        segments = np.stack([edges[:-1], edges[1:]], axis=1)
    segments = np.asarray(segments, dtype=float)
    if segments.ndim != 2 or segments.shape[1] != 2 or len(segments) == 0 or not np.isfinite(segments).all():
        raise ValueError("segments: must be where each segment starts and ends, [(start, end), …] in µm.")
    centres = (np.arange(num_pixels) + 0.5) * um_per_pixel
    pixels = np.searchsorted(centres, segments)
    after_last = 0
    for index, ((start, end), (first, after)) in enumerate(zip(segments, pixels, strict=True)):
        segment = f"segments: segment {index}, {start:g} to {end:g} µm,"
        if start < 0 or end > length_um * (1 + 1e-9):
            raise ValueError(f"{segment} reaches beyond the line, 0 to {length_um:g} µm.")
        if first >= after:
            raise ValueError(f"{segment} has no pixel, whose centres are {um_per_pixel:g} µm apart; enlarge it.")
        if first < after_last:
            raise ValueError(f"{segment} starts before the end of the one before it; put them in order along the line.")
        after_last = after
    return pixels.tolist()


def _read_means(
    lines: _PageLines | _NwbLines, pixels: list[list[int]], start: int, end: int, channels: Sequence[int] | slice
) -> np.ndarray:
    """Return the mean of some lines over each dendritic segment, shape (T, N)."""
    read = lines.read(start, end)  # T × X
    means = [read[:, first:after].mean(axis=1, dtype=np.float64) for first, after in pixels]
    return np.stack(means, axis=1).astype(mean_dtype(read.dtype))[:, channels]


def _describe(
    recording: BaseRecording, um_per_pixel: float, pixels: list[list[int]], description: dict[str, Any]
) -> None:
    first, after = np.array(pixels).T
    along_um = (first + after) / 2 * um_per_pixel
    describe_rois(
        recording,
        centroid=np.stack([along_um, np.zeros(len(pixels))], axis=1),
        num_pixels=after - first,
        pixel_size_um=float(um_per_pixel),
        same_neuron=True,
        **description,
    )


def _choose_nwb_series(path: Path, series: str | None) -> str:
    """Return the path of the line scan in an NWB file."""
    with reading(path), h5py.File(path) as file:
        items = {name: _nwb_data(item) for name, item in find_groups(file, *NWB_SERIES, *NWB_IMAGES).items()}
        found = {name: f"'{name}' {data.shape}" for name, data in items.items() if _are_lines(data)}
    if not found:
        raise ValueError(
            f"source: {path} has no line scan, that is, no {', '.join(NWB_SERIES + NWB_IMAGES)} of lines × pixels."
        )
    listed = ", ".join(found.values())
    if series is None and len(found) > 1:
        raise ValueError(f"series: {path} has several that may be line scans; choose one of {listed}.")
    series = next(iter(found)) if series is None else series.strip("/")
    if series not in found:
        raise ValueError(f"series: there is no line scan '{series}' in {path}; it has {listed}.")
    return series


def _nwb_data(item: h5py.Group | h5py.Dataset) -> Any:
    """Return the data of a series, or None if it has none; an image is data itself."""
    return item.get("data") if isinstance(item, h5py.Group) else item


def _are_lines(data: h5py.Dataset | None) -> bool:
    return data is not None and data.dtype.kind in "biuf" and len(_without_ones(data.shape)) == 2


def _read_nwb_facts(path: Path, series: str, num_lines: int) -> tuple[float | None, float | None, dict[str, str]]:
    """Return lines per second and the time of the first line, None where not known, and annotations."""
    with h5py.File(path) as file:
        clock = (None, None)
        if any(file.get(f"{series}/{name}") is not None for name in ("starting_time", "timestamps")):
            clock = read_clock(file, file[series], num_lines, f"source: '{series}' in {path}")
        return *clock, read_session(file) | read_indicator(file.get(f"{series}/imaging_plane"))


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(length for length in shape if length > 1)
