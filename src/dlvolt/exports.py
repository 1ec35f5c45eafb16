"""Sorted units for other programs: for Phy, as CSV tables and as NumPy arrays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from spikeinterface.core import BaseSorting, NumpySorting, SortingAnalyzer, concatenate_recordings

from dlvolt.analysis import analyze
from dlvolt.parameters import SorterParameters
from dlvolt.sortings import spike_properties
from dlvolt.whole import check_new_folder, written_whole


def export_phy(
    analyzer: SortingAnalyzer,
    folder: str | Path,
    *,
    parameters: SorterParameters | None = None,
    job_kwargs: dict[str, Any] | None = None,
) -> Path:
    """Write units for curation in Phy.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        What `dlvolt.analysis.analyze` returned, with at least one unit. Phy knows one segment only, so several are
        joined.
    folder : path
        A new folder.
    parameters : SorterParameters, optional
        The parameters of the sorter, by which joined segments are analyzed again.
    job_kwargs : dict, optional
        SpikeInterface's job keyword arguments.

    Returns
    -------
    Path
        The folder; open it with ``phy template-gui params.py``.

    Raises
    ------
    ValueError
        If there are no units.
    """
    from spikeinterface.exporters import export_to_phy  # takes long to import

    if analyzer.get_num_units() == 0:
        raise ValueError("phy: there are no units to curate.")
    job_kwargs = {"pool_engine": "thread"} | (job_kwargs or {})
    if analyzer.get_num_segments() > 1:
        lengths = [analyzer.get_num_samples(segment) for segment in range(analyzer.get_num_segments())]
        joined = concatenate_recordings([analyzer.recording])
        parameters = parameters or SorterParameters(modality="extracellular")
        sorting = join_segments(analyzer.sorting, lengths)
        analyzer = analyze(sorting, joined, parameters, preprocessed=True, job_kwargs=job_kwargs)

    with _new_folder(folder, "phy") as made, nothing_old_to_collect():
        export_to_phy(
            analyzer,
            made,
            remove_if_exists=True,
            verbose=False,
            use_relative_path=True,
            additional_properties=["label", "fdr"],  # columns of Phy's table, where the sorting has them
            **job_kwargs,
        )
    return Path(folder)


@contextmanager
def nothing_old_to_collect() -> Iterator[None]:
    """Exempt the objects that exist already from garbage collection.

    SpikeInterface collects garbage after each chunk that it writes, and to look at all objects of all imported modules
    takes up to a second each time.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def join_segments(sorting: BaseSorting, lengths: list[int]) -> NumpySorting:
    """Return the same units and properties in one segment, in which segments of these lengths follow each other."""
    vector = sorting.to_spike_vector().copy()
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    vector["sample_index"] += starts[vector["segment_index"]]
    vector["segment_index"] = 0
    joined = NumpySorting(vector, sorting.sampling_frequency, sorting.unit_ids)
    sorting.copy_metadata(joined)
    return joined


def unit_table(analyzer: SortingAnalyzer | BaseSorting) -> pd.DataFrame:
    """Return a table of what is known of each of the K units.

    Parameters
    ----------
    analyzer : SortingAnalyzer or BaseSorting

    Returns
    -------
    DataFrame
        K rows with ``unit``, its properties of one value each, ``num_spikes``, and, if they were computed, its quality
        metrics and its location ``x_um`` and ``y_um``.
    """
    sorting = analyzer if isinstance(analyzer, BaseSorting) else analyzer.sorting
    columns: dict[str, Any] = {"unit": sorting.unit_ids}
    for name in sorting.get_property_keys():
        if np.ndim(values := sorting.get_property(name)) == 1 and values.dtype != object:
            columns[name] = values
    if _has(analyzer, "quality_metrics"):
        metrics = analyzer.get_extension("quality_metrics").get_data().loc[sorting.unit_ids]
        columns |= {name: metrics[name].to_numpy() for name in metrics.columns if name not in columns}
    if _has(analyzer, "unit_locations"):
        locations = analyzer.get_extension("unit_locations").get_data()  # (K, 2 or 3), µm
        columns |= {"x_um": locations[:, 0], "y_um": locations[:, 1]}
    if "num_spikes" not in columns:
        columns["num_spikes"] = sorting.count_num_spikes_per_unit(outputs="array")
    return pd.DataFrame(columns)


