"""Traces of dendritic segments from line scans: images of space × time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from spikeinterface.core import BaseRecording, NumpyRecording

from dlvolt.io.frames import Frames, is_image_file, open_frames
from dlvolt.io.lazy import LazySegment
from dlvolt.io.roi_masks import mean_dtype
from dlvolt.io.rois import Value, check_roi_ids, check_sampling_frequency, check_value, describe_rois, is_positive

CLEARLY_LONGER = 2  # an axis at least so many times as long as the other is taken for time


def read_line_scan(
    source: str | Path | np.ndarray,
    line_rate_hz: float,
    um_per_pixel: float,
    segments: ArrayLike | None = None,
    *,
    segment_um: float = 10.0,
    time_axis: int | None = None,
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
        follow each other in time; a ``.npy`` file of such an array, a TIFF file of one or more pages, or a folder of
        such files of one page.
    line_rate_hz : float
        Lines per second.
    um_per_pixel : float
        Length of a pixel along the line, µm.
    segments : array of shape (N, 2), optional
        Where each segment starts and ends, in µm along the line, which begins at 0. A pixel belongs to the segment
        that its centre is in. In ascending order, and no pixel in two. By default the line is divided into equal
        segments.
    segment_um : float, default: 10.0
        About how long the equal segments are, µm.
    time_axis : {0, 1}, optional
        The axis of an image along which time goes: 0 if each row is a line, 1 if each column is. By default that which
        is at least twice as long as the other; of pages that are not single lines it has to be given, as their lengths
        do not tell.
    roi_ids : sequence of int or str, optional
        The names of the segments. By default 0, 1, …
    value : {"fluorescence", "delta_f_over_f"}, optional
        What the numbers are.
    indicator : str, optional
        The name of the indicator.
    t_start : float, optional
        Time of the first line, s.

    Returns
    -------
    BaseRecording
        A channel for each segment: the mean over its pixels in each line, float32 or, where that does not hold it,
        float64. The property ``centroid``, and the probe, are the middle of the segment's pixels in µm along the line
        (y is 0), and ``num_pixels`` is their number; the annotation ``same_neuron`` says that spikes which segments
        share are no cross-talk. Lines of a file are read when traces are asked for, and such a recording can be saved
        as JSON. A page of a compressed TIFF file can only be decoded as a whole: if there is but one, all lines are
        then in memory at once.

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
    check_sampling_frequency(line_rate_hz, "line_rate_hz")
    if isinstance(source, (str, Path)):
        if not Path(source).exists():
            raise FileNotFoundError(f"source: {source} does not exist.")
        lines = _open_lines(Path(source), time_axis)
    elif isinstance(source, np.ndarray) and source.ndim in (2, 3) and source.dtype.kind in "biuf":
        lines = _Lines(source.reshape(-1, *source.shape[-2:]), time_axis, "the array")
    else:
        raise ValueError("source: must be a path, or an array of numbers of shape (H, W), or (P, H, W) for P pages.")
    pixels = _pixels_of_segments(segments, lines.shape[1], um_per_pixel, segment_um)
    roi_ids = check_roi_ids(range(len(pixels)) if roi_ids is None else roi_ids, len(pixels))
    description = dict(value=value, indicator=indicator)
    if not isinstance(source, np.ndarray):
        return LineScanRecording(
            source, line_rate_hz, um_per_pixel, pixels, roi_ids, lines.time_axis, t_start, description
        )
    means = _read_means(lines, pixels, 0, lines.shape[0], slice(None))
    t_starts = None if t_start is None else [t_start]
    recording = NumpyRecording([means], line_rate_hz, t_starts=t_starts, channel_ids=roi_ids)
    _describe(recording, um_per_pixel, pixels, description)
    return recording


class LineScanRecording(BaseRecording):
    """The mean over each segment of the lines in a file, see `read_line_scan`.

    `pixels` are the first pixel of each segment, and the one after its last one; the `description` are annotations.
    """

    def __init__(
        self,
        file_path: str | Path,
        line_rate_hz: float,
        um_per_pixel: float,
        pixels: list[list[int]],
        roi_ids: list[int | str],
        time_axis: int,
        t_start: float | None,
        description: dict[str, Any],
    ) -> None:
        lines = _open_lines(Path(file_path), time_axis)
        BaseRecording.__init__(self, line_rate_hz, roi_ids, mean_dtype(lines.dtype))
        read = partial(_read_means, lines, pixels)
        self.add_recording_segment(LazySegment(lines.shape[0], read, sampling_frequency=line_rate_hz, t_start=t_start))
        _describe(self, um_per_pixel, pixels, description)
        self._kwargs = dict(
            file_path=str(Path(file_path).absolute()),
            line_rate_hz=float(line_rate_hz),
            um_per_pixel=float(um_per_pixel),
            pixels=pixels,
            roi_ids=roi_ids,
            time_axis=time_axis,
            t_start=t_start,
            description=description,
        )


class _Lines:
    """T lines of X pixels in images that follow each other in time."""

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


def _open_lines(path: Path, time_axis: int | None) -> _Lines:
    if not is_image_file(path):
        raise ValueError(f"source: {path} is neither a TIFF file, nor a folder of them, nor a .npy file.")
    return _Lines(open_frames(path), time_axis, str(path))


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
    lines: _Lines, pixels: list[list[int]], start: int, end: int, channels: Sequence[int] | slice
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
