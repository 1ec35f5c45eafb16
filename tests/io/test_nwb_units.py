import os
import subprocess
import sys
from datetime import datetime, timezone

import neo
import numpy as np
import nwbinspector
import pynwb
import pytest
import spikeinterface as si
from nwbinspector import Importance
from spikeinterface.extractors import read_nwb_sorting

import dlvolt.io.nwb_units
from dlvolt import read_open_ephys, write_nwb_units

METADATA = {
    "NWBFile": {"session_start_time": "2024-05-31T14:30:00Z", "experimenter": ["Doe, Jane"]},
    "Subject": {"subject_id": "r1", "species": "Rattus norvegicus", "sex": "F", "age": "P90D"},
}


def serious_messages(path):
    """What nwbinspector finds that an archive would refuse or question, as (check, object)."""
    path = str(path)
    serious = (Importance.CRITICAL, Importance.BEST_PRACTICE_VIOLATION)
    # By the installed schema: the inspector makes each file's own, the same one, anew, and that takes most of its time.
    invalid = pynwb.validate(path=path, use_cached_namespaces=False)
    found = nwbinspector.inspect_nwbfile(nwbfile_path=path, skip_validate=True, importance_threshold=serious[-1])
    return {(e.name, e.location) for e in invalid} | {
        (m.check_function_name, m.object_name) for m in found if m.importance in serious
    }


def read(path):
    """Read the file, its units table, the values and descriptions of its columns, and the electrodes."""
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        nwbfile = io.read()
        units = nwbfile.units
        values = {name: [units[name][i] for i in range(len(units))] for name in units.colnames}
        if "electrodes" in values:
            values["electrodes"] = [list(rows.index) for rows in values["electrodes"]]
        descriptions = {column.name: column.description for column in units.columns}
        electrodes = None if nwbfile.electrodes is None else nwbfile.electrodes.to_dataframe()
    return nwbfile, units, values, descriptions, electrodes


@pytest.fixture(scope="module")
def ground_truth():
    return si.generate_ground_truth_recording(durations=[4.0, 3.0], num_channels=12, num_units=5, seed=0)


@pytest.fixture(scope="module", params=["sparse", "dense"])
def analyzer(request, ground_truth):
    recording, sorting = ground_truth
    sorting.set_property("quality", np.array(["good", "good", "mua", "good", "noise"]))
    sorting.set_property("is_refined", np.array([True, True, False, True, False]))
    sorting.set_property("path", np.zeros((5, 2)))  # not a scalar
    sparse = request.param == "sparse"
    analyzer = si.create_sorting_analyzer(
        sorting, recording, sparse=sparse, sparsity_kwargs={"method": "radius", "radius_um": 35.0}
    )
    analyzer.compute(["random_spikes", "noise_levels", "templates"], progress_bar=False)
    analyzer.compute("quality_metrics", metric_names=["snr", "num_spikes", "firing_rate"])
    analyzer.compute("template_metrics", metric_names=["peak_to_trough_duration"])
    return analyzer


def test_analyzer(analyzer, tmp_path):
    path = write_nwb_units(analyzer, tmp_path / "units.nwb", metadata=METADATA)
    assert path == tmp_path / "units.nwb"
    assert serious_messages(path) == set()
    nwbfile, units, columns, descriptions, electrodes = read(path)

    assert columns["unit_name"] == [str(unit_id) for unit_id in analyzer.unit_ids]
    assert units.resolution == 1 / analyzer.sampling_frequency
    assert units.waveform_rate == analyzer.sampling_frequency
    assert units.waveform_unit == "volts"
    assert nwbfile.subject.subject_id == "r1"
    np.testing.assert_array_equal(electrodes[["rel_x", "rel_y"]], analyzer.get_channel_locations())
    assert list(electrodes["channel_name"]) == list(analyzer.channel_ids)

    templates = analyzer.get_extension("templates")
    counts = set()
    for unit, rows in enumerate(columns["electrodes"]):
        if analyzer.is_sparse():
            assert rows == list(np.flatnonzero(analyzer.sparsity.mask[unit]))
        else:
            peaks = np.abs(templates.get_data("average")[unit]).max(axis=0)
            assert set(rows) == set(np.argsort(peaks)[-8:])
        for name, operator in (("waveform_mean", "average"), ("waveform_sd", "std")):
            volts = columns[name][unit]
            np.testing.assert_allclose(
                volts[:, : len(rows)], templates.get_data(operator)[unit][:, rows] / 1e6, rtol=1e-5
            )
            assert np.isnan(volts[:, len(rows) :]).all()
        counts.add(len(rows))
    assert columns["waveform_mean"][0].shape[1] == max(counts)
    assert (len(counts) > 1) == analyzer.is_sparse()  # so the padding is tried

    metrics = analyzer.get_metrics_extension_data()
    assert {"snr", "num_spikes", "firing_rate", "peak_to_trough_duration"} <= set(metrics.columns)
    for name in metrics.columns:
        np.testing.assert_allclose(np.array(columns[name], dtype=float), metrics[name].astype(float))
    assert descriptions["snr"] == "Signal to noise ratio for each unit."
    assert columns["quality"] == ["good", "good", "mua", "good", "noise"]
    assert [bool(value) for value in columns["is_refined"]] == [True, True, False, True, False]
    assert "path" not in columns


