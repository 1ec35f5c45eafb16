"""What the readers of NWB files share: groups, links, texts and clocks, in HDF5 and in Zarr.

They do without pynwb, which takes as long to open a small file as the detection of its spikes, and which refuses the
whole file for a fault anywhere in it.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
from scipy.stats import trim_mean

from dlvolt.io.errors import unreadable

NWB_FILE = ("NWBFile", b"NWBFile")
REGULAR = 0.01  # part of a frame by which timestamps may miss those of a steady clock


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group, of format 2 or 3."""
    return any((folder / name).is_file() for name in (".zgroup", ".zmetadata", "zarr.json"))


def is_nwb(path: Path) -> bool:
    """Whether there is an NWB file, HDF5 or Zarr, at a path."""
    if path.is_file() and h5py.is_hdf5(path):
        with unreadable("source", path, "HDF5"), h5py.File(path) as file:
            return file.attrs.get("neurodata_type") in NWB_FILE
    return is_zarr(path) and zarr.open(path, mode="r").attrs.get("neurodata_type") in NWB_FILE


def opened(path: Path) -> Any:
    """Open an HDF5 file or a Zarr folder, to use in a with statement."""
    return h5py.File(path) if path.is_file() else nullcontext(zarr.open(path, mode="r"))


def find_groups(file: Any, neurodata_type: str) -> dict[str, Any]:
    """Map the path in an NWB file of each group of a type to the group, in the order of the paths."""
    found, todo = {}, [("", file)]
    while todo:
        path, group = todo.pop()
        for name in group.keys():  # noqa: SIM118 (Zarr's groups are no dictionaries)
            link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
            if isinstance(link, h5py.SoftLink) or (path, name) == ("", "specifications"):
                continue  # what it leads to is found where it is
            item, item_path = group.get(name), f"{path}/{name}".lstrip("/")
            if hasattr(item, "keys"):
                todo.append((item_path, item))
                if text(item.attrs.get("neurodata_type", "")) == neurodata_type:
                    found[item_path] = item
    return dict(sorted(found.items()))


def child(file: Any, group: Any, name: str) -> Any:
    """Return a member of a group, or None if there is none; also through the links that hdmf-zarr writes in Zarr."""
    if name in group:
        return group[name]
    links = group.attrs.get("zarr_link", group.attrs.get("_LINKS", []))
    return next((file.get(link["path"]) for link in links if link["name"] == name), None)


def text(value: Any) -> str:
    """Return a text as str, which HDF5 may give as bytes and Zarr as an array."""
    value = value[()] if hasattr(value, "shape") else value
    value = value.flat[0] if isinstance(value, np.ndarray) else value
    return value.decode() if isinstance(value, bytes) else str(value)


def read_clock(file: Any, series: Any, num_samples: int, where: str) -> tuple[float, float | None]:
    """Return the sampling frequency of a TimeSeries in Hz, and the time of its first sample in s.

    The time is None if the timestamps are not those of a steady clock; they are then to be kept. `where` names the
    argument, series and file, for errors.
    """
    start, timestamps = child(file, series, "starting_time"), child(file, series, "timestamps")
    if timestamps is None:
        rate = 0.0 if start is None else float(start.attrs.get("rate", 0.0))
        if not 0 < rate < np.inf:
            raise ValueError(
                f"{where} has neither timestamps nor a rate above 0; write one of them into the file, or give the "
                "numbers alone, as an array."
            )
        return rate, float(np.ravel(start[()])[0])

    times = np.asarray(timestamps[:], dtype="float64")
    if len(times) != num_samples or num_samples < 2:
        raise ValueError(
            f"{where} has {len(times)} timestamps for {num_samples} frames, which give no rate; mend the file."
        )
    intervals = np.diff(times)
    if not np.all(intervals > 0):  # NaN as well
        frame = np.flatnonzero(~(intervals > 0))[0] + 1
        raise ValueError(
            f"{where} has timestamps that do not ascend at frame {frame} ({times[frame - 1]} s, then {times[frame]} "
            "s); mend the file."
        )
    mean, median = intervals.mean(), np.median(intervals)
    frames_off = np.max(np.abs((times - times[0]) / mean - np.arange(num_samples)))
    if frames_off < 1:  # jitter and rounding, which do not add up
        t_start = float(times[0]) if frames_off < REGULAR else None
        return round(float(1 / mean), 6), t_start  # without the rounding errors of the timestamps
    if np.mean(np.abs(intervals - median) < 0.5 * median) < 0.5:
        raise ValueError(
            f"{where} has timestamps without a common interval (median {median:g} s, most are far from it), so there "
            "is no frame rate; mend the file."
        )
    frames_passed = np.round(intervals / trim_mean(intervals, 0.1)).clip(1)  # more than 1 where some were dropped
    return float(frames_passed.sum() / intervals.sum()), None
