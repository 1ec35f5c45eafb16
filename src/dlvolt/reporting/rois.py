"""What a report shows of ROIs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from spikeinterface.core import BaseRecording, BaseSorting

from dlvolt.exports import join_segments
from dlvolt.plotting.roi_map import roi_positions, rois_of
from dlvolt.plotting.roi_traces import property_of_spikes
from dlvolt.reporting.shown import some_of, table_shown

WINDOW_S = 10.0  # how much of each trace is shown
MAX_POINTS = 5_000  # samples of each trace that are shown at most
MAX_SPIKES = 5_000  # spikes of each ROI in the raster, at most
MAX_TRACES = 300

COLUMNS = {  # property: heading, what it means
    "unit": ("ROI", "identifier of the ROI"),
    "polarity": ("polarity", "which way its spikes point"),
    "num_spikes": ("spikes", "number of spikes"),
    "firing_rate": ("rate (Hz)", "spikes per second"),
    "expected_precision": ("expected precision", "fraction of the spikes which are expected to be true"),
    "snr": ("SNR", "height of its spikes over the noise"),
    "threshold": ("threshold", "least spike probability"),
    "num_bursts": ("bursts", "number of bursts"),
    "num_complex_spikes": ("complex spikes", "number of complex spikes"),
    "crosstalk_fraction": ("cross-talk", "fraction of the spikes which leak in from another ROI"),
    "crosstalk_from": ("from", "the ROI from which they leak"),
    "flag": ("flag", "what is wrong with the trace"),
}
TELLING = ("crosstalk_from", "flag")  # columns that are left out where they say nothing


def describe_rois(sorting: BaseSorting) -> dict[str, Any]:
    """Return what a report shows of the spikes of ROIs, by the names under which the page's script knows it.

    Each unit is named after its channel in the recording that is registered with the sorting.
    """
    recording = sorting._recording  # SpikeInterface has no public way to it
    if recording is None:
        raise ValueError(
            "analyzer_or_sorting: has no recording; call sorting.register_recording(recording), or, for units of "
            "electrodes, give a SortingAnalyzer."
        )
    rois = rois_of(sorting, recording)
    counts = sorting.count_num_spikes_per_unit(outputs="array")
    table = pd.DataFrame({"unit": sorting.unit_ids.astype(str), "num_spikes": counts})
    table["firing_rate"] = counts / recording.get_total_duration()
    for name in sorting.get_property_keys():
        values = sorting.get_property(name)
        if name in COLUMNS and (name not in TELLING or np.any(values != "")):
            table[name] = values
    positions, length_unit = roi_positions(recording, rois)
    lengths = [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())]
    start, starts = recording.get_start_time(segment_index=0), np.cumsum([0, *lengths[:-1]])
    joined = join_segments(sorting, lengths)
    trains = [joined.get_unit_spike_train(unit) for unit in joined.unit_ids]
    facts = {
        "ROIs": len(rois),
        "sampling frequency": f"{recording.sampling_frequency:g} Hz",
        "duration": f"{recording.get_total_duration():.1f} s",
        "spikes": int(counts.sum()),
    }
    if (models := sorting.get_property("model_name")) is not None:
        facts["model"] = ", ".join(sorted(set(map(str, models))))
    return {
        "kind": "rois",
        "facts": facts,
        **table_shown(table, COLUMNS),
        "set_aside": [list(each) for each in sorting.get_annotation("set_aside") or []],
        "positions": positions,
        "length_unit": length_unit,
        "segment_starts": start + starts / recording.sampling_frequency,
        "units": [
            _trace(sorting, unit, recording, roi)
            for unit, roi in zip(sorting.unit_ids[:MAX_TRACES], rois[:MAX_TRACES], strict=True)
        ],
        "spikes": [np.round(start + some_of(train, MAX_SPIKES) / recording.sampling_frequency, 3) for train in trains],
        "told": f"traces of the first {MAX_TRACES} ROIs are here" if len(rois) > MAX_TRACES else "",
    }


def _trace(sorting: BaseSorting, unit: int | str, recording: BaseRecording, roi: int) -> dict[str, Any]:
    """Return the piece of an ROI's trace in which it fires most, and the spikes there."""
    fs = recording.sampling_frequency
    trains = [sorting.get_unit_spike_train(unit, segment_index=s) for s in range(recording.get_num_segments())]
    segment = int(np.argmax([len(train) for train in trains]))
    train, length = trains[segment], recording.get_num_samples(segment)
    width = min(length, round(WINDOW_S * fs), MAX_POINTS)
    first = 0
    if len(train):
        within = np.searchsorted(train, train + width) - np.arange(len(train))
        first = int(np.clip(train[np.argmax(within)] - width // 20, 0, length - width))
    trace = recording.get_traces(segment, first, first + width, recording.channel_ids[[roi]])[:, 0]
    inside = (train >= first) & (train < first + width)
    probability = property_of_spikes(sorting, unit, "spike_probability", segment)
    start = recording.get_start_time(segment_index=segment)
    where = f"segment {segment + 1}, " if len(trains) > 1 else ""
    return {
        "start": start + first / fs,
        "step": 1 / fs,
        "trace": trace.astype(float),
        "spike_seconds": np.round(start + train[inside] / fs, 4),
        "probability": None if probability is None else probability[inside],
        "told": where + ("all of it" if width == length else f"the {width / fs:.3g} s in which it fires most"),
    }
