"""Where the ROIs of a movie are, how often they fire, and which spill light into which."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from scipy.spatial.distance import cdist
from spikeinterface.core import BaseRecording, BaseSorting

from dlvolt.plotting.canvas import DARK, GREY, RED, figure_or_new, open_frame

RATES = "viridis_r"
ALL_AREAS = 20_000  # area of all marks together, in square points
LARGEST, SMALLEST = 420, 16  # bounds of the area of a typical mark, in square points
MAX_LABELS = 60
UNITS = {"um": "µm", "pixels": "pixels"}


def plot_roi_map(sorting: BaseSorting, recording: BaseRecording, *, figure: Figure | None = None) -> Figure:
    """Draw each ROI at its centroid; its area shows its number of pixels, its colour how often it fires.

    ROIs without a spike are empty circles, dead ones (unit property "flag") crosses. Red arrows lead from an ROI to
    those that show its spikes as cross-talk (unit properties "crosstalk_from", "crosstalk_fraction"), wider for a
    larger part of their spikes. ROIs of several imaging planes get a panel for each plane; ROIs without positions
    stand in rows.

    Parameters
    ----------
    sorting : BaseSorting
        A unit for each ROI, or for some; unit ids are channel ids.
    recording : BaseRecording
        Its channels are ROIs. Of the channel properties "centroid", "centroid_unit", "num_pixels" and "plane" those
        are shown that it has. Without centroids, ROIs are at the contacts of the probe.
    figure : Figure, optional
        An empty figure to draw into; by default a new one of pyplot.

    Returns
    -------
    Figure
        The figure. As in the movie, y points down.

    Raises
    ------
    ValueError
        If there are no units, or if one is no ROI of the recording.
    """
    rois = rois_of(sorting, recording)
    positions, length_unit = roi_positions(recording, rois)
    areas = _mark_areas(recording)[rois]
    rates = sorting.count_num_spikes_per_unit(outputs="array") / recording.get_total_duration()
    scale = ScalarMappable(Normalize(0, rates.max() or 1.0), RATES)
    planes = recording.get_property("plane")
    planes = np.full(len(rois), "ROIs") if planes is None else np.asarray(planes)[rois]

    names = np.unique(planes)
    figure = figure_or_new(figure, 1.2 + 5.2 * len(names), 5.6)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    explained: dict[str, Artist] = {}
    for axes, name in zip(panels, names, strict=True):
        inside = planes == name
        of_plane = sorting.select_units(sorting.unit_ids[inside])
        explained |= _draw_rois(axes, of_plane, positions[inside], areas[inside], rates[inside], scale)
        explained |= _draw_crosstalk(axes, of_plane, positions[inside])
        _frame(axes, positions, length_unit)
        axes.set_title(name)
    figure.colorbar(scale, ax=panels, label="firing rate (Hz)", shrink=0.6, aspect=25)
    if explained:
        figure.legend(
            explained.values(), explained, loc="outside lower center", ncols=3, frameon=False, markerscale=0.7
        )
    return figure


def rois_of(sorting: BaseSorting, recording: BaseRecording) -> np.ndarray:
    """Return the index of the channel that each unit is named after, (K,), where 3 and "3" are the same name."""
    if len(sorting.unit_ids) == 0:
        raise ValueError("sorting: has no units, so there are no ROIs to draw.")
    index = {str(channel): n for n, channel in enumerate(recording.channel_ids)}
    if strangers := [str(unit) for unit in sorting.unit_ids if str(unit) not in index]:
        these, known = (", ".join(names[:3]) + " …" * (len(names) > 3) for names in (strangers, list(index)))
        raise ValueError(f"sorting: has units that are no ROIs of the recording: {these}; the ROIs are {known}.")
    return np.array([index[str(unit)] for unit in sorting.unit_ids])


def roi_positions(recording: BaseRecording, rois: np.ndarray) -> tuple[np.ndarray, str]:
    """Return x and y of K channels, (K, 2), and their unit of length; where none is known they are in rows, unit ""."""
    centroids = recording.get_property("centroid")
    if centroids is not None and np.isfinite(centroids[rois]).any():
        of_unit = recording.get_property("centroid_unit")
        return np.asarray(centroids, dtype=float)[rois, :2], "a.u." if of_unit is None else UNITS[str(of_unit[0])]
    if recording.has_probe():
        return recording.get_channel_locations(axes="xy").astype(float)[rois], "µm"
    row, column = np.divmod(np.arange(len(rois)), int(np.ceil(np.sqrt(len(rois)))))
    return np.stack([column, row], axis=1).astype(float), ""


def _mark_areas(recording: BaseRecording) -> np.ndarray:
    """Return the area of each channel's mark in square points, (N,): in proportion to its pixels, where known."""
    num_channels = recording.get_num_channels()
    num_pixels = recording.get_property("num_pixels")
    relative = np.ones(num_channels)
    if num_pixels is not None and np.any(num_pixels > 0):
        relative = num_pixels / np.median(num_pixels[num_pixels > 0])
    return np.clip(ALL_AREAS / num_channels, SMALLEST, LARGEST) * np.clip(relative, 0.2, 5)


