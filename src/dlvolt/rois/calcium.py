"""The optical mode of the sorter for calcium: spikes from estimated spike rates, one unit for each ROI."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording, NumpySorting

from dlvolt.parameters import SorterParameters
from dlvolt.preprocessing.spike_rate import spike_rate
from dlvolt.rois.rate_spikes import rate_spikes
from dlvolt.rois.survey import Survey
from dlvolt.sortings import as_sorting


def sort_calcium(
    recording: BaseRecording, traces: BaseRecording, seen: Survey, p: SorterParameters, num_workers: int
) -> NumpySorting:
    """Find the spikes of every ROI whose fluorescence follows calcium: one unit for each, with the ROI's id.

    Given are the recording, the traces of the ROIs that have a signal, with gaps filled, and the survey. Several spikes
    may share a frame: ``spike_event_count`` is the number of spikes of the event of each spike, and ``firing_rate``
    counts all spikes.
    """
    rate = spike_rate(traces, p.model, p.device, p.refine)
    spikes = rate_spikes(rate, num_workers)
    spikes = spikes[~seen.beside_gap(spikes, reach=0)]
    live, num_rois = np.flatnonzero(~seen.dead), recording.get_num_channels()
    roi = live[spikes["channel_index"]]
    sorting = as_sorting(spikes, roi, recording, recording.channel_ids)
    counts = np.empty(num_rois, dtype=object)
    counts[:] = [spikes["event_count"][roi == unit] for unit in range(num_rois)]
    sorting.set_property("polarity", np.where(seen.dead, "", "positive"))
    sorting.set_property("model_name", np.full(num_rois, rate.get_annotation("model_name")))
    sorting.set_property("model_version", np.full(num_rois, rate.get_annotation("model_version")))
    sorting.set_property("flag", seen.flag)
    sorting.set_property("firing_rate", np.bincount(roi, minlength=num_rois) / seen.observed_s(recording))
    sorting.set_property("spike_event_count", counts)
    sorting.annotate(modality="calcium")
    return sorting