def test_segments_share_one_time_line(analyzer, tmp_path):
    path = write_nwb_units(analyzer, tmp_path / "units.nwb", metadata=METADATA)
    read_back = read_nwb_sorting(path)
    first = analyzer.get_num_samples(0)
    for unit_id in analyzer.unit_ids:
        trains = [analyzer.sorting.get_unit_spike_train(unit_id, segment_index=i) for i in (0, 1)]
        np.testing.assert_array_equal(
            read_back.get_unit_spike_train(str(unit_id)), np.concatenate([trains[0], trains[1] + first])
        )
    _, _, columns, _, _ = read(path)
    for intervals in columns["obs_intervals"]:
        np.testing.assert_allclose(intervals, [[0, 4], [4, 7]])


def test_saved_analyzer_without_its_recording(analyzer, tmp_path):
    with_recording = write_nwb_units(analyzer, tmp_path / "with.nwb", metadata=METADATA)
    analyzer.save_as(folder=tmp_path / "analyzer", format="binary_folder")
    loaded = si.load(tmp_path / "analyzer")
    loaded._recording = None
    without = write_nwb_units(loaded, tmp_path / "without.nwb", metadata=METADATA)
    expected, found = read(with_recording), read(without)
    for name in expected[2]:
        np.testing.assert_equal(found[2][name], expected[2][name])
    np.testing.assert_array_equal(found[4].drop(columns="group"), expected[4].drop(columns="group"))


@pytest.mark.parametrize("times", ["t_start", "time_vector"])
def test_the_clock_of_the_recording(tmp_path, times):
    recording = si.generate_recording(durations=[2.0, 1.0], num_channels=2, set_probe=False)
    fs = recording.sampling_frequency
    starts = [100.1, 105.7]
    if times == "t_start":
        for segment, start in enumerate(starts):
            recording.shift_times(start, segment_index=segment)
    else:
        for segment, start in enumerate(starts):
            ticks = np.arange(recording.get_num_samples(segment)) / fs
            recording.set_times(start + 1.001 * ticks, segment_index=segment)
    trains = [np.array([0, 17, 30000]), np.array([5])]
    sorting = si.NumpySorting.from_unit_dict([{"a": trains[0]}, {"a": trains[1]}], fs)
    sorting.register_recording(recording)
    _, _, columns, _, electrodes = read(write_nwb_units(sorting, tmp_path / "units.nwb", metadata=METADATA))

    expected = [recording.get_times(segment)[train] for segment, train in enumerate(trains)]
    np.testing.assert_allclose(columns["spike_times"][0], np.concatenate(expected), rtol=0, atol=1e-9)
    assert columns["obs_intervals"][0][:, 0] == pytest.approx(starts)
    assert electrodes is None  # no probe, nothing to say


