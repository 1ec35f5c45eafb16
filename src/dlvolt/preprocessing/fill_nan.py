"""Replace samples that are not numbers, so that filters do not spread them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment


class FillNanRecording(BasePreprocessor):
    """Set samples that are NaN or infinite to a constant.

    Parameters
    ----------
    recording : BaseRecording
        Traces of a floating point type; integers pass unchanged.
    value : float, default: 0.0
        What stands in for them.
    """

    _precomputable_kwarg_names: Sequence[str] = []

    def __init__(self, recording: BaseRecording, value: float = 0.0) -> None:
        BasePreprocessor.__init__(self, recording)
        for segment in recording.segments:
            self.add_recording_segment(FillNanSegment(segment, value))
        self._kwargs = dict(recording=recording, value=value)


class FillNanSegment(BasePreprocessorSegment):
    """One segment of a `FillNanRecording`."""

    def __init__(self, parent: BaseRecordingSegment, value: float) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.value = value

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the filled traces, shape (T, N)."""
        traces = self.parent_recording_segment.get_traces(start_frame, end_frame, channel_indices)
        finite = np.isfinite(traces)
        return traces if finite.all() else np.where(finite, traces, traces.dtype.type(self.value))


fill_nan = define_function_handling_dict_from_class(source_class=FillNanRecording, name="fill_nan")