def _has(analyzer: SortingAnalyzer | BaseSorting, extension: str) -> bool:
    return isinstance(analyzer, SortingAnalyzer) and analyzer.has_extension(extension)


def export_csv(analyzer: SortingAnalyzer | BaseSorting, folder: str | Path) -> Path:
    """Write ``units.csv``, a row for each unit, and ``spikes.csv``, a row for each spike.

    Parameters
    ----------
    analyzer : SortingAnalyzer or BaseSorting
    folder : path
        A new folder. Units have the columns of `unit_table`. Spikes have ``unit``, ``segment``, ``sample`` (from 0 in
        the segment), ``time_s`` (on the recording's clock) and, if it was computed, ``amplitude`` in µV; spikes of ROIs
        also have ``probability``, ``label`` and ``crosstalk``.

    Returns
    -------
    Path
        The folder.
    """
    sorting = analyzer if isinstance(analyzer, BaseSorting) else analyzer.sorting
    spikes = sorting.to_spike_vector()
    table = pd.DataFrame(
        {
            "unit": sorting.unit_ids[spikes["unit_index"]],
            "segment": spikes["segment_index"],
            "sample": spikes["sample_index"],
            "time_s": np.empty(len(spikes)),
        }
    )
    for segment in range(sorting.get_num_segments()):
        here = table["segment"] == segment
        table.loc[here, "time_s"] = sorting.sample_index_to_time(
            table.loc[here, "sample"].to_numpy(), segment_index=segment
        )
    if _has(analyzer, "spike_amplitudes"):
        table["amplitude"] = analyzer.get_extension("spike_amplitudes").get_data()
    by_unit = np.argsort(spikes["unit_index"], kind="stable")
    for name, values in spike_properties(sorting).items():
        table.loc[by_unit, name.removeprefix("spike_")] = values

    with _new_folder(folder, "csv") as made:
        table.to_csv(made / "spikes.csv", index=False)
        unit_table(analyzer).to_csv(made / "units.csv", index=False)
    return Path(folder)


def export_npy(analyzer: SortingAnalyzer, folder: str | Path) -> Path:
    """Write arrays named as Kilosort names them.

    Parameters
    ----------
    analyzer : SortingAnalyzer
        K units on N channels, with E spikes.
    folder : path
        A new folder for ``spike_times.npy`` (samples from 0 in the segment), ``spike_clusters.npy`` (index of the
        unit, 0 to K - 1) and ``spike_segments.npy``, each of shape (E,), ``unit_ids.npy`` (K,),
        ``channel_positions.npy`` (N, 2) in µm and, if they were computed, ``amplitudes.npy`` (E,) in µV and
        ``templates.npy`` (K, D samples, N) in µV.

    Returns
    -------
    Path
        The folder.
    """
    spikes = analyzer.sorting.to_spike_vector()
    unit_ids = analyzer.unit_ids
    arrays = {
        "spike_times": spikes["sample_index"].astype(np.int64),
        "spike_clusters": spikes["unit_index"].astype(np.int32),
        "spike_segments": spikes["segment_index"].astype(np.int32),
        "unit_ids": unit_ids.astype(str) if unit_ids.dtype.kind not in "iu" else unit_ids,
        "channel_positions": analyzer.get_channel_locations(),
    }
    if analyzer.has_extension("spike_amplitudes"):
        arrays["amplitudes"] = analyzer.get_extension("spike_amplitudes").get_data()
    if analyzer.has_extension("templates"):
        arrays["templates"] = analyzer.get_extension("templates").get_data("average").astype(np.float32)

    with _new_folder(folder, "npy") as made:
        for name, values in arrays.items():
            np.save(made / f"{name}.npy", values, allow_pickle=False)
    return Path(folder)


@contextmanager
def _new_folder(folder: str | Path, argument: str) -> Iterator[Path]:
    """Give an empty folder that takes its place when all is written, so that there is never half of it."""
    check_new_folder(Path(folder), argument)
    with written_whole(Path(folder)) as made:
        made.mkdir()
        yield made
