"""Traces of regions of interest (ROIs) from movies: TIFF and NumPy files, and Neo's image sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import neo
import numpy as np
import quantities as pq
from spikeinterface.core import BaseRecording, NumpyRecording

from dlvolt.io.frames import is_image_file, open_frames
from dlvolt.io.lazy import LazySegment
from dlvolt.io.roi_masks import RoiMeans, RoisLike, as_runs, find_pixels, from_runs, mean_dtype
from dlvolt.io.rois import Value, check_roi_ids, check_sampling_frequency, check_value, describe_rois


def read_image_sequence(
    source: str | Path | neo.Block | neo.Segment | neo.ImageSequence,
    rois: RoisLike,
    *,
    sampling_frequency: float | None = None,
    um_per_pixel: float | Sequence[float] | None = None,
    roi_ids: Sequence[int | str] | None = None,
    value: Value | None = None,
    indicator: str | None = None,
) -> BaseRecording:
    """Read the traces of regions of interest (ROIs) from a movie.

    Parameters
    ----------
    source : path, neo.ImageSequence, neo.Segment or neo.Block
        The movie: a TIFF file of several pages (BigTIFF, ImageJ and OME too), a folder of TIFF files of one page each,
        in natural order (2 before 10), a ``.npy`` file of shape (T, H, W), or what one of Neo's readers returned, with
        one ``ImageSequence`` in each segment.
    rois : array or sequence
        The ROIs, of at least one pixel and within the image of H rows and W columns, as one of

        - a label mask of shape (H, W): 0 is background, other integers are the ids of ROIs;
        - masks of shape (N, H, W), which may overlap: true inside of an ROI;
        - a list of Neo's ``CircularRegionOfInterest``, ``RectangularRegionOfInterest`` and
          ``PolygonRegionOfInterest``, or of dictionaries ``{"circle": [x, y, radius]}``,
          ``{"rectangle": [x, y, width, height]}`` around the centre x, y, and ``{"polygon": [[x, y], …]}``.
    sampling_frequency : float, optional
        Frames per second. By default what Neo's sequences tell; files need it.
    um_per_pixel : float or (float, float), optional
        Size of a pixel, or its width and height, µm. By default what Neo's sequences tell.
    roi_ids : sequence of int or str, optional
        The names of the N ROIs. By default those of the label mask, else 0, 1, …
    value : {"fluorescence", "delta_f_over_f"}, optional
        What the numbers are.
    indicator : str, optional
        The name of the indicator.

    Returns
    -------
    BaseRecording
        A channel for each ROI: the mean over its pixels at each frame, in the units of the source (property
        ``physical_unit``, where it tells), float32 or, where that does not hold them, float64. The channel properties
        ``centroid``, ``centroid_unit`` and ``num_pixels`` describe the ROIs; where the size of a pixel is known,
        centroids are in µm and become the probe. A movie in files is read frame by frame when traces are asked for, and
        such a recording can be saved as JSON; the traces of Neo objects are held in memory.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the source is no movie or cannot be read, if its sampling frequency is not known, or if the ROIs are without
        a pixel or not within the image.

    Notes
    -----
    Pixel centres have integer coordinates: x is the column and y is the row, both from 0. A pixel belongs to an ROI if
    Neo's ROIs say that its centre ``is_inside``: for circles, the edge included; for rectangles and polygons, the left
    and upper edges included and the right and lower ones not. In two points Neo (0.14) contradicts itself and is not
    followed: its lists of the pixels in a circle leave out those which lie exactly at its right and lower end, and its
    ``signal_from_region`` takes x for the row.
    """
    check_value(value)
    description: dict[str, Any] = dict(value=value, indicator=indicator)
    if not isinstance(source, (str, Path)):
        return _read_sequences(source, rois, sampling_frequency, um_per_pixel, roi_ids, description)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"source: {path} does not exist.")
    if not is_image_file(path):
        raise ValueError(
            f"source: {path} is neither a TIFF file, nor a folder of them, nor a .npy file; give what one of Neo's "
            "readers returns, e.g. neo.io.NixIO(path).read_block()."
        )
    frames = open_frames(path)
    if frames.shape[0] < 2:
        raise ValueError(f"source: {path} has one image, so it is no movie; give a file, or folder, of several.")
    if sampling_frequency is None:
        raise ValueError(f"sampling_frequency: {path} does not tell how many frames there are per second; give it.")
    pixels, ids = find_pixels(rois, frames.shape[1:])
    runs = [as_runs(indices) for indices in pixels]
    roi_ids = check_roi_ids(ids if roi_ids is None else roi_ids, len(pixels))
    return MovieRecording(path, runs, sampling_frequency, roi_ids, um_per_pixel, description)


class MovieRecording(BaseRecording):
    """The mean over each ROI in a movie in files, see `read_image_sequence`.

    Each of the `rois` is its pixels as runs in the flattened image: first pixel, length, first pixel, length, …
    The `description` are annotations.
    """

    def __init__(
        self,
        file_path: str | Path,
        rois: list[list[int]],
        sampling_frequency: float,
        roi_ids: list[int | str],
        um_per_pixel: float | Sequence[float] | None,
        description: dict[str, Any],
    ) -> None:
        check_sampling_frequency(sampling_frequency)
        frames = open_frames(Path(file_path))
        pixels = [from_runs(runs) for runs in rois]
        BaseRecording.__init__(self, sampling_frequency, roi_ids, mean_dtype(frames.dtype))
        read = partial(RoiMeans(pixels, frames.shape[1:]).of, frames)
        self.add_recording_segment(LazySegment(frames.shape[0], read, sampling_frequency=sampling_frequency))
        _describe(self, pixels, frames.shape[2], um_per_pixel, description)
        self._kwargs = dict(
            file_path=str(Path(file_path).absolute()),
            rois=rois,
            sampling_frequency=float(sampling_frequency),
            roi_ids=roi_ids,
            um_per_pixel=None if um_per_pixel is None else np.asarray(um_per_pixel, dtype=float).tolist(),
            description=description,
        )


def _describe(
    recording: BaseRecording,
    pixels: list[np.ndarray],
    width: int,
    um_per_pixel: float | Sequence[float] | None,
    description: dict[str, Any],
) -> None:
    centroid = np.array([(np.mean(indices % width), np.mean(indices // width)) for indices in pixels])
    if um_per_pixel is not None:
        um_per_pixel = np.asarray(um_per_pixel, dtype=float)
        if um_per_pixel.shape not in ((), (2,)) or not np.all((um_per_pixel > 0) & np.isfinite(um_per_pixel)):
            raise ValueError(f"um_per_pixel: must be a positive size, or width and height, not {um_per_pixel}.")
        centroid, description = centroid * um_per_pixel, description | {"pixel_size_um": um_per_pixel.tolist()}
    describe_rois(
        recording,
        centroid=centroid,
        centroid_unit="pixels" if um_per_pixel is None else "um",
        num_pixels=[len(indices) for indices in pixels],
        **description,
    )


def _read_sequences(
    source: neo.Block | neo.Segment | neo.ImageSequence,
    rois: RoisLike,
    sampling_frequency: float | None,
    um_per_pixel: float | Sequence[float] | None,
    roi_ids: Sequence[int | str] | None,
    description: dict[str, Any],
) -> NumpyRecording:
    """Return the mean over each ROI in the one image sequence of each segment."""
    sequences = _image_sequences(source)
    if isinstance(source, (neo.Block, neo.Segment)) and source.rec_datetime is not None:
        description = description | {"session_start_time": source.rec_datetime.isoformat()}
    image_shape = _the_same(sequences, "shapes of images", lambda sequence: sequence.shape[1:])
    pixels, ids = find_pixels(rois, image_shape)
    means = RoiMeans(pixels, image_shape)
    unit = _the_same(sequences, "units", lambda sequence: str(sequence.dimensionality))
    if um_per_pixel is None:
        um_per_pixel = _the_same(sequences, "spatial scales", _spatial_scale_um)
    if sampling_frequency is None:
        sampling_frequency = _the_same(sequences, "sampling rates", lambda s: float(s.sampling_rate.rescale("Hz")))
    check_sampling_frequency(sampling_frequency)
    recording = NumpyRecording(
        [means.of(sequence.magnitude, 0, len(sequence)) for sequence in sequences],
        sampling_frequency,
        t_starts=[float(sequence.t_start.rescale("s")) for sequence in sequences],
        channel_ids=check_roi_ids(ids if roi_ids is None else roi_ids, len(ids)),
    )
    recording.set_property("physical_unit", np.full(len(ids), unit))
    recording.set_property("gain_to_physical_unit", np.ones(len(ids)))
    recording.set_property("offset_to_physical_unit", np.zeros(len(ids)))
    _describe(recording, pixels, image_shape[1], um_per_pixel, description)
    return recording


def _image_sequences(source: Any) -> list[neo.ImageSequence]:
    """Return the image sequence of each segment of a Neo object."""
    if isinstance(source, neo.ImageSequence):
        return [source]
    if not isinstance(source, (neo.Block, neo.Segment)):
        raise ValueError(
            f"source: must be a path or a Block, Segment or ImageSequence of Neo, not {type(source).__name__}; an "
            "array becomes one by neo.ImageSequence(array, units=…, sampling_rate=…, spatial_scale=…)."
        )
    segments = source.segments if isinstance(source, neo.Block) else [source]
    if not any(segment.imagesequences for segment in segments):
        raise ValueError(f"source: the {type(source).__name__} holds no ImageSequence.")
    counts = [len(segment.imagesequences) for segment in segments]
    if set(counts) != {1}:
        counted = ", ".join(map(str, counts))
        raise ValueError(f"source: its segments hold {counted} ImageSequences; give the ImageSequence that is meant.")
    return [segment.imagesequences[0] for segment in segments]


def _spatial_scale_um(sequence: neo.ImageSequence) -> float | None:
    try:
        return float(pq.Quantity(sequence.spatial_scale).rescale("um"))
    except ValueError:  # Neo demands a scale, so a file without one may give what is no length
        return None


def _the_same(sequences: list[neo.ImageSequence], what: str, of: Callable[[neo.ImageSequence], Any]) -> Any:
    """Return a property that all image sequences share; raise if they differ in it."""
    first, *others = [of(sequence) for sequence in sequences]
    if any(other != first for other in others):
        raise ValueError(f"source: holds different {what}, {[first, *others]}; give one of its objects at a time.")
    return first
