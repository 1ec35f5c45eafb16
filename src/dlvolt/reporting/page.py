"""One self-contained HTML page: nothing is fetched when it is opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import plotly.offline
from spikeinterface.core import BaseSorting, SortingAnalyzer

import dlvolt
from dlvolt.reporting.electrodes import describe_units
from dlvolt.reporting.rois import describe_rois
from dlvolt.whole import written_whole

NAME = "report.html"


def report(
    analyzer_or_sorting: SortingAnalyzer | BaseSorting,
    folder: str | Path,
    *,
    run: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a page that shows sorted units, or the spikes of ROIs.

    Of electrodes it shows how it was sorted and what was set aside, the drift map, the probe with the units, a table
    of the units that sorts by any column, and of the unit that is chosen in it the waveforms, the autocorrelogram and
    the amplitudes over time. Of ROIs it shows the map of the ROIs, the table, and of the chosen one the trace with
    its spikes.

    Parameters
    ----------
    analyzer_or_sorting : SortingAnalyzer or BaseSorting
        The analyzer of units of electrodes, as `dlvolt.analysis.analyze` or SpikeInterface makes it, with templates;
        or a sorting of ROIs, as ``run_sorter("dlvolt", recording)`` gives it, with its recording registered. What is
        not computed is not shown.
    folder : path
        Where ``report.html`` is written; made if it is not there.
    run : dict, optional
        How it was sorted, as in the ``run.json`` of a run's folder: ``source``, ``parameters``, ``versions``,
        ``seconds`` and others.
    warnings : sequence of str
        What was warned of.
    overwrite : bool, default: False
        Replace the page if it exists.

    Returns
    -------
    Path
        The page. Open it in a browser; it is one file of about 5 MB and needs neither server nor network.

    Raises
    ------
    FileExistsError
        If there is a page and `overwrite` is not set.
    """
    if not isinstance(analyzer_or_sorting, SortingAnalyzer | BaseSorting):
        kind = type(analyzer_or_sorting).__name__
        raise TypeError(f"analyzer_or_sorting: must be a SortingAnalyzer or a sorting, not a {kind}.")
    folder = Path(folder)
    check_page(folder, overwrite)
    describe = describe_units if isinstance(analyzer_or_sorting, SortingAnalyzer) else describe_rois
    content = describe(analyzer_or_sorting)
    environment = jinja2.Environment(loader=jinja2.PackageLoader("dlvolt.reporting", "."), autoescape=True)
    page = environment.get_template("page.html").render(
        content=_for_json(content),
        run=run or {},
        warnings=list(warnings),
        version=dlvolt.__version__,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        plotly=plotly.offline.get_plotlyjs(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / NAME) as made:
        made.write_text(page, encoding="utf-8")
    return folder / NAME


def check_page(folder: Path, overwrite: bool) -> None:
    """Raise where a page cannot be written to a folder, before any work."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"report: {folder} is a file; give the name of a folder")
    if (folder / NAME).exists() and not overwrite:
        raise FileExistsError(f"report: {folder / NAME} exists; give another folder, or overwrite=True to replace it")


def _for_json(value: Any) -> Any:
    """Return a value as JSON can hold it: numbers have seven digits, and those that are not finite are null."""
    if isinstance(value, np.ndarray | np.generic):
        return _for_json(value.tolist())
    if isinstance(value, dict):
        return {str(key): _for_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)
