"""The flag --compare: how units agree with those in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording, BaseSorting


def read_units(path: Path, recording: BaseRecording, flag: str = "--compare") -> BaseSorting:
    """Return the units in an NWB file, on the clock of a recording, or in a sorting saved by SpikeInterface."""
    import h5py
    from spikeinterface.core import BaseSorting, NumpySorting, load
    from spikeinterface.extractors import read_nwb_sorting

    from dlvolt.io.nwb_units import into_segments

    if path.is_dir():
        known = any((path / name).is_file() for name in ("si_folder.json", "spikeinterface_log.json"))
        units = load(path) if known or path.suffix == ".zarr" else None
        if not isinstance(units, BaseSorting):
            raise ValueError(f"{flag}: {path} is not a sorting saved by SpikeInterface")
        return units
    if not path.is_file():
        raise FileNotFoundError(f"{flag}: there is no file {path}")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{flag}: {path} is not an NWB file")
    with h5py.File(path) as file:
        if "spike_times" not in file.get("units", ()):
            raise ValueError(f"{flag}: {path} has no units with spike times")
        resolution = file["units/spike_times"].attrs.get("resolution", 0.0)
    units = read_nwb_sorting(
        path,
        sampling_frequency=1 / resolution if resolution > 0 else recording.sampling_frequency,
        t_start=recording.get_start_time(segment_index=0),
        load_unit_properties=False,
    )
    if recording.get_num_segments() > 1:
        return into_segments(units, recording)
    return NumpySorting.from_sorting(units)


def agreement(sorting: BaseSorting, other: BaseSorting, path: Path, tolerance_ms: float = 0.4) -> str:
    """Return a table with the best match of each unit: hits / (hits + misses + false positives)."""
    import pandas as pd

    from dlvolt.evaluation import compare_sortings

    if len(sorting.unit_ids) == 0 or len(other.unit_ids) == 0:
        return f"\nnone to compare: {len(sorting.unit_ids)} units against {len(other.unit_ids)}"
    comparison = compare_sortings(sorting, other, tolerance_ms=tolerance_ms, match="agreement")
    scores = comparison.agreement_scores  # units × units of the other
    best = scores.idxmax(axis=1)
    spikes, spikes_of_other = (units.count_num_spikes_per_unit(outputs="dict") for units in (sorting, other))
    table = pd.DataFrame(
        {
            "unit": scores.index,
            "spikes": [spikes[unit] for unit in scores.index],
            "best match": best.to_numpy(),
            "its spikes": [spikes_of_other[unit] for unit in best],
            "agreement": scores.max(axis=1).to_numpy(),
        }
    )
    title = f"best match of each unit in {path}, spikes within {tolerance_ms:g} ms:"
    return f"\n{title}\n{table.to_string(index=False, float_format='{:.3f}'.format)}"
