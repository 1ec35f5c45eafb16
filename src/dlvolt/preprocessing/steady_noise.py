"""Divide noise by its level where it is loud for a while, as when muscles of the animal are heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from dlvolt.threads import map_in_threads

from .random_chunks import random_chunks
from .whiten_noise import typical_block

WINDOW_MS = 50.0  # half a window is twice as long as the bursts of spikes that neurons fire
BLOCKS = 50  # in each window
NUM_CHUNKS = 40  # of five windows each, from which the usual level is estimated
LOUD = 2.0  # times the usual level, above which noise is loud: neurons that fire fast, or together, make less


class SteadyNoiseRecording(BasePreprocessor):
    """Divide each channel by its noise level in the windows in which this is more than twice the usual one.

    Detection and matching take noise for steady; where it is not, noise passes their thresholds. The level in a window
    of 50 ms is that of its louder half, estimated as the median over milliseconds, which spikes do not change. In all
    other windows traces stay as they are.

    Parameters
    ----------
    recording : BaseRecording
        Filtered traces.
    usual : float or sequence of float, default: 1.0
        Usual standard deviation of the noise, in all channels or in each of the N, as `usual_levels` estimates it; 0
        where a channel is silent. After `whiten_noise` it is 1.

    Raises
    ------
    ValueError
        If `usual` is negative, or neither one nor N numbers.
    """

    def __init__(self, recording: BaseRecording, usual: float | Sequence[float] = 1.0) -> None:
        num_channels = recording.get_num_channels()
        if np.shape(usual) not in ((), (num_channels,)) or not np.all(np.greater_equal(usual, 0)):
            raise ValueError(f"usual must be a noise level, or one for each of {num_channels} channels, not {usual}")
        levels = np.broadcast_to(np.asarray(usual, dtype="float32"), num_channels)
        BasePreprocessor.__init__(self, recording, dtype="float32")
        width = window_width(recording.sampling_frequency)
        for segment in recording.segments:
            self.add_recording_segment(SteadyNoiseSegment(segment, width, levels))
        self._kwargs = dict(recording=recording, usual=np.asarray(usual).tolist())


class SteadyNoiseSegment(BasePreprocessorSegment):
    """One segment of a `SteadyNoiseRecording`; windows are cut from its start."""

    def __init__(self, parent: BaseRecordingSegment, width: int, usual: np.ndarray) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.width, self.usual = width, usual

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the steadied traces, shape (T, N)."""
        first = start_frame // self.width * self.width
        last = min(-(-end_frame // self.width) * self.width, self.get_num_samples())
        traces = self.parent_recording_segment.get_traces(first, last, channel_indices).astype("float32", copy=False)
        usual = self.usual[slice(None) if channel_indices is None else channel_indices]
        levels = noise_levels(traces, self.width)
        is_loud = (levels > LOUD * usual) & (usual > 0)
        inside = slice(start_frame - first, end_frame - first)
        if not is_loud.any():
            return traces[inside]
        divisors = np.divide(levels, usual, out=np.ones_like(levels), where=is_loud)
        return (traces / np.repeat(divisors, self.width, axis=0)[: len(traces)])[inside]


def window_width(sampling_frequency: float) -> int:
    """Return the length of a window in samples, an even number."""
    return 2 * max(1, round(WINDOW_MS / 2000 * sampling_frequency))


def noise_levels(traces: np.ndarray, width: int) -> np.ndarray:
    """Return the standard deviation of the noise of traces (T, N) in windows of `width` samples, shape (windows, N).

    It is that of the louder half of each window; the last window may be shorter. In each half it is the median of the
    root mean squares of blocks of a millisecond. (The median absolute value would not do where digits are coarse and
    most samples are the same.) The width is an even number.
    """
    half, block = width // 2, max(1, width // BLOCKS)
    pieces = [traces[start : start + half] for start in range(0, len(traces), half)]
    halves = [typical_block(piece, min(block, len(piece))) for piece in pieces]
    halves += [np.zeros(traces.shape[1])] * (len(halves) % 2)
    return np.reshape(halves, (-1, 2, traces.shape[1])).max(axis=1).astype("float32")


def usual_levels(recording: BaseRecording, seed: int = 0, num_workers: int = 1) -> tuple[np.ndarray, bool]:
    """Return the usual noise level of each channel, (N,), and whether noise is nowhere loud in a sample of up to 10 s.

    Windows in which all channels are zero are left out, as they have been silenced.
    """
    width = window_width(recording.sampling_frequency)
    chunks = random_chunks(recording, NUM_CHUNKS, 5 * width / recording.sampling_frequency, seed, num_workers)
    levels = np.concatenate(map_in_threads(lambda chunk: noise_levels(chunk, width), chunks, num_workers))
    levels = levels[levels.any(axis=1)]
    if len(levels) == 0:
        return np.zeros(recording.get_num_channels(), dtype="float32"), True
    usual = np.median(levels, axis=0)
    return usual, not ((levels > LOUD * usual) & (usual > 0)).any()


steady_noise = define_function_handling_dict_from_class(source_class=SteadyNoiseRecording, name="steady_noise")
