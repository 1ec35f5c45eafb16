"""ΔF/F: fluorescence relative to a baseline that follows bleaching."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from .finite import check_polarity, drop_units, finite_segments
from .nodes import around_node, between_nodes

NODES_PER_WINDOW = 4  # points at which the baseline is computed


class DeltaFOverFRecording(BasePreprocessor):
    """Turn fluorescence F into its change relative to a baseline, (F - F0) / F0, and annotate the recording as ΔF/F.

    F0 is a running quantile: that of the window around each of the points 0, w/4, 2w/4, … of the recording, and linear
    in between, so it is the same whichever chunk is asked for. Spikes do not pull it: for an indicator that brightens
    the quantile is a low one, for one that darkens it is as far from the top.

    Parameters
    ----------
    recording : BaseRecording
        Fluorescence with its own zero: not yet centred or high-pass filtered. Where the recording has gains and
        offsets they are applied first.
    window_s : float, default: 5.0
        Length w of the window, in seconds; longer than bursts and up states, shorter than bleaching.
    quantile : float, default: 0.2
        Fraction of the samples of a window that lie on the side of the baseline away from the spikes.
    polarity : str or list of str, default: "positive"
        Which way spikes go, of all channels or of each: "positive" or "negative".

    Raises
    ------
    ValueError
        If a parameter is out of range; later, if traces are NaN or infinite, or if F is not clearly positive: the
        quantile and its mirror image (0.2 and 0.8) have to be.

    Examples
    --------
    >>> import numpy as np
    >>> import dlvolt
    >>> fluorescence = np.full((5000, 1), 200.0)
    >>> fluorescence[2500] = 220.0  # a spike
    >>> recording = dlvolt.traces_to_recording(fluorescence, sampling_frequency=500.0)
    >>> round(float(dlvolt.preprocessing.delta_f_over_f(recording).get_traces().max()), 3)
    0.1
    """

    def __init__(
        self,
        recording: BaseRecording,
        window_s: float = 5.0,
        quantile: float = 0.2,
        polarity: str | Sequence[str] = "positive",
    ) -> None:
        if not 0 <= quantile <= 0.5:
            raise ValueError(
                f"quantile must lie between 0 and 0.5, not be {quantile}; it counts from the side away "
                "from the spikes, so polarity='negative' turns it over"
            )
        if not window_s > 0:
            raise ValueError(f"window_s must be a positive duration in seconds, not {window_s}")
        each = check_polarity(polarity, recording.get_num_channels())
        gains, offsets = np.ones(len(each)), np.zeros(len(each))
        if recording.has_scaleable_traces():
            gains, offsets = recording.get_channel_gains(), recording.get_channel_offsets()
        upward = np.array(each) == "positive"
        hop = max(1, round(window_s * recording.sampling_frequency / NODES_PER_WINDOW))

        BasePreprocessor.__init__(self, recording, dtype="float32")
        drop_units(self)
        self.annotate(value="delta_f_over_f")
        for segment in finite_segments(recording, "delta_f_over_f"):
            self.add_recording_segment(
                DeltaFOverFSegment(segment, hop, quantile, upward, gains, offsets, recording.channel_ids)
            )
        polarity = polarity if isinstance(polarity, str) else each
        self._kwargs = dict(recording=recording, window_s=window_s, quantile=quantile, polarity=polarity)


class DeltaFOverFSegment(BasePreprocessorSegment):
    """One segment of a `DeltaFOverFRecording`."""

    def __init__(
        self,
        parent: BaseRecordingSegment,
        hop: int,
        quantile: float,
        upward: np.ndarray,
        gains: np.ndarray,
        offsets: np.ndarray,
        channel_ids: np.ndarray,
    ) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.hop, self.quantile, self.upward = hop, quantile, upward
        self.gains, self.offsets, self.channel_ids = gains, offsets, channel_ids

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return ΔF/F, shape (T, N)."""
        channels = np.arange(len(self.gains))[slice(None) if channel_indices is None else channel_indices]
        fluorescence = self._fluorescence(start_frame, end_frame, channels)
        if len(fluorescence) == 0:
            return fluorescence.astype("float32")
        baseline = between_nodes(lambda node: self._baseline(node, channels), self.hop, start_frame, end_frame)
        return ((fluorescence - baseline) / baseline).astype("float32")

    def _fluorescence(self, start_frame: int, end_frame: int, channels: np.ndarray) -> np.ndarray:
        traces = self.parent_recording_segment.get_traces(start_frame, end_frame, channels)
        return traces.astype("float64") * self.gains[channels] + self.offsets[channels]

    def _baseline(self, node: int, channels: np.ndarray) -> np.ndarray:
        """Return the quantile of the window around a node, shape (N,)."""
        low_frame, high_frame = around_node(node, self.hop, NODES_PER_WINDOW * self.hop // 2, self.get_num_samples())
        window = self._fluorescence(low_frame, high_frame, channels)
        low, high = np.quantile(window, [self.quantile, 1 - self.quantile], axis=0)
        if not np.all(low > 0):
            raise ValueError(
                f"recording: the baseline of channel {self.channel_ids[channels[low.argmin()]]!r} is zero or negative, "
                "so ΔF/F has no meaning; give fluorescence that is neither centred nor high-pass filtered, with the "
                "camera's offset taken off"
            )
        return np.where(self.upward[channels], low, high)


delta_f_over_f = define_function_handling_dict_from_class(source_class=DeltaFOverFRecording, name="delta_f_over_f")
