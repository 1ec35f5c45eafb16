import warnings
from datetime import datetime, timezone

import h5py
import numpy as np
import pytest
import spikeinterface as si
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries

from dlvolt.io import read_recording, read_traces

TRACES = np.random.default_rng(0).integers(-500, 500, size=(200, 4)).astype("int16")
LINE = np.column_stack([np.zeros(4), 30.0 * np.arange(4)])


def write_nwb(path, locations, series_names=("ElectricalSeries",)):
    nwbfile = NWBFile("a test", "test", datetime(2024, 5, 31, tzinfo=timezone.utc))
    device = nwbfile.create_device(name="probe", description="a probe")
    group = nwbfile.create_electrode_group("shank", description="a shank", location="unknown", device=device)
    for i in range(4):
        position = {} if locations is None else {"rel_x": locations[i, 0], "rel_y": locations[i, 1]}
        nwbfile.add_electrode(group=group, location="unknown", **position)
    region = nwbfile.create_electrode_table_region([0, 1, 2, 3], "all electrodes")
    for name in series_names:
        region = nwbfile.create_electrode_table_region([0, 1, 2, 3], "all electrodes")
        series = ElectricalSeries(
            name=name, data=TRACES, electrodes=region, rate=30000.0, starting_time=2.0, conversion=2e-7
        )
        nwbfile.add_acquisition(series)
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    return path


