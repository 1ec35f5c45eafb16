import shutil
import warnings
from datetime import datetime, timezone

import h5py
import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ophys import (
    DfOverF,
    Fluorescence,
    ImageSegmentation,
    OpticalChannel,
    RoiResponseSeries,
)

from dlvolt.io import read_recording, read_traces, read_voltage_imaging
from dlvolt.io.voltage_imaging import VoltageImagingRecording

TRACES = np.random.default_rng(0).normal(100, 10, size=(60, 3)).astype("float32")
MASKS = [[(1, 2, 1.0), (3, 2, 1.0)], [(10, 20, 1.0), (14, 20, 3.0)], [(5, 6, 0.5), (5, 8, 0.5), (30, 30, 0.0)]]
CENTROIDS = np.array([[2.0, 2.0], [13.0, 20.0], [5.0, 7.0]])  # x, y, in pixels
PATH = "processing/ophys/Fluorescence/Voltage"


def session(container=Fluorescence, masks="pixel_mask", spacing=(0.5, 0.5), spacing_unit="micrometers"):
    """A session with a table of three ROIs."""
    nwbfile = NWBFile("a mouse", "recording-1", datetime(2024, 5, 31, 12, tzinfo=timezone.utc))
    plane = nwbfile.create_imaging_plane(
        name="layer 2",
        description="a plane",
        device=nwbfile.create_device(name="microscope", description="a microscope"),
        optical_channel=OpticalChannel(name="green", description="green light", emission_lambda=520.0),
        excitation_lambda=488.0,
        indicator="ASAP3",
        imaging_rate=480.0,
        location="V1",
        **({} if spacing is None else dict(grid_spacing=list(spacing), grid_spacing_unit=spacing_unit)),
    )
    module = nwbfile.create_processing_module("ophys", "optical physiology")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    table = segmentation.create_plane_segmentation("all cells", plane, name="cells")
    for roi_id, mask in zip((11, 7, 9), MASKS, strict=True):
        table.add_roi(id=roi_id, **as_mask(mask, masks))
    if container is not None:
        module.add(container())
    return nwbfile, module, table


def as_mask(mask, kind):
    if kind == "image_mask":
        image = np.zeros((40, 50))  # x, y, as the schema has it
        for x, y, weight in mask:
            image[x, y] = weight
        return {kind: image}
    return {kind: [(x, y, 4, weight) for x, y, weight in mask] if kind == "voxel_mask" else mask}


def series(table, data=TRACES, region=(0, 1, 2), name="Voltage", **kwargs):
    if "timestamps" not in kwargs:
        kwargs = dict(rate=500.0, starting_time=2.0) | kwargs
    rois = table.create_roi_table_region("some cells", region=list(region))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what is wrong on purpose
        return RoiResponseSeries(name=name, data=data, unit="a.u.", rois=rois, **kwargs)


def write(path, nwbfile):
    with NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    return path


def write_one(path, data=TRACES, region=(0, 1, 2), container=Fluorescence, masks="pixel_mask", **kwargs):
    settings = {name: kwargs.pop(name) for name in ("spacing", "spacing_unit") if name in kwargs}
    nwbfile, module, table = session(container, masks, **settings)
    one = series(table, data, region, **kwargs)
    if container is None:
        nwbfile.add_acquisition(one)
    else:
        module[container.__name__].add_roi_response_series(one)
    return write(path, nwbfile)


@pytest.fixture(scope="module")
def nwb_path(tmp_path_factory):
    return write_one(tmp_path_factory.mktemp("nwb") / "one.nwb")


