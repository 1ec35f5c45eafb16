"""Tell bursts and complex spikes from single spikes.

References
----------
K. D. Harris, H. Hirase, X. Leinekugel, D. A. Henze, G. Buzsáki, "Temporal interaction between single spikes and complex
spike bursts in hippocampal pyramidal cells", Neuron 32(1), 2001.
C. Grienberger, X. Chen, A. Konnerth, "NMDA receptor-dependent multidendrite Ca2+ spikes required for hippocampal burst
firing in vivo", Neuron 81(6), 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from spikeinterface.core import BaseRecording, BaseSorting
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.core.node_pipeline import PeakRetriever, PipelineNode, run_node_pipeline

from dlvolt.preprocessing.finite import check_polarity

BASELINE_MS = 40.0  # length of the baseline before an event, from which its depolarisation is measured
PLATEAU_MS = (
    10.0  # length of the stretches that are compared with the baseline; depolarisations last half of it or more
)
PLATEAU_FRACTION = 0.7  # least depolarisation of a complex spike, in spike heights
EVENT_DTYPE = np.dtype([("label", "U7"), ("event", "int64"), ("height", "float32"), ("depolarisation", "float32")])
LEVELS_DTYPE = np.dtype([(name, "float64") for name in ("peak", "before", "after", "baseline", "earlier")])


def label_events(
    recording: BaseRecording,
    spikes: np.ndarray | BaseSorting,
    polarity: str | Sequence[str] = "positive",
    *,
    burst_interval_ms: float = 10.0,
    job_kwargs: dict[str, Any] | None = None,
) -> np.ndarray:
    """Group the spikes of each ROI into events: single spikes, bursts and complex spikes.

    Let x be a trace turned so that spikes point up. Spikes at most `burst_interval_ms` apart are one event; if there is
    more than one, a *burst*. A *complex spike* is a slow depolarisation that carries one or more detected spikes. The
    depolarisation of an event with spikes at frames t1, …, tK is ::

        D = max( max_k m(tk + 2, L) - m(t1 - 1 - B, B),  m(t1 - 1 - L, L) - m(t1 - 1 - L - B, B) )

    where m(t, L) is the median of the L frames from t on, L lasts 10 ms and B 40 ms. So D is the level over the
    baseline right after a spike, or right before the first one, as spikelets may have been missed. The event is complex
    if D is at least 0.7 of the ROI's spike height h, the median over its events of
    max(x(t1 - 1), x(t1), x(t1 + 1)) - m(t1 - 1 - L, L). If the trace stays at such a level from one event to the next,
    at most 2 L later, both are one complex spike.

    Grienberger et al. (2014) describe complex spikes as bursts on a depolarisation of tens of milliseconds. For bursts,
    Harris et al. (2001) take intervals up to 6 ms in hippocampal pyramidal cells; 10 ms allows for an error of a frame
    of 2 ms in each spike. At 500 frames per second or less, a trace does not return to its baseline between spikes 5 ms
    apart, so a fast burst may pass for a complex spike.

    Parameters
    ----------
    recording : BaseRecording
        ΔF/F or fluorescence, one ROI per channel.
    spikes : np.ndarray, shape (E,), or BaseSorting
        Spikes of all ROIs: with fields "sample_index", "channel_index" and "segment_index", as SpikeInterface's peaks
        have; or a sorting whose unit ids are channel ids of the recording.
    polarity : str or list of str, default: "positive"
        Polarity of spikes, of all channels or of each: "positive" or "negative".
    burst_interval_ms : float, default: 10.0
        Longest interval between consecutive spikes of a burst; 0: there are no bursts.
    job_kwargs : dict, optional
        SpikeInterface's job_kwargs, for reading in chunks and in parallel.

    Returns
    -------
    np.ndarray, shape (E,)
        Aligned with `spikes`, or with `spikes.to_spike_vector()`. Fields: "label" ("single", "burst" or "complex"),
        "event" (0, 1, …, in order of channel, segment and time), "height" (that of the event's first spike, of which h
        is the median, in the recording's units), and "depolarisation" (D / h of the event; NaN where the trace ends or
        is NaN, and if the spikes of the ROI have no height).

    Raises
    ------
    ValueError
        If `burst_interval_ms` is negative, or spikes and recording do not belong together.
    """
    if not burst_interval_ms >= 0:
        raise ValueError(f"burst_interval_ms must not be negative, not {burst_interval_ms}")
    upward = np.array(check_polarity(polarity, recording.get_num_channels())) == "positive"
    spikes = as_peaks(recording, spikes)
    events = np.zeros(len(spikes), dtype=EVENT_DTYPE)
    if len(spikes) == 0:
        return events
    frames_per_ms = recording.sampling_frequency / 1000
    plateau = max(2, round(PLATEAU_MS * frames_per_ms))  # L
    baseline = max(2, round(BASELINE_MS * frames_per_ms))  # B
    node = SpikeLevels(recording, plateau, baseline, np.where(upward, 1.0, -1.0))
    levels = at_spikes(recording, spikes, node, job_kwargs)

    order = np.lexsort((spikes["sample_index"], spikes["segment_index"], spikes["channel_index"]))
    spikes, levels = spikes[order], levels[order]
    interval = np.diff(spikes["sample_index"])
    apart = (np.diff(spikes["channel_index"]) != 0) | (np.diff(spikes["segment_index"]) != 0)
    start = np.flatnonzero(np.append(True, apart | (interval > burst_interval_ms * frames_per_ms)))
    channel = spikes["channel_index"][start]
    heights = levels["peak"] - levels["before"]
    height = typical(heights[start], channel, len(upward))
    height[~(height > 0)] = np.nan
    near = ~apart & (interval <= 2 * plateau)
    start = start[joined_by_depolarisation(levels, start, near, PLATEAU_FRACTION * height[channel])]

    depolarisation = np.fmax(
        np.fmax.reduceat(levels["after"], start) - levels["baseline"][start],
        levels["before"][start] - levels["earlier"][start],
    )
    depolarisation /= height[spikes["channel_index"][start]]
    count = np.diff(start, append=len(spikes))
    label = np.where(depolarisation >= PLATEAU_FRACTION, "complex", np.where(count > 1, "burst", "single"))
    event = np.repeat(np.arange(len(start)), count)
    events["event"][order] = event
    events["label"][order] = label[event]
    events["height"][order] = heights[start][event]
    events["depolarisation"][order] = depolarisation[event]
    return events


def joined_by_depolarisation(levels: np.ndarray, start: np.ndarray, near: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Join events between which the trace stays depolarised, and return which events are left, as indices of `start`.

    Given are the levels of E spikes by channel and time, the first spike of each of M events (M,), whether each spike
    and the next are close in time (E - 1,), and the least depolarisation between events that are joined (M,).
    """
    origin = np.arange(len(start))
    for m in np.flatnonzero(near[start[1:] - 1]):
        between = np.minimum(levels["after"][start[m + 1] - 1], levels["before"][start[m + 1]])
        if between - levels["baseline"][start[origin[m]]] >= least[m]:
            origin[m + 1] = origin[m]
    return np.unique(origin)


