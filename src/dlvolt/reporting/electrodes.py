"""What a report shows of units of electrodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from spikeinterface.core import SortingAnalyzer
from spikeinterface.postprocessing import compute_correlograms

from dlvolt.exports import unit_table
from dlvolt.reporting.shown import some_of, table_shown

MAX_DRIFT_SPIKES = 40_000
MAX_AMPLITUDES = 2_000  # for each unit
MAX_CHANNELS = 12  # on which a unit's waveforms are shown
WINDOW_MS, BIN_MS = 100.0, 1.0

COLUMNS = {  # column of `unit_table`: heading, what it means
    "unit": ("unit", "identifier in the sorting"),
    "label": ("label", "good: a single neuron; mua: no single one"),
    "num_spikes": ("spikes", "number of spikes"),
    "firing_rate": ("rate (Hz)", "spikes per second"),
    "amplitude_median": ("amplitude (µV)", "median over the spikes"),
    "snr": ("SNR", "largest template value over the noise"),
    "isi_violations_ratio": ("ISI violations", "as a ratio of what independent spikes would give"),
    "rp_contamination": ("contamination", "estimated from spikes within the refractory period"),
    "fdr": ("FDR", "fraction of the spikes which noise gives, estimated by decoys"),
    "presence_ratio": ("presence", "fraction of the time in which it fires"),
    "y_um": ("depth y (µm)", "location of the unit along the probe"),
}


def describe_units(analyzer: SortingAnalyzer) -> dict[str, Any]:
    """Return what a report shows of sorted units, by the names under which the page's script knows it.

    The analyzer must have the extension ``templates``; others are shown if they are computed.
    """
    if not analyzer.has_extension("templates"):
        raise ValueError('analyzer: has no templates; call analyzer.compute(["random_spikes", "templates"]) first.')
    sorting = analyzer.sorting
    table = unit_table(analyzer)
    num_segments, fs = analyzer.get_num_segments(), analyzer.sampling_frequency
    starts = np.cumsum([0, *(analyzer.get_num_samples(segment) for segment in range(num_segments))])
    spikes = sorting.to_spike_vector()
    seconds = (spikes["sample_index"] + starts[spikes["segment_index"]]) / fs  # segments one after the other
    amplitudes = None
    if analyzer.has_extension("spike_amplitudes"):
        amplitudes = analyzer.get_extension("spike_amplitudes").get_data()
    facts = {
        "channels": analyzer.get_num_channels(),
        "sampling frequency": f"{fs:g} Hz",
        "duration": f"{starts[-1] / fs:.1f} s" + (f" in {num_segments} segments" if num_segments > 1 else ""),
        "units": len(analyzer.unit_ids),
        "spikes": len(spikes),
    }
    if "label" in table:
        facts["good units"] = int((table["label"] == "good").sum())
    return {
        "kind": "electrodes",
        "facts": facts,
        **table_shown(table, COLUMNS),
        "set_aside": [list(each) for each in sorting.get_annotation("set_aside") or []],
        "segment_starts": starts[:-1] / fs,
        "probe": analyzer.get_channel_locations()[:, :2],
        "locations": table[["x_um", "y_um"]].to_numpy() if "x_um" in table else None,
        "drift": _drift(seconds, spikes["unit_index"], table, amplitudes, analyzer),
        "units": _units(analyzer, spikes, seconds, amplitudes),
        "bin_ms": BIN_MS,
        "in_microvolts": bool(analyzer.return_in_uV),
    }


def _drift(
    seconds: np.ndarray,
    units: np.ndarray,
    table: pd.DataFrame,
    amplitudes: np.ndarray | None,
    analyzer: SortingAnalyzer,
) -> dict[str, Any]:
    """Return the times and depths of spikes: each spike's own depth, if it was computed, else that of its unit."""
    told = "at the location of their unit"
    if analyzer.has_extension("spike_locations"):
        y, told = analyzer.get_extension("spike_locations").get_data()["y"], "located spike by spike"
    elif "y_um" in table:
        y = table["y_um"].to_numpy()[units]
    else:
        y = analyzer.get_channel_locations()[analyzer.get_main_channels(outputs="index"), 1][units]
    taken = some_of(np.arange(len(seconds)), MAX_DRIFT_SPIKES)
    return {
        "seconds": np.round(seconds[taken], 3),
        "y": np.round(y[taken], 1),
        "unit": units[taken],
        "amplitude": None if amplitudes is None else np.round(np.abs(amplitudes[taken]), 1),
        "told": f"{len(taken)} of {len(seconds)} spikes, {told}",
    }


def _units(
    analyzer: SortingAnalyzer, spikes: np.ndarray, seconds: np.ndarray, amplitudes: np.ndarray | None
) -> list[dict[str, Any]]:
    """Return the waveforms, the autocorrelogram and the amplitudes of each unit."""
    extension = analyzer.get_extension("templates")
    templates = extension.get_data("average")  # (K, D, N)
    deviations = extension.get_data("std") if "std" in extension.params["operators"] else None
    ms = np.arange(templates.shape[1]) / (analyzer.sampling_frequency / 1000.0) - extension.params["ms_before"]
    correlograms = np.empty((0, 0, 0))
    if len(analyzer.unit_ids):
        correlograms, _ = compute_correlograms(analyzer.sorting, window_ms=WINDOW_MS, bin_ms=BIN_MS)
    locations = analyzer.get_channel_locations()
    rng = np.random.default_rng(0)
    units = []
    for index in range(len(analyzer.unit_ids)):
        height = np.ptp(templates[index], axis=0)
        num_seen = np.clip(np.count_nonzero(height), 1, MAX_CHANNELS)
        channels = np.sort(np.argsort(-height)[:num_seen])
        mine = some_of(np.flatnonzero(spikes["unit_index"] == index), MAX_AMPLITUDES, rng)
        units.append(
            {
                "ms": np.round(ms, 4),
                "channels": [str(channel) for channel in analyzer.channel_ids[channels]],
                "places": locations[channels, :2],
                "waveforms": np.round(templates[index][:, channels].T, 2),
                "deviations": None if deviations is None else np.round(deviations[index][:, channels].T, 2),
                "autocorrelogram": correlograms[index, index],
                "seconds": np.round(seconds[mine], 3),
                "amplitudes": None if amplitudes is None else np.round(amplitudes[mine], 1),
            }
        )
    return units
