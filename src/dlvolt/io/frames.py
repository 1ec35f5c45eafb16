"""Images from TIFF and NumPy files, read one by one."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tifffile

from dlvolt.io.errors import reading

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")


def is_image_file(path: Path) -> bool:
    """Whether `open_frames` can open a path: a TIFF or ``.npy`` file, or a folder with TIFF files."""
    return bool(_tiff_files(path)) if path.is_dir() else path.suffix.lower() in (*TIFF_SUFFIXES, ".npy")


def open_frames(path: Path) -> Frames:
    """Open the pages of a TIFF file, the one-page TIFF files of a folder, or an array in a ``.npy`` file.

    Movies with colours, with more axes than time and the two of an image, or with images of several shapes are refused.
    """
    if path.is_dir():
        return _FileFrames(path)
    if path.suffix.lower() == ".npy":
        with reading(path):
            frames = np.load(path, mmap_mode="r")
        _check_axes(path, "QTYX"[-frames.ndim :], frames.shape)
        return frames.reshape(-1, *frames.shape[-2:])
    return _open_tiff(path)


class _TiffPages:
    """Pages of a TIFF file that have to be decoded; each process opens the file for itself."""

    _process: int | None = None  # that has opened the file

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: np.dtype, has_series: bool) -> None:
        self.path, self.shape, self.dtype, self.has_series = path, shape, dtype, has_series
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> np.ndarray:
        with self._lock, reading(self.path):
            if self._process != os.getpid():  # also after a fork, where an open file would share its position
                tif = tifffile.TiffFile(self.path)
                self._pages, self._process = tif.series[0] if self.has_series else tif.pages, os.getpid()
            if (page := self._pages[index]) is None:
                raise ValueError(f"page {index} is missing")
            image = page.asarray()
        return _check_shape(image, self.shape[1:], f"page {index} of {self.path}")


class _FileFrames:
    """The files of a folder, an image in each."""

    def __init__(self, folder: Path) -> None:
        self.files = _tiff_files(folder)
        with reading(self.files[0]):
            first = tifffile.imread(self.files[0])
        if first.ndim == 3 and first.shape[-1] not in (3, 4):
            raise ValueError(f"source: {self.files[0]} has several pages; give such files one at a time.")
        _check_axes(self.files[0], "YXS"[: first.ndim], first.shape)
        self.shape, self.dtype = (len(self.files), *first.shape), first.dtype
        self[-1]  # raises if the last file has another shape

    def __getitem__(self, index: int) -> np.ndarray:
        with reading(self.files[index]):
            image = tifffile.imread(self.files[index])
        return _check_shape(image, self.shape[1:], str(self.files[index]))


Frames: TypeAlias = np.ndarray | _TiffPages | _FileFrames  # T images of shape (H, W)


def _tiff_files(folder: Path) -> list[Path]:
    """List the TIFF files of a folder in natural order, 2 before 10."""
    names = [path.name for path in folder.iterdir() if path.suffix.lower() in TIFF_SUFFIXES]
    return [folder / name for name in tifffile.natural_sorted(names)]


def _open_tiff(path: Path) -> Frames:
    with reading(path), tifffile.TiffFile(path) as tif:
        first, last = tif.pages.first, tif.pages[-1]
        first.asarray()  # raises if it cannot be decoded
        assert first.dtype is not None
        # Where tifffile wrote page by page, each is a series of its own, and listing these takes long.
        page_by_page = len(tif.pages) > 1 and getattr(tif.pages[1], "is_shaped", False)
        series = [] if page_by_page else tif.series
        page_shapes = {one.keyframe.shape for one in series} or {first.shape, last.shape}
        has_series = len(series) == 1
        axes, shape = ("Q" + first.axes, (len(tif.pages), *first.shape))
        if has_series:
            axes, shape = series[0].axes, series[0].shape
        is_contiguous = has_series and series[0].dataoffset is not None
        if has_series and len(series[0]) < len(tif.pages):
            raise ValueError(f"{len(tif.pages)} pages are not what its metadata promise; it may be cut off")
    if len(page_shapes) > 1:
        listed = ", ".join(" × ".join(map(str, page)) for page in sorted(page_shapes))
        raise ValueError(f"source: {path} has pages of different shape, {listed}; a movie has pages of one shape.")
    _check_axes(path, axes, shape)
    if is_contiguous:
        with reading(path):
            return tifffile.memmap(path, mode="r").reshape(-1, *shape[-2:])
    num_frames = shape[0] if len(shape) == 3 else 1
    height, width = shape[-2:]
    return _TiffPages(path, (num_frames, height, width), first.dtype, has_series)


def _check_axes(path: Path, axes: str, shape: Sequence[int]) -> None:
    listed = " × ".join(map(str, shape))
    if "S" in axes:
        raise ValueError(f"source: {path} has colours ({listed}); save the one with the signal as grey values.")
    if not 2 <= len(shape) <= 3:
        raise ValueError(
            f"source: {path} has {len(shape)} axes ({axes}, {listed}); a movie has time, rows and columns: save one "
            "channel and plane of it."
        )


def _check_shape(image: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    if image.shape != tuple(shape):
        raise ValueError(
            f"source: {name} has the shape {image.shape}, the first {tuple(shape)}; a movie has one shape."
        )
    return image