def test_gaps_of_the_clock_are_not_observed(tmp_path):
    first, second = np.arange(10.0), 20 + np.arange(6.0)  # frames
    first[3:] += 0.4  # a step of 1.4 frames
    first[4:] += 0.6  # and one of 1.6
    first[9:] += 100  # a stretch of one sample
    recording = si.NumpyRecording([np.zeros((10, 1)), np.zeros((6, 1))], 500.0)
    recording.set_times(first / 500, segment_index=0)
    recording.set_times(second / 500, segment_index=1)  # which is before the end of the first
    sorting = si.NumpySorting.from_unit_dict([{"a": np.array([3, 4])}, {"a": np.array([0])}], 500.0)
    sorting.register_recording(recording)
    columns = read(write_nwb_units(sorting, tmp_path / "units.nwb", metadata=METADATA))[2]
    expected = np.array([[0, 4.4], [5, 10], [110, 111], [111, 117]])
    np.testing.assert_allclose(columns["obs_intervals"][0], expected / 500, rtol=0, atol=1e-9)
    np.testing.assert_allclose(columns["spike_times"][0], np.array([3.4, 5, 111]) / 500, rtol=0, atol=1e-9)


def test_open_ephys_to_the_sample(shared_data, tmp_path):
    recording = read_open_ephys(shared_data / "open_ephys" / "legacy_2ch_40khz", probe="linear")
    trains = {"0": np.array([0, 1, 999, 423935]), "silent": np.array([], dtype=int)}
    sorting = si.NumpySorting.from_unit_dict(trains, recording.sampling_frequency)
    sorting.register_recording(recording)
    path = write_nwb_units(sorting, tmp_path / "units.nwb")

    assert recording.get_start_time() == 51968 / 40000
    read_back = read_nwb_sorting(path, t_start=recording.get_start_time())
    assert read_back.sampling_frequency == 40000
    for unit_id, train in trains.items():
        np.testing.assert_array_equal(read_back.get_unit_spike_train(unit_id), train)
    nwbfile = read(path)[0]
    assert nwbfile.session_start_time.replace(tzinfo=None).isoformat() == "2018-10-03T13:16:50"
    before = nwbfile.session_start_time - nwbfile.timestamps_reference_time
    assert before.total_seconds() == pytest.approx(51968 / 40000, abs=1e-6)
    assert {check for check, _ in serious_messages(path)} == {"check_subject_exists"}  # none is made up


def test_corrected_start_time_moves_time_zero(shared_data, tmp_path):
    recording = read_open_ephys(shared_data / "open_ephys" / "legacy_2ch_40khz", probe="linear")
    sorting = si.NumpySorting.from_unit_dict({}, recording.sampling_frequency)
    sorting.register_recording(recording)
    nwbfile = read(write_nwb_units(sorting, tmp_path / "units.nwb", metadata=METADATA))[0]
    assert nwbfile.session_start_time.isoformat() == "2024-05-31T14:30:00+00:00"
    assert nwbfile.timestamps_reference_time.isoformat() == "2024-05-31T14:29:58.700800+00:00"


@pytest.mark.parametrize("kind", ["sorting", "recorded", "analyzer"])
def test_no_units(ground_truth, tmp_path, kind):
    recording, sorting = ground_truth
    given = sorting.select_units([])
    if kind == "recorded":
        given.register_recording(recording)
    if kind == "analyzer":
        given = si.create_sorting_analyzer(given, recording, sparse=False)
    path = write_nwb_units(given, tmp_path / "units.nwb", metadata=METADATA)

    _, units, columns, _, _ = read(path)
    assert len(units) == 0
    assert {"unit_name", "spike_times"} <= set(columns)
    assert units.resolution == 1 / sorting.sampling_frequency
    assert read_nwb_sorting(path).get_num_units() == 0
    assert pynwb.validate(path=str(path)) == []
    assert serious_messages(path) == {("check_empty_table", "units")}  # which is what was asked for


