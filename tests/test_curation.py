"""What people do with units afterwards, and NWB again."""

import numpy as np
import pandas as pd
import pynwb
import pytest
import spikeinterface as si
from spikeinterface.curation import apply_curation, compute_merge_unit_groups

from dlvolt import write_nwb_units
from dlvolt.analysis import analyze
from dlvolt.exports import export_csv, export_phy
from dlvolt.parameters import SorterParameters

METADATA = {"NWBFile": {"session_start_time": "2024-05-31T14:30:00Z"}}
QUIET = dict(n_jobs=1, progress_bar=False)


@pytest.fixture(scope="module")
def split():
    """An analyzer of four units, the first two of which are one neuron cut in half."""
    recording, truth = si.generate_ground_truth_recording(durations=[6.0, 3.0], num_channels=8, num_units=3, seed=0)
    trains = []
    for segment in range(2):
        whole = [truth.get_unit_spike_train(unit, segment_index=segment) for unit in truth.unit_ids]
        trains.append({0: whole[0][::2], 1: whole[0][1::2], 2: whole[1], 3: whole[2]})
    sorting = si.NumpySorting.from_unit_dict(trains, recording.sampling_frequency)
    sorting.register_recording(recording)
    sorting.set_property("label", np.array(["good", "good", "mua", "good"]))
    sorting.set_property("fdr", np.array([0.0, 0.0, 0.2, 0.01]))
    sorting.annotate(set_aside=[[0, 1.0, 1.5, "saturation"]])
    return analyze(sorting, recording, SorterParameters(), job_kwargs=QUIET), truth


def test_merged_and_removed_units_are_written(split, tmp_path):
    analyzer, truth = split
    decided = {
        "format_version": "2",
        "unit_ids": [0, 1, 2, 3],
        "merges": [{"unit_ids": [0, 1]}],
        "removed": [2],
        "label_definitions": {},
        "manual_labels": [],
        "splits": [],
    }
    curated = apply_curation(analyzer, decided, sparsity_overlap=0.0)
    curated.sorting.annotate(set_aside=analyzer.sorting.get_annotation("set_aside"))  # SpikeInterface drops it
    path = write_nwb_units(curated, tmp_path / "curated.nwb", metadata=METADATA)
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        nwbfile = io.read()
        units = nwbfile.units.to_dataframe().set_index("unit_name")
        assert list(nwbfile.invalid_times["start_time"][:]) == [1.0]
    assert len(units) == 2
    starts = (0.0, 6.0)
    fs = truth.sampling_frequency
    expected = np.concatenate([truth.get_unit_spike_train(truth.unit_ids[0], s) / fs + starts[s] for s in (0, 1)])
    (merged,) = set(units.index) - {"3"}
    np.testing.assert_allclose(units.loc[merged, "spike_times"], expected, atol=1e-9)
    assert units.loc[merged, "waveform_mean"].shape[0] == analyzer.get_extension("templates").get_data().shape[1]


def test_units_to_merge_are_suggested(split):
    analyzer, _ = split
    analyzer.compute({"template_similarity": {}, "correlograms": {}})
    groups = compute_merge_unit_groups(analyzer, preset="similarity_correlograms", resolve_graph=True)
    assert all(len(group) > 1 for group in groups)


@pytest.fixture(scope="module")
def phy(split, tmp_path_factory):
    return export_phy(split[0], tmp_path_factory.mktemp("exported") / "phy", job_kwargs=QUIET)


def test_phy_shows_what_the_sorter_says(phy):
    labels, rates = (pd.read_csv(phy / f"cluster_{name}.tsv", sep="\t", index_col=0) for name in ("label", "fdr"))
    assert list(labels["label"]) == ["good", "good", "mua", "good"]
    assert list(rates["fdr"]) == [0.0, 0.0, 0.2, 0.01]


def test_phylib_reads_what_is_exported(split, phy):
    model = pytest.importorskip("phylib.io.model")
    analyzer, _ = split
    loaded = model.load_model(phy / "params.py")
    spikes = analyzer.sorting.to_spike_vector()
    starts = np.array([0, analyzer.get_num_samples(0)])
    np.testing.assert_array_equal(
        np.sort(loaded.spike_samples), np.sort(spikes["sample_index"] + starts[spikes["segment_index"]])
    )


def test_tables_have_what_is_known_of_each_spike_unless_it_is_stale(tmp_path):
    sorting = si.NumpySorting.from_samples_and_labels([np.array([10, 20, 30, 40])], [np.array([1, 0, 1, 1])], 1000.0)
    of_spikes = {"spike_probability": [[0.2], [0.1, 0.3, 0.4]], "spike_label": [["a"], ["b"]]}  # the latter of fewer
    for name, rows in of_spikes.items():
        values = np.empty(2, dtype=object)
        values[:] = [np.array(row) for row in rows]
        sorting.set_property(name, values)
    spikes = pd.read_csv(export_csv(sorting, tmp_path / "csv") / "spikes.csv")
    assert list(spikes["probability"]) == [0.1, 0.2, 0.3, 0.4]
    assert "label" not in spikes
