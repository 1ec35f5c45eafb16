"""Spikes as SpikeInterface's sortings."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.core.numpyextractors import SpikeVectorSortingSegment


def as_sorting(vector: np.ndarray, recording: BaseRecording, unit_ids: np.ndarray) -> NumpySorting:
    """Return spikes as a sorting, in order, with the segments of a recording also where they have none."""
    vector = vector[np.lexsort((vector["unit_index"], vector["sample_index"], vector["segment_index"]))]
    sorting = NumpySorting(vector, recording.sampling_frequency, unit_ids)
    for segment in range(sorting.get_num_segments(), recording.get_num_segments()):  # it counts those with spikes
        sorting.add_sorting_segment(SpikeVectorSortingSegment(vector, segment, sorting.unit_ids))
    return sorting
