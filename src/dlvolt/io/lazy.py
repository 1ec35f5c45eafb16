"""The segment of a recording whose traces are read from files when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecordingSegment


class LazySegment(BaseRecordingSegment):
    """A segment of T samples, whose `clock` is ``sampling_frequency`` and ``t_start``, or ``time_vector``.

    `read` takes the first sample, the one after the last, and the channels as indices or a slice; it returns their
    traces, shape (samples, channels).
    """

    def __init__(self, num_samples: int, read: Callable[[int, int, Any], np.ndarray], **clock: Any) -> None:
        BaseRecordingSegment.__init__(self, **clock)
        self.num_samples, self.read = num_samples, read

    def get_num_samples(self) -> int:
        """Return T."""
        return self.num_samples

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the traces, shape (T, N)."""
        return self.read(start_frame, end_frame, slice(None) if channel_indices is None else channel_indices)
