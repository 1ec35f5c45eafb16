"""Traces of regions of interest (ROIs) from movies: Neo image sequences and TIFF files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import neo
import numpy as np
import quantities as pq
from spikeinterface.core import BaseRecording, NumpyRecording

from dlvolt.io.frames import is_image_file, open_frames, read_metadata
from dlvolt.io.lazy import LazySegment
from dlvolt.io.roi_masks import RoiMeans, RoisLike, as_runs, find_pixels, from_runs, mean_dtype
from dlvolt.io.rois import Value, check_roi_ids, check_sampling_frequency, check_value, describe_rois


def read_image_sequence(
    source: str | Path | neo.Block | neo.Segment | neo.ImageSequence | neo.AnalogSignal | neo.io.baseio.BaseIO,
    rois: RoisLike = None,
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
    source : path or Neo object
        The movie: a TIFF file of several pages (BigTIFF, ImageJ and OME too), a folder of TIFF files of one page each,
        in natural order (2 before 10), a ``.npy`` file of shape (T, H, W), or a file that Neo reads by itself, such as
        NIX. Or a Neo ``ImageSequence``, a ``Segment`` or ``Block`` that holds one in each segment, or a Neo reader
        that needs more than a path (``neo.io.AsciiImageIO(…)``, ``neo.io.BlkIO(…)``).
    rois : array, sequence or path, optional
        The ROIs, of at least one pixel and within the image of H rows and W columns, as one of

        - a label mask of shape (H, W): 0 is background, other integers are the ids of ROIs;
        - masks of shape (N, H, W), which may overlap: true inside of an ROI;
        - the path of a ``.npy`` or TIFF file with either;
        - a list of Neo's ``CircularRegionOfInterest``, ``RectangularRegionOfInterest`` and
          ``PolygonRegionOfInterest``, or of dictionaries ``{"circle": [x, y, radius]}``,
          ``{"rectangle": [x, y, width, height]}`` around the centre x, y, and ``{"polygon": [[x, y], …]}``.

        Without ROIs, each ``AnalogSignal`` of a Neo source is given as it is, one channel for each of its own; those in
        volts or amperes are taken to be of electrodes, unless a `value` or `indicator` is given.
    sampling_frequency : float, optional
        Frames per second. By default what the source tells, as Neo's sequences and the metadata of some ImageJ and
        OME files do.
    um_per_pixel : float or (float, float), optional
        Size of a pixel, or its width and height, µm. By default what the source tells.
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
        If the source is no movie or cannot be read, does not tell its sampling frequency, or if the ROIs are missing,
        without a pixel or not within the image.

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
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"source: {path} does not exist.")
        if is_image_file(path):
            return _read_movie(path, rois, sampling_frequency, um_per_pixel, roi_ids, description)
        source = _read_with_neo(path)
    elif isinstance(source, neo.io.baseio.BaseIO):
        source = _read_block(source)
    images, signals = _images_and_signals(source)
    if isinstance(source, (neo.Block, neo.Segment)) and source.rec_datetime is not None:
        description["session_start_time"] = source.rec_datetime.isoformat()
    if rois is None and any(signals):
        return _signals_to_recording(signals, sampling_frequency, roi_ids, description)
    if not any(images):
        raise ValueError(
            f"source: the {type(source).__name__} holds no ImageSequence; without rois, an AnalogSignal would do."
        )
    return _images_to_recording(images, rois, sampling_frequency, um_per_pixel, roi_ids, description)


def _read_movie(
    path: Path,
    rois: RoisLike,
    sampling_frequency: float | None,
    um_per_pixel: float | Sequence[float] | None,
    roi_ids: Sequence[int | str] | None,
    description: dict[str, Any],
) -> MovieRecording:
    frames = open_frames(path)
    if frames.shape[0] < 2:
        raise ValueError(f"source: {path} has one image, so it is no movie; give a file, or folder, of several.")
    told_sampling_frequency, told_um_per_pixel = read_metadata(path)
    sampling_frequency = told_sampling_frequency if sampling_frequency is None else sampling_frequency
    if sampling_frequency is None:
        raise ValueError(f"sampling_frequency: {path} does not tell how many frames there are per second; give it.")
    pixels, ids = find_pixels(rois, frames.shape[1:])
    return MovieRecording(
        path,
        [as_runs(indices) for indices in pixels],
        sampling_frequency,
        check_roi_ids(ids if roi_ids is None else roi_ids, len(pixels)),
        told_um_per_pixel if um_per_pixel is None else um_per_pixel,
        description,
    )


class MovieRecording(BaseRecording):
    """The mean over each ROI in a movie in files, see `read_image_sequence`.

    Parameters
    ----------
    file_path : path
        The file, or the folder of files.
    rois : list of list of int
        The pixels of each ROI, as runs in the flattened image: first pixel, length, first pixel, length, …
    sampling_frequency : float
    roi_ids : list of int or str
    um_per_pixel : float or [float, float], optional
    description : dict, optional
        Annotations.
    """

    def __init__(
        self,
        file_path: str | Path,
        rois: list[list[int]],
        sampling_frequency: float,
        roi_ids: list[int | str],
        um_per_pixel: float | Sequence[float] | None = None,
        description: dict[str, Any] | None = None,
    ) -> None:
        check_sampling_frequency(sampling_frequency)
        frames = open_frames(Path(file_path))
        pixels = [from_runs(runs) for runs in rois]
        BaseRecording.__init__(self, sampling_frequency, roi_ids, mean_dtype(frames.dtype))
        read = partial(RoiMeans(pixels, frames.shape[1:]).of, frames)
        self.add_recording_segment(LazySegment(frames.shape[0], read, sampling_frequency=sampling_frequency))
        _describe(self, pixels, frames.shape[2], um_per_pixel, description or {})
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


def _read_with_neo(path: Path) -> neo.Block:
    """Read a file with the first of Neo's readers that can."""
    try:
        readers = neo.io.list_candidate_ios(path)
    except ValueError:
        readers = []
    failures = []
    for reader in readers:
        try:
            return _read_block(reader(str(path)))
        except Exception as error:  # Neo's readers raise anything, a missing package included
            failures.append(f"{reader.__name__}: {str(error).rstrip('.')}")
    listed = f" ({'; '.join(dict.fromkeys(failures))})" if failures else ""
    raise ValueError(
        f"source: {path} is neither a TIFF movie nor a file that Neo can read{listed}; where a reader of Neo needs "
        "more than the path, give the reader, e.g. neo.io.AsciiImageIO(…)."
    )


