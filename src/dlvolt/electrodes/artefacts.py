"""Stretches of a recording that are not neural: stimulation, movement, saturation, blanking, dropped packets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from scipy.ndimage import binary_dilation
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.base import base_period_dtype
from spikeinterface.core.job_tools import TimeSeriesChunkExecutor
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from dlvolt.preprocessing.highpass_reference import row_medians
from dlvolt.preprocessing.random_chunks import random_chunks

BLOCK_MS = 1.0  # length of the blocks in which the recording is judged, half as long as a spike
LAG_MS = 0.2  # the change x(t + lag) - x(t) keeps the band of spikes and little of field potentials
NUM_CHUNKS, CHUNK_S = 40, 0.25  # chunks of the recording in which typical blocks are measured
MOST = 0.75  # share of the channels that is too large to see one neuron
HIGH = 3.0  # change relative to a channel's typical block, some nine noise standard deviations: noise is never so high
SUSTAINED_MS, SUSTAINED = 20.0, 0.6  # if this share of the blocks in this time is high, they are movement, not spikes
MOST_IN_COMMON = 32  # channels, spread over the probe, whose median is what all have in common
OUTSIZE = 10.0  # change relative to a channel's typical block that no spike causes on most channels of a probe,
OUTSIZE_OF_FEW, FEW_CHANNELS = 25.0, 16  # or of fewer channels than 16, which may all be beside one neuron
CONSTANT_MS = 3.0  # traces that do not change for so long are blanked, saturated or of lost packets,
CONSTANT_COARSE_MS = 50.0  # or this long if steps of the digitiser are so coarse that noise is often below one
BEFORE, AFTER = 1, 3  # blocks beside an artefact that are set aside with it, as amplifiers recover slowly
SHORTEST_MS = 5.0  # stretches between two artefacts that are shorter are set aside with them


class Artefacts(NamedTuple):
    """The stretches of a recording that are set aside.

    Attributes
    ----------
    periods : np.ndarray, SpikeInterface's base_period_dtype
        The stretches; those of each segment are ascending and do not overlap.
    reasons : list of str
        What each of them is: "constant" (blanked, saturated, lost) or "outsize" (stimulation, movement).
    """

    periods: np.ndarray
    reasons: list[str]

    @classmethod
    def none(cls) -> Artefacts:
        """Return no stretches at all."""
        return cls(np.zeros(0, dtype=base_period_dtype), [])

    def num_samples(self, segment: int, start: int, end: int) -> int:
        """Return how many samples between two frames of a segment are set aside."""
        own = self.periods[self.periods["segment_index"] == segment]
        overlap = np.minimum(own["end_sample_index"], end) - np.maximum(own["start_sample_index"], start)
        return int(overlap.clip(min=0).sum())

    def contain(self, segments: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Return which samples, given by segments and frames of shape (E,), are set aside, shape (E,), bool."""
        inside = np.zeros(len(frames), dtype=bool)
        for segment in np.unique(self.periods["segment_index"]):
            own = self.periods[self.periods["segment_index"] == segment]
            last = np.searchsorted(own["start_sample_index"], frames, side="right") - 1
            inside |= (segments == segment) & (last >= 0) & (frames < own["end_sample_index"][last])
        return inside

    def seconds(self, sampling_frequency: float) -> float:
        """Return the duration of all stretches together, in s."""
        return float((self.periods["end_sample_index"] - self.periods["start_sample_index"]).sum() / sampling_frequency)

    def in_seconds(self, sampling_frequency: float) -> list[list]:
        """Return each stretch as [segment, start in s, end in s, reason], counted from the segment's first sample."""
        segments = self.periods["segment_index"].tolist()
        starts = (self.periods["start_sample_index"] / sampling_frequency).tolist()
        ends = (self.periods["end_sample_index"] / sampling_frequency).tolist()
        return [list(stretch) for stretch in zip(segments, starts, ends, self.reasons, strict=True)]


