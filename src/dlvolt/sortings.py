"""Spikes as SpikeInterface's sortings."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting
from spikeinterface.core.numpyextractors import SpikeVectorSortingSegment


def as_sorting(vector: np.ndarray, recording: BaseRecording, unit_ids: np.ndarray) -> NumpySorting:
    """Return spikes as a sorting, in order, with the segments of a recording also where they have none."""
    vector = vector[np.lexsort((vector["unit_index"], vector["sample_index"], vector["segment_index"]))]
    sorting = NumpySorting(vector, recording.sampling_frequency, unit_ids)
    for segment in range(sorting.get_num_segments(), recording.get_num_segments()):  # it counts those with spikes
        sorting.add_sorting_segment(SpikeVectorSortingSegment(vector, segment, sorting.unit_ids))
    return sorting


def spike_properties(sorting: BaseSorting) -> dict[str, np.ndarray]:
    """Return the properties that have one value for each spike of each unit, shape (E,), one unit after the other."""
    counts = sorting.count_num_spikes_per_unit(outputs="array")  # over all segments
    properties = {}
    for name in sorting.get_property_keys():
        rows = sorting.get_property(name)
        # After curation an array may be of other spikes than the unit's; such properties are stale.
        if rows.dtype == object and [np.shape(row) for row in rows] == [(count,) for count in counts]:
            # Empty rows are often float64, whatever the others are.
            properties[name] = np.concatenate([row for row in rows if len(row)] or [np.zeros(0)])
    return properties