class AtSpikes(PipelineNode):
    """Base of nodes of SpikeInterface's pipeline that measure traces up to `margin` samples beside spikes.

    They implement `measure`, which returns measurements of type `dtype`.
    """

    _compute_has_extended_signature = True

    def __init__(self, recording: BaseRecording, margin: int, dtype: np.dtype) -> None:
        super().__init__(recording)
        self.margin, self.dtype = margin, dtype

    def get_margin(self) -> int:
        """Return the number of samples before and after a chunk that are read."""
        return self.margin

    def get_dtype(self) -> np.dtype:
        """Return the type of the measurements."""
        return self.dtype

    def compute(
        self,
        traces: np.ndarray,
        start_frame: int,
        end_frame: int,
        segment_index: int,
        max_margin: int,
        peaks: np.ndarray,
    ) -> np.ndarray:
        """Return the measurements at the peaks of a chunk, shape (E, …)."""
        first = max(0, max_margin - start_frame)
        last = self.time_series.get_num_samples(segment_index) - 1 - (start_frame - max_margin)
        inside = first, min(len(traces) - 1, last)  # the first and the last sample that are not padding
        return self.measure(traces, peaks["sample_index"], peaks["channel_index"], inside)

    def measure(
        self, traces: np.ndarray, samples: np.ndarray, channels: np.ndarray, inside: tuple[int, int]
    ) -> np.ndarray:
        """Return the measurements at spikes (E,) in traces (T, N), whose samples outside `inside` are padding."""
        raise NotImplementedError


