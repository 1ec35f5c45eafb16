"""One pass over a recording for its missing samples, and for channels that never change."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.job_tools import TimeSeriesChunkExecutor


class Survey(NamedTuple):
    """Ranges and gaps of a recording of N channels.

    Attributes
    ----------
    lowest, highest : np.ndarray, shape (N,)
        Smallest and largest sample of each channel; infinite if all of its samples are missing.
    gaps : list of dict
        For each segment, the channels (by index) that miss samples. Values have shape (2, G): the first sample of each
        gap, and the first sample after it, ascending. A gap may be cut into pieces that touch.
    """

    lowest: np.ndarray
    highest: np.ndarray
    gaps: list[dict[int, np.ndarray]]

    @property
    def dead(self) -> np.ndarray:
        """Whether each channel never changes, or has no samples at all, shape (N,)."""
        return ~(self.highest > self.lowest)

    @property
    def has_gaps(self) -> np.ndarray:
        """Whether each channel misses samples, shape (N,)."""
        return np.isin(np.arange(len(self.lowest)), [channel for segment in self.gaps for channel in segment])

    @property
    def flag(self) -> np.ndarray:
        """What is wrong with each channel: "dead", "gaps" or "", shape (N,)."""
        return np.select([self.dead, self.has_gaps], ["dead", "gaps"], "")

    def observed_s(self, recording: BaseRecording) -> np.ndarray:
        """Return the duration for which each channel of the recording has samples, in seconds, shape (N,)."""
        observed = np.full(len(self.lowest), recording.get_total_samples())
        for segment in self.gaps:
            for channel, (starts, ends) in segment.items():
                observed[channel] -= np.sum(ends - starts)
        return np.maximum(observed, 1) / recording.sampling_frequency

    def beside_gap(self, spikes: np.ndarray, reach: int) -> np.ndarray:
        """Return whether each spike lies in a gap of its channel, or at most `reach` samples from one, shape (E,).

        Channels of the spikes are counted without the dead ones.
        """
        beside = np.zeros(len(spikes), dtype=bool)
        channels = np.flatnonzero(~self.dead)[spikes["channel_index"]]
        for segment, gaps in enumerate(self.gaps):
            for channel, (starts, ends) in gaps.items():
                here = np.flatnonzero((spikes["segment_index"] == segment) & (channels == channel))
                frames = spikes["sample_index"][here]
                last = np.searchsorted(starts, frames + reach, side="right") - 1  # the last gap that begins before
                beside[here] = (last >= 0) & (ends[last] > frames - reach)
        return beside


def survey(recording: BaseRecording, job_kwargs: dict[str, Any]) -> Survey:
    """Return the ranges and gaps of a recording's channels. Samples that are NaN or infinite count as missing."""
    executor = TimeSeriesChunkExecutor(
        recording,
        _survey_chunk,
        _recording_to_worker,
        (recording,),
        handle_returns=True,
        job_name="survey",
        **job_kwargs,
    )
    num_channels = recording.get_num_channels()
    lowest, highest = np.full(num_channels, np.inf), np.full(num_channels, -np.inf)
    pieces: list[dict[int, list]] = [{} for _ in range(recording.get_num_segments())]
    for segment, low, high, of_chunk in executor.run():
        np.minimum(lowest, low, out=lowest)
        np.maximum(highest, high, out=highest)
        for channel, of_channel in of_chunk.items():
            pieces[segment].setdefault(channel, []).append(of_channel)
    gaps = [{channel: np.concatenate(parts, axis=1) for channel, parts in segment.items()} for segment in pieces]
    return Survey(lowest, highest, gaps)


def _recording_to_worker(recording: BaseRecording) -> dict[str, Any]:
    return {"recording": recording}


def _survey_chunk(
    segment_index: int, start_frame: int, end_frame: int, worker_context: dict[str, Any]
) -> tuple[int, np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """Return the segment of a chunk, the lowest and highest sample of each channel, and the gaps by channel."""
    traces = worker_context["recording"].get_traces(segment_index, start_frame, end_frame)  # T×N
    missing = ~np.isfinite(traces)
    gaps = {}
    for channel in np.flatnonzero(missing.any(axis=0)):
        borders = np.flatnonzero(np.diff(missing[:, channel], prepend=False, append=False))
        gaps[int(channel)] = start_frame + borders.reshape(-1, 2).T
    low = np.where(missing, np.inf, traces).min(axis=0)
    high = np.where(missing, -np.inf, traces).max(axis=0)
    return segment_index, low, high, gaps
