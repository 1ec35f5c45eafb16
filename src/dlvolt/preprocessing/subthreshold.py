"""The membrane potential below threshold: spikes taken out, and the rest smoothed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment, BaseSorting, NumpySorting
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.core.waveform_tools import estimate_templates
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from .finite import check_frequency, finite_segments

REACH = 4.0  # standard deviations at which the Gaussian ends, to either side


class SubthresholdRecording(BasePreprocessor):
    """Turn traces into subthreshold ones: the mean spike is subtracted at each spike, and the rest low-pass filtered.

    The mean spike w of an ROI is the mean of its trace around its spikes, from `ms_before` to `ms_after`, less the
    straight line between its ends. With x the trace and t_1, t_2, … the frames of the spikes ::

        y(t) = Σ_u g(u) (x(t - u) - Σ_k w(t - u - t_k)),   g(u) ∝ exp(-u² / 2σ²),   σ = sqrt(ln 2) / (2π cutoff_hz)

    so that a sine of `cutoff_hz` comes through at 1/√2 (-3 dB), without a shift in time. The Gaussian ends at 4 σ, and
    at the ends of the recording the first and the last sample are repeated; nothing depends on the chunk that is asked
    for. A depolarisation under all spikes, as in an ROI that fires only complex spikes, is partly taken for a part of
    the spike, and subtracted.

    Parameters
    ----------
    recording : BaseRecording
        ΔF/F or fluorescence, one ROI per channel.
    sorting : BaseSorting
        The spikes, in units whose ids are channel ids. Channels without a unit are only filtered.
    cutoff_hz : float, default: 20.0
        Frequency that comes through at -3 dB. 20 Hz is what VolPy takes (Cai et al., PLOS Computational Biology 17(4),
        2021); 50 Hz and more keep the shape of complex spikes.
    ms_before, ms_after : float, default: 3.0 and 12.0
        How long a spike lasts in fluorescence, before and after the frame that the sorting gives, in ms.
    waveforms : array, shape (N, D), optional
        The spikes w of all channels, if they are known already.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the sorting does not belong to the recording; if traces are NaN or infinite,
        around spikes at once, elsewhere on reading.
    """

    _precomputable_kwarg_names: Sequence[str] = ["waveforms"]

    def __init__(
        self,
        recording: BaseRecording,
        sorting: BaseSorting,
        cutoff_hz: float = 20.0,
        ms_before: float = 3.0,
        ms_after: float = 12.0,
        waveforms: np.ndarray | list | None = None,
    ) -> None:
        sampling_frequency = recording.sampling_frequency
        check_frequency("cutoff_hz", cutoff_hz, sampling_frequency)
        for name, value in (("ms_before", ms_before), ("ms_after", ms_after)):
            if not value > 0:
                raise ValueError(f"{name} must be a positive duration, not {value}")
        trains = spike_trains(recording, sorting)
        num_before, num_after = (max(1, round(ms / 1000 * sampling_frequency)) for ms in (ms_before, ms_after))
        if waveforms is None:
            waveforms = mean_spikes(recording, trains, num_before, num_after)
        waveforms = np.asarray(waveforms, dtype="float64")
        width = np.sqrt(np.log(2)) / (2 * np.pi * cutoff_hz) * sampling_frequency
        reach = int(np.ceil(REACH * width))
        gaussian = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
        kernel = gaussian / gaussian.sum()

        BasePreprocessor.__init__(self, recording, dtype="float32")
        for segment, of_segment in zip(finite_segments(recording, "subthreshold"), trains, strict=True):
            self.add_recording_segment(SubthresholdSegment(segment, of_segment, waveforms, num_before, kernel))
        self._kwargs = dict(recording=recording, sorting=sorting, cutoff_hz=cutoff_hz)
        self._kwargs |= dict(ms_before=ms_before, ms_after=ms_after, waveforms=waveforms.tolist())


class SubthresholdSegment(BasePreprocessorSegment):
    """One segment of a `SubthresholdRecording`."""

    def __init__(
        self,
        parent: BaseRecordingSegment,
        trains: list[np.ndarray],
        waveforms: np.ndarray,
        num_before: int,
        kernel: np.ndarray,
    ) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.trains, self.waveforms, self.num_before, self.kernel = trains, waveforms, num_before, kernel

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the subthreshold traces, shape (T, N)."""
        from scipy.ndimage import convolve1d  # slow, and SpikeInterface imports this module with its own

        reach = len(self.kernel) // 2
        channels = np.arange(len(self.trains))[slice(None) if channel_indices is None else channel_indices]
        low, high = max(0, start_frame - reach), min(self.get_num_samples(), end_frame + reach)
        traces = self.parent_recording_segment.get_traces(low, high, channels).astype("float64")
        if len(traces) == 0:
            return traces.astype("float32")
        for column, channel in enumerate(channels):
            self._subtract_spikes(traces[:, column], channel, low)
        smooth = convolve1d(traces, self.kernel, axis=0, mode="nearest")
        return smooth[start_frame - low : end_frame - low].astype("float32")

    def _subtract_spikes(self, trace: np.ndarray, channel: int, start: int) -> None:
        """Subtract a channel's spikes from a piece of its trace that begins at frame `start`, in place."""
        waveform, train = self.waveforms[channel], self.trains[channel]
        first, last = np.searchsorted(
            train, [start - len(waveform) + self.num_before, start + len(trace) + self.num_before]
        )
        frames = train[first:last, None] - self.num_before - start + np.arange(len(waveform))
        inside = (frames >= 0) & (frames < len(trace))
        np.subtract.at(trace, frames[inside], np.broadcast_to(waveform, frames.shape)[inside])