def _read_block(reader: neo.io.baseio.BaseIO) -> neo.Block:
    with contextlib.redirect_stdout(io.StringIO()):  # Neo's imaging readers print
        return reader.read_block()


def _images_and_signals(source: Any) -> tuple[list[list[neo.ImageSequence]], list[list[neo.AnalogSignal]]]:
    """Return the image sequences and the analog signals of each segment of a Neo object."""
    if isinstance(source, neo.ImageSequence):
        return [[source]], [[]]
    if isinstance(source, neo.AnalogSignal):
        return [[]], [[source]]
    if isinstance(source, (neo.Block, neo.Segment)):
        segments = source.segments if isinstance(source, neo.Block) else [source]
        return [each.imagesequences for each in segments], [each.analogsignals for each in segments]
    raise ValueError(
        f"source: must be a path or a Block, Segment, ImageSequence, AnalogSignal or reader of Neo, not "
        f"{type(source).__name__}; an array becomes one by neo.ImageSequence(array, units=…, sampling_rate=…, "
        "spatial_scale=…)."
    )


def _images_to_recording(
    segments: list[list[neo.ImageSequence]],
    rois: RoisLike,
    sampling_frequency: float | None,
    um_per_pixel: float | Sequence[float] | None,
    roi_ids: Sequence[int | str] | None,
    description: dict[str, Any],
) -> NumpyRecording:
    """Return the mean over each ROI in the one image sequence of each segment."""
    if any(len(sequences) != 1 for sequences in segments):
        counts = ", ".join(str(len(sequences)) for sequences in segments)
        raise ValueError(f"source: its segments hold {counts} ImageSequences; give the ImageSequence that is meant.")
    sequences = [sequence for [sequence] in segments]
    image_shape = _the_same(sequences, "shapes of images", lambda sequence: sequence.shape[1:])
    pixels, ids = find_pixels(rois, image_shape)
    means = RoiMeans(pixels, image_shape)
    unit = _the_same(sequences, "units", lambda sequence: str(sequence.dimensionality))
    if um_per_pixel is None:
        um_per_pixel = _the_same(sequences, "spatial scales", _spatial_scale_um)
    recording = NumpyRecording(
        [means.of(sequence.magnitude, 0, len(sequence)) for sequence in sequences],
        _sampling_frequency(sequences, sampling_frequency),
        t_starts=[float(sequence.t_start.rescale("s")) for sequence in sequences],
        channel_ids=check_roi_ids(ids if roi_ids is None else roi_ids, len(ids)),
    )
    _set_physical_units(recording, [unit] * len(ids))
    _describe(recording, pixels, image_shape[1], um_per_pixel, description)
    return recording


