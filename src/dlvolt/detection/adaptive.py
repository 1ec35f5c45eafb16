"""Peak detector: ``detect_peaks(method="dlvolt-adaptive")`` has a threshold that follows the recording."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from dlvolt.preprocessing.finite import finite_segments
from dlvolt.preprocessing.nodes import around_node, between_nodes
from dlvolt.robust import GAUSSIAN_MAD

from .shadowing import ShadowingPeakDetector, documented_parameters, shadow

PIECE_S = 1.0  # around each node, in which noise and rate are estimated
UPRIGHT = {"neg": np.negative, "pos": np.positive, "both": np.abs}


class AdaptivePeakDetector(ShadowingPeakDetector):
    """Detect peaks above a threshold of each channel that follows its noise and its event rate through time.

    Every `interval_s` seconds the noise and the heights of the peaks are estimated from a second of the recording; the
    noise is the median of the absolute values over 0.6745. The threshold there is `detect_threshold` times the noise,
    or, where more peaks than `max_rate_hz` would cross that, the height that only this many reach. In between it is
    interpolated. A peak suppresses smaller ones within the refractory period. All of that is tied to the recording, so
    peaks do not depend on how it is cut into chunks.

    Parameters
    ----------
    recording : BaseRecording
        Band-pass filtered traces.
    peak_sign : {"neg", "pos", "both"}, default: "neg"
        Which way peaks go.
    detect_threshold : float, default: 3.0
        Lowest threshold, in standard deviations of the noise.
    refractory_ms : float, default: 1.0
        Peaks of a channel lie farther apart than this.
    max_rate_hz : float, default: 200.0
        Peaks per second and channel, above which the threshold rises.
    interval_s : float, default: 5.0
        Time between estimates of noise and rate, in seconds.
    return_output : bool or (bool, bool), default: True
        Whether the pipeline returns the peaks. A second value tells whether it also returns their heights in units of
        the threshold.

    Raises
    ------
    ValueError
        If a parameter is out of range, or, later, if traces are NaN or infinite.
    """

    name = "dlvolt-adaptive"
    preferred_mp_context = None
    need_noise_levels = False
    params_doc = documented_parameters(__doc__)

    def __init__(
        self,
        recording: BaseRecording,
        peak_sign: str = "neg",
        detect_threshold: float = 3.0,
        refractory_ms: float = 1.0,
        max_rate_hz: float = 200.0,
        interval_s: float = 5.0,
        return_output: bool | tuple[bool, bool] = True,
    ) -> None:
        super().__init__(recording, return_output=return_output)
        if peak_sign not in UPRIGHT:
            raise ValueError(f"peak_sign must be 'neg', 'pos' or 'both', not {peak_sign!r}")
        for name, value in (
            ("detect_threshold", detect_threshold),
            ("refractory_ms", refractory_ms),
            ("max_rate_hz", max_rate_hz),
            ("interval_s", interval_s),
        ):
            if not (isinstance(value, float | Real) and 0 < value < np.inf):
                raise ValueError(f"{name} must be a positive number, not {value!r}")
        self.shadow_samples = max(1, round(refractory_ms / 1000 * recording.sampling_frequency))
        self.threshold = 1.0
        self.scores = HeightRecording(
            recording,
            peak_sign=peak_sign,
            detect_threshold=detect_threshold,
            shadow_samples=self.shadow_samples,
            max_rate_hz=max_rate_hz,
            interval_s=interval_s,
        )


class HeightRecording(BasePreprocessor):
    """Traces with their peaks turned up, in units of the threshold; for the settings see `HeightSegment`."""

    def __init__(self, recording: BaseRecording, **settings: Any) -> None:
        BasePreprocessor.__init__(self, recording, dtype="float32")
        for segment in finite_segments(recording, "the detector"):
            self.add_recording_segment(HeightSegment(segment, recording.sampling_frequency, **settings))
        self._kwargs = dict(recording=recording, **settings)


class HeightSegment(BasePreprocessorSegment):
    """One segment of a `HeightRecording`; for the parameters see `AdaptivePeakDetector`."""

    def __init__(
        self,
        parent: BaseRecordingSegment,
        sampling_frequency: float,
        peak_sign: str,
        detect_threshold: float,
        shadow_samples: int,
        max_rate_hz: float,
        interval_s: float,
    ) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.upright, self.detect_threshold, self.shadow_samples = UPRIGHT[peak_sign], detect_threshold, shadow_samples
        self.max_rate = max_rate_hz / sampling_frequency  # per sample
        self.hop = max(1, round(interval_s * sampling_frequency))
        self.reach = max(1, round(PIECE_S * sampling_frequency / 2))
        self.known: dict[int, np.ndarray] = {}

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the heights over the threshold, shape (T, N), and 0 in channels without any noise."""
        traces = self.parent_recording_segment.get_traces(start_frame, end_frame, channel_indices).astype("float32")
        channels = slice(None) if channel_indices is None else channel_indices
        threshold = between_nodes(self._threshold_at, self.hop, start_frame, end_frame)[:, channels]
        return np.divide(self.upright(traces), threshold, out=np.zeros_like(traces), where=threshold > 0)

    def _threshold_at(self, node: int) -> np.ndarray:
        """Return the thresholds of all channels at a node, shape (N,)."""
        if node not in self.known:
            low, high = around_node(node, self.hop, self.reach, self.get_num_samples())
            traces = self.parent_recording_segment.get_traces(low, high, None).astype("float32")
            threshold = self.detect_threshold * np.median(np.abs(traces), axis=0) / GAUSSIAN_MAD
            upright, most = self.upright(traces), max(1, round(self.max_rate * len(traces)))
            frames, channels = shadow(upright, threshold, self.shadow_samples)
            for channel in np.flatnonzero(np.bincount(channels, minlength=len(threshold)) > most):
                heights = upright[frames[channels == channel], channel]
                threshold[channel] = np.partition(heights, -most)[-most]
            self.known[node] = threshold
        return self.known[node]
