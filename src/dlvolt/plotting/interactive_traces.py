"""A page to look around in: a trace, its labels and what a model makes of it, one above the other."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from dlvolt.plotting.canvas import BLUE, DARK, GREEN, ORANGE, RED, SKY
from dlvolt.whole import check_parent, written_whole

PARTS = {"training": SKY, "validation": ORANGE, "test": GREEN}
GAP = 0.25  # between panels, in heights of a panel of height 1
CONFIG = dict(
    scrollZoom=True,
    doubleClick="reset",
    displaylogo=False,
    responsive=True,
    modeBarButtons=[
        ["zoom2d", "pan2d", "resetScale2d", "toImage"]
    ],  # Plotly's own choice has one that uploads the data
)


class Panel(NamedTuple):
    """A curve and how it is drawn."""

    heading: str
    values: np.ndarray  # (T,): float32, or bool for a mask
    colour: str
    height: float


def interactive_traces(
    trace: ArrayLike,
    sampling_frequency: float,
    labels: ArrayLike | None = None,
    probability: ArrayLike | None = None,
    *,
    threshold: float = 0.5,
    split: Sequence[float] | None = None,
    title: str = "",
    path: str | Path = "traces.html",
) -> Path:
    """Write a page with a trace, its labels, the spike probability, and the samples where that is high.

    The page is one HTML file that needs no server and no network. Drag over a stretch of time to zoom in, scroll to
    zoom around the cursor, double-click to see everything again. For each pixel the smallest and the largest sample
    behind it are drawn, so that the page is quick for long traces and no spike is left out.

    Parameters
    ----------
    trace : array_like, shape (T,)
        For example the denoised fluorescence.
    sampling_frequency : float
        Samples per second.
    labels : array_like, shape (T,), bool or 0/1, optional
        1 where there is a spike.
    probability : array_like, shape (T,), optional
        Spike probability of each sample, in [0, 1].
    threshold : float, default: 0.5
        A line is drawn at it in the panel of the probability; the panel below shows which samples reach it.
    split : (float, float, float), optional
        The parts of the time that were for training, validation and test, such as ``(0.7, 0.15, 0.15)``.
    title : str, default: ""
        Heading of the page.
    path : path, default: "traces.html"
        The file to write; it is replaced if it exists.

    Returns
    -------
    Path
        `path`.
    """
    path = Path(path)
    check_parent(path, "path")
    if not 0 < sampling_frequency < np.inf:
        raise ValueError(f"sampling_frequency: must be positive, not {sampling_frequency}.")
    if split is not None and not (len(split) == 3 and min(split) >= 0 and np.isclose(sum(split), 1)):
        raise ValueError(f"split: must be three parts of 1 for training, validation and test, not {split}.")
    trace = _checked(trace, "trace", np.size(trace))
    panels = [Panel("trace", trace, DARK, 4)]
    if labels is not None:
        labels = _checked(labels, "labels", len(trace))
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels: must be 0 or 1 at every sample.")
        panels.append(Panel("labels", labels.astype(bool), BLUE, 0.8))
    if probability is not None:
        probability = _checked(probability, "probability", len(trace))
        if probability.min() < 0 or probability.max() > 1:
            raise ValueError("probability: must lie between 0 and 1 at every sample.")
        panels.append(Panel("probability", probability, RED, 2))
        panels.append(Panel(f"probability<br>≥ {threshold:g}", probability >= threshold, RED, 0.8))

    figure = _make_figure(panels, len(trace) / sampling_frequency, threshold, split, title)
    curves = ", ".join(map(_encode, panels))
    script = files("dlvolt.plotting").joinpath("interactive_traces.js").read_text(encoding="utf-8")
    page = figure.to_html(
        default_height="95vh",
        config=CONFIG,
        post_script=f'{script}\ndrawCurves(document.getElementById("{{plot_id}}"), {sampling_frequency}, [{curves}]);',
    )
    with written_whole(path) as written:
        written.write_text(page, encoding="utf-8")
    return path


def _checked(values: ArrayLike, name: str, length: int) -> np.ndarray:
    values = np.asarray(values, dtype="float32")
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name}: must be one value per sample of one trace, shape (T,), not {values.shape}.")
    if len(values) != length:
        raise ValueError(f"{name}: has {len(values)} samples, the trace {length}; they must agree.")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: some samples are NaN or infinite.")
    return values


def _encode(panel: Panel) -> str:
    """Write the samples as the page's script reads them: [type of its array, base64]."""
    array_type, dtype = ("Uint8Array", "u1") if panel.values.dtype == bool else ("Float32Array", "<f4")
    return f'[{array_type}, "{base64.b64encode(panel.values.astype(dtype).tobytes()).decode()}"]'


def _make_figure(
    panels: list[Panel], duration: float, threshold: float, split: Sequence[float] | None, title: str
) -> go.Figure:
    """Lay out the panels above each other on one time axis; their curves are left for the page's script to draw."""
    headings = [panel.heading for panel in panels] + ([] if split is None else ["split"])
    heights = np.array([panel.height for panel in panels] + ([] if split is None else [0.5]))
    total = heights.sum() + GAP * (len(heights) - 1)
    bottoms = np.maximum(1 - (np.cumsum(heights + GAP) - GAP) / total, 0)
    tops = bottoms + heights / total

    figure = go.Figure()
    for number, panel in enumerate(panels, start=1):
        style = dict(hovertemplate="%{y:.3g}")
        if panel.values.dtype == bool:
            style = dict(fill="tozeroy", line_shape="hv", hovertemplate="%{y}")
        figure.add_scatter(
            yaxis=f"y{number}", mode="lines", line=dict(color=panel.colour, width=1), showlegend=False, name="", **style
        )
        if panel.heading == "probability":
            figure.add_hline(threshold, yref=f"y{number}", line=dict(color=DARK, width=1, dash="dash"))
    if split is not None:
        of_split = dict(
            y=[1, 1], yaxis=f"y{len(heights)}", mode="lines", line_width=0, fill="tozeroy", hoverinfo="name"
        )
        borders = duration * np.cumsum([0, *split])
        for (name, colour), edges in zip(PARTS.items(), pairwise(borders), strict=True):
            figure.add_scatter(x=edges, fillcolor=colour, name=name, **of_split)

    for number, (heading, bottom, top) in enumerate(zip(headings, bottoms, tops, strict=True), start=1):
        of_axis = dict(domain=[bottom, top], fixedrange=True, zeroline=False)
        if heading != "trace":
            of_axis |= dict(range=[0, 1.05], tickvals=[0, 0.5, 1] if heading == "probability" else [])
        figure.layout[f"yaxis{number}"] = of_axis
        place = dict(x=0, xanchor="right", xshift=-50, y=(bottom + top) / 2, yanchor="middle")
        figure.add_annotation(text=heading, showarrow=False, xref="paper", yref="paper", **place)
    return figure.update_layout(
        template="simple_white",
        title=title,
        margin=dict(l=140, r=30, b=60, t=90 if title else 50),
        hovermode="x",
        legend=dict(orientation="h", x=1, xanchor="right", y=1, yanchor="bottom"),
        xaxis=dict(title="time (s)", anchor=f"y{len(heights)}", range=[0, duration], minallowed=0, maxallowed=duration),
        xaxis_showspikes=True,
        xaxis_spikemode="across",
        xaxis_spikethickness=1,
    )