def _signals_to_recording(
    segments: list[list[neo.AnalogSignal]],
    sampling_frequency: float | None,
    roi_ids: Sequence[int | str] | None,
    description: dict[str, Any],
) -> NumpyRecording:
    """Return the channels of all analog signals of a segment, side by side."""
    if not all(segments):
        raise ValueError("source: some of its segments hold no AnalogSignal; give one segment at a time.")
    segments = [[s.load() if hasattr(s, "load") else s for s in signals] for signals in segments]  # if they are lazy
    t_starts = [_the_same(signals, "starts", lambda s: float(s.t_start.rescale("s"))) for signals in segments]
    for signals in segments:
        _the_same(signals, "lengths", len)
    rate = _sampling_frequency([s for signals in segments for s in signals], sampling_frequency)
    names = _the_same(segments, "channels", lambda signals: [n for s in signals for n in _channel_names(s)])
    units = [str(s.dimensionality) for s in segments[0] for _ in range(s.shape[1])]
    channel_ids = range(len(names)) if roi_ids is None else check_roi_ids(roi_ids, len(names))
    if roi_ids is None and all(names) and len(set(names)) == len(names):
        channel_ids = names
    traces = [np.concatenate([s.magnitude for s in signals], axis=1) for signals in segments]
    recording = NumpyRecording(traces, rate, t_starts=t_starts, channel_ids=channel_ids)
    recording.set_property("channel_name", np.array(names))
    _set_physical_units(recording, units)
    is_told = description["value"] is not None or description["indicator"] is not None
    if is_told or not any("A" in str(s.units.simplified.dimensionality) for s in segments[0]):
        describe_rois(recording, **description)  # else the signals, in volts or amperes, are of electrodes
    return recording


def _channel_names(signal: neo.AnalogSignal) -> list[str]:
    """Return the name of each channel of a signal, "" for one without a name."""
    num_channels = signal.shape[1]
    if "channel_names" in signal.array_annotations:
        return [str(name) for name in signal.array_annotations["channel_names"]]
    return [signal.name or ""] if num_channels == 1 else [""] * num_channels


def _sampling_frequency(signals: list[neo.core.basesignal.BaseSignal], sampling_frequency: float | None) -> float:
    if sampling_frequency is None:
        sampling_frequency = _the_same(signals, "sampling rates", lambda s: float(s.sampling_rate.rescale("Hz")))
    check_sampling_frequency(sampling_frequency)
    return sampling_frequency


def _spatial_scale_um(sequence: neo.ImageSequence) -> float | None:
    try:
        return float(pq.Quantity(sequence.spatial_scale).rescale("um"))
    except ValueError:  # Neo demands a scale, so a file without one may give what is no length
        return None


def _set_physical_units(recording: BaseRecording, units: list[str]) -> None:
    recording.set_property("physical_unit", np.array(units))
    recording.set_property("gain_to_physical_unit", np.ones(len(units)))
    recording.set_property("offset_to_physical_unit", np.zeros(len(units)))


def _the_same(items: Sequence, what: str, of: Callable[[Any], Any]) -> Any:
    """Return a property that all of some Neo objects share; raise if they differ in it."""
    first, *others = [of(item) for item in items]
    if any(other != first for other in others):
        raise ValueError(f"source: holds different {what}, {[first, *others]}; give one of its objects at a time.")
    return first