def test_source_is_carried_over(shared_data, tmp_path):
    source = shared_data / "nwb" / "ecephys_tutorial_v2.5.0.nwb"
    recording, sorting = si.generate_ground_truth_recording(durations=[1.0], num_channels=12, num_units=3, seed=0)
    sorting = si.NumpySorting.from_sorting(sorting)  # without the main channels of other names
    recording = recording.rename_channels(np.arange(12))  # the ids of the source's electrodes
    subset = recording.select_channels([7, 3, 5])
    analyzer = si.create_sorting_analyzer(sorting, subset, sparse=False)
    analyzer.compute(["random_spikes", "templates"], progress_bar=False)
    path = write_nwb_units(
        analyzer, tmp_path / "units.nwb", source=source, metadata={"NWBFile": {"lab": "Shire Laboratory"}}
    )

    assert serious_messages(path) <= serious_messages(source)
    with pynwb.NWBHDF5IO(str(source), "r") as io:
        original = io.read()
        original_electrodes = original.electrodes.to_dataframe()
    nwbfile, units, columns, _, electrodes = read(path)
    for name in ("session_description", "session_start_time", "session_id", "institution", "experimenter"):
        assert np.all(getattr(nwbfile, name) == getattr(original, name)), name
    assert nwbfile.lab == "Shire Laboratory"
    assert nwbfile.identifier != original.identifier
    assert nwbfile.devices["array"].description == original.devices["array"].description
    assert nwbfile.devices["array"].manufacturer == original.devices["array"].manufacturer
    assert set(nwbfile.electrode_groups) == set(original.electrode_groups)
    assert nwbfile.electrode_groups["shank2"].location == "brain area"
    assert len(nwbfile.acquisition) == 0
    assert "EXAMPLE_ID" in units.description
    assert list(electrodes.columns) == list(original_electrodes.columns)
    np.testing.assert_array_equal(electrodes["label"], original_electrodes["label"])
    assert [group.name for group in electrodes["group"]] == list(original_electrodes["group_name"])
    template = analyzer.get_extension("templates").get_data("average")
    for unit, rows in enumerate(columns["electrodes"]):
        assert rows == [7, 3, 5]  # the electrodes of the columns of waveform_mean, in their order
        np.testing.assert_allclose(columns["waveform_mean"][unit], template[unit] / 1e6, rtol=1e-5)


def write_source(path):
    """A source with what the tutorial file lacks: a subject, a device model, a position, ragged columns."""
    start = datetime(2024, 5, 31, 14, 30, tzinfo=timezone.utc)
    nwbfile = pynwb.NWBFile("a session", "source", start, notes="a note")
    nwbfile.subject = pynwb.file.Subject(subject_id="r2", species="Rattus norvegicus", sex="M", age="P50D")
    model = nwbfile.create_device_model(name="P12", manufacturer="Probes", description="twelve contacts")
    device = nwbfile.create_device(name="probe", description="a probe", model=model)
    nwbfile.add_electrode_column("channel_name", "name of the channel")
    nwbfile.add_electrode_column("tags", "tags of the electrode", index=True)
    for shank in ("left", "right"):
        group = nwbfile.create_electrode_group(
            shank, description=shank, location="CA1", device=device, position=(1.0, 2.0, 3.0)
        )
        for i in range(2):
            nwbfile.add_electrode(group=group, location="CA1", channel_name=f"AP{i}", tags=["t"] * (i + 1))
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    return path


def test_source_with_a_subject_and_two_shanks_of_equal_channel_names(tmp_path):
    source = write_source(tmp_path / "source.nwb")
    recording, sorting = si.generate_ground_truth_recording(durations=[1.0], num_channels=2, num_units=2, seed=0)
    sorting = si.NumpySorting.from_sorting(sorting)  # without the main channels of other names
    recording = recording.rename_channels(["AP0", "AP1"])
    analyzer = {}
    for shank in ("left", "right"):
        recording.set_property("group", [shank, shank])
        analyzer[shank] = si.create_sorting_analyzer(sorting, recording, sparse=False)
        analyzer[shank].compute(["random_spikes", "templates"], progress_bar=False)
    path = write_nwb_units(analyzer["right"], tmp_path / "units.nwb", source=source, metadata={"Subject": {"sex": "F"}})
    nwbfile, _, columns, _, electrodes = read(path)
    assert columns["electrodes"] == [[2, 3], [2, 3]]
    assert (nwbfile.subject.subject_id, nwbfile.subject.sex) == ("r2", "F")
    assert nwbfile.devices["probe"].model.manufacturer == "Probes"
    assert nwbfile.electrode_groups["left"].position.item() == (1.0, 2.0, 3.0)
    assert [list(tags) for tags in electrodes["tags"]] == [["t"], ["t", "t"]] * 2
    assert nwbfile.notes == "a note"
    assert serious_messages(path) <= serious_messages(source)

    other = si.create_sorting_analyzer(sorting, recording.rename_channels(["x", "y"]), sparse=False)
    with pytest.raises(ValueError, match=r"source: .* once each, the 2 channels .* from x to y"):
        write_nwb_units(other, tmp_path / "other.nwb", source=source)
    assert not (tmp_path / "other.nwb").exists()