def _draw_rois(
    axes: Axes,
    sorting: BaseSorting,
    positions: np.ndarray,
    areas: np.ndarray,
    rates: np.ndarray,
    scale: ScalarMappable,
) -> dict[str, Artist]:
    """Draw the ROIs of a plane; return the marks that need explanation."""
    flags = sorting.get_property("flag")
    dead = np.zeros(len(rates), dtype=bool) if flags is None else np.asarray(flags) == "dead"
    firing = ~dead & (rates > 0)
    kinds: tuple[tuple[np.ndarray, str, dict[str, Any]], ...] = (
        (firing, "", dict(c=scale.to_rgba(rates[firing]), edgecolors=DARK, linewidths=0.6)),
        (~dead & ~firing, "no spikes", dict(facecolors="none", edgecolors=GREY, linewidths=1.2)),
        (dead, "dead", dict(marker="x", color=GREY, linewidths=1.5)),
    )
    explained: dict[str, Artist] = {}
    for chosen, name, style in kinds:
        x, y = positions[chosen].T
        marks = axes.scatter(x, y, s=areas[chosen], **style)
        if name and chosen.any():
            explained[name] = marks
    if len(rates) <= MAX_LABELS:
        _draw_names(axes, sorting.unit_ids, positions, areas)
    return explained


def _draw_names(axes: Axes, names: np.ndarray, positions: np.ndarray, areas: np.ndarray) -> None:
    """Write each ROI's name beside its mark, at the corner that is turned away from its nearest neighbour."""
    distances = cdist(positions, positions)
    np.fill_diagonal(distances, np.inf)
    away = positions - positions[distances.argmin(axis=1)]
    for name, position, area, (right, down) in zip(names, positions, areas, away, strict=True):
        side = np.array([1 if right >= 0 else -1, -1 if down > 0 else 1])
        axes.annotate(
            str(name),
            position,
            side * np.sqrt(area) / 2,  # the corner of the square around the mark
            textcoords="offset points",
            ha="left" if side[0] > 0 else "right",
            va="bottom" if side[1] > 0 else "top",
            fontsize="small",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _draw_crosstalk(axes: Axes, sorting: BaseSorting, positions: np.ndarray) -> dict[str, Artist]:
    """Draw the arrows of a plane and return their explanation, if there are any."""
    sources, fractions = sorting.get_property("crosstalk_from"), sorting.get_property("crosstalk_fraction")
    if sources is None or fractions is None:
        return {}
    index = {str(unit): n for n, unit in enumerate(sorting.unit_ids)}
    pairs = [(index[str(source)], n) for n, source in enumerate(sources) if str(source) in index]
    for source, n in pairs:
        style = dict(arrowstyle="-|>", connectionstyle="arc3,rad=0.5", shrinkA=0, shrinkB=3)  # such ROIs often touch
        style |= dict(color=RED, linewidth=1 + 3 * fractions[n], mutation_scale=12)
        axes.annotate("", positions[n], positions[source], arrowprops=style)
    arrow = Line2D([], [], color=RED, marker=">", markevery=[-1], linewidth=2)
    return {"cross-talk, from → to": arrow} if pairs else {}


def _frame(axes: Axes, positions: np.ndarray, length_unit: str) -> None:
    low, high = np.nanmin(positions, axis=0), np.nanmax(positions, axis=0)
    margin = 0.1 * max(*(high - low), 1.0)
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin), aspect="equal")
    axes.set(xlabel=f"x ({length_unit})", ylabel=f"y ({length_unit})")
    open_frame(axes)
    if not length_unit:
        axes.set(xticks=[], yticks=[], xlabel="positions unknown", ylabel="")
        axes.spines[:].set_visible(False)
