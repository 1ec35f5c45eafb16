"""Traces of regions of interest (ROIs) from movies: TIFF and NumPy files, and Neo's image sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import neo
import numpy as np
import quantities as pq
from spikeinterface.core import NumpyRecording

from dlvolt.io.frames import open_frames
from dlvolt.io.roi_masks import RoisLike, find_pixels, roi_means
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
) -> NumpyRecording:
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
    NumpyRecording
        A channel for each ROI: the mean over its pixels at each frame, in the units of the source (property
        ``physical_unit``, where it tells), float32 or, where that does not hold them, float64. The channel properties
        ``centroid``, ``centroid_unit`` and ``num_pixels`` describe the ROIs; where the size of a pixel is known,
        centroids are in µm and become the probe. The movie is read once, frame by frame; the traces are held in memory.

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
    if isinstance(source, (str, Path)):
        movies, t_starts, unit = [open_frames(Path(source))], None, None
        if movies[0].shape[0] < 2:
            raise ValueError(f"source: {source} has one image, so it is no movie; give a file, or folder, of several.")
        if sampling_frequency is None:
            raise ValueError(
                f"sampling_frequency: {source} does not tell how many frames there are per second; give it."
            )
    else:
        sequences = _image_sequences(source)
        movies = [sequence.magnitude for sequence in sequences]
        t_starts = [float(sequence.t_start.rescale("s")) for sequence in sequences]
        _the_same(sequences, "shapes of images", lambda sequence: sequence.shape[1:])
        unit = _the_same(sequences, "units", lambda sequence: str(sequence.dimensionality))
        if um_per_pixel is None:
            um_per_pixel = _the_same(sequences, "spatial scales", _spatial_scale_um)
        if sampling_frequency is None:
            sampling_frequency = _the_same(sequences, "sampling rates", lambda s: float(s.sampling_rate.rescale("Hz")))
    check_sampling_frequency(sampling_frequency)
    width = movies[0].shape[2]
    pixels, ids = find_pixels(rois, movies[0].shape[1:])
    roi_ids = check_roi_ids(ids if roi_ids is None else roi_ids, len(ids))
    centroid = np.array([(np.mean(indices % width), np.mean(indices // width)) for indices in pixels])
    if um_per_pixel is not None:
        um_per_pixel = np.asarray(um_per_pixel, dtype=float)
        if um_per_pixel.shape not in ((), (2,)) or not np.all((um_per_pixel > 0) & np.isfinite(um_per_pixel)):
            raise ValueError(f"um_per_pixel: must be a positive size, or width and height, not {um_per_pixel}.")
        centroid = centroid * um_per_pixel

    traces = [roi_means(movie, pixels) for movie in movies]
    recording = NumpyRecording(traces, sampling_frequency, t_starts=t_starts, channel_ids=roi_ids)
    describe_rois(
        recording,
        centroid=centroid,
        centroid_unit="pixels" if um_per_pixel is None else "um",
        num_pixels=[len(indices) for indices in pixels],
        pixel_size_um=None if um_per_pixel is None else um_per_pixel.tolist(),
        value=value,
        indicator=indicator,
    )
    if unit is not None:
        recording.set_property("physical_unit", np.full(len(ids), unit))
        recording.set_property("gain_to_physical_unit", np.ones(len(ids)))
        recording.set_property("offset_to_physical_unit", np.zeros(len(ids)))
    if isinstance(source, (neo.Block, neo.Segment)) and source.rec_datetime is not None:
        recording.annotate(session_start_time=source.rec_datetime.isoformat())
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