def find_artefacts(recording: BaseRecording, job_kwargs: dict[str, Any], hum_period: int = 0) -> Artefacts:
    """Find the stretches in which most channels leave the range of spikes and noise together, in one pass.

    The recording is cut into blocks of a millisecond. A block is measured by the largest change of each channel over
    0.2 ms, relative to that in the channel's typical block. Artefacts are

    - blocks that are outsize on most channels;
    - 20 ms in which most blocks are high on most channels, or high in the median of the channels (as when muscles are
      recorded);
    - 3 ms in which most channels do not change.

    What only some channels show may be a spike, and is left to the sorter.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces, finite.
    job_kwargs : dict
        SpikeInterface's.
    hum_period : int
        Period of mains hum, in samples; 0 if there is none. Changes that recur after a period are hum and do not count.

    Returns
    -------
    Artefacts
        The stretches, possibly none.
    """
    measure = _Measure.of(recording, hum_period)
    if not measure.is_alive.any():
        return Artefacts.none()
    executor = TimeSeriesChunkExecutor(
        recording,
        _judge_chunk,
        _to_worker,
        (recording, measure),
        handle_returns=True,
        job_name="dlvolt: find artefacts",
        **job_kwargs,
    )
    judged: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(recording.get_num_segments())]
    for segment, first_block, of_chunk in executor.run():
        judged[segment].append((first_block, of_chunk))
    periods, reasons = [], []
    for segment, parts in enumerate(judged):
        verdicts = np.concatenate([of_chunk for _, of_chunk in sorted(parts, key=lambda part: part[0])])
        for start, end, reason in _stretches(verdicts, measure):
            last = min(end * measure.block, recording.get_num_samples(segment))
            periods.append((segment, start * measure.block, last))
            reasons.append(reason)
    return Artefacts(np.array(periods, dtype=base_period_dtype), reasons)


