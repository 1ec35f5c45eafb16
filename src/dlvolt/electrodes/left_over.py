"""The residual of a sample of the recording: what is left after the spikes of all known units are subtracted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from torch import Tensor

from dlvolt.deconvolution import subtract
from dlvolt.electrodes.learning import Matchers


class LeftOverRecording(BaseRecording):
    """Chunks of a recording less the spikes of known units, computed when they are read to save memory.

    Each chunk, whitened traces of shape (N, T), is a segment, and `places` tell where the tissue is in it. The channels
    are those of `recording`. `matchers` are those of the known units, or None if there are none.
    """

    def __init__(
        self, recording: BaseRecording, chunks: list[Tensor], places: list[int], matchers: Matchers | None
    ) -> None:
        super().__init__(recording.sampling_frequency, recording.channel_ids, "float32")
        recording.copy_metadata(self)
        for chunk, place in zip(chunks, places, strict=True):
            self.add_recording_segment(LeftOverSegment(recording.sampling_frequency, chunk, place, matchers))


class LeftOverSegment(BaseRecordingSegment):
    """One segment of a `LeftOverRecording`."""

    def __init__(self, sampling_frequency: float, chunk: Tensor, place: int, matchers: Matchers | None) -> None:
        super().__init__(sampling_frequency=sampling_frequency)
        self.chunk, self.place, self.matchers = chunk, place, matchers

    def get_num_samples(self) -> int:
        """Return T."""
        return self.chunk.shape[1]

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the residual, shape (T, N); each call pursues all of the chunk, so it is best read in one."""
        left = self.chunk.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if self.matchers is not None:
            matcher = self.matchers.at(self.place)
            left = subtract(left, matcher.pursue(left), matcher.templates.to("cpu"))
        chosen = slice(None) if channel_indices is None else channel_indices
        return np.ascontiguousarray(left.numpy()[chosen, start_frame:end_frame].T)