def test_nwb(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", LINE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        recording = read_recording(path)
    np.testing.assert_array_equal(recording.get_traces(), TRACES)
    np.testing.assert_allclose(recording.get_traces(return_in_uV=True), TRACES * 0.2, rtol=1e-6)
    np.testing.assert_array_equal(recording.get_channel_locations(), LINE)
    assert recording.get_start_time() == 2.0

    recording = read_recording(path, probe="linear:5")  # the caller knows better
    np.testing.assert_array_equal(recording.get_channel_locations()[:, 1], [0, 5, 10, 15])


@pytest.mark.parametrize("locations", [None, np.full((4, 2), np.nan), np.zeros((4, 2))], ids=["none", "nan", "same"])
def test_nwb_without_usable_locations(tmp_path, locations):
    path = write_nwb(tmp_path / "a.nwb", locations)
    with pytest.warns(UserWarning, match="on a vertical line 20 µm apart") as caught:
        recording = read_recording(path)
    assert len([w for w in caught if w.category is UserWarning]) == 1
    np.testing.assert_array_equal(recording.get_channel_locations()[:, 1], [0, 20, 40, 60])
    np.testing.assert_array_equal(recording.channel_ids, [0, 1, 2, 3])
    recording.dump_to_json(tmp_path / "recording.json")
    for opened in (recording, si.load(tmp_path / "recording.json")):  # as a sorter's process opens it
        np.testing.assert_allclose(opened.get_traces(return_in_uV=True), TRACES * 0.2, rtol=1e-6)
        assert opened.get_start_time() == 2.0


def test_nwb_with_several_series(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", LINE, ["AP", "LFP"])
    with pytest.raises(ValueError, match=r"stream_name: .*'acquisition/AP'; 'acquisition/LFP'"):
        read_recording(path)
    with pytest.raises(ValueError, match=r"stream_name: there is no 'P' .*'acquisition/AP'"):
        read_recording(path, stream_name="P")
    assert read_recording(path, stream_name="acquisition/AP").get_num_channels() == 4


def test_nwb_without_recording(shared_data):
    with pytest.raises(ValueError, match=r"source: .* has no ElectricalSeries"):
        read_recording(shared_data / "nwb" / "ophys_roi_response_series.nwb")


def test_nwb_whose_data_do_not_fit_its_electrodes(shared_data):
    path = shared_data / "nwb" / "ecephys_tutorial_v2.5.0.nwb"
    with pytest.raises(ValueError, match=r"source: .*4 columns of data for 12 electrodes"):
        read_recording(path, stream_name="acquisition/ElectricalSeries")


def test_open_ephys(shared_data):
    recording = read_recording(shared_data / "open_ephys" / "legacy_2ch_40khz", probe="linear")
    assert recording.get_num_samples() == 423936


def test_spikeinterface_folder(tmp_path):
    recording, sorting = si.generate_ground_truth_recording(durations=[0.2], num_channels=4, num_units=2, seed=0)
    recording.save(folder=tmp_path / "recording", verbose=False)
    loaded = read_recording(tmp_path / "recording")
    np.testing.assert_array_equal(loaded.get_traces(), recording.get_traces())
    np.testing.assert_array_equal(loaded.get_channel_locations(), recording.get_channel_locations())
    with pytest.raises(ValueError, match=r"stream_name: .* has only one stream"):
        read_recording(tmp_path / "recording", stream_name="AP")
    sorting.save(folder=tmp_path / "sorting")
    with pytest.raises(ValueError, match=r"source: .* not a recording"):
        read_recording(tmp_path / "sorting")


def test_unknown_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"source: .*nowhere.nwb does not exist"):
        read_recording(tmp_path / "nowhere.nwb")
    with pytest.raises(ValueError, match=r"source: .* is neither"):
        read_recording(tmp_path)
    (tmp_path / "not.nwb").write_text("not HDF5")
    with pytest.raises(ValueError, match=r"source: .* is not an NWB file"):
        read_recording(tmp_path / "not.nwb")


def test_a_series_may_be_named_by_its_end(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", LINE, ["A", "B", "BB"])
    assert read_recording(path, stream_name="B").get_annotation("reader") == "read_nwb_recording"
    assert read_traces(path, stream_name="B").get_num_channels() == 4
    with pytest.raises(ValueError, match=r"stream_name: there is no 'C' .*'acquisition/A', 'acquisition/B'"):
        read_recording(path, stream_name="C")


def replaced(group, name, value):
    del group[name]
    group[name] = value


MALFORMED = {
    "a group where data should be": (lambda s: (s.pop("data"), s.create_group("data")), "has no data of shape"),
    "no data": (lambda s: s.pop("data"), "has no data of shape"),
    "text as data": (lambda s: replaced(s, "data", ["a", "b"]), "has no data of shape"),
    "no samples": (lambda s: replaced(s, "data", np.zeros((0, 4))), "has no data of shape"),
    "too many axes": (lambda s: replaced(s, "data", np.zeros((9, 4, 2))), "has no data of shape"),
    "transposed": (lambda s: replaced(s, "data", TRACES.T), "has 200 columns of data for 4 electrodes; .* transposed"),
    "a rate of text": (lambda s: s["starting_time"].attrs.create("rate", "fast"), "has a rate which is no positive"),
    "several rates": (lambda s: s["starting_time"].attrs.create("rate", [1.0, 2.0]), "has a rate which is no positive"),
    "no rate": (lambda s: s["starting_time"].attrs.pop("rate"), "has a rate which is no positive number, None"),
    "a rate of 0": (lambda s: s["starting_time"].attrs.create("rate", 0.0), "has a rate which is no positive"),
    "no time": (lambda s: s.pop("starting_time"), "has neither a rate nor a timestamp"),
    "no electrodes": (lambda s: s.pop("electrodes"), "does not tell which rows of the electrodes table"),
    "other electrodes": (lambda s: s["electrodes"].write_direct(np.arange(4) + 9), "does not tell which rows"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_nwb_is_one_line_that_names_the_series(tmp_path, kind):
    path = write_nwb(tmp_path / "a.nwb", LINE)
    spoil, error = MALFORMED[kind]
    with h5py.File(path, "a") as file:
        spoil(file["acquisition/ElectricalSeries"])
    for read in (read_recording, read_traces):
        with pytest.raises(ValueError, match=rf"source: 'acquisition/ElectricalSeries' in .*a.nwb {error}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.99, 0.5, 0.1])
def test_truncated_nwb_is_one_line(tmp_path, kept):
    path = write_nwb(tmp_path / "a.nwb", LINE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    for read in (read_recording, read_traces):
        with pytest.raises(ValueError, match=r"source: HDF5 cannot read .*a.nwb, which may be damaged or not whole"):
            read(path)