class SpikeLevels(AtSpikes):
    """Measure the levels of traces, times `signs` (N,), at spikes, before and after them.

    See `label_events`: `plateau` and `baseline` are L and B, in frames.
    """

    def __init__(self, recording: BaseRecording, plateau: int, baseline: int, signs: np.ndarray) -> None:
        super().__init__(recording, 2 + plateau + baseline, LEVELS_DTYPE)
        self.plateau, self.baseline, self.signs = plateau, baseline, signs

    def measure(
        self, traces: np.ndarray, samples: np.ndarray, channels: np.ndarray, inside: tuple[int, int]
    ) -> np.ndarray:
        """Return the levels at spikes, shape (E,), dtype LEVELS_DTYPE."""

        def around(first: int, length: int) -> np.ndarray:
            frames = samples[:, None] + np.arange(first, first + length)
            values = traces[np.clip(frames, *inside), channels[:, None]] * self.signs[channels, None]
            return np.where((frames >= inside[0]) & (frames <= inside[1]), values, np.nan)  # E×length

        long, short = self.baseline, self.plateau
        levels = np.empty(len(samples), dtype=LEVELS_DTYPE)
        levels["peak"] = around(-1, 3).max(axis=1)
        levels["before"] = np.median(around(-1 - short, short), axis=1)
        levels["after"] = np.median(around(2, short), axis=1)
        levels["baseline"] = np.median(around(-1 - long, long), axis=1)
        levels["earlier"] = np.median(around(-1 - short - long, long), axis=1)
        return levels


def as_peaks(recording: BaseRecording, spikes: np.ndarray | BaseSorting) -> np.ndarray:
    """Return peaks, or the spikes of a sorting, as SpikeInterface's peaks in the order in which they were given (E,).

    It is an error if one lies outside the recording, or if a unit is not one of its channels.
    """
    if isinstance(spikes, BaseSorting):
        channel_of = {channel: index for index, channel in enumerate(recording.channel_ids)}
        if unknown := [unit for unit in spikes.unit_ids.tolist() if unit not in channel_of]:
            raise ValueError(
                f"spikes: unit {unknown[0]!r} is no channel of the recording; give a sorting with one unit per ROI, "
                "whose unit ids are channel ids"
            )
        vector = spikes.to_spike_vector()
        channels = np.array([channel_of[unit] for unit in spikes.unit_ids], dtype="int64")[vector["unit_index"]]
    else:
        vector, channels = np.asarray(spikes), None
        if missing := {"sample_index", "channel_index", "segment_index"} - set(vector.dtype.names or ()):
            raise ValueError(f"spikes: fields {sorted(missing)} are missing; give SpikeInterface's peaks or a sorting")
        channels = vector["channel_index"]
    peaks = np.zeros(len(vector), dtype=base_peak_dtype)
    peaks["sample_index"], peaks["channel_index"] = vector["sample_index"], channels
    peaks["segment_index"] = vector["segment_index"]
    lengths = np.array([recording.get_num_samples(segment) for segment in range(recording.get_num_segments())])
    if len(peaks) and not (
        np.all((peaks["segment_index"] >= 0) & (peaks["segment_index"] < len(lengths)))
        and np.all((peaks["channel_index"] >= 0) & (peaks["channel_index"] < recording.get_num_channels()))
        and np.all((peaks["sample_index"] >= 0) & (peaks["sample_index"] < lengths[peaks["segment_index"]]))
    ):
        raise ValueError("spikes: some lie outside the recording; give the recording they were found in")
    return peaks


def at_spikes(
    recording: BaseRecording, peaks: np.ndarray, node: AtSpikes, job_kwargs: dict[str, Any] | None
) -> np.ndarray:
    """Return the measurements of a node at peaks, which may have any order, aligned with them, shape (E, …)."""
    order = np.lexsort((peaks["sample_index"], peaks["segment_index"]))
    retriever = PeakRetriever(recording, peaks[order])
    node.parents = [retriever]
    values = run_node_pipeline(recording, [retriever, node], job_kwargs or {}, job_name="measure spikes")
    aligned = np.empty_like(values)
    aligned[order] = values
    return aligned


def typical(values: np.ndarray, channels: np.ndarray, num_channels: int) -> np.ndarray:
    """Return the median of the finite values of each channel, NaN for channels without any, shape (N,)."""
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
    return finite.groupby(channels).median().reindex(range(num_channels)).to_numpy(copy=True)
