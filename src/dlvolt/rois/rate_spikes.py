"""Discrete spikes from estimated spike rates."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.base import base_peak_dtype

from dlvolt.threads import map_in_threads

RATE_SPIKE_DTYPE = np.dtype([*base_peak_dtype, ("event", "int64"), ("event_count", "int64")])


def rate_spikes(rate: BaseRecording, num_workers: int = 1) -> np.ndarray:
    """Convert spike rates to spikes.

    An event is a stretch in which the rate is above zero. Its number of spikes is its integral, rounded, so an event
    whose integral is below one half has none. Spike k of an event is at the sample where its integral reaches k - 1/2.
    Several spikes may share a sample, so that their number fits the rate also where it exceeds the frame rate.

    Parameters
    ----------
    rate : BaseRecording
        Spikes per second, from `dlvolt.preprocessing.spike_rate`.
    num_workers : int, default: 1
        Number of threads; each reads one channel of one segment at a time.

    Returns
    -------
    np.ndarray, shape (E,)
        One row for each spike, by segment, sample and channel. Fields are those of SpikeInterface's peaks, whose
        amplitude is the rate in spikes per second; ``event``, the number of the event from 0 on; and ``event_count``,
        the number of spikes of the event.

    Raises
    ------
    ValueError
        If a rate is negative.
    """

    def of_one(segment_and_channel: tuple[int, int]) -> np.ndarray:
        segment, channel = segment_and_channel
        trace = rate.get_traces(segment, channel_ids=rate.channel_ids[[channel]])[:, 0]
        if np.any(trace < 0):
            raise ValueError("rate: is negative somewhere; give spikes per second, as spike_rate does")
        frames, events, counts = spikes_of_events(trace / rate.sampling_frequency)
        spikes = np.zeros(len(frames), dtype=RATE_SPIKE_DTYPE)
        spikes["segment_index"], spikes["channel_index"] = segment, channel
        spikes["sample_index"], spikes["amplitude"] = frames, trace[frames]
        spikes["event"], spikes["event_count"] = events, counts
        return spikes

    places = [(s, c) for s in range(rate.get_num_segments()) for c in range(rate.get_num_channels())]
    found = map_in_threads(of_one, places, num_workers)
    first = 0
    for spikes in found:
        spikes["event"] += first
        first += len(np.unique(spikes["event"]))
    spikes = np.concatenate([np.zeros(0, dtype=RATE_SPIKE_DTYPE), *found])
    return spikes[np.lexsort((spikes["channel_index"], spikes["sample_index"], spikes["segment_index"]))]


def spikes_of_events(expected: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each spike's sample, event (0, 1, …) and number of spikes in the event, given spikes per sample (T,)."""
    starts, stops = (np.flatnonzero(np.diff(expected > 0, prepend=False, append=False))[part::2] for part in (0, 1))
    until = np.append(0.0, np.cumsum(expected, dtype="float64"))  # T+1
    counts = np.floor(until[stops] - until[starts] + 0.5).astype(int)
    starts, counts = starts[counts > 0], counts[counts > 0]
    events = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # in its event, from 0
    frames = np.searchsorted(until, until[starts][events] + rank + 0.5) - 1
    return frames, events, counts[events]
