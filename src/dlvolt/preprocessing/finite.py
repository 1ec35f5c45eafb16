"""What preprocessors share: finite input, units dropped, and checks of frequencies and of which way spikes point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessorSegment

POLARITIES = ("positive", "negative")
UNITS = ("gain_to_uV", "offset_to_uV", "gain_to_physical_unit", "offset_to_physical_unit", "physical_unit")


class FiniteSegment(BasePreprocessorSegment):
    """A segment that passes traces on to a preprocessor (`step`), but raises where they are NaN or infinite.

    Filters and networks would spread such samples.
    """

    def __init__(self, parent: BaseRecordingSegment, step: str) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.step = step

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the traces, shape (T, N)."""
        traces = self.parent_recording_segment.get_traces(start_frame, end_frame, channel_indices)
        if not np.isfinite(traces).all():
            raise ValueError(
                f"recording: samples between frames {start_frame} and {end_frame} are NaN or infinite; "
                f"put fill_nan(recording) before {self.step}"
            )
        return traces


def finite_segments(recording: BaseRecording, step: str) -> list[FiniteSegment]:
    """Return the segments of a recording, for the segments of a preprocessor to read from."""
    return [FiniteSegment(segment, step) for segment in recording.segments]


def drop_units(recording: BaseRecording) -> None:
    """Forget the gains and offsets that a preprocessor took over from its parent: its values are no voltages."""
    for key in set(UNITS) & set(recording.get_property_keys()):
        recording.delete_property(key)


def check_frequency(name: str, hz: float, sampling_frequency: float) -> None:
    """Refuse a frequency that is not between 0 and half the sampling frequency."""
    nyquist = sampling_frequency / 2
    if not 0 < hz < nyquist:
        raise ValueError(f"{name} must lie between 0 and {nyquist:g} Hz, half the sampling frequency, not be {hz}")


def check_polarity(polarity: str | Sequence[str], num_channels: int) -> list[str]:
    """Return the polarity of each channel, "positive" or "negative", given for all of them or for each."""
    each = [polarity] * num_channels if isinstance(polarity, str) else [str(one) for one in polarity]
    if len(each) != num_channels or not set(each) <= set(POLARITIES):
        raise ValueError(
            f"polarity must be 'positive' or 'negative', or a list of these for {num_channels} channels, "
            f"not {polarity!r}"
        )
    return each
