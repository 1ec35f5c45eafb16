"""One picture of a sorting: where its units are, when they fire, and how right that is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.core import BaseSorting, SortingAnalyzer

from dlvolt.plotting.canvas import COLOURS, DARK, figure_or_new, open_frame, round_number

CONTACT_COLOUR = "#DDDDDD"
VISIBLE = 0.3  # channels with less than this part of a unit's largest peak-to-peak amplitude are not drawn
BAND_COLOUR = "#F5F5F5"
MAX_LABELS = 40


class Row(NamedTuple):
    """A line of the raster: a unit, the true unit it stands for, or both."""

    found: int | str | None
    true: int | str | None = None
    accuracy: float = 0.0


def plot_sorting_summary(
    analyzer: SortingAnalyzer,
    truth: BaseSorting | None = None,
    *,
    window_s: tuple[float, float] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw the templates of a sorting on the probe, its raster and, if the truth is known, its accuracy.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        The K units, with the extension ``"templates"``. K may be 0.
    truth : BaseSorting, optional
        The true spikes. Their raster is drawn above that of the matching units, and each true unit gets its
        accuracy, hits / (hits + misses + false positives) of the matching unit.
    window_s : (float, float), optional
        First and last second of the raster, in the first segment. By default the middle three seconds.
    figure : Figure, optional
        An empty figure to draw into; by default a new one of pyplot.

    Returns
    -------
    Figure
        The figure. Colours tell neighbouring units apart, the same in every panel; each row of the raster is
        labelled with the unit, or with the true unit in brackets where none was found for it.
    """
    if not analyzer.has_extension("templates"):
        raise ValueError('analyzer: has no templates; call analyzer.compute(["random_spikes", "templates"]) first.')
    depths = analyzer.get_channel_locations()[analyzer.get_main_channels(outputs="index"), 1]
    by_depth = list(analyzer.unit_ids[np.argsort(depths, kind="stable")])  # from the lowest to the highest
    colours = {unit: COLOURS[i % len(COLOURS)] for i, unit in enumerate(by_depth)}
    rows = [Row(unit) for unit in by_depth] if truth is None else _match(analyzer.sorting, truth, by_depth)

    figure = figure_or_new(figure, 13, float(np.clip(0.28 * len(rows), 6, 16)))
    widths = (2.4, 5) if truth is None else (2.4, 5, 1.8)
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    _draw_templates(figure.add_subplot(grid[0]), analyzer, colours)
    raster = figure.add_subplot(grid[1])
    if window_s is None:
        duration = analyzer.get_num_samples(segment_index=0) / analyzer.sampling_frequency
        start = max(0.0, duration / 2 - 1.5)
        window_s = start, min(start + 3.0, duration)
    _draw_raster(raster, analyzer.sorting, truth, rows, colours, window_s)
    if truth is not None:
        _draw_accuracy(figure.add_subplot(grid[2], sharey=raster), rows, colours)
    for axes in figure.axes:
        open_frame(axes)
    return figure


def _match(sorting: BaseSorting, truth: BaseSorting, by_depth: list) -> list[Row]:
    """List the units that match a true one, by depth; then true units without one, then units without a true one."""
    true_unit, accuracy = {}, {}
    if len(by_depth) and len(truth.unit_ids):  # SpikeInterface cannot compare with none
        comparison = compare_sorter_to_ground_truth(truth, sorting, exhaustive_gt=True)
        accuracy = comparison.get_performance()["accuracy"]
        true_unit = {found: true for true, found in comparison.hungarian_match_12.items() if found in by_depth}
    matched = [Row(unit, true_unit[unit], accuracy[true_unit[unit]]) for unit in by_depth if unit in true_unit]
    missed = [Row(None, unit) for unit in truth.unit_ids if unit not in true_unit.values()]
    extra = [Row(unit) for unit in by_depth if unit not in true_unit]
    return matched + missed + extra


