"""Take the mains hum out of a recording, with all its harmonics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment, get_chunk_with_margin
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from .finite import check_frequency, finite_segments
from .zero_phase import zero_phase_taps

DECAYS = 14  # time constants of a notch; (1 + 14) exp(-14) < 2e-5 of its response is cut off


class NotchCombRecording(BasePreprocessor):
    """Notch out a frequency and its harmonics, without shifting phases.

    All notches have the same width in Hz, ``freq / q``, so they never merge, however many there are. Anything else,
    the mean included, passes.

    Parameters
    ----------
    recording : BaseRecording
        Traces of any type; they become float32.
    freq : float, default: 50.0
        Fundamental in Hz; 60.0 in the Americas.
    harmonics : list of int, optional
        Multiples of `freq` to take out, 1 for `freq` itself; by default all below half the sampling frequency.
    q : float, default: 30.0
        Quality of the first notch. Chunks are read with 14 time constants of it, 4.5 q / freq s, on either side.

    Raises
    ------
    ValueError
        If a parameter is out of range, or, later, if traces are NaN or infinite.
    """

    def __init__(
        self, recording: BaseRecording, freq: float = 50.0, harmonics: Sequence[int] | None = None, q: float = 30.0
    ) -> None:
        taps = comb_taps(recording.sampling_frequency, freq, None if harmonics is None else tuple(harmonics), q)
        BasePreprocessor.__init__(self, recording, dtype="float32")
        for segment in finite_segments(recording, "notch_comb"):
            self.add_recording_segment(NotchCombSegment(segment, taps, recording.sampling_frequency / freq))
        harmonics = None if harmonics is None else list(harmonics)
        self._kwargs = dict(recording=recording, freq=freq, harmonics=harmonics, q=q)


class NotchCombSegment(BasePreprocessorSegment):
    """One segment of a `NotchCombRecording`: one convolution, however many notches there are.

    Before the first sample of the recording and after its last one, whole periods of the hum are repeated.
    """

    def __init__(self, parent: BaseRecordingSegment, taps: np.ndarray, period: float) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.taps, self.margin = taps, len(taps) // 2
        most = int(min(self.margin, parent.get_num_samples()) / period)
        whole = period * np.arange(most // 2, most + 1)
        self.repeated = max(1, round(whole[np.abs(whole - np.round(whole)).argmin()]))  # best a whole number of samples

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the filtered traces, shape (T, N)."""
        traces, left, right = get_chunk_with_margin(
            self.parent_recording_segment, start_frame, end_frame, channel_indices, self.margin
        )
        end = len(traces)
        index = np.arange(left - self.margin, end + self.margin - right)
        index[index < 0] %= self.repeated
        index[index >= end] = end - self.repeated + (index[index >= end] - end) % self.repeated
        offset = traces[:1].astype("float32")  # the mean passes, and is kept out of the rounding
        return convolved(traces[index] - offset, self.taps) + offset


@lru_cache(maxsize=4)
def comb_taps(sampling_frequency: float, freq: float, harmonics: tuple[int, ...] | None, q: float) -> np.ndarray:
    """Return the response of the notches to an impulse, shape (2 margin + 1,); see `NotchCombRecording`."""
    from scipy.signal import iirnotch, tf2sos  # slow, and SpikeInterface imports this module

    check_frequency("freq", freq, sampling_frequency)
    nyquist = sampling_frequency / 2
    if not q > 0.5:
        raise ValueError(f"q must be above 0.5, so that a notch is narrower than its distance to 0 Hz, not {q}")
    multiples = np.arange(1, np.ceil(nyquist / freq)) if harmonics is None else np.asarray(harmonics)
    if len(multiples) == 0 or not np.all((multiples > 0) & (multiples * freq < nyquist)):
        raise ValueError(
            f"harmonics must be multiples of freq between 0 and {nyquist:g} Hz, half the sampling "
            f"frequency, not {harmonics}"
        )
    notches = np.concatenate([tf2sos(*iirnotch(k * freq, k * q, fs=sampling_frequency)) for k in multiples])
    margin = int(np.ceil(DECAYS * q / (np.pi * freq) * sampling_frequency))
    taps = zero_phase_taps(notches, margin)
    taps[margin] += 1 - taps.sum()  # so that the mean passes in spite of what was cut off
    return taps


def convolved(traces: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Return the part of traces (T, N) convolved with taps that does not depend on what lies beyond the traces."""
    from scipy.signal import oaconvolve

    by_channel = np.ascontiguousarray(traces.T, dtype="float32")
    return oaconvolve(by_channel, taps[None].astype("float32"), mode="valid", axes=1).T


notch_comb = define_function_handling_dict_from_class(source_class=NotchCombRecording, name="notch_comb")
