"""High-pass filter a recording, and subtract what all its channels have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment, get_chunk_with_margin
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from .finite import check_frequency, finite_segments
from .zero_phase import ZeroPhaseFilter, highpass_taps

SLAB = 1024  # samples whose medians are taken at once, so that they stay in the cache


class HighpassReferenceRecording(BasePreprocessor):
    """High-pass filter traces without shifting phases, and subtract the median over channels.

    The same as SpikeInterface's ``highpass_filter(filter_order=3)`` and ``common_reference``, at a quarter of the
    cost. Another symmetric filter can be had in the same pass, for nothing.

    Parameters
    ----------
    recording : BaseRecording
        Traces of any type; they become float32.
    freq_min : float, default: 300.0
        Corner of the high-pass filter, in Hz.
    reference : bool, default: True
        Subtract from each sample its median over all channels.
    temporal : array, shape (2 L + 1,), optional
        Another symmetric filter, which is applied before the reference.

    Raises
    ------
    ValueError
        If a parameter is out of range, or, later, if traces are NaN or infinite.
    """

    def __init__(
        self,
        recording: BaseRecording,
        freq_min: float = 300.0,
        reference: bool = True,
        temporal: np.ndarray | list | None = None,
    ) -> None:
        check_frequency("freq_min", freq_min, recording.sampling_frequency)
        temporal = np.ones(1) if temporal is None else np.asarray(temporal, dtype="float64")
        taps = np.convolve(highpass_taps(freq_min, recording.sampling_frequency), temporal)
        zero_phase = ZeroPhaseFilter(taps, near=len(temporal) // 2)

        BasePreprocessor.__init__(self, recording, dtype="float32")
        self.annotate(is_filtered=True)
        if "offset_to_uV" in self.get_property_keys():
            self.set_channel_offsets(0)
        for segment in finite_segments(recording, "highpass_reference"):
            self.add_recording_segment(HighpassReferenceSegment(segment, zero_phase, reference))
        self._kwargs = dict(recording=recording, freq_min=freq_min, reference=reference, temporal=temporal.tolist())


class HighpassReferenceSegment(BasePreprocessorSegment):
    """One segment of a `HighpassReferenceRecording`."""

    def __init__(self, parent: BaseRecordingSegment, zero_phase: ZeroPhaseFilter, reference: bool) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.zero_phase, self.reference = zero_phase, reference

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the filtered traces, shape (T, N)."""
        chosen = slice(None) if channel_indices is None else channel_indices
        traces, _, _ = get_chunk_with_margin(
            self.parent_recording_segment,
            start_frame,
            end_frame,
            slice(None) if self.reference else chosen,
            self.zero_phase.margin,
            add_reflect_padding=True,
        )
        filtered = self.zero_phase(traces, offset=traces[0])  # which is filtered out anyway, but for rounding
        if not self.reference:
            return filtered
        for start in range(0, len(filtered), SLAB):
            slab = filtered[start : start + SLAB]
            slab -= row_medians(slab)[:, None]
        return filtered[:, chosen]


highpass_reference = define_function_handling_dict_from_class(
    source_class=HighpassReferenceRecording, name="highpass_reference"
)


def row_medians(values: np.ndarray) -> np.ndarray:
    """Return the median of each row; `numpy.median` takes seven times as long or more, as it partitions."""
    ordered, count = np.sort(values, axis=1), values.shape[1]
    return (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