def _draw_templates(axes: Axes, analyzer: SortingAnalyzer, colours: dict) -> None:
    """Draw each unit's mean waveform on the contacts that see it."""
    locations = analyzer.get_channel_locations()  # (N, 2), µm
    dx, dy = (_pitch(locations[:, axis]) for axis in (0, 1))
    axes.set(title="Templates on the probe", xlabel="x (µm)", ylabel="y (µm)")
    axes.plot(*locations.T, "s", color=CONTACT_COLOUR, markersize=5, zorder=0)
    axes.set_xlim(locations[:, 0].min() - 0.7 * dx, locations[:, 0].max() + 0.7 * dx)
    axes.set_ylim(locations[:, 1].min() - 2.5 * dy, locations[:, 1].max() + 1.5 * dy)
    if not colours:
        return

    templates = analyzer.get_extension("templates").get_data("average")  # (K, D, N)
    sizes = np.ptp(templates, axis=1)  # (K, N)
    gain = 2 * dy / np.percentile(sizes.max(axis=1), 90)  # µm per µV
    time = np.linspace(-0.42, 0.42, templates.shape[1]) * dx
    width = 1.4 if len(colours) <= 40 else 0.7
    for unit, colour in colours.items():
        k = analyzer.sorting.id_to_index(unit)
        for channel in np.flatnonzero(sizes[k] >= VISIBLE * sizes[k].max()):
            x, y = locations[channel]
            axes.plot(x + time, y + gain * templates[k, :, channel], color=colour, linewidth=width)

    unit_name = "µV" if analyzer.return_in_uV else "a.u."
    size = round_number(dy / gain)
    milliseconds = 1000 * templates.shape[1] / analyzer.sampling_frequency
    corner = locations[:, 0].min() - 0.42 * dx, locations[:, 1].min() - 2.2 * dy
    bars = np.array([[0, gain * size], [0, 0], [np.ptp(time) / milliseconds, 0]]) + corner
    axes.plot(*bars.T, color=DARK, linewidth=1.5)
    axes.annotate(f"{size:g} {unit_name}, 1 ms", bars[2], (6, 0), textcoords="offset points", fontsize="small")


def _pitch(coordinates: np.ndarray) -> float:
    """Return the smallest distance between rows or columns of contacts, 20 µm if there is only one."""
    return float(min(np.diff(np.unique(coordinates.round())), default=20.0))


def _draw_raster(
    axes: Axes,
    sorting: BaseSorting,
    truth: BaseSorting | None,
    rows: list[Row],
    colours: dict,
    window_s: tuple[float, float],
) -> None:
    """Draw a row of ticks for each unit, the true spikes above those found."""
    for y in range(0, len(rows), 2):
        axes.axhspan(y - 0.5, y + 0.5, color=BAND_COLOUR, zorder=0)
    frames = np.round(np.array(window_s) * sorting.sampling_frequency).astype(int)
    half = 0.4 if truth is None else 0.2
    for y, row in enumerate(rows):
        for of, unit, centre, colour in (
            (sorting, row.found, y if truth is None else y - 0.2, colours.get(row.found)),
            (truth, row.true, y + 0.2, DARK),
        ):
            if of is not None and unit is not None:
                train = of.get_unit_spike_train(unit, segment_index=0)
                seconds = train[(train >= frames[0]) & (train < frames[1])] / sorting.sampling_frequency
                axes.vlines(seconds, centre - half, centre + half, color=colour, linewidth=1)

    labels = [f"({row.true})" if row.found is None else str(row.found) for row in rows]
    shown = slice(None, None, 1 + len(rows) // (MAX_LABELS + 1))
    axes.set_yticks(range(len(rows))[shown], labels[shown])
    axes.tick_params(axis="y", length=0)
    axes.set(title="Spikes", xlabel="time (s)", ylabel="unit", xlim=window_s, ylim=(-0.6, max(len(rows), 1) - 0.4))
    if truth is not None:
        ticks: dict[str, Any] = dict(marker="|", linestyle="", markersize=9, markeredgewidth=1.5)
        handles = [Line2D([], [], color=DARK, **ticks), Line2D([], [], color=COLOURS[0], **ticks)]
        axes.legend(handles, ["truth", "found"], loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    if not colours:
        axes.text(0.5, 0.5, "no units found", transform=axes.transAxes, ha="center", va="center", fontsize="large")


def _draw_accuracy(axes: Axes, rows: list[Row], colours: dict) -> None:
    """Draw a bar for each true unit, and the mean over them."""
    axes.set(title="Accuracy", xlabel="hits / (hits + misses\n+ false positives)", xlim=(0, 1.02))
    axes.tick_params(axis="y", left=False, labelleft=False)
    for y, row in enumerate(rows):
        if row.true is None or row.found is None:
            told = "not in the truth" if row.true is None else "missed"
            axes.text(0.02, y, told, va="center", fontsize="small", color=DARK)
        else:
            axes.barh(y, row.accuracy, height=0.6, color=colours[row.found])
    accuracies = [row.accuracy for row in rows if row.true is not None]
    if accuracies:
        mean = float(np.mean(accuracies))
        axes.axvline(mean, color=DARK, linewidth=1, linestyle="--")
        axes.set_title(f"Accuracy, mean {mean:.2f}")
