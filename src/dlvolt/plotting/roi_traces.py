"""Traces of ROIs above each other, with the spikes found in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from spikeinterface.core import BaseRecording, BaseSorting

from dlvolt.plotting.canvas import BLUE, DARK, GREY, ORANGE, RED, SKY, figure_or_new, open_frame, round_number
from dlvolt.plotting.roi_map import rois_of

MAX_ROIS = 12
SPIKES_AT, TRUTH_AT, ROW = 1.13, 1.3, 1.5  # heights of spikes, true spikes and the next row, in those of a trace
MARKS = {"spike": (BLUE, "o"), "single": (BLUE, "o"), "burst": (ORANGE, "^"), "complex": (RED, "D")}


def plot_roi_traces(
    recording: BaseRecording,
    sorting: BaseSorting,
    *,
    subthreshold: BaseRecording | None = None,
    truth: BaseSorting | None = None,
    window_s: tuple[float, float] | None = None,
    unit_ids: Sequence[int | str] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the traces of ROIs above each other, each to its own scale, with the spikes found in them.

    Spikes point up: traces of negative polarity are turned over, and have (−) behind the ROI's name. Where spikes have
    labels (unit property "spike_label"), colour and shape tell single spikes from bursts and complex spikes. The marks
    of spikes flagged as cross-talk ("spike_crosstalk") are empty.

    Parameters
    ----------
    recording : BaseRecording
        Its channels are ROIs. ΔF/F (`dlvolt.preprocessing.delta_f_over_f`) is best, but any traces will do.
    sorting : BaseSorting
        The spikes, as samples of the recording; unit ids are channel ids.
    subthreshold : BaseRecording, optional
        The subthreshold traces (`dlvolt.preprocessing.subthreshold`) of some or all channels, in the same units. They
        are drawn over the traces.
    truth : BaseSorting, optional
        True spikes of units with the same ids, at whatever sampling frequency, drawn above those found.
    window_s : (float, float), optional
        First and last second on the recording's clock, in its first segment. By default the middle three seconds.
    unit_ids : sequence, optional
        The units to draw, from top to bottom. By default all, or the 12 with the most spikes.
    figure : Figure, optional
        An empty figure to draw into, which is returned; by default a new one of pyplot.

    Raises
    ------
    ValueError
        If there are no units, or not those asked for, if one is no ROI of the recording, or if the window is not in it.
    """
    sorting, rois, signs = chosen_rois(sorting, recording, unit_ids)
    first, last = _frames(recording, window_s)
    time = recording.sample_index_to_time(np.arange(first, last), segment_index=0)

    def read(source: BaseRecording) -> np.ndarray:
        return signs * _read(source, sorting.unit_ids, first, last)

    figure = figure_or_new(figure, 11, 1.3 + 0.75 * len(rois))
    axes = figure.subplots()
    percent = is_delta_f_over_f(recording)
    _draw_traces(axes, time, read(recording), None if subthreshold is None else read(subthreshold), percent)
    _draw_spikes(axes, sorting, recording, first, last)
    if truth is not None:
        _draw_truth(axes, sorting, truth, recording, time)

    axes.set_yticks(0.5 + _bottoms(len(rois)), row_names(sorting, signs))
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="time (s)", ylabel="ROI", xlim=time[[0, -1]], ylim=(-0.2, ROW * len(rois)))
    axes.set_title("ΔF/F" if percent else "fluorescence")
    open_frame(axes, "left")
    handles, names = axes.get_legend_handles_labels()
    by_name = dict(zip(names, handles, strict=True))
    figure.legend(by_name.values(), by_name, loc="outside lower center", ncols=6, frameon=False)
    return figure


def chosen_rois(
    sorting: BaseSorting, recording: BaseRecording, unit_ids: Sequence[int | str] | None
) -> tuple[BaseSorting, np.ndarray, np.ndarray]:
    """Return the units asked for (else the 12 with the most spikes), their channels, and signs that turn spikes up."""
    if unit_ids is None:
        busiest = np.argsort(-sorting.count_num_spikes_per_unit(outputs="array"), kind="stable")[:MAX_ROIS]
        unit_ids = sorting.unit_ids[np.sort(busiest)]
    if strangers := [str(unit) for unit in unit_ids if unit not in sorting.unit_ids]:
        raise ValueError(f"unit_ids: {', '.join(strangers)} are no units of the sorting.")
    sorting = sorting.select_units(unit_ids)
    rois = rois_of(sorting, recording)
    polarity = sorting.get_property("polarity")
    if polarity is None and recording.get_property("polarity") is not None:
        polarity = np.asarray(recording.get_property("polarity"))[rois]
    signs = np.ones(len(rois), dtype=int) if polarity is None else np.where(np.asarray(polarity) == "negative", -1, 1)
    return sorting, rois, signs


def row_names(sorting: BaseSorting, signs: np.ndarray) -> list[str]:
    """Return the name of each ROI, with (−) behind it where the trace is turned over."""
    return [f"{unit} (−)" if sign < 0 else f"{unit}" for unit, sign in zip(sorting.unit_ids, signs, strict=True)]


