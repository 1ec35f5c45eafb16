"""Replace samples that are not numbers, so that filters do not spread them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

BLOCK = 4096  # samples of noise that are drawn together


class FillNanRecording(BasePreprocessor):
    """Set samples that are NaN or infinite to a constant, or bridge them.

    Parameters
    ----------
    recording : BaseRecording
        Traces of a floating point type; integers pass unchanged.
    value : float or sequence of float, default: 0.0
        What such samples are set to, in all channels or in each of the N.
    bridge_ms : float, default: 0.0
        Gaps up to this long, with samples on both sides, are crossed by a straight line instead.
    noise : float or sequence of float, default: 0.0
        Standard deviation of white noise that is added to `value`, in all channels or in each: where a long gap is
        silent, networks take the noise beside it for spikes.
    seed : int, default: 0
        Draws the noise, which is the same whichever chunk is asked for.

    Raises
    ------
    ValueError
        If `value` or `noise` is neither one nor N numbers, or `noise` or `bridge_ms` negative.
    """

    def __init__(
        self,
        recording: BaseRecording,
        value: float | Sequence[float] = 0.0,
        bridge_ms: float = 0.0,
        noise: float | Sequence[float] = 0.0,
        seed: int = 0,
    ) -> None:
        num_channels = recording.get_num_channels()
        for name, given in (("value", value), ("noise", noise)):
            if np.shape(given) not in ((), (num_channels,)) or not np.isfinite(given).all():
                raise ValueError(f"{name} must be a number, or one for each of {num_channels} channels")
        if np.any(np.less(noise, 0)):
            raise ValueError(f"noise must not be negative, not {noise}")
        if not bridge_ms >= 0:
            raise ValueError(f"bridge_ms must be a duration, not {bridge_ms}")
        BasePreprocessor.__init__(self, recording)
        longest = round(bridge_ms / 1000 * recording.sampling_frequency)
        values, noises = (np.broadcast_to(np.asarray(given, dtype="float64"), num_channels) for given in (value, noise))
        for index, segment in enumerate(recording.segments):
            self.add_recording_segment(FillNanSegment(segment, values, longest, noises, [seed, index]))
        value, noise = np.asarray(value).tolist(), np.asarray(noise).tolist()
        self._kwargs = dict(recording=recording, value=value, bridge_ms=bridge_ms, noise=noise, seed=seed)


class FillNanSegment(BasePreprocessorSegment):
    """One segment of a `FillNanRecording`."""

    def __init__(
        self, parent: BaseRecordingSegment, values: np.ndarray, longest: int, noises: np.ndarray, seed: list[int]
    ) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.values, self.longest, self.noises, self.seed = values, longest, noises, seed

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the filled traces, shape (T, N)."""
        channels = slice(None) if channel_indices is None else channel_indices
        traces = self.parent_recording_segment.get_traces(start_frame, end_frame, channels)
        missing = ~np.isfinite(traces)
        if not missing.any():
            return traces
        values = self.values[channels]
        if self.noises.any():
            values = values + self.noises[channels] * self._white_noise(start_frame, end_frame)[:, channels]
        filled = np.where(missing, values, traces).astype(traces.dtype)
        if self.longest:
            low = max(0, start_frame - self.longest - 1)
            high = min(self.get_num_samples(), end_frame + self.longest + 1)
            around = self.parent_recording_segment.get_traces(low, high, channels)  # every gap to be bridged is whole
            for channel in np.flatnonzero(missing.any(axis=0)):
                bridged = bridge(around[:, channel], self.longest)[start_frame - low : end_frame - low]
                filled[:, channel] = np.where(np.isfinite(bridged), bridged, filled[:, channel])
        return filled

    def _white_noise(self, start: int, end: int) -> np.ndarray:
        """Return noise of variance 1, shape (T, N), which is drawn block by block."""
        first = start // BLOCK
        blocks = [
            np.random.default_rng([*self.seed, block]).standard_normal((BLOCK, len(self.values)), dtype="float32")
            for block in range(first, -(-end // BLOCK))
        ]
        return np.concatenate(blocks)[start - first * BLOCK : end - first * BLOCK]


def bridge(trace: np.ndarray, longest: int) -> np.ndarray:
    """Cross each gap of a trace (T,) by a straight line, if it is at most so long and has samples on both sides."""
    there = np.flatnonzero(np.isfinite(trace))
    if len(there) == 0:
        return trace
    gaps = np.diff(there) - 1
    short = np.zeros(len(trace), dtype=bool)
    for before, length in zip(there[:-1][gaps > 0], gaps[gaps > 0], strict=True):
        short[before + 1 : before + 1 + length] = length <= longest
    return np.where(short, np.interp(np.arange(len(trace)), there, trace[there]), trace)


fill_nan = define_function_handling_dict_from_class(source_class=FillNanRecording, name="fill_nan")
