"""What is wrong with traces, found in one pass: samples that are missing, and channels that never change."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.job_tools import TimeSeriesChunkExecutor


class Survey(NamedTuple):
    """What a recording of N channels is made of.

    Attributes
    ----------
    lowest, highest : np.ndarray, shape (N,)
        Smallest and largest sample; infinite where a channel has none.
    gaps : list of dict
        For each segment, the channels (by index) that miss samples, with the first samples of their gaps, and those
        after their last: shape (2, G), ascending. A gap may be cut into pieces that touch.
    """

    lowest: np.ndarray
    highest: np.ndarray
    gaps: list[dict[int, np.ndarray]]

    @property
    def dead(self) -> np.ndarray:
        """Whether a channel never changes, or has no sample at all, shape (N,)."""
        return ~(self.highest > self.lowest)

    @property
    def has_gaps(self) -> np.ndarray:
        """Whether a channel misses samples, shape (N,)."""
        return np.isin(np.arange(len(self.lowest)), [channel for segment in self.gaps for channel in segment])

    @property
    def num_missing(self) -> np.ndarray:
        """How many samples a channel misses, shape (N,)."""
        missing = np.zeros(len(self.lowest), dtype="int64")
        for segment in self.gaps:
            for channel, (starts, ends) in segment.items():
                missing[channel] += np.sum(ends - starts)
        return missing

    def near_gap(self, segment: int, channel: int, frames: np.ndarray, reach: int) -> np.ndarray:
        """Tell which samples of a channel are missing, or at most so far from one that is, shape (E,)."""
        starts, ends = self.gaps[segment].get(channel, np.zeros((2, 0), dtype=int))
        last = np.searchsorted(starts, frames + reach, side="right") - 1  # the last gap that begins before
        return (last >= 0) & (np.append(ends, 0)[last] > frames - reach)


def survey(recording: BaseRecording, job_kwargs: dict[str, Any]) -> Survey:
    """Look at every sample of a recording once.

    Parameters
    ----------
    recording : BaseRecording
        N channels. Samples that are NaN or infinite count as missing.
    job_kwargs : dict
        SpikeInterface's.

    Returns
    -------
    Survey
        Ranges and gaps.
    """
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
    """Return the range of each channel in a chunk, and the gaps of those that have some."""
    traces = worker_context["recording"].get_traces(segment_index, start_frame, end_frame)  # T×N
    missing = ~np.isfinite(traces)
    gaps = {}
    for channel in np.flatnonzero(missing.any(axis=0)):
        borders = np.flatnonzero(np.diff(missing[:, channel], prepend=False, append=False))
        gaps[int(channel)] = start_frame + borders.reshape(-1, 2).T
    low = np.where(missing, np.inf, traces).min(axis=0)
    high = np.where(missing, -np.inf, traces).max(axis=0)
    return segment_index, low, high, gaps
