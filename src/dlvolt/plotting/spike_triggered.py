"""What the trace of an ROI looks like around its spikes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from spikeinterface.core import BaseRecording, BaseSorting
from spikeinterface.core.job_tools import divide_segment_into_chunks

from dlvolt.plotting.canvas import BLUE, DARK, GREY, grid_of_panels
from dlvolt.plotting.roi_traces import chosen_rois, is_delta_f_over_f, row_names

COLUMNS = 4
BASELINE_MS = 5.0  # a snippet's baseline ends so long before its spike: indicators are not that slow to rise
MAX_VALUES = 500_000  # samples × ROIs that are read at once, at most


def plot_spike_triggered_average(
    recording: BaseRecording,
    sorting: BaseSorting,
    *,
    ms_before: float = 20.0,
    ms_after: float = 30.0,
    unit_ids: Sequence[int | str] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the mean of the trace around the spikes of each ROI, and one standard deviation to either side.

    Spikes point up: traces of negative polarity are turned over, and have (−) behind the ROI's name. The mean of each
    snippet from its beginning to 5 ms before its spike is subtracted from it. Spikes too close to an end of a segment
    for a whole snippet are left out, as are snippets with samples that are NaN.

    Parameters
    ----------
    recording, sorting, unit_ids, figure
        As for `plot_roi_traces`.
    ms_before, ms_after : float, default: 20.0, 30.0
        How long the snippets are before and after the spike, in ms; `ms_before` is more than 5.

    Returns
    -------
    Figure
        A panel for each unit.

    Raises
    ------
    ValueError
        If there are no units, or one is no ROI of the recording.
    """
    if not ms_before > BASELINE_MS:
        raise ValueError(f"ms_before: must be more than {BASELINE_MS:g} ms, which the baseline needs, not {ms_before}.")
    if not ms_after > 0:
        raise ValueError(f"ms_after: must be positive, not {ms_after}.")
    sorting, rois, signs = chosen_rois(sorting, recording, unit_ids)
    rate = recording.sampling_frequency
    before, after, baseline = (round(ms / 1000 * rate) for ms in (ms_before, ms_after, ms_before - BASELINE_MS))
    time_ms = 1000 * np.arange(-before, after + 1) / rate  # D
    gain = 100 if is_delta_f_over_f(recording) else 1

    figure, panels = grid_of_panels(figure, len(rois), COLUMNS, panel=(2.6, 2.3), rest=(1, 0.6), sharex=True)
    counts, means, sds = _average(recording, sorting, rois, before, after, max(1, baseline))
    means, sds = gain * signs[:, None] * means, gain * sds
    for axes, name, count, mean, sd in zip(panels, row_names(sorting, signs), counts, means, sds, strict=True):
        axes.set_title(f"{name} · {count} spikes", fontsize="medium")
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        axes.tick_params(labelbottom=True)
        axes.set_xlim(time_ms[[0, -1]])
        if count == 0:
            axes.set_yticks([])
            continue
        axes.fill_between(time_ms, mean - sd, mean + sd, color=BLUE, alpha=0.25, linewidth=0)
        axes.plot(time_ms, mean, color=DARK, linewidth=1.5)
    figure.supxlabel("time from the spike (ms)", fontsize="medium")
    figure.supylabel("ΔF/F (%)" if gain == 100 else "fluorescence", fontsize="medium")
    return figure


def _average(
    recording: BaseRecording, sorting: BaseSorting, rois: np.ndarray, before: int, after: int, baseline: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number (K,), mean and standard deviation (K, D) of the snippets of each unit that are whole.

    The mean of its first `baseline` samples is subtracted from each snippet. Traces are read piece by piece.
    """
    around = np.arange(-before, after + 1)
    counts = np.zeros(len(rois), dtype=int)
    sums, squares = np.zeros((2, len(rois), len(around)))
    for segment in range(recording.get_num_segments()):
        num_samples = recording.get_num_samples(segment)
        trains = [sorting.get_unit_spike_train(unit, segment_index=segment) for unit in sorting.unit_ids]
        for first, last in divide_segment_into_chunks(num_samples, MAX_VALUES // len(rois)):
            low, high = max(first, before), min(last, num_samples - after)
            inside = [train[(train >= low) & (train < high)] - low for train in trains]
            if not any(map(len, inside)):
                continue
            traces = recording.get_traces(
                segment, low - before, high + after, recording.channel_ids[rois], return_in_uV=False
            )
            for k, frames in enumerate(inside):
                snippets = traces[frames[:, None] + before + around, k].astype("float64")
                snippets = snippets[np.isfinite(snippets).all(axis=1)]
                snippets -= snippets[:, :baseline].mean(axis=1, keepdims=True)
                counts[k] += len(snippets)
                sums[k] += snippets.sum(axis=0)
                squares[k] += (snippets**2).sum(axis=0)
    each = np.maximum(counts, 1)[:, None]
    means = sums / each
    return counts, means, np.sqrt(np.maximum(squares / each - means**2, 0))
