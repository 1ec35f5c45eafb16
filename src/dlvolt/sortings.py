"""SpikeInterface's sortings: made from spikes, and what they know of each spike; and pairs of spikes in two trains."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting
from spikeinterface.core.base import minimum_spike_dtype
from spikeinterface.core.numpyextractors import SpikeVectorSortingSegment


def as_sorting(
    spikes: np.ndarray, unit_indices: np.ndarray, recording: BaseRecording, unit_ids: np.ndarray
) -> NumpySorting:
    """Return spikes, shape (E,), as a sorting, in order of time, with all segments of the recording.

    Of the fields of the spikes, ``sample_index`` and ``segment_index`` are used. `unit_indices`, shape (E,), tell the
    unit of each as an index into `unit_ids`.
    """
    vector = np.zeros(len(spikes), dtype=minimum_spike_dtype)
    vector["sample_index"], vector["segment_index"] = spikes["sample_index"], spikes["segment_index"]
    vector["unit_index"] = unit_indices
    vector = vector[np.lexsort((vector["unit_index"], vector["sample_index"], vector["segment_index"]))]
    sorting = NumpySorting(vector, recording.sampling_frequency, unit_ids)
    add_empty_segments(sorting, recording.get_num_segments())
    return sorting


def add_empty_segments(sorting: NumpySorting, num_segments: int) -> None:
    """Add segments after the last one with spikes, at which a `NumpySorting` ends, until there are `num_segments`."""
    vector = sorting.to_spike_vector()
    for segment in range(sorting.get_num_segments(), num_segments):
        sorting.add_sorting_segment(SpikeVectorSortingSegment(vector, segment, sorting.unit_ids))


def count_pairs(a: np.ndarray, b: np.ndarray, reach: int) -> int:
    """Return how many pairs of a spike of one ascending train and one of another are at most `reach` samples apart."""
    return int((np.searchsorted(b, a + reach, side="right") - np.searchsorted(b, a - reach)).sum())


def spike_properties(sorting: BaseSorting) -> dict[str, np.ndarray]:
    """Return the properties that have one value for each spike of each unit, shape (E,), one unit after the other."""
    counts = sorting.count_num_spikes_per_unit(outputs="array")  # over all segments
    properties = {}
    for name in sorting.get_property_keys():
        rows = sorting.get_property(name)
        # After curation the arrays may still be those of the units before; such properties are left out.
        if rows.dtype == object and [np.shape(row) for row in rows] == [(count,) for count in counts]:
            # Empty rows are often float64, whatever the others are.
            properties[name] = np.concatenate([row for row in rows if len(row)] or [np.zeros(0)])
    return properties
