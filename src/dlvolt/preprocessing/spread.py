"""Recordings in which each channel becomes several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment, get_chunk_with_margin
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from .finite import drop_units, finite_segments

Spread = Callable[[np.ndarray], np.ndarray]  # N×T -> N×C×T


class SpreadRecording(BasePreprocessor):
    """Base of preprocessors that turn each of N channels into C, called ``"{channel}:{name}"``.

    The new channels have the properties of the one they come from, except gains and offsets. The probe is left out,
    as it has one contact per channel. `spread` turns traces (N, T), float64, into the new ones (N, C, T), of which a
    sample depends on `margin` samples to either side; `step` is the name of the preprocessor, for messages.
    """

    def __init__(self, recording: BaseRecording, names: Sequence[str], spread: Spread, margin: int, step: str) -> None:
        ids = [f"{channel}:{name}" for channel in recording.channel_ids for name in names]
        BaseRecording.__init__(self, recording.sampling_frequency, ids, "float32")  # the parent has other channels
        self._parent = recording
        self.annotate(**{key: recording.get_annotation(key) for key in recording.get_annotation_keys()})
        for key in recording.get_property_keys():
            self.set_property(key, np.repeat(recording.get_property(key), len(names), axis=0))
        drop_units(self)
        self._preferred_mp_context = "spawn"  # torch may wait for ever in a process that was forked
        for segment in finite_segments(recording, step):
            self.add_recording_segment(SpreadSegment(segment, len(ids), len(names), spread, margin))


class SpreadSegment(BasePreprocessorSegment):
    """One segment of a `SpreadRecording`."""

    def __init__(
        self, parent: BaseRecordingSegment, num_channels: int, num_names: int, spread: Spread, margin: int
    ) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.num_channels, self.num_names, self.spread, self.margin = num_channels, num_names, spread, margin

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the new traces, shape (T, channels)."""
        wanted = np.arange(self.num_channels)[slice(None) if channel_indices is None else channel_indices]
        parents, row = np.unique(wanted // self.num_names, return_inverse=True)
        traces, left, right = get_chunk_with_margin(
            self.parent_recording_segment, start_frame, end_frame, parents, self.margin
        )
        values = self.spread(np.ascontiguousarray(traces.T, dtype="float64"))  # N×C×T
        return values[row, wanted % self.num_names, left : len(traces) - right].T.astype("float32")
