"""What is left of a sample of the recording when all known units are explained away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from torch import Tensor

from dlvolt.deconvolution import subtract
from dlvolt.electrodes.learning import Matchers


class LeftOverRecording(BaseRecording):
    """Chunks of a recording, less the spikes of known units; computed when they are read, as they take memory.

    Parameters
    ----------
    recording : BaseRecording
        Where the chunks are from: channels and their locations.
    chunks : list of Tensor, shape (N, T)
        Whitened traces, each a segment; may be halves.
    places : list of int
        Where the tissue is in each.
    matchers : Matchers or None
        The units known.
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
        """Return what is left, shape (T, N); all of the chunk is pursued, so better ask for all of it at once."""
        left = self.chunk.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        if self.matchers is not None:
            matcher = self.matchers.at(self.place)
            left = subtract(left, matcher.pursue(left), matcher.templates.to("cpu"))
        chosen = slice(None) if channel_indices is None else channel_indices
        return np.ascontiguousarray(left.numpy()[chosen, start_frame:end_frame].T)
