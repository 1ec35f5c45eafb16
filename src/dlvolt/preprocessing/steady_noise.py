"""Divide noise by its level where it is loud for a while, as when muscles of the animal are heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

WINDOW_MS = 50.0  # half of it is twice as long as the bursts of spikes that neurons fire
LOUD = 2.0  # times the usual level: neurons that fire fast, or together, make less


class SteadyNoiseRecording(BasePreprocessor):
    """Divide each channel by its noise level in the windows in which this is more than twice the usual one.

    Detection and matching take noise for steady. Where it is not, a threshold of so many standard deviations lets
    noise pass. The level in a window of 50 ms is the larger one of its two halves, told by the median size of samples,
    which spikes hardly change. Elsewhere traces stay as they are.

    Parameters
    ----------
    recording : BaseRecording
        Traces whose noise usually has a standard deviation of `usual`, as `whiten_noise` makes them.
    usual : float, default: 1.0
        In the unit of the traces.

    Raises
    ------
    ValueError
        If `usual` is not positive.
    """

    _precomputable_kwarg_names: Sequence[str] = []

    def __init__(self, recording: BaseRecording, usual: float = 1.0) -> None:
        if not usual > 0:
            raise ValueError(f"usual must be a positive noise level, not {usual}")
        BasePreprocessor.__init__(self, recording, dtype="float32")
        width = window_width(recording.sampling_frequency)
        for segment in recording.segments:
            self.add_recording_segment(SteadyNoiseSegment(segment, width, usual))
        self._kwargs = dict(recording=recording, usual=usual)


class SteadyNoiseSegment(BasePreprocessorSegment):
    """One segment of a `SteadyNoiseRecording`; windows are cut from its start."""

    def __init__(self, parent: BaseRecordingSegment, width: int, usual: float) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.width, self.usual = width, usual

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the steadied traces, shape (T, N)."""
        first = start_frame // self.width * self.width
        last = min(-(-end_frame // self.width) * self.width, self.get_num_samples())
        traces = self.parent_recording_segment.get_traces(first, last, channel_indices).astype("float32", copy=False)
        levels = noise_levels(traces, self.width) / self.usual
        inside = slice(start_frame - first, end_frame - first)
        if not (levels > LOUD).any():
            return traces[inside]
        divisors = np.where(levels > LOUD, levels, 1.0).astype("float32")
        return (traces / np.repeat(divisors, self.width, axis=0)[: len(traces)])[inside]


def window_width(sampling_frequency: float) -> int:
    """Return the samples of a window, an even number."""
    return 2 * max(1, round(WINDOW_MS / 2000 * sampling_frequency))


def noise_levels(traces: np.ndarray, width: int) -> np.ndarray:
    """Return the standard deviation of noise in windows of so many samples, an even number, shape (windows, N).

    It is that of the louder half of each window, and of the traces, (T, N), that are left for the last one.
    """
    half, quartile = width // 2, norm.ppf(0.75)
    halves = [np.median(np.abs(traces[start : start + half]), axis=0) for start in range(0, len(traces), half)]
    halves += [np.zeros(traces.shape[1])] * (len(halves) % 2)
    return np.reshape(halves, (-1, 2, traces.shape[1])).max(axis=1) / quartile


steady_noise = define_function_handling_dict_from_class(source_class=SteadyNoiseRecording, name="steady_noise")