class _Measure(NamedTuple):
    """How blocks are measured."""

    block: int  # length of a block, in samples,
    lag: int  # lag of a change,
    hum_period: int  # and period of mains hum; 0 if there is none
    typical: np.ndarray  # N+1; largest change in a typical block of each channel, and of the median over channels
    is_alive: np.ndarray  # N, bool; which channels change at all; the others are left out
    coarse: bool  # whether typical blocks change by a single step of the digitiser

    @classmethod
    def of(cls, recording: BaseRecording, hum_period: int) -> _Measure:
        """Return the measure for a recording, from chunks of it."""
        fs = recording.sampling_frequency
        block, lag = max(4, round(BLOCK_MS / 1000 * fs)), max(1, round(LAG_MS / 1000 * fs))
        chunks = random_chunks(recording, NUM_CHUNKS, CHUNK_S)
        measure = cls(block, lag, hum_period, np.ones(recording.get_num_channels()), np.ones(0), False)
        changes = np.concatenate([measure.largest_changes(chunk, 0, 0) for chunk in chunks])  # blocks×(N+1)
        typical = np.array([np.median(own[own > 0]) if own.any() else 0.0 for own in changes.T])
        smallest = np.array([own[own > 0].min() if own.any() else 0.0 for own in changes.T])
        is_alive = typical[:-1] > 0
        coarse = bool(np.median((typical <= smallest)[:-1][is_alive])) if is_alive.any() else False
        return measure._replace(typical=np.where(typical > 0, typical, np.inf), is_alive=is_alive, coarse=coarse)

    def largest_changes(self, traces: np.ndarray, before: int, after: int) -> np.ndarray:
        """Return the largest change in each block, of each channel and of the median over channels, (blocks, N + 1).

        The traces, shape (T, N), have `before` samples before the first block and `after` samples after the last.
        """
        changes = np.subtract(traces[self.lag :], traces[: -self.lag], dtype="float32")
        in_common = row_medians(changes[:, :: -(-changes.shape[1] // MOST_IN_COMMON)])[:, None]
        first, last = before, len(traces) - after
        period = self.hum_period if len(changes) > self.hum_period else 0
        return np.concatenate(
            [_block_maxima(signed, first, last, self.block, period) for signed in (changes, in_common)], axis=1
        )


@njit(cache=True, nogil=True)
def _block_maxima(signed: np.ndarray, first: int, last: int, block: int, period: int) -> np.ndarray:
    """Return the largest absolute change in each block, shape (blocks, N), given changes, shape (T, N).

    Blocks are those from sample `first` to `last`. If there is hum, of a period that is not 0, the change one period
    later or earlier, whichever is more alike, is subtracted from each change.
    """
    num_samples, num_channels = signed.shape
    largest = np.zeros((-(-(last - first) // block), num_channels), dtype=signed.dtype)
    for time in range(first, min(last, num_samples)):
        in_block = largest[(time - first) // block]
        later, earlier = period > 0 and time + period < num_samples, period > 0 and time >= period
        for channel in range(num_channels):
            change = np.inf if later and earlier else abs(signed[time, channel])
            if later:
                change = min(change, abs(signed[time + period, channel] - signed[time, channel]))
            if earlier:
                change = min(change, abs(signed[time, channel] - signed[time - period, channel]))
            in_block[channel] = max(in_block[channel], change)
    return largest


def _to_worker(recording: BaseRecording, measure: _Measure) -> dict[str, Any]:
    """Return what a worker needs for all of its chunks."""
    return {"recording": recording, "measure": measure}


def _judge_chunk(
    segment_index: int, start_frame: int, end_frame: int, worker_context: dict[str, Any]
) -> tuple[int, int, np.ndarray]:
    """Return the segment of a chunk, its first block, and verdicts on its blocks, shape (blocks, 4).

    The verdicts are the shares of channels that are constant, high and outsize in a block, and whether the median over
    channels is high.
    """
    recording, measure = worker_context["recording"], worker_context["measure"]
    first, last = -(-start_frame // measure.block), -(-end_frame // measure.block)  # blocks that begin in the chunk
    margin = measure.hum_period + measure.lag
    num_samples = recording.get_num_samples(segment_index)
    start, end = first * measure.block, min(last * measure.block, num_samples)
    low, high = max(0, start - margin), min(end + margin, num_samples)
    traces = recording.get_traces(segment_index, low, high)
    largest = measure.largest_changes(traces, start - low, high - end)
    relative = largest / measure.typical
    in_common, relative = relative[:, -1] > HIGH, relative[:, :-1][:, measure.is_alive]
    few = relative.shape[1] < FEW_CHANNELS
    kinds = (relative == 0, relative > HIGH, relative > (OUTSIZE_OF_FEW if few else OUTSIZE))
    return segment_index, first, np.stack([*(kind.mean(axis=1) for kind in kinds), in_common], axis=1)


def _stretches(verdicts: np.ndarray, measure: _Measure) -> list[tuple[int, int, str]]:
    """Return the stretches of blocks, (start, end, reason), that are set aside, given verdicts of `_judge_chunk`."""
    constant, high, outsize, in_common = verdicts.T
    many = np.count_nonzero(measure.is_alive) > 1  # one channel alone may see outsize spikes
    is_outsize = (outsize >= MOST) & many
    width = round(SUSTAINED_MS / BLOCK_MS)
    is_high = (high >= MOST) | (in_common > 0) & many
    is_start = np.convolve(is_high, np.ones(width))[width - 1 :] >= SUSTAINED * width  # of `width` blocks, mostly high
    is_sustained = np.convolve(is_start, np.ones(width))[: len(high)] > 0
    is_sustained &= binary_dilation(is_high, iterations=2)  # not more than two blocks from one that is high
    is_constant = constant >= MOST
    longest = CONSTANT_COARSE_MS if measure.coarse else CONSTANT_MS
    for start, end in _runs(is_constant):
        if end - start < longest / BLOCK_MS:
            is_constant[start:end] = False
    is_artefact = is_outsize | is_sustained
    for start, end in _runs(is_artefact):
        while start > 0 and high[start - 1] >= 0.5:  # it lasts as long as half of the channels are high
            start -= 1
        while end < len(high) and high[end] >= 0.5:
            end += 1
        is_artefact[max(0, start - BEFORE) : end + AFTER] = True
    for start, end in _runs(is_constant):
        is_artefact[max(0, start - BEFORE) : end + BEFORE] = True
    for start, end in _runs(~is_artefact):
        if end - start < SHORTEST_MS / BLOCK_MS and start > 0 and end < len(is_artefact):
            is_artefact[start:end] = True
    return [
        (start, end, "constant" if is_constant[start:end].mean() > 0.5 else "outsize")
        for start, end in _runs(is_artefact)
    ]


def _runs(marked: np.ndarray) -> np.ndarray:
    """Return the first block and the end of each run of marked blocks, shape (runs, 2)."""
    return np.flatnonzero(np.diff(marked, prepend=False, append=False)).reshape(-1, 2)


class BridgedRecording(BasePreprocessor):
    """Traces with a straight line in some periods, see `bridge_periods`."""

    def __init__(self, recording: BaseRecording, periods: np.ndarray) -> None:
        BasePreprocessor.__init__(self, recording, dtype="float32")
        width = max(1, round(BLOCK_MS / 1000 * recording.sampling_frequency))
        for index, segment in enumerate(recording.segments):
            own = periods[periods["segment_index"] == index]
            self.add_recording_segment(BridgedSegment(segment, own, width))
        self._serializability["json"] = False
        self._kwargs = dict(recording=recording, periods=periods)


class BridgedSegment(BasePreprocessorSegment):
    """One segment of a `BridgedRecording`; the ends of a line are means over `width` samples beside the period."""

    def __init__(self, parent: BaseRecordingSegment, periods: np.ndarray, width: int) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.starts, self.ends, self.width = periods["start_sample_index"], periods["end_sample_index"], width

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the traces, shape (T, N)."""
        traces = self.parent_recording_segment.get_traces(start_frame, end_frame, channel_indices)
        traces = traces.astype("float32")
        first = np.searchsorted(self.ends, start_frame, side="right")
        last = np.searchsorted(self.starts, end_frame)
        for start, end in zip(self.starts[first:last].tolist(), self.ends[first:last].tolist(), strict=True):
            before = self._mean(start - self.width, start, channel_indices)
            after = self._mean(end, end + self.width, channel_indices)
            before, after = (after if before is None else before), (before if after is None else after)
            frames = np.arange(max(start, start_frame), min(end, end_frame))
            share = ((frames - start + (self.width + 1) / 2) / (end - start + self.width))[:, None]
            line = 0.0 if before is None else (1 - share) * before + share * after
            traces[frames - start_frame] = line
        return traces

    def _mean(self, start: int, end: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray | None:
        """Return the mean over some frames, or None if these are outside of the segment."""
        start, end = max(0, start), min(end, self.get_num_samples())
        if end <= start:
            return None
        return self.parent_recording_segment.get_traces(start, end, channel_indices).mean(axis=0, dtype="float64")


def bridge_periods(recording: BaseRecording, periods: np.ndarray) -> BaseRecording:
    """Return a recording with the traces in some periods replaced by a straight line from what is before to after.

    Filters then do not ring from what was in the periods. They would if the periods were set to zero, as
    ``silence_periods`` of SpikeInterface does, which is a step if traces have an offset.

    Parameters
    ----------
    recording : BaseRecording
        Traces of any type.
    periods : np.ndarray, SpikeInterface's base_period_dtype
        Periods, ascending in each segment, that do not overlap.

    Returns
    -------
    BaseRecording
        Traces as float32; the recording itself if there are no periods.
    """
    return BridgedRecording(recording, periods) if len(periods) else recording
