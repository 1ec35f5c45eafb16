"""Regions of interest (ROIs) of an image: which pixels they have, and the mean over these pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import neo
import numpy as np
import scipy.ndimage
import scipy.sparse
from neo.core.regionofinterest import RegionOfInterest

from dlvolt.io.frames import Frames

SHAPES = {"circle": "[x, y, radius]", "rectangle": "[x, y, width, height]", "polygon": "[[x, y], [x, y], …]"}

RoiLike: TypeAlias = RegionOfInterest | dict[str, Sequence]
RoisLike: TypeAlias = np.ndarray | Sequence[RoiLike]  # see `dlvolt.read_image_sequence`


class RoiMeans:
    """The mean over N ROIs, of images of shape (H, W); `pixels` are the indices of each ROI in the flattened image."""

    def __init__(self, pixels: list[np.ndarray], image_shape: tuple[int, int]) -> None:
        self.num_pixels = np.array([len(indices) for indices in pixels])
        indices, ends = np.concatenate(pixels), np.append(0, np.cumsum(self.num_pixels))
        self.masks = scipy.sparse.csr_array(  # N × HW
            (np.ones(len(indices)), indices, ends), shape=(len(pixels), image_shape[0] * image_shape[1])
        )

    def of(self, frames: Frames, start: int, end: int, channels: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """Return the means of some frames over some ROIs, shape (T, N), with one frame in memory at a time."""
        masks, num_pixels = self.masks[channels], self.num_pixels[channels]
        means = np.empty((end - start, len(num_pixels)), mean_dtype(frames.dtype))
        for row, frame in enumerate(range(start, end)):
            means[row] = masks @ frames[frame].reshape(-1) / num_pixels
        return means


def find_pixels(rois: RoisLike, image_shape: tuple[int, int]) -> tuple[list[np.ndarray], list[int]]:
    """Return the pixels of each ROI, as indices in the flattened image, and the ids of the ROIs."""
    if isinstance(rois, np.ndarray):
        pixels = _pixels_of_masks(rois, image_shape)
    elif isinstance(rois, (list, tuple)):
        pixels = {index: _pixels_of_shape(index, roi, image_shape) for index, roi in enumerate(rois)}
    else:
        raise ValueError(f"rois: must be a mask or a list of ROIs, not {type(rois).__name__}.")
    if not pixels:
        raise ValueError("rois: there are none; give at least one.")
    if empty := [i for i, indices in pixels.items() if len(indices) == 0]:
        raise ValueError(f"rois: ROI {empty[0]} has no pixel; enlarge it or leave it out.")
    return list(pixels.values()), list(pixels)


def _pixels_of_masks(masks: np.ndarray, image_shape: tuple[int, int]) -> dict[int, np.ndarray]:
    if masks.ndim not in (2, 3) or masks.shape[-2:] != tuple(image_shape) or masks.dtype.kind not in "biu":
        raise ValueError(
            f"rois: a mask must be of integers or booleans and of the shape of the images, {tuple(image_shape)} as "
            f"rows and columns, or have one such mask for each ROI, but is {masks.dtype} of shape {masks.shape}."
        )
    if masks.ndim == 3:
        values = np.unique(masks)
        if len(values[values != 0]) > 1:
            raise ValueError(f"rois: several masks must each be of 0 and 1, but have values up to {values[-1]}.")
        return {index: np.flatnonzero(mask) for index, mask in enumerate(masks)}
    labels = masks.reshape(-1).astype(int)
    if labels.min() < 0:
        raise ValueError(f"rois: the ids in a label mask must be positive, not {labels.min()}; 0 is background.")
    pixels = scipy.ndimage.value_indices(labels, ignore_value=0)
    return {int(roi_id): pixels[roi_id][0] for roi_id in sorted(pixels)}


def _pixels_of_shape(index: int, roi: RoiLike, image_shape: tuple[int, int]) -> np.ndarray:
    height, width = image_shape
    kind, numbers = _shape_of(index, roi)
    left, right, top, bottom = _bounding_box(kind, numbers)
    beyond = max(-left, right - (width - 1), -top, bottom - (height - 1))
    if beyond <= 2:  # else some pixels are surely outside of the image, and there may be too many to list
        y, x = np.mgrid[np.floor(top) : np.ceil(bottom) + 1, np.floor(left) : np.ceil(right) + 1]
        inside = _is_inside(kind, numbers, x, y)
        y, x = y[inside].astype(int), x[inside].astype(int)
        beyond = np.any((x < 0) | (x >= width) | (y < 0) | (y >= height))
    if beyond:
        raise ValueError(
            f"rois: ROI {index}, {kind} {np.asarray(numbers).tolist()}, reaches beyond the image of "
            f"{width} × {height} pixels (width × height)."
        )
    return y * width + x


def _shape_of(index: int, roi: RoiLike) -> tuple[str, np.ndarray]:
    """Return the kind of an ROI, a key of `SHAPES`, and the numbers that describe it."""
    if isinstance(roi, neo.CircularRegionOfInterest):
        roi = {"circle": [roi.x, roi.y, roi.radius]}
    elif isinstance(roi, neo.RectangularRegionOfInterest):
        roi = {"rectangle": [roi.x, roi.y, roi.width, roi.height]}
    elif isinstance(roi, neo.PolygonRegionOfInterest):
        roi = {"polygon": list(roi.vertices)}
    forms = ", ".join(f'{{"{kind}": {numbers}}}' for kind, numbers in SHAPES.items())
    mend = f"rois: ROI {index} must be one of {forms}, or an ROI of Neo, not {roi!r}."
    if not isinstance(roi, dict) or len(roi) != 1 or not set(roi) <= set(SHAPES):
        raise ValueError(mend)
    [(kind, numbers)] = roi.items()
    try:
        numbers = np.asarray(numbers, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(mend) from error
    if kind == "polygon":
        fits = numbers.ndim == 2 and numbers.shape[1] == 2 and len(numbers) >= 3
    else:
        fits = numbers.shape == ((3,) if kind == "circle" else (4,)) and np.all(numbers[2:] >= 0)
    if not fits or not np.isfinite(numbers).all():
        raise ValueError(mend)
    return kind, numbers


def _bounding_box(kind: str, numbers: np.ndarray) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom."""
    if kind == "polygon":
        (left, top), (right, bottom) = numbers.min(axis=0), numbers.max(axis=0)
        return left, right, top, bottom
    x, y = numbers[:2]
    reach_x, reach_y = (numbers[2], numbers[2]) if kind == "circle" else numbers[2:] / 2
    return x - reach_x, x + reach_x, y - reach_y, y + reach_y