def assert_same(recording, other):
    assert type(other) is type(recording) is VoltageImagingRecording
    np.testing.assert_array_equal(other.get_traces(), recording.get_traces())
    np.testing.assert_array_equal(other.channel_ids, recording.channel_ids)
    np.testing.assert_array_equal(other.get_times(), recording.get_times())
    assert other.sampling_frequency == recording.sampling_frequency
    assert other._annotations == recording._annotations
    assert set(other.get_property_keys()) == set(recording.get_property_keys())
    for key in recording.get_property_keys():
        np.testing.assert_array_equal(other.get_property(key), recording.get_property(key))
    assert other.has_probe() == recording.has_probe()
    if recording.has_probe():
        np.testing.assert_array_equal(other.get_channel_locations(), recording.get_channel_locations())


def test_all_that_the_file_tells(nwb_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording = read_voltage_imaging(nwb_path)
    np.testing.assert_array_equal(recording.get_traces(), TRACES)
    assert recording.get_dtype() == "float32"
    assert (recording.sampling_frequency, recording.get_start_time()) == (500.0, 2.0)
    assert recording.channel_ids.tolist() == [11, 7, 9]
    told = dict(
        reader="read_voltage_imaging",
        modality="optical",
        value="fluorescence",
        indicator="ASAP3",
        imaging_rate_hz=480.0,
        pixel_size_um=0.5,
        session_start_time="2024-05-31T12:00:00+00:00",
        timestamps_reference_time="2024-05-31T12:00:00+00:00",
        nwb_identifier="recording-1",
    )
    assert told.items() <= recording._annotations.items()
    np.testing.assert_allclose(recording.get_property("centroid"), 0.5 * CENTROIDS)
    np.testing.assert_allclose(recording.get_channel_locations(), 0.5 * CENTROIDS)
    assert recording.get_property("centroid_unit").tolist() == ["um"] * 3
    assert recording.get_property("num_pixels").tolist() == [2, 2, 2]
    assert recording.get_property("plane").tolist() == ["layer 2"] * 3
    assert recording.get_property("roi_row").tolist() == [0, 1, 2]


@pytest.mark.parametrize("masks", ["image_mask", "voxel_mask"])
def test_other_masks(tmp_path, masks):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", masks=masks, spacing=(1.0, 2.0)))
    np.testing.assert_allclose(recording.get_property("centroid"), CENTROIDS * [1, 2])
    assert recording.get_annotation("pixel_size_um") == [1.0, 2.0]
    assert recording.get_property("num_pixels").tolist() == [2, 2, 2]


@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3) | st.tuples(*[st.integers(1, 5)] * 4),  # the fourth axis is depth
    block=st.integers(1, 200),
    seed=st.integers(0, 99),
)
def test_image_masks_are_read_by_blocks(shape, block, seed):
    from dlvolt.io.voltage_imaging import _moments_of_images

    masks = np.random.default_rng(seed).uniform(-1, 1, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dlvolt.io.voltage_imaging.BLOCK", block)
        moments = _moments_of_images(masks)
    for row, mask in enumerate(masks):
        x, y, *_ = inside = np.nonzero(mask > 0)
        weight = mask[inside]
        np.testing.assert_allclose(moments[:, row], [len(x), weight.sum(), weight @ x, weight @ y], atol=1e-12)


def test_pixel_masks_are_read_by_blocks(nwb_path, monkeypatch):
    monkeypatch.setattr("dlvolt.io.voltage_imaging.BLOCK", 2)
    np.testing.assert_allclose(read_voltage_imaging(nwb_path).get_property("centroid"), 0.5 * CENTROIDS)


def test_without_the_size_of_a_pixel_there_is_no_probe(tmp_path):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", spacing=None))
    assert not recording.has_probe()
    np.testing.assert_allclose(recording.get_property("centroid"), CENTROIDS)
    assert recording.get_property("centroid_unit").tolist() == ["pixels"] * 3
    assert recording.get_annotation("pixel_size_um") is None


def test_unit_of_the_grid_spacing(tmp_path):
    path = write_one(tmp_path / "a.nwb", spacing=(5e-7, 5e-7), spacing_unit="meters")
    np.testing.assert_allclose(read_voltage_imaging(path).get_channel_locations(), 0.5 * CENTROIDS)
    path = write_one(tmp_path / "b.nwb", spacing=(0.5, 0.5), spacing_unit="meters")  # forgotten
    with pytest.warns(
        UserWarning, match="grid spacing of imaging plane 'layer 2'.*meters, is no width and height"
    ) as caught:
        assert not read_voltage_imaging(path).has_probe()
    assert caught[0].filename == __file__


CELLS = "processing/ophys/ImageSegmentation/cells"


def test_a_group_where_data_should_be(tmp_path):
    path = write_one(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        del file[PATH]["data"]
        file[PATH].create_group("data")
    for read, argument in ((read_voltage_imaging, "path"), (read_traces, "source")):
        with pytest.raises(ValueError, match=rf"^{argument}: '{PATH}' in .*a.nwb has no data of shape"):
            read(path)


def test_an_roi_that_is_there_twice(tmp_path):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", data=TRACES[:, :2], region=(1, 1)))
    assert recording.channel_ids.tolist() == [0, 1]
    assert recording.get_property("roi_row").tolist() == [1, 1]
    assert not recording.has_probe()


def test_an_empty_mask(tmp_path):
    path = write_one(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        file[CELLS]["pixel_mask_index"][:] = [2, 2, 7]
    recording = read_voltage_imaging(path)
    assert recording.get_property("num_pixels").tolist() == [2, 0, 4]
    np.testing.assert_array_equal(np.isnan(recording.get_property("centroid")[:, 0]), [False, True, False])
    assert not recording.has_probe()


def test_some_rows_of_the_table_in_another_order(tmp_path):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", data=TRACES[:, :2], region=(2, 0)))
    assert recording.channel_ids.tolist() == [9, 11]
    assert recording.get_property("roi_row").tolist() == [2, 0]
    np.testing.assert_allclose(recording.get_channel_locations(), 0.5 * CENTROIDS[[2, 0]])


def test_ids_that_are_not_unique_give_way_to_rows(tmp_path):
    path = write_one(tmp_path / "a.nwb", region=(2, 0, 1))
    with h5py.File(path, "a") as file:
        file[CELLS]["id"][:] = 0
    assert read_voltage_imaging(path).channel_ids.tolist() == [2, 0, 1]


@pytest.mark.parametrize("channels", [slice(None), [2, 0], [1], [0, 0, 2], [], None])
def test_chosen_samples_and_channels(nwb_path, channels):
    segment = read_voltage_imaging(nwb_path).segments[0]
    expected = TRACES[7:31, slice(None) if channels is None else channels]
    np.testing.assert_array_equal(segment.get_traces(7, 31, channels), expected)


def test_one_roi_with_data_of_one_dimension(tmp_path):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", data=TRACES[:, 1], region=(1,)))
    np.testing.assert_array_equal(recording.get_traces(start_frame=5, end_frame=9), TRACES[5:9, 1:2])
    assert recording.channel_ids.tolist() == [7]


@pytest.mark.parametrize(("stored", "dtype"), [("int16", "float32"), ("int32", "float64"), (">f4", "float32")])
def test_conversion_and_offset_are_applied(tmp_path, stored, dtype):
    data = np.arange(180).reshape(60, 3).astype(stored)
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", data=data, conversion=0.5, offset=-3.0))
    assert recording.get_dtype() == dtype
    np.testing.assert_array_equal(recording.get_traces(), 0.5 * np.arange(180).reshape(60, 3) - 3)
    recording = read_voltage_imaging(write_one(tmp_path / "b.nwb", data=data))
    assert recording.get_dtype() == np.dtype(stored).newbyteorder("=")
    np.testing.assert_array_equal(recording.get_traces(), data)


@pytest.mark.parametrize(
    ("container", "name", "value", "path"),
    [
        (DfOverF, "Voltage", "delta_f_over_f", "processing/ophys/DfOverF/Voltage"),
        (Fluorescence, "dFF", "delta_f_over_f", "processing/ophys/Fluorescence/dFF"),
        (None, "Voltage", None, "acquisition/Voltage"),
        (None, "Delta_F_Over_F", "delta_f_over_f", "acquisition/Delta_F_Over_F"),
    ],
)
def test_series_are_found_wherever_they_are(tmp_path, container, name, value, path):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", container=container, name=name))
    assert recording._kwargs["series"] == path
    assert recording.get_annotation("value") == value


@pytest.mark.parametrize(
    ("name", "container_type", "value"),
    [
        ("dff/Fluorescence", "Fluorescence", "fluorescence"),  # a folder further up tells nothing
        ("dFF", "Fluorescence", "fluorescence"),
        ("dFF", "NWBDataInterface", "delta_f_over_f"),
        ("Traces", "NWBDataInterface", None),
        ("Traces", "DfOverF", "delta_f_over_f"),
    ],
)
def test_the_container_tells_the_value(nwb_path, tmp_path, name, container_type, value):
    path = shutil.copy(nwb_path, tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        file.move("processing/ophys/Fluorescence", f"processing/ophys/{name}")
        file[f"processing/ophys/{name}"].attrs["neurodata_type"] = container_type
    assert read_voltage_imaging(path).get_annotation("value") == value


PLANE = "general/optophysiology/layer 2"


@pytest.mark.parametrize("spacing", [0.5, [0.5]])
def test_a_grid_spacing_of_one_number(nwb_path, tmp_path, spacing):
    path = shutil.copy(nwb_path, tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        del file[PLANE]["grid_spacing"]
        file[PLANE]["grid_spacing"] = spacing
        file[PLANE]["grid_spacing"].attrs["unit"] = "micrometers"
    with pytest.warns(UserWarning, match="is no width and height of pixels, so positions stay in pixels"):
        recording = read_voltage_imaging(path)
    np.testing.assert_allclose(recording.get_property("centroid"), CENTROIDS)
    assert recording.get_property("centroid_unit").tolist() == ["pixels"] * 3


def test_what_makes_no_sense_is_left_out(nwb_path, tmp_path):
    path = shutil.copy(nwb_path, tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        del file[PLANE]["imaging_rate"], file[CELLS]["pixel_mask"]
        file[PLANE]["imaging_rate"] = "480 Hz"
    recording = read_voltage_imaging(path)
    assert recording.get_annotation("imaging_rate_hz") is None
    assert recording.get_property("centroid") is None


def test_several_series(tmp_path):
    nwbfile, module, table = session()
    for name in ("Voltage", "Reference"):
        module["Fluorescence"].add_roi_response_series(series(table, name=name))
    nwbfile.add_acquisition(series(table, TRACES[:20] + 1, name="Voltage", timestamps=np.arange(20) / 100))
    path = write(tmp_path / "a.nwb", nwbfile)
    listed = (
        r"'acquisition/Voltage' \(shape \(20, 3\)\); "
        r"'processing/ophys/Fluorescence/Reference' \(shape \(60, 3\), 500 Hz\); 'processing/ophys/Fluor"
    )
    with pytest.raises(ValueError, match=rf"^series: .* has several RoiResponseSeries; choose one of {listed}"):
        read_voltage_imaging(path)
    with pytest.raises(ValueError, match=r"^series: 2 end with 'Voltage' in .*; it has 'acquisition/Voltage' \("):
        read_voltage_imaging(path, "Voltage")
    with pytest.raises(ValueError, match=r"^series: there is no 'oltage' in .*; it has 'acquisition/Voltage' \("):
        read_voltage_imaging(path, "oltage")
    for name in ("Reference", "Fluorescence/Reference", "/processing/ophys/Fluorescence/Reference"):
        assert read_voltage_imaging(path, name)._kwargs["series"] == "processing/ophys/Fluorescence/Reference"
    np.testing.assert_array_equal(read_voltage_imaging(path, "acquisition/Voltage").get_traces(), TRACES[:20] + 1)


def test_real_file(shared_data):
    path = shared_data / "nwb" / "ophys_roi_response_series.nwb"
    with pytest.raises(ValueError, match="'processing/ophys/Fluorescence/Neuropil'"):
        read_voltage_imaging(path)
    recording = read_voltage_imaging(path, "Deconvolved")  # its ROIs are a link to those of another series
    with h5py.File(path) as file:
        np.testing.assert_array_equal(recording.get_traces(), file["processing/ophys/Fluorescence/Deconvolved/data"])
        told = file["processing/ophys/ImageSegmentation/PlaneSegmentation/RoiCentroid"][:]
        masks = file["processing/ophys/ImageSegmentation/PlaneSegmentation/image_mask"][:]
    x, y = np.meshgrid(np.arange(128), np.arange(128), indexing="ij")
    centroid = [[np.average(x, weights=mask), np.average(y, weights=mask)] for mask in masks]
    np.testing.assert_allclose(recording.get_property("centroid"), centroid)
    assert np.abs(centroid - told).max() < 4  # x first, as the file's own centroids, which are of another kind
    np.testing.assert_array_equal(recording.get_property("num_pixels"), np.count_nonzero(masks, (1, 2)))
    assert recording.sampling_frequency == recording.get_annotation("imaging_rate_hz") == 10.0
    assert recording.get_annotation("indicator") is None  # "unknown"
    assert not recording.has_probe()


JITTER = np.random.default_rng(1).uniform(-0.2, 0.2, 60)
DROPPED = np.delete(np.arange(63), [10, 11, 40])


@pytest.mark.parametrize(
    "frames",
    [np.arange(60), np.arange(60) + 0.004 * np.sin(np.arange(60)), np.round(np.arange(60) / 470, 6) * 470],
    ids=["exact", "almost", "rounded"],
)
def test_regular_timestamps(tmp_path, frames):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", timestamps=3.0 + frames / 470))
    assert not recording.has_time_vector()
    assert recording.sampling_frequency == pytest.approx(470.0, rel=2e-4)
    assert recording.get_start_time() == 3.0
    np.testing.assert_allclose(recording.get_times(), 3.0 + frames / 470, atol=0.01 / 470)


IRREGULAR = (
    {  # the true rate, and timestamps
        "jitter": (470.0, np.append(np.arange(59) + JITTER[:59] * (np.arange(59) > 0), 59.0) / 470),
        "dropped": (470.0, 3.0 + DROPPED / 470),
        "dropped and jitter": (470.0, (DROPPED + np.resize([0.0, 0.1, -0.1], 60)) / 470),
        "float32 late in a session": (400.0, (3600.0 + np.arange(1600) / 400).astype("float32")),
    }
    | {f"{rate} Hz in ms": (rate, np.round(np.arange(1601) / rate, 3)) for rate in (300.0, 400.0, 600.0, 700.0, 800.0)}
)


@pytest.mark.parametrize("case", IRREGULAR)
def test_irregular_timestamps(tmp_path, case):
    rate, times = IRREGULAR[case]
    data = np.resize(TRACES, (len(times), 3))
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", data, timestamps=times))
    np.testing.assert_array_equal(recording.get_times(), times)
    assert recording.sampling_frequency == pytest.approx(rate, rel=2e-3 if case == "dropped and jitter" else 3e-4)
    recording.dump_to_json(tmp_path / "recording.json")
    assert_same(recording, si.load(tmp_path / "recording.json"))


def test_json_and_pickle(nwb_path, tmp_path, monkeypatch):
    monkeypatch.chdir(nwb_path.parent)
    recording = read_voltage_imaging(nwb_path.name)
    monkeypatch.chdir(tmp_path)
    recording.dump_to_json("recording.json")
    assert_same(recording, si.load("recording.json"))
    assert_same(recording, si.load(recording.to_dict()))
    moved = shutil.copytree(nwb_path.parent, tmp_path / "moved" / "data")
    recording = read_voltage_imaging(moved / nwb_path.name)
    recording.dump_to_json(tmp_path / "moved" / "recording.json", relative_to=tmp_path / "moved")
    shutil.move(tmp_path / "moved", tmp_path / "again")
    loaded = si.load(tmp_path / "again" / "recording.json", base_folder=tmp_path / "again")
    np.testing.assert_array_equal(loaded.get_traces(), TRACES)


def test_a_worker_does_not_read_the_masks_again(nwb_path, monkeypatch):
    recording = read_voltage_imaging(nwb_path)
    monkeypatch.setattr("dlvolt.io.voltage_imaging.read_metadata", None)
    assert_same(recording, si.load(recording.to_dict()))


@pytest.mark.parametrize("mp_context", ["fork", "spawn"])
def test_worker_processes(nwb_path, mp_context):
    recording = read_voltage_imaging(nwb_path)
    settings = dict(method="std", random_slices_kwargs=dict(num_chunks_per_segment=2, chunk_size=25, seed=0))
    noise = si.get_noise_levels(recording, force_recompute=True, **settings, n_jobs=1)
    again = si.get_noise_levels(recording, force_recompute=True, **settings, n_jobs=2, mp_context=mp_context)
    np.testing.assert_array_equal(again, noise)


@pytest.fixture(scope="module")
def zarr_path(tmp_path_factory):
    hdmf_zarr = pytest.importorskip("hdmf_zarr")
    nwbfile, module, table = session()
    first = series(table, name="Voltage", timestamps=2 + np.arange(60) / 500)
    second = series(table, TRACES + 1, (2, 0, 1), name="Reference", timestamps=first)  # a link
    for one in (first, second):
        module["Fluorescence"].add_roi_response_series(one)
    path = tmp_path_factory.mktemp("zarr") / "a.nwb.zarr"
    with hdmf_zarr.NWBZarrIO(str(path), "w") as io:
        io.write(nwbfile)
    return path


def test_zarr(zarr_path, tmp_path):
    recording = read_voltage_imaging(zarr_path, "Reference")
    np.testing.assert_array_equal(recording.get_traces(), TRACES + 1)
    assert (recording.sampling_frequency, recording.get_start_time()) == (500.0, 2.0)
    assert recording.channel_ids.tolist() == [9, 11, 7]
    np.testing.assert_allclose(recording.get_channel_locations(), 0.5 * CENTROIDS[[2, 0, 1]])
    assert recording.get_annotation("indicator") == "ASAP3"
    assert recording.get_annotation("value") == "fluorescence"
    recording.dump_to_json(tmp_path / "recording.json")
    assert_same(recording, si.load(tmp_path / "recording.json"))
    again = read_traces(zarr_path, stream_name="processing/ophys/Fluorescence/Reference")
    assert_same(recording, again)
    with pytest.raises(ValueError, match=r"stream_name: .* has several series"):
        read_traces(zarr_path)


def without_rois(file):
    del file[PATH]["rois"]


def without_table(file):
    del file[CELLS]


def without_clock(file):
    del file[PATH]["starting_time"]


def with_rate_zero(file):
    file[PATH]["starting_time"].attrs["rate"] = 0.0


def without_data(file):
    del file[PATH]["data"]


def with_text(file):
    del file[PATH]["data"]
    file[PATH]["data"] = np.full((60, 3), b"a")


def with_rows_beyond_the_table(file):
    file[PATH]["rois"][:] = [0, 1, 3]


def with_too_few_timestamps(file):
    del file[PATH]["starting_time"]
    file[PATH]["timestamps"] = np.arange(59) / 500


def not_nwb(file):
    del file.attrs["neurodata_type"]


@pytest.mark.parametrize(
    ("breaking", "error"),
    [
        (without_rois, rf"'{PATH}' in .* does not say which ROIs .*give the numbers alone to traces_to_recording"),
        (
            without_table,
            rf"'{PATH}' in .* has no ROI table, or one without ids; mend the file, or give the numbers alone",
        ),
        (without_clock, rf"'{PATH}' in .* has neither timestamps nor a rate above 0; write one of them"),
        (with_rate_zero, rf"'{PATH}' in .* has neither timestamps nor a rate above 0; write one of them"),
        (with_text, rf"'{PATH}' in .* has no data of shape \(time, ROI\), or none that are numbers"),
        (without_data, rf"'{PATH}' in .* has no data of shape \(time, ROI\)"),
        (with_rows_beyond_the_table, rf"'{PATH}' in .* for 3 ROIs, and its ROI table has 3 rows; mend"),
        (with_too_few_timestamps, rf"'{PATH}' in .* has 59 timestamps for 60 frames"),
        (not_nwb, r".* is not an NWB file \(of version 2\)"),
    ],
)
def test_broken_files(nwb_path, tmp_path, breaking, error):
    path = shutil.copy(nwb_path, tmp_path / "broken.nwb")
    with h5py.File(path, "a") as file:
        breaking(file)
    with pytest.raises(ValueError, match=f"^path: {error}") as raised:
        read_voltage_imaging(path)
    assert raised.tb is not None  # which keeps alive what was open
    with h5py.File(path, "a"):
        pass  # it can be mended


BACKWARDS = np.concatenate([np.arange(30), np.arange(29, 59)]) / 500
NO_RATE = np.cumsum(np.random.default_rng(0).lognormal(0, 3, 60))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (dict(data=TRACES.T), r"is transposed: its data are \(3, 60\), of 3 ROIs.* write it again with data.T"),
        (dict(data=TRACES[:, :2]), r"has data of shape \(60, 2\) for 3 ROIs"),
        (dict(data=TRACES[:, 0]), r"has data of shape \(60,\) for 3 ROIs"),
        (dict(timestamps=BACKWARDS), r"do not ascend at frame 30 \(0.058 s, then 0.058 s\)"),
        (dict(timestamps=np.full(60, np.nan)), r"do not ascend at frame 1 \(nan s, then nan s\)"),
        (dict(timestamps=NO_RATE), r"without a common interval .* so there is no frame rate"),
        (dict(data=TRACES[:1], timestamps=[0.0]), r"has 1 timestamps for 1 frames, which give no rate"),
    ],
)
def test_bad_series(tmp_path, settings, error):
    path = write_one(tmp_path / "a.nwb", **settings)
    with pytest.raises(ValueError, match=f"^path: .*{error}"):
        read_voltage_imaging(path)


def test_more_rois_than_frames_are_no_reason_to_refuse(tmp_path):
    recording = read_voltage_imaging(write_one(tmp_path / "a.nwb", data=TRACES[:2]))
    np.testing.assert_array_equal(recording.get_traces(), TRACES[:2])


def test_no_such_thing(tmp_path, shared_data):
    with pytest.raises(FileNotFoundError, match=r"^path: there is no file .*nowhere.nwb"):
        read_voltage_imaging(tmp_path / "nowhere.nwb")
    (tmp_path / "text.nwb").write_text("text")
    with pytest.raises(ValueError, match=r"^path: .*text.nwb is not an NWB file: it is not HDF5"):
        read_voltage_imaging(tmp_path / "text.nwb")
    with pytest.raises(ValueError, match=r"^path: .* is not an NWB file: a folder must be Zarr"):
        read_voltage_imaging(tmp_path)
    with pytest.raises(ValueError, match=r"^path: .* has no RoiResponseSeries, so no traces of ROIs"):
        read_voltage_imaging(shared_data / "nwb" / "ecephys_tutorial_v2.5.0.nwb")
    with pytest.raises(ValueError, match=r"source: .* has no ElectricalSeries"):
        read_recording(shared_data / "nwb" / "ophys_roi_response_series.nwb")


def test_read_traces_gives_the_same_recording(nwb_path):
    assert_same(read_voltage_imaging(nwb_path), read_traces(nwb_path))