def test_brain_area_of_a_mouse(ground_truth, tmp_path):
    recording, sorting = ground_truth
    in_metadata, in_recording = recording.clone(), recording.clone()
    in_recording.set_property("brain_area", ["CA1"] * 6 + [""] * 6)
    metadata = METADATA | {
        "Subject": METADATA["Subject"] | {"species": "Mus musculus"},
        "ElectrodeGroup": {"location": "VISp", "description": "left"},
    }
    for known, areas in ((in_metadata, ["VISp"] * 12), (in_recording, ["CA1"] * 6 + ["VISp"] * 6)):
        sorting = sorting.select_units(sorting.unit_ids)
        sorting.register_recording(known)
        path = write_nwb_units(sorting, tmp_path / "units.nwb", metadata=metadata, overwrite=True)
        assert serious_messages(path) == set()
        *_, electrodes = read(path)
        assert list(electrodes["location"]) == areas
        assert {(group.location, group.description) for group in electrodes["group"]} == {("VISp", "left")}
    with pytest.raises(ValueError, match=r"ElectrodeGroup has \['area'\]"):
        write_nwb_units(sorting, tmp_path / "bad.nwb", metadata=METADATA | {"ElectrodeGroup": {"area": "VISp"}})


def test_templates_not_in_microvolts(ground_truth, tmp_path):
    recording, sorting = ground_truth
    analyzer = si.create_sorting_analyzer(sorting, recording, sparse=False, return_in_uV=False)
    analyzer.compute(["random_spikes", "templates"], progress_bar=False)
    with pytest.warns(UserWarning, match="return_in_uV=True"):
        path = write_nwb_units(analyzer, tmp_path / "units.nwb", metadata=METADATA)
    _, _, columns, _, _ = read(path)
    assert "waveform_mean" not in columns
    assert len(columns["electrodes"][0]) == 8


def test_bad_input(tmp_path, ground_truth):
    sorting = si.NumpySorting.from_unit_dict({"a": np.array([3, 9])}, 30000.0)
    with pytest.raises(ValueError, match=r"metadata: .*session_start_time"):
        write_nwb_units(sorting, tmp_path / "units.nwb")
    with pytest.raises(ValueError, match=r"metadata: has \['Subjekt'\]"):
        write_nwb_units(sorting, tmp_path / "units.nwb", metadata=METADATA | {"Subjekt": {}})
    with pytest.raises(FileNotFoundError, match="path: there is no folder"):
        write_nwb_units(sorting, tmp_path / "nowhere" / "units.nwb", metadata=METADATA)
    with pytest.raises(FileNotFoundError, match="source: there is no NWB file"):
        write_nwb_units(sorting, tmp_path / "units.nwb", source=tmp_path / "nowhere.nwb")
    with pytest.raises(IsADirectoryError, match="path: "):
        write_nwb_units(sorting, tmp_path, metadata=METADATA, overwrite=True)
    unregistered = ground_truth[1].select_units(ground_truth[1].unit_ids)
    with pytest.raises(ValueError, match=r"sorting_or_analyzer: .*register_recording"):
        write_nwb_units(unregistered, tmp_path / "units.nwb", metadata=METADATA)
    assert os.listdir(tmp_path) == []


def test_existing_file(tmp_path, monkeypatch):
    path = tmp_path / "units.nwb"
    sorting = si.NumpySorting.from_unit_dict({"a": np.array([3, 9])}, 30000.0)
    write_nwb_units(sorting, path, metadata=METADATA)
    written = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_nwb_units(sorting, path, metadata=METADATA)
    with pytest.raises(ValueError, match=r"path: .* is the source"):
        write_nwb_units(sorting, path, source=path, overwrite=True)

    def fail_half_way(io, nwbfile):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(dlvolt.io.nwb_units.NWBHDF5IO, "write", fail_half_way)
        with pytest.raises(OSError, match="disk full"):
            write_nwb_units(sorting, path, metadata=METADATA, overwrite=True)
    assert path.read_bytes() == written
    assert os.listdir(tmp_path) == ["units.nwb"]

    other = si.NumpySorting.from_unit_dict({"b": np.array([4])}, 30000.0)
    old_file = path.stat().st_ino
    write_nwb_units(other, path, metadata=METADATA, overwrite=True)
    assert path.stat().st_ino != old_file  # put in its place, not written over
    assert list(read_nwb_sorting(path).unit_ids) == ["b"]
    assert os.listdir(tmp_path) == ["units.nwb"]