def _is_inside(kind: str, numbers: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points are inside of an ROI, as ``is_inside`` of Neo's ROIs tells."""
    if kind == "circle":
        centre_x, centre_y, radius = numbers
        return (x - centre_x) ** 2 + (y - centre_y) ** 2 <= radius**2
    if kind == "rectangle":
        left, right, top, bottom = _bounding_box(kind, numbers)
        return (left <= x) & (x < right) & (top <= y) & (y < bottom)
    inside = np.zeros(x.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(numbers, np.roll(numbers, 1, axis=0), strict=True):
        if y1 != y2:  # a ray to the right of an inner point crosses an odd number of edges
            inside ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def as_runs(indices: np.ndarray) -> list[int]:
    """Return ascending indices as runs, [first, length, first, length, …], which are short as JSON."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    starts = np.append(0, breaks)
    return np.stack([indices[starts], np.diff(np.append(starts, len(indices)))], axis=1).ravel().tolist()


def from_runs(runs: list[int]) -> np.ndarray:
    """Return the indices that `as_runs` was given."""
    return np.concatenate([first + np.arange(length) for first, length in np.reshape(runs, (-1, 2))])


def mean_dtype(dtype: np.dtype) -> np.dtype:
    """Return the type for means of numbers of a type: float32 if it can hold them, else float64."""
    return np.result_type(dtype, np.float32).newbyteorder("=")
