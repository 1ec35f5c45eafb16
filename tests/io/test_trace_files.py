from datetime import datetime, timezone

import h5py
import numpy as np
import pandas as pd
import pytest
import spikeinterface as si
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries
from scipy.io import savemat

from dlvolt.io import read_label_file, read_trace_file, read_traces, traces_to_recording
from dlvolt.io.streams import SeveralStreams

TRACES = np.random.default_rng(0).normal(size=(50, 3))


def save_csv(path, array, header=""):
    np.savetxt(path, array, delimiter=",", header=header, comments="")


def save_mat_7_3(path, **variables):
    """Write as MATLAB does: HDF5 behind a header, axes in reverse order, a class for each variable."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in variables.items():
            array = np.atleast_2d(array)
            file.create_dataset(name, data=array.T, chunks=True, compression="gzip")
            file[name].attrs["MATLAB_class"] = np.bytes_(
                {"float64": "double", "float32": "single"}.get(array.dtype.name, array.dtype.name)
            )
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


SAVE = {
    ".npy": np.save,
    ".npz": lambda path, array: np.savez(path, anything=array),
    ".csv": save_csv,
    ".mat": lambda path, array: savemat(path, {"anything": array}, do_compression=True),
    "_7_3.mat": lambda path, array: save_mat_7_3(path, anything=array),
}


@pytest.mark.parametrize("traces", [TRACES, TRACES[:, 0], TRACES.astype("float32"), (100 * TRACES).astype("int16")])
@pytest.mark.parametrize("suffix", SAVE)
def test_arrays_come_back(tmp_path, traces, suffix):
    path = tmp_path / f"traces{suffix}"
    SAVE[suffix](path, traces)
    recording = read_traces(path, sampling_frequency=400.0)
    columns = traces.reshape(50, -1)
    np.testing.assert_array_equal(recording.get_traces(), columns)
    assert recording.sampling_frequency == 400.0
    assert recording.get_annotation("modality") is None  # they may be of anything
    assert list(recording.channel_ids) == list(range(recording.get_num_channels()))
    assert suffix == ".csv" or recording.get_dtype() == traces.dtype

    recording = traces_to_recording(path, 400.0, t_start=2.0)
    recording.dump_to_json(tmp_path / "recording.json")
    loaded = si.load(tmp_path / "recording.json")
    last = loaded.channel_ids[-1:]
    chunk = loaded.get_traces(start_frame=7, end_frame=20, channel_ids=last)
    np.testing.assert_array_equal(chunk, columns[7:20, -1:])
    assert (loaded.get_start_time(), loaded.get_annotation("modality")) == (2.0, "optical")


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_layout(tmp_path, order):
    np.save(tmp_path / "traces.npy", np.asarray(TRACES, dtype=">f4", order=order))
    recording = traces_to_recording(tmp_path / "traces.npy", 400.0)
    assert recording.get_traces().dtype.str == recording.get_dtype().str == "<f4"  # torch takes no other
    np.testing.assert_array_equal(recording.get_traces(channel_ids=[2, 0]), TRACES[:, [2, 0]].astype("f4"))


@pytest.mark.parametrize("traces", [TRACES, TRACES[:, 0], TRACES.astype("float32"), (100 * TRACES).astype("int16")])
def test_arrays_in_memory(traces):
    recording = traces_to_recording(traces, 400.0, t_start=2.0)
    assert isinstance(recording, si.NumpyRecording)
    np.testing.assert_array_equal(recording.get_traces(), traces.reshape(50, -1))
    assert (recording.get_dtype(), recording.get_start_time()) == (traces.dtype, 2.0)
    assert recording.get_annotation("modality") == "optical"
    assert not recording.has_probe()


def test_what_is_known_of_the_rois(tmp_path):
    np.save(tmp_path / "traces.npy", TRACES)
    positions_um = np.array([[10.0, 20.0], [30.0, 5.0], [0.0, 0.0]])
    known = dict(
        roi_ids=np.array(["a", "b", "c"]), positions_um=positions_um, value="delta_f_over_f", indicator="JEDI-2P"
    )
    from_file = traces_to_recording(tmp_path / "traces.npy", 400.0, **known)
    from_file.dump_to_json(tmp_path / "recording.json")
    for recording in (traces_to_recording(TRACES, 400.0, **known), from_file, si.load(tmp_path / "recording.json")):
        assert recording.channel_ids.tolist() == ["a", "b", "c"]
        np.testing.assert_array_equal(recording.get_property("centroid"), positions_um)
        np.testing.assert_array_equal(recording.get_channel_locations(), positions_um)
        assert recording.get_property("centroid_unit").tolist() == ["um"] * 3
        annotations = dict(modality="optical", imaging_rate_hz=400.0, value="delta_f_over_f", indicator="JEDI-2P")
        assert {name: recording.get_annotation(name) for name in annotations} == annotations


def test_nan_is_allowed(tmp_path):
    traces = TRACES.copy()
    traces[5:9, 1] = np.nan
    np.save(tmp_path / "traces.npy", traces)
    for source in (traces, tmp_path / "traces.npy"):
        np.testing.assert_array_equal(traces_to_recording(source, 400.0).get_traces(), traces)


@pytest.mark.parametrize("suffix", [".npy", "_7_3.mat"])
def test_worker_processes(tmp_path, suffix):
    SAVE[suffix](tmp_path / f"traces{suffix}", TRACES)
    recording = traces_to_recording(tmp_path / f"traces{suffix}", 400.0)
    settings = dict(n_jobs=2, chunk_size=16, mp_context="fork", verbose=False)
    np.testing.assert_array_equal(recording.save(folder=tmp_path / "saved", **settings).get_traces(), TRACES)


@pytest.mark.parametrize("save", [savemat, lambda path, variables: save_mat_7_3(path, **variables)])
def test_variables_of_matlab(tmp_path, save):
    path = tmp_path / "session.mat"
    save(path, {"dff": TRACES, "rate": np.array([400.0])})
    with pytest.raises(ValueError, match=r"stream_name: .* has several arrays; choose one of .*'dff' \(50, 3\)"):
        traces_to_recording(path, 400.0)
    np.testing.assert_array_equal(read_trace_file(path, 400.0, stream_name="dff").get_traces(), TRACES)
    save(path, {"channel": np.array([1.0, 0.0]), "time_s": np.array([0.5, 0.25])})
    assert [times.tolist() for times in read_label_file(path, 2)] == [[0.25], [0.5]]
    save(path, {"masks": (TRACES > 0).astype("uint8")})
    np.testing.assert_array_equal(read_label_file(path, 3), TRACES > 0)


def test_a_vector_in_a_mat_file_that_matlab_has_not_written(tmp_path):
    with h5py.File(tmp_path / "trace.mat", "w") as file:
        file["trace"] = TRACES[:, 0]  # MATLAB gives all arrays two axes
    np.testing.assert_array_equal(read_trace_file(tmp_path / "trace.mat", 400.0).get_traces(), TRACES[:, :1])


def test_columns_of_a_csv_name_the_channels(tmp_path):
    save_csv(tmp_path / "traces.csv", TRACES, "soma,dendrite,axon")
    recording = read_traces(tmp_path / "traces.csv", sampling_frequency=1000.0)
    assert list(recording.channel_ids) == ["soma", "dendrite", "axon"]
    np.testing.assert_array_equal(recording.get_traces(), TRACES)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("1.0,2.0", [1.0, 2.0]),
        ("1.0,", [1.0, np.nan]),
        (",2.0", [np.nan, 2.0]),
        ("NA,2.0", [np.nan, 2.0]),
        ("\ufeff1.0,2.0", [1.0, 2.0]),  # as Excel writes
        ("1e3, -inf", [1000.0, -np.inf]),
    ],
)
def test_a_first_line_of_numbers_is_kept(tmp_path, first, expected):
    (tmp_path / "a.csv").write_text(f"{first}\n3.0,4.0\n5.0,6.0\n", encoding="utf-8")
    recording = traces_to_recording(tmp_path / "a.csv", 400.0)
    np.testing.assert_array_equal(recording.get_traces(), [expected, [3, 4], [5, 6]])
    assert recording.channel_ids.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("time,a\n0.0,1\n0.1,2\n", "traces: .*a.csv has the column 'time', which is no trace; leave it out"),
        ("Frame,a\n0,1\n1,2\n", "traces: .*a.csv has the column 'Frame'"),
        ("time_s,a\n0.0,1\n0.1,2\n", "traces: .*a.csv has the column 'time_s'"),
        ("a,b,a\n0,1,2\n0,1,2\n0,1,2\n", "roi_ids: must be a different name for each of the 3 ROIs"),
        (",a\n0,1\n1,2\n", "traces: .*a.csv cannot be read as .csv: .* name all columns or none"),
        ("a,b\n0,1,2\n0,1,2\n", "traces: .*a.csv cannot be read as .csv: it has more columns than names"),
    ],
)
def test_tables_that_would_be_misread(tmp_path, text, error):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=error):
        traces_to_recording(tmp_path / "a.csv", 400.0)


def test_a_trace_called_t_that_is_no_time(tmp_path):
    (tmp_path / "a.csv").write_text("T,b\n1.0,2.0\n0.5,3.0\n")
    assert traces_to_recording(tmp_path / "a.csv", 400.0).channel_ids.tolist() == ["T", "b"]


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".mat"])
def test_suffixes_in_capitals(tmp_path, suffix):
    SAVE[suffix](tmp_path / f"a{suffix}", TRACES)
    path = (tmp_path / f"a{suffix}").rename(tmp_path / f"b{suffix.upper()}")
    np.testing.assert_array_equal(read_traces(path, sampling_frequency=400.0).get_traces(), TRACES)


def test_a_missing_file_is_named_by_the_argument():
    with pytest.raises(FileNotFoundError, match=r"^path: there is no file nowhere.npy"):
        read_trace_file("nowhere.npy", 400.0)


def test_one_of_several_arrays(shared_data):
    path = shared_data / "voltage" / "volpy_l1_neuron.npz"
    with pytest.raises(ValueError, match=r"stream_name: .*choose one of 'trace' \(20000,\); 'volpy_spike_frames'"):
        read_traces(path, sampling_frequency=400.0)
    with pytest.raises(ValueError, match=r"stream_name: there is no 'traces' .* it has 'trace'"):
        read_traces(path, sampling_frequency=400.0, stream_name="traces")
    recording = read_traces(path, sampling_frequency=400.0, stream_name="trace")
    assert recording.get_traces().shape == (20_000, 1)


def write_nwb(path, *names):
    nwbfile = NWBFile("a mouse", "recording-1", datetime(2024, 5, 31, tzinfo=timezone.utc))
    plane = nwbfile.create_imaging_plane(
        name="plane",
        description="a plane",
        device=nwbfile.create_device(name="microscope", description="a microscope"),
        optical_channel=OpticalChannel(name="green", description="green light", emission_lambda=520.0),
        excitation_lambda=488.0,
        indicator="ASAP3",
        location="V1",
    )
    module = nwbfile.create_processing_module("ophys", "optical physiology")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    rois = segmentation.create_plane_segmentation("all cells", plane, name="cells")
    for _ in range(3):
        rois.add_roi(image_mask=np.ones((2, 2)))
    for name in names:
        region = rois.create_roi_table_region("all cells", region=[0, 1, 2])
        series = RoiResponseSeries(name=name, data=TRACES, unit="a.u.", rois=region, rate=500.0, starting_time=2.0)
        if "Fluorescence" not in module.data_interfaces:
            module.add(Fluorescence())
        module["Fluorescence"].add_roi_response_series(series)
    nwbfile.add_acquisition(TimeSeries(name="wheel", data=np.zeros(50), unit="m/s", rate=500.0))
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    return path


def test_the_only_roi_response_series_is_found(tmp_path):
    recording = read_traces(write_nwb(tmp_path / "a.nwb", "Voltage"))
    np.testing.assert_array_equal(recording.get_traces(), TRACES)
    assert (recording.sampling_frequency, recording.get_start_time()) == (500.0, 2.0)


def test_several_series_are_listed(tmp_path):
    path = write_nwb(tmp_path / "a.nwb", "Voltage", "Reference")
    listed = "'processing/ophys/Fluorescence/Reference', 'processing/ophys/Fluorescence/Voltage'"
    with pytest.raises(
        SeveralStreams, match=rf"stream_name: .* several series; choose one of {listed}\.$".replace(",", ";")
    ):
        read_traces(path)
    with pytest.raises(ValueError, match=rf"stream_name: there is no 'Light' in .*; it has {listed}"):
        read_traces(path, stream_name="Light")
    for name in ("processing/ophys/Fluorescence/Voltage", "Voltage"):
        assert read_traces(path, stream_name=name).get_num_channels() == 3


def test_real_nwb_files(shared_data):
    rois = read_traces(
        shared_data / "nwb" / "ophys_roi_response_series.nwb",
        stream_name="processing/ophys/Fluorescence/RoiResponseSeries",
    )
    assert rois.get_traces().shape == (250, 15)
    assert rois.sampling_frequency == pytest.approx(10.0)
    with pytest.raises(ValueError, match=r"choose one of .*'acquisition/ElectricalSeries'"):
        read_traces(shared_data / "nwb" / "ecephys_tutorial_v2.5.0.nwb")


def test_folders(shared_data, tmp_path):
    with pytest.warns(UserWarning, match="vertical line"):
        recording = read_traces(shared_data / "open_ephys" / "legacy_2ch_40khz")
    assert recording.get_num_channels() == 2
    recording = read_traces(shared_data / "open_ephys" / "legacy_2ch_40khz", probe="linear:30")
    assert recording.get_channel_locations()[:, 1].tolist() == [0, 30]
    saved = si.NumpyRecording([TRACES], 400.0).save(folder=tmp_path / "saved", verbose=False)
    recording = read_traces(tmp_path / "saved")
    np.testing.assert_array_equal(recording.get_traces(), saved.get_traces())
    assert not recording.has_probe()
    assert read_traces(tmp_path / "saved", probe="linear").has_probe()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", TRACES)
    np.save("across.npy", TRACES.T)
    np.save("cube.npy", np.zeros((3, 3, 3)))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("objects.npy", np.array([None, {}]), allow_pickle=True)
    np.savez("none.npz")
    np.savez("two.npz", a=np.zeros(3), b=np.zeros(3))
    np.save("nothing.npy", np.zeros((0, 3)))
    savemat("across.mat", {"traces": TRACES.T})
    save_mat_7_3("across_7_3.mat", traces=TRACES.T)
    with h5py.File("empty_7_3.mat", "w") as file:
        file["traces"] = np.array([0, 3], "uint64")  # the shape of zeros(0, 3)
        file["traces"].attrs["MATLAB_empty"] = np.uint8(1)
    savemat("cells.mat", {"traces": np.array([TRACES, "a"], dtype=object)})
    savemat("whole.mat", {"traces": TRACES}, do_compression=True)
    (tmp_path / "broken.mat").write_bytes((tmp_path / "whole.mat").read_bytes()[:500])
    (tmp_path / "text.mat").write_text("traces")
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    (tmp_path / "named.csv").write_text("roi,time_s\n0,0.25\n1,0.5\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "empty.npy").write_text("")
    np.savez("whole.npz", TRACES)
    (tmp_path / "broken.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    (tmp_path / "notes.txt").write_text("notes")
    write_nwb(tmp_path / "series.nwb")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "settings", "error"),
    [
        ("good.npy", {"sampling_frequency": None}, "sampling_frequency: good.npy does not tell how many"),
        ("good.npy", {"sampling_frequency": -1}, "sampling_frequency: must be positive, in Hz, not -1"),
        ("good.npy", {"stream_name": "trace"}, "stream_name: good.npy holds one array; leave it out"),
        ("across.npy", {}, "source: across.npy has 50 traces of 3 samples; transpose it"),
        ("cube.npy", {}, r"source: cube.npy must hold numbers of shape .* not float64 of shape \(3, 3, 3\)"),
        ("words.npy", {}, "source: words.npy must hold numbers"),
        ("objects.npy", {}, "source: objects.npy cannot be read as .npy: .*objects"),
        ("none.npz", {}, "source: none.npz holds no arrays"),
        ("nothing.npy", {}, "source: nothing.npy "),
        ("across.mat", {}, "source: across.mat has 50 traces of 3 samples; transpose it"),
        ("across_7_3.mat", {}, "source: across_7_3.mat has 50 traces of 3 samples; transpose it"),
        ("empty_7_3.mat", {}, r"source: empty_7_3.mat must hold numbers .* of shape \(0, 3\)"),
        ("cells.mat", {}, "source: cells.mat must hold numbers of shape .*, not object"),
        ("broken.mat", {}, "source: broken.mat cannot be read as .mat: "),
        ("text.mat", {}, "source: text.mat cannot be read as .mat: "),
        ("words.csv", {}, "source: words.csv must hold numbers"),
        ("empty.csv", {}, "source: empty.csv cannot be read as .csv"),
        ("empty.npy", {}, "source: empty.npy cannot be read as .npy"),
        ("broken.npz", {}, "source: broken.npz cannot be read as .npz"),
        ("notes.txt", {"sampling_frequency": None}, "source: notes.txt is neither an NWB file nor one of .npy, .npz"),
        ("series.nwb", {}, "sampling_frequency: series.nwb tells its own; leave it out"),
        ("series.nwb", {"sampling_frequency": None}, "source: series.nwb has neither a RoiResponseSeries nor an"),
        ("nowhere.npy", {}, "source: nowhere.npy does not exist"),
        (".", {"sampling_frequency": None}, "source: . is neither an Open Ephys folder nor"),
    ],
)
def test_bad_sources(folder, source, settings, error):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        read_traces(source, **{"sampling_frequency": 400.0} | settings)


@pytest.mark.parametrize(
    ("traces", "settings", "error"),
    [
        (TRACES.T, {}, "traces: the array has 50 traces of 3 samples; transpose it"),
        (np.zeros((0, 3)), {}, r"traces: the array must hold numbers .* of shape \(0, 3\)"),
        (np.zeros(0), {}, r"traces: the array must hold numbers .* of shape \(0,\)"),
        (np.zeros((3, 3, 3)), {}, r"traces: the array must hold numbers .* of shape \(3, 3, 3\)"),
        (TRACES.astype(object), {}, "traces: the array must hold numbers .* not object"),
        (TRACES.astype(complex), {}, "traces: the array must hold numbers .* not complex128"),
        (np.array(["a", "b"]), {}, "traces: the array must hold numbers"),
        (TRACES, {"sampling_frequency": 0}, "sampling_frequency: must be positive, in Hz, not 0"),
        (TRACES, {"stream_name": "trace"}, "stream_name: is for files; leave it out"),
        (
            TRACES,
            {"roi_ids": ["a", "b"]},
            r"roi_ids: must be a different name for each of the 3 ROIs, not \['a', 'b'\]",
        ),
        (TRACES, {"roi_ids": [1, 1, 2]}, "roi_ids: must be a different name"),
        (TRACES, {"positions_um": np.zeros((3, 3))}, r"positions_um: must be x and y .* of shape \(3, 2\)"),
        (TRACES, {"positions_um": [[0, np.nan]] * 3}, "positions_um: must be x and y"),
        (TRACES, {"value": "volts"}, "value: must be 'fluorescence', 'delta_f_over_f' or None, not 'volts'"),
        ("nowhere.npy", {}, "traces: there is no file nowhere.npy"),
        (TRACES, {"sampling_frequency": None}, "sampling_frequency: must be positive, in Hz, not None"),
        (TRACES, {"sampling_frequency": "500"}, "sampling_frequency: must be positive, in Hz, not '500'"),
        (pd.DataFrame(TRACES, columns=["a", "b", "a"]), {}, "roi_ids: must be a different name"),
        (pd.DataFrame({"t (s)": np.arange(9) / 400, "a": 0.0}), {}, r"traces: the table has the column 't \(s\)'"),
    ],
)
def test_bad_traces(traces, settings, error):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        traces_to_recording(traces, **{"sampling_frequency": 400.0} | settings)


def test_columns_of_a_table_in_memory():
    table = pd.DataFrame(TRACES, columns=["soma", "dendrite", "axon"])
    assert traces_to_recording(table, 400.0).channel_ids.tolist() == ["soma", "dendrite", "axon"]
    assert traces_to_recording(table, 400.0, roi_ids=[1, 2, 3]).channel_ids.tolist() == [1, 2, 3]


def test_spike_tables(tmp_path):
    channel, time_s = np.array([1, 0, 1]), np.array([0.3, 0.2, 0.1])
    (tmp_path / "spikes.csv").write_text("time_s,channel\n0.3,1\n0.2,0\n0.1,1\n")
    np.savez(tmp_path / "spikes.npz", channel=channel, time_s=time_s)
    for name in ("spikes.csv", "spikes.npz"):
        labels = read_label_file(tmp_path / name, 3)
        assert [times.tolist() for times in labels] == [[0.2], [0.1, 0.3], []]
        with pytest.raises(ValueError, match=r"labels: .* has spikes on channel 1; the traces are 0 to 0"):
            read_label_file(tmp_path / name, 1)


def test_label_arrays(tmp_path):
    masks = (np.arange(12).reshape(4, 3) % 2).astype(bool)
    np.save(tmp_path / "masks.npy", masks)
    np.savez(tmp_path / "masks.npz", labels=masks)
    save_csv(tmp_path / "masks.csv", masks)
    for suffix in ("npy", "npz", "csv"):
        np.testing.assert_array_equal(read_label_file(tmp_path / f"masks.{suffix}", 3), masks)
    save_csv(tmp_path / "times.csv", [0.1, 0.25], "time_s")
    np.testing.assert_array_equal(read_label_file(tmp_path / "times.csv", 1), [0.1, 0.25])


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere.csv", "labels: there is no file nowhere.csv"),
        ("notes.txt", "labels: notes.txt must be one of .npy, .npz, .csv"),
        ("words.csv", "labels: words.csv must hold the columns channel and time_s, or 0 and 1"),
        ("named.csv", "labels: named.csv has the columns roi, time_s; it must have channel and time_s, or 0 and 1"),
        ("broken.npz", "labels: broken.npz cannot be read"),
        ("none.npz", "labels: none.npz holds no arrays"),
        ("two.npz", r"labels: two.npz holds 'a' \(3,\), 'b' \(3,\); leave one, or 'channel' and 'time_s'"),
    ],
)
def test_bad_labels(folder, name, error):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        read_label_file(name, 3)