def _frames(recording: BaseRecording, window_s: tuple[float, float] | None) -> tuple[int, int]:
    num_samples = recording.get_num_samples(0)
    if window_s is None:
        half = round(1.5 * recording.sampling_frequency)
        first, last = num_samples // 2 - half, num_samples // 2 + half
    else:
        first, last = (recording.time_to_sample_index(second, segment_index=0) for second in window_s)
    first, last = max(0, int(first)), min(num_samples, int(last))
    if last - first < 2:
        start, end = recording.get_start_time(0), recording.get_end_time(0)
        raise ValueError(f"window_s: {window_s} s is not in the recording, which lasts from {start:g} to {end:g} s.")
    return first, last


def _read(recording: BaseRecording, unit_ids: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return the traces of the units' channels in the first segment, (T, K), NaN where the recording has none."""
    index = {str(channel): n for n, channel in enumerate(recording.channel_ids)}
    rows = np.array([index.get(str(unit), -1) for unit in unit_ids])
    traces = np.full((last - first, len(rows)), np.nan)
    if np.any(known := rows >= 0):
        traces[:, known] = recording.get_traces(0, first, last, recording.channel_ids[rows[known]], return_in_uV=False)
    return traces


def is_delta_f_over_f(recording: BaseRecording) -> bool:
    """Tell whether the numbers of a recording are ΔF/F."""
    return recording.get_annotation("value") == "delta_f_over_f"


def _bottoms(num_rois: int) -> np.ndarray:
    return ROW * np.arange(num_rois)[::-1]


def _draw_traces(
    axes: Axes, time: np.ndarray, traces: np.ndarray, subthreshold: np.ndarray | None, percent: bool
) -> None:
    """Draw each trace (T, K) between 0 and 1 of its row, and a bar of a round number to its right."""
    to_the_right = axes.get_yaxis_transform()
    for k, bottom in enumerate(_bottoms(traces.shape[1])):
        finite = traces[np.isfinite(traces[:, k]), k]
        if len(finite) == 0 or np.ptp(finite) == 0:
            axes.text(time[0], bottom + 0.5, " no signal", color=GREY, va="center")
            continue
        low, height = finite.min(), np.ptp(finite)
        axes.plot(time, bottom + (traces[:, k] - low) / height, color=DARK, linewidth=0.7)
        if subthreshold is not None and np.isfinite(subthreshold[:, k]).any():
            below = bottom + (subthreshold[:, k] - low) / height
            axes.plot(time, below, color=SKY, linewidth=1.8, label="subthreshold")
        size = round_number(0.7 * height)
        ends = bottom + 0.5 + np.array([-0.5, 0.5]) * size / height
        axes.plot([1.01, 1.01], ends, color=DARK, linewidth=1.5, transform=to_the_right, clip_on=False)
        text = f"{100 * size:g} %" if percent else f"{size:g}"
        axes.text(1.02, bottom + 0.5, text, transform=to_the_right, va="center", fontsize="small")


def _draw_spikes(axes: Axes, sorting: BaseSorting, recording: BaseRecording, first: int, last: int) -> None:
    for unit, bottom in zip(sorting.unit_ids, _bottoms(len(sorting.unit_ids)), strict=True):
        train = sorting.get_unit_spike_train(unit, segment_index=0)
        inside = (train >= first) & (train < last)
        labels = property_of_spikes(sorting, unit, "spike_label")
        labels = np.full(len(train), "spike") if labels is None else labels
        crosstalk = property_of_spikes(sorting, unit, "spike_crosstalk")
        crosstalk = np.zeros(len(train), dtype=bool) if crosstalk is None else crosstalk.astype(bool)
        for name, (colour, marker) in MARKS.items():
            style: dict[str, Any] = dict(color=colour, marker=marker, linestyle="", markersize=4.5)
            for empty, extra in ((False, dict(label=name)), (True, dict(markerfacecolor="none"))):
                chosen = train[inside & (labels == name) & (crosstalk == empty)]
                if len(chosen):
                    time = recording.sample_index_to_time(chosen, segment_index=0)
                    axes.plot(time, np.full(len(time), bottom + SPIKES_AT), **style | extra)
        if np.any(inside & crosstalk):
            axes.plot([], [], "o", color=DARK, markerfacecolor="none", markersize=4.5, label="cross-talk")


def property_of_spikes(sorting: BaseSorting, unit: int | str, name: str, segment_index: int = 0) -> np.ndarray | None:
    """Return a property of a unit's spikes in one segment (E,); None if it is not known of these, as after curation."""
    values = sorting.get_property(name)
    if values is None:
        return None
    values = np.asarray(values[sorting.id_to_index(unit)])
    segments = range(sorting.get_num_segments())
    ends = np.cumsum([0, *(len(sorting.get_unit_spike_train(unit, segment)) for segment in segments)])
    return values[ends[segment_index] : ends[segment_index + 1]] if len(values) == ends[-1] else None


def _draw_truth(
    axes: Axes, sorting: BaseSorting, truth: BaseSorting, recording: BaseRecording, time: np.ndarray
) -> None:
    true_unit = {str(unit): unit for unit in truth.unit_ids}
    shift = recording.get_start_time(0) if truth.segments[0]._t_start is None else 0.0  # they begin together
    for unit, bottom in zip(sorting.unit_ids, _bottoms(len(sorting.unit_ids)), strict=True):
        if str(unit) in true_unit:
            seconds = truth.get_unit_spike_train_in_seconds(true_unit[str(unit)], 0) + shift
            seconds = seconds[(seconds >= time[0]) & (seconds <= time[-1])]
            height = np.full(len(seconds), bottom + TRUTH_AT)
            axes.plot(seconds, height, "|", color=DARK, markersize=7, markeredgewidth=1.3, label="truth")