def test_importing_dlvolt_stays_light():
    heavy = ("pynwb", "spikeinterface", "neo", "torch")
    code = f"import sys, dlvolt.io; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def sorted_late():
    """What the sorter returns: units with fdr and label, of two segments, the first of which starts at 1,000.5 s."""
    recording, sorting = si.generate_ground_truth_recording(durations=[4.0, 3.0], num_channels=4, num_units=3, seed=1)
    recording.shift_times(1000.5, segment_index=0)
    sorting.register_recording(recording)
    sorting.set_property("fdr", np.array([0.0, 0.02, 0.2], dtype="float32"))
    sorting.set_property("label", np.array(["good", "good", "mua"]))
    sorting.set_property("few", np.array([0, 1, 1]))
    sorting.set_property("rp_contamination", np.array([0.0, 1.0, 1.0]))
    sorting.annotate(set_aside=[[0, 1.0, 1.25, "saturation"], [1, 0.5, 0.75, "movement"]])
    return recording, sorting


def test_what_the_sorter_says_of_units_and_times(sorted_late, tmp_path):
    _, sorting = sorted_late
    path = write_nwb_units(sorting, tmp_path / "units.nwb", metadata=METADATA)
    nwbfile, _, values, descriptions, _ = read(path)
    np.testing.assert_allclose(values["fdr"], [0.0, 0.02, 0.2])
    assert list(values["label"]) == ["good", "good", "mua"]
    assert "decoys" in descriptions["fdr"]
    assert "no single neuron" in descriptions["label"]
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        invalid = io.read().invalid_times.to_dataframe()
    np.testing.assert_allclose(invalid["start_time"], [1001.5, 1005.0])  # segments follow each other
    np.testing.assert_allclose(invalid["stop_time"], [1001.75, 1005.25])
    assert [list(tags) for tags in invalid["tags"]] == [["saturation"], ["movement"]]
    found = nwbinspector.inspect_nwbfile(nwbfile_path=str(path))
    assert "check_column_binary_capability" not in {message.check_function_name for message in found}
    assert serious_messages(path) == set()
    assert nwbfile is not None


def seconds(sorting, segments, starts):
    """The spike times of each unit (s), where its segments start at these times."""
    fs = sorting.sampling_frequency
    return [
        np.concatenate([sorting.get_unit_spike_train(unit, segment) / fs + starts[segment] for segment in segments])
        for unit in sorting.unit_ids
    ]


def test_pandas_reads_segments_to_the_sample(sorted_late, tmp_path):
    _, sorting = sorted_late
    path = write_nwb_units(sorting, tmp_path / "units.nwb", metadata=METADATA)
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        table = io.read().units.to_dataframe()
    for found, times in zip(table["spike_times"], seconds(sorting, (0, 1), (1000.5, 1004.5)), strict=True):
        np.testing.assert_allclose(found, times, rtol=0, atol=1e-9)


def test_neo_reads_one_segment_to_the_sample(sorted_late, tmp_path):
    """Of several it says that it cannot yet handle several observation intervals."""
    recording, sorting = sorted_late
    trains = {unit: sorting.get_unit_spike_train(unit, segment_index=0) for unit in sorting.unit_ids}
    first = si.NumpySorting.from_unit_dict([trains], sorting.sampling_frequency)
    first.set_property("label", sorting.get_property("label"))
    first.register_recording(recording.select_segments([0]))
    path = write_nwb_units(first, tmp_path / "units.nwb", metadata=METADATA)
    (block,) = neo.NWBIO(str(path), mode="r").read_all_blocks()
    found = block.segments[0].spiketrains
    for train, times in zip(found, seconds(sorting, (0,), (1000.5,)), strict=True):
        np.testing.assert_allclose(train.rescale("s").magnitude, times, rtol=0, atol=1e-9)
