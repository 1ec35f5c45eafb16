"""The optical mode of the sorter for calcium: rates, and the spikes they stand for, one unit for each ROI."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.core.base import minimum_spike_dtype

from dlvolt.parameters import SorterParameters
from dlvolt.preprocessing.spike_rate import spike_rate
from dlvolt.rois.rate_spikes import rate_spikes
from dlvolt.rois.survey import Survey
from dlvolt.sortings import as_sorting


def sort_calcium(
    recording: BaseRecording, traces: BaseRecording, seen: Survey, p: SorterParameters, num_workers: int
) -> NumpySorting:
    """Find the spikes of every ROI whose fluorescence follows calcium.

    Parameters
    ----------
    recording : BaseRecording
        N channels: ROIs.
    traces : BaseRecording
        Of those that have a signal, without gaps.
    seen : Survey
        Of the recording.
    p : SorterParameters
        Parameters.
    num_workers : int
        Threads.

    Returns
    -------
    NumpySorting
        One unit for each ROI, with its id. Several spikes may share a frame; ``spike_event_count`` tells for each how
        many were found together, ``firing_rate`` counts them all.
    """
    rate = spike_rate(traces, p.model, p.device, p.refine)
    spikes = rate_spikes(rate, num_workers)
    live, num_rois = np.flatnonzero(~seen.dead), recording.get_num_channels()
    missing = np.zeros(len(spikes), dtype=bool)
    for segment, channel in ((s, c) for s, gaps in enumerate(seen.gaps) for c in gaps):
        here = (spikes["segment_index"] == segment) & (live[spikes["channel_index"]] == channel)
        missing[here] = seen.near_gap(segment, channel, spikes["sample_index"][here], 0)
    spikes = spikes[~missing]

    vector = np.zeros(len(spikes), dtype=minimum_spike_dtype)
    vector["sample_index"], vector["segment_index"] = spikes["sample_index"], spikes["segment_index"]
    vector["unit_index"] = roi = live[spikes["channel_index"]]
    sorting = as_sorting(vector, recording, recording.channel_ids)
    num_samples = sum(recording.get_num_samples(segment) for segment in range(recording.get_num_segments()))
    observed_s = np.maximum(num_samples - seen.num_missing, 1) / recording.sampling_frequency
    counts = np.empty(num_rois, dtype=object)
    counts[:] = [spikes["event_count"][roi == unit] for unit in range(num_rois)]
    sorting.set_property("polarity", np.where(seen.dead, "", "positive"))
    sorting.set_property("model_name", np.full(num_rois, rate.get_annotation("model_name")))
    sorting.set_property("model_version", np.full(num_rois, rate.get_annotation("model_version")))
    sorting.set_property("flag", np.select([seen.dead, seen.has_gaps], ["dead", "gaps"], ""))
    sorting.set_property("firing_rate", np.bincount(roi, minlength=num_rois) / observed_s)
    sorting.set_property("spike_event_count", counts)
    sorting.annotate(modality="calcium")
    return sorting