subthreshold = define_function_handling_dict_from_class(source_class=SubthresholdRecording, name="subthreshold")


def spike_trains(recording: BaseRecording, sorting: BaseSorting) -> list[list[np.ndarray]]:
    """Return the frames of the spikes of each segment and channel, ascending; channels without a unit have none."""
    known = set(recording.channel_ids)
    if unknown := [unit for unit in sorting.unit_ids.tolist() if unit not in known]:
        raise ValueError(
            f"sorting: unit {unknown[0]!r} is no channel of the recording; its unit ids must be channel ids"
        )
    num_segments = recording.get_num_segments()
    if sorting.get_num_segments() != num_segments or sorting.sampling_frequency != recording.sampling_frequency:
        raise ValueError(
            f"sorting: {sorting.get_num_segments()} segments at {sorting.sampling_frequency:g} Hz do not match the "
            f"recording's {num_segments} at {recording.sampling_frequency:g} Hz"
        )
    units, trains = set(sorting.unit_ids), []
    for segment in range(num_segments):
        of_unit = {unit: np.asarray(sorting.get_unit_spike_train(unit, segment)) for unit in units}
        trains.append([of_unit.get(channel, np.zeros(0, dtype="int64")) for channel in recording.channel_ids])
    return trains


def mean_spikes(
    recording: BaseRecording, trains: list[list[np.ndarray]], num_before: int, num_after: int
) -> np.ndarray:
    """Return each channel's mean trace around its spikes, less the line between its ends, shape (N, D).

    `trains` are the frames of the spikes, for each segment and channel; those too close to the ends are left out.
    """
    num_channels = recording.get_num_channels()
    whole = []
    for segment, of_segment in enumerate(trains):
        end = recording.get_num_samples(segment) - num_after
        whole.append({n: train[(train >= num_before) & (train < end)] for n, train in enumerate(of_segment)})
    spikes = NumpySorting.from_unit_dict(whole, recording.sampling_frequency).to_spike_vector()
    if len(spikes) == 0:
        return np.zeros((num_channels, num_before + 1 + num_after))
    means = estimate_templates(
        recording,
        spikes,
        np.arange(num_channels),
        num_before,
        num_after + 1,
        return_in_uV=False,
        sparsity_mask=np.eye(num_channels, dtype=bool),
        progress_bar=False,
    )[:, :, 0].astype("float64")
    if not np.isfinite(means).all():
        raise ValueError(
            "recording: samples around spikes are NaN or infinite; put fill_nan(recording) before subthreshold"
        )
    return means - np.linspace(means[:, 0], means[:, -1], means.shape[1], axis=1)
