import sys
from datetime import datetime, timezone

import h5py
import numpy as np
import pynwb
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from probeinterface import generate_linear_probe
from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel, PlaneSegmentation, RoiResponseSeries
from spikeinterface.extractors import read_nwb_sorting
from spikeinterface.preprocessing import scale
from test_nwb_units import METADATA, read, serious_messages

import dlvolt
from dlvolt import write_nwb_units
from dlvolt.io import nwb_rois
from dlvolt.io.voltage_imaging import read_voltage_imaging

FS = 400.0
T = 1000
LOWER = "processing/ophys/Fluorescence/lower"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two planes: three ROIs with image masks, and five with pixel and voxel masks, the subject and the microscope."""
    rng = np.random.default_rng(0)
    nwbfile = pynwb.NWBFile("a session", "imaging", datetime(2024, 5, 31, 14, 30, tzinfo=timezone.utc), notes="a note")
    nwbfile.subject = pynwb.file.Subject(subject_id="m1", species="Mus musculus", sex="M", age="P50D")
    model = nwbfile.create_device_model(name="M2P", manufacturer="Microscopes", description="two photons")
    microscope = nwbfile.create_device(name="microscope", description="a microscope", model=model)
    ophys = nwbfile.create_processing_module("ophys", "what the source's lab says of it")
    segmentation, responses = ImageSegmentation(), Fluorescence()
    ophys.add(segmentation)
    ophys.add(responses)
    for name, num_rois in (("upper", 3), ("lower", 5)):
        plane = nwbfile.create_imaging_plane(
            name=f"{name} plane",
            description=f"the {name} plane",
            optical_channel=[
                OpticalChannel(name=color, description=color, emission_lambda=emission)
                for color, emission in (("green", 520.0), ("red", 610.0))
            ],
            device=microscope,
            excitation_lambda=920.0,
            indicator="Voltron2",
            location="VISp",
            imaging_rate=FS,
            grid_spacing=[1e-6, 2e-6],
            grid_spacing_unit="meters",
            origin_coords=[1.0, 2.0],
        )
        table = segmentation.create_plane_segmentation(
            name=f"{name} ROIs", description=f"ROIs of the {name} plane", imaging_plane=plane
        )
        table.add_column("tags", "tags of the ROI", index=True)
        table.add_column("cell_type", "type of the cell")
        for roi in range(num_rois):
            if name == "upper":
                masks = {"image_mask": rng.random((8, 6))}
            else:
                masks = {
                    "pixel_mask": [(roi, i, 0.5) for i in range(roi + 1)],
                    "voxel_mask": [(roi, i, 7, 1.0) for i in range(roi + 1)],
                }
            table.add_roi(id=100 + roi, tags=["t"] * roi, cell_type=f"type {roi}", **masks)
        rois = table.create_roi_table_region("all", region=list(range(num_rois)))
        responses.create_roi_response_series(name, rng.random((T, num_rois)), unit="n.a.", rois=rois, rate=FS)
    path = tmp_path_factory.mktemp("source") / "source.nwb"
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwbfile)
    with h5py.File(path, "r+") as file:  # as old files have it, and pynwb does not write any more
        manifold = file["general/optophysiology/upper plane"].create_dataset("manifold", data=np.ones((8, 6, 3)))
        manifold.attrs.update(conversion=2e-6, unit="meters")
    return path


def make_recording(num_rois=5, num_samples=(T,), **annotations):
    rng = np.random.default_rng(1)
    traces = [rng.normal(size=(n, num_rois)).astype("float32") for n in num_samples]
    recording = si.NumpyRecording(traces, FS, channel_ids=[f"r{i}" for i in range(num_rois)])
    recording.annotate(modality="optical", **annotations)
    return recording


def per_spike(arrays):
    values = np.empty(len(arrays), dtype=object)
    values[:] = arrays
    return values


def make_sorting(recording, num_spikes=(3, 0, 2, 5, 1)):
    """An optical sorting as the sorter makes it: a unit for each ROI, and what it tells of units and spikes."""
    rng = np.random.default_rng(2)
    sizes = [recording.get_num_samples(i) for i in range(recording.get_num_segments())]
    trains = [
        {
            roi: np.sort(rng.choice(size, n, replace=False))
            for roi, n in zip(recording.channel_ids, num_spikes, strict=True)
        }
        for size in sizes
    ]
    sorting = si.NumpySorting.from_unit_dict(trains, FS)
    sorting.register_recording(recording)
    sorting.annotate(modality="optical")
    counts = [n * len(sizes) for n in num_spikes]
    sorting.set_property("model_name", ["vnet"] * len(counts))
    sorting.set_property("model_version", ["3"] * len(counts))
    sorting.set_property("snr", np.where(counts, 5.0, np.nan))
    sorting.set_property("num_bursts", np.arange(len(counts)))
    sorting.set_property("spike_probability", per_spike([rng.random(n).astype("float32") for n in counts]))
    sorting.set_property("spike_label", per_spike([rng.choice(["single", "burst"], n) for n in counts]))
    sorting.set_property("spike_crosstalk", per_spike([rng.random(n) < 0.5 for n in counts]))
    stale = [np.zeros(n + (i == 3)) for i, n in enumerate(counts)]
    sorting.set_property("of_another_sorting", per_spike(stale))
    return sorting


def without_recording(sorting):
    trains = {unit_id: sorting.get_unit_spike_train(unit_id) for unit_id in sorting.unit_ids}
    alone = si.NumpySorting.from_unit_dict([trains], FS)
    for name in sorting.get_property_keys():
        alone.set_property(name, sorting.get_property(name))
    alone.annotate(modality="optical")
    return alone


def test_units_and_their_rois(source, tmp_path):
    recording = make_recording(nwb_series=LOWER)
    recording.set_property("roi_row", np.array([4, 0, 1, 2, 3]))
    probe = generate_linear_probe(5)
    probe.set_device_channel_indices(np.arange(5))
    recording.set_probe(probe)
    sorting = make_sorting(recording).select_units(["r3", "r1", "r0"])
    path = write_nwb_units(sorting, tmp_path / "units.nwb", source=source)

    assert serious_messages(path) <= serious_messages(source)
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        nwbfile = io.read()
        units = nwbfile.units
        assert nwbfile.electrodes is None  # for all that there is a probe
        assert units["rois"].table is nwbfile.processing["ophys"]["ImageSegmentation"]["lower ROIs"]
        assert list(units["rois"].data[:]) == [2, 0, 4]
        assert list(units["rois"][1]["cell_type"]) == ["type 0"]
        assert list(units.to_dataframe()["unit_name"]) == ["r3", "r1", "r0"]
        assert units.resolution == 1 / FS
        assert all(part in units.description for part in ("'vnet' version 3", dlvolt.__version__, "'imaging'"))

    _, _, columns, descriptions, _ = read(path)
    for unit, unit_id in enumerate(sorting.unit_ids):
        np.testing.assert_allclose(columns["spike_times"][unit], sorting.get_unit_spike_train(unit_id) / FS)
        np.testing.assert_allclose(columns["obs_intervals"][unit], [[0, T / FS]])
        for name in ("spike_probability", "spike_label", "spike_crosstalk"):
            np.testing.assert_array_equal(columns[name][unit], sorting.get_property(name)[unit])
    assert columns["spike_crosstalk"][0].dtype == bool
    assert "of_another_sorting" not in columns
    np.testing.assert_array_equal(columns["snr"], [5.0, np.nan, 5.0])
    assert "noise" in descriptions["snr"]
    assert not any(text.startswith("property") for text in descriptions.values())


@pytest.mark.parametrize("use_pynwb", [False, True])
def test_spikeinterface_reads_it(source, tmp_path, use_pynwb):
    recording = make_recording(nwb_series=LOWER)
    recording.set_property("roi_row", np.array([4, 0, 1, 2, 3]))
    recording.shift_times(12.5)
    sorting = make_sorting(recording)
    path = write_nwb_units(sorting, tmp_path / "units.nwb", source=source)
    read_back = read_nwb_sorting(path, t_start=12.5, use_pynwb=use_pynwb)
    assert read_back.sampling_frequency == FS
    for unit_id in sorting.unit_ids:
        np.testing.assert_array_equal(read_back.get_unit_spike_train(unit_id), sorting.get_unit_spike_train(unit_id))
    np.testing.assert_array_equal(read_back.get_property("rois"), [4, 0, 1, 2, 3])


def test_curated_units_lose_stale_properties(tmp_path):
    recording = make_recording()
    sorting = make_sorting(recording)
    curated = sorting.remove_empty_units()
    first = {unit_id: curated.get_unit_spike_train(unit_id)[:1] for unit_id in curated.unit_ids}
    fewer = si.NumpySorting.from_unit_dict([first], FS)
    for name in curated.get_property_keys():
        fewer.set_property(name, curated.get_property(name))
    fewer.register_recording(recording)
    columns = read(write_nwb_units(fewer, tmp_path / "units.nwb", metadata=METADATA))[2]
    assert "snr" in columns
    assert not {"spike_probability", "spike_label", "spike_crosstalk"} & set(columns)


def test_planes_are_carried_over(source, tmp_path):
    recording = make_recording(num_rois=3, nwb_series="/processing/ophys/Fluorescence/upper")
    recording.set_property("roi_row", np.arange(3))
    path = write_nwb_units(make_sorting(recording, (1, 2, 3)), tmp_path / "units.nwb", source=source)
    with pynwb.NWBHDF5IO(str(source), "r") as old_io, pynwb.NWBHDF5IO(str(path), "r") as new_io:
        old, new = old_io.read(), new_io.read()
        assert new.subject.subject_id == "m1"
        assert new.notes == "a note"
        assert new.devices["microscope"].model.manufacturer == "Microscopes"
        assert new.processing["ophys"].description == "what the source's lab says of it"
        assert list(new.processing["ophys"].data_interfaces) == ["ImageSegmentation"]  # and none of its data
        assert set(new.imaging_planes) == {"upper plane", "lower plane"}
        for name, plane in new.imaging_planes.items():
            known = old.imaging_planes[name]
            for field in ("description", "indicator", "location", "excitation_lambda", "imaging_rate", "conversion"):
                assert getattr(plane, field) == getattr(known, field)
            for field in ("grid_spacing", "origin_coords", "manifold"):
                if getattr(known, field) is not None:
                    np.testing.assert_array_equal(getattr(plane, field)[:], getattr(known, field)[:])
            assert plane.device is new.devices["microscope"]
            assert [(c.name, c.emission_lambda) for c in plane.optical_channel] == [("green", 520.0), ("red", 610.0)]
        assert new.imaging_planes["upper plane"].manifold.shape == (8, 6, 3)
        for name, table in new.processing["ophys"]["ImageSegmentation"].plane_segmentations.items():
            known = old.processing["ophys"]["ImageSegmentation"][name]
            assert table.colnames == known.colnames
            assert table.imaging_plane.name == known.imaging_plane.name
            assert table.description == known.description
            for column in ("id", *table.colnames):
                for row in range(len(known)):
                    np.testing.assert_array_equal(table[column][row], known[column][row])
            assert [c.description for c in table.columns] == [c.description for c in known.columns]
    assert path.stat().st_size < source.stat().st_size


def test_one_table_in_an_odd_place(tmp_path):
    nwbfile = pynwb.NWBFile("a session", "odd", datetime(2024, 5, 31, 14, 30, tzinfo=timezone.utc))
    plane = nwbfile.create_imaging_plane(
        name="plane",
        description="the plane",
        optical_channel=OpticalChannel(name="green", description="green", emission_lambda=520.0),
        device=nwbfile.create_device(name="microscope", description="a microscope"),
        excitation_lambda=920.0,
        indicator="Voltron2",
        location="CA1",
    )
    table = PlaneSegmentation(name="cells", description="cells", imaging_plane=plane)
    for _ in range(2):
        table.add_roi(image_mask=np.ones((4, 3)))
    nwbfile.create_processing_module("cells of today", "cells").add(table)  # in no ImageSegmentation
    source = tmp_path / "source.nwb"
    with pynwb.NWBHDF5IO(str(source), "w") as io:
        io.write(nwbfile)
    recording = make_recording(num_rois=2)  # which does not tell its series, as there is but one table
    recording.set_property("roi_row", [1, 0])
    path = write_nwb_units(make_sorting(recording, (1, 2)), tmp_path / "units.nwb", source=source)
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        nwbfile = io.read()
        assert nwbfile.units["rois"].table is nwbfile.processing["cells of today"]["ImageSegmentation"]["cells"]
        assert list(nwbfile.units["rois"].data[:]) == [1, 0]


def read_trace(path, *keys):
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        item = io.read().processing["ophys"]
        for key in keys:
            item = item[key]
        rows = list(item.rois.data[:]) if isinstance(item, RoiResponseSeries) else None
        times = None if item.timestamps is None else item.timestamps[:]
        return item, item.data[:], times, rows, item.data.compression


@pytest.mark.filterwarnings("error:The linked table")
def test_traces(source, tmp_path, monkeypatch):
    recording = make_recording(nwb_series=LOWER)
    recording.set_property("roi_row", np.array([4, 0, 1, 2, 3]))
    recording.shift_times(3.25)
    sorting = make_sorting(recording).select_units(["r3", "r1", "r0"])
    sorting.register_recording(recording)
    asked = []

    class Counted(type(recording.segments[0])):
        def get_traces(self, start_frame, end_frame, channel_indices):
            asked.append(end_frame - start_frame)
            return super().get_traces(start_frame, end_frame, channel_indices)

    monkeypatch.setattr(nwb_rois, "CHUNK_SHAPE", (300, 2))
    monkeypatch.setattr(recording.segments[0], "__class__", Counted)
    scaled = {
        name: scale(recording, gain=float(gain))
        for gain, name in enumerate(("delta_f_over_f", "subthreshold", "spike_probability", "fluorescence", "mine"), 1)
    }
    path = write_nwb_units(sorting, tmp_path / "units.nwb", source=source, traces=scaled)

    assert max(asked) == 300  # memory is bounded by the chunk
    assert serious_messages(path) <= serious_messages(source)
    raw = recording.get_traces()
    places = [("DfOverF", "delta_f_over_f"), ("DfOverF", "subthreshold"), ("spike_probability",)]
    for gain, place in enumerate([*places, ("Fluorescence", "fluorescence"), ("mine",)], 1):
        series, data, _, rows, compression = read_trace(path, *place)
        assert isinstance(series, RoiResponseSeries)
        assert (series.starting_time, series.rate, series.unit, compression) == (3.25, FS, "n.a.", "gzip")
        np.testing.assert_allclose(data, gain * raw[:, [3, 1, 0]], rtol=1e-6)
        assert rows == [[4, 0, 1, 2, 3][column] for column in [3, 1, 0]]
    assert isinstance(read_trace(path, "DfOverF", "subthreshold")[0].parent, DfOverF)


@pytest.mark.parametrize("clock", ["contiguous", "apart", "irregular", "slow"])
def test_segments_and_clocks(tmp_path, clock):
    recording = make_recording(num_samples=(200, 300))
    if clock == "apart":
        recording.shift_times(10.0, segment_index=1)
    if clock in ("irregular", "slow"):
        rng = np.random.default_rng(3)
        for segment, start in enumerate((5.0, 5.0 + 200 * 1.001 / FS)):
            ticks = np.arange(recording.get_num_samples(segment)) * 1.001 / FS
            late = rng.uniform(0, 0.5 / FS, len(ticks)) if clock == "irregular" else 0
            recording.set_times(start + ticks + late, segment_index=segment)
    sorting = make_sorting(recording)
    path = write_nwb_units(sorting, tmp_path / "units.nwb", traces={"delta_f_over_f": recording}, metadata=METADATA)
    assert serious_messages(path) == set()

    times = [recording.get_times(segment) for segment in (0, 1)]
    if clock == "contiguous":
        times[1] = times[1] + 200 / FS  # which both start at 0
    columns = read(path)[2]
    for unit, unit_id in enumerate(sorting.unit_ids):
        expected = [times[i][sorting.get_unit_spike_train(unit_id, i)] for i in (0, 1)]
        np.testing.assert_allclose(columns["spike_times"][unit], np.concatenate(expected), rtol=0, atol=1e-9)
        np.testing.assert_array_equal(
            columns["spike_probability"][unit], sorting.get_property("spike_probability")[unit]
        )
    series, data, timestamps, _, _ = read_trace(path, "delta_f_over_f")
    np.testing.assert_array_equal(data, np.concatenate([recording.get_traces(segment_index=i) for i in (0, 1)]))
    if clock in ("apart", "irregular"):
        np.testing.assert_allclose(timestamps, np.concatenate(times), rtol=0, atol=1e-9)
    else:
        assert series.rate == pytest.approx(FS if clock == "contiguous" else FS / 1.001, rel=1e-12)
        assert series.starting_time == times[0][0]


@given(
    start=st.floats(0, 2e9),
    num_samples=st.integers(1, 300),
    fs=st.floats(10, 5000),
    late=st.sampled_from([0.0, 1e-12, 1e-7, 1e-3]),
    seed=st.integers(0, 9),
)
def test_sampling_tells_the_times(start, num_samples, fs, late, seed):
    jitter = late * np.random.default_rng(seed).random(num_samples)
    times = start + np.arange(num_samples) / fs + jitter
    told = nwb_rois._sampling(times, fs)
    if late == 0:
        assert told == {"starting_time": start, "rate": fs}
    if "rate" in told:
        retold = told["starting_time"] + np.arange(num_samples) / told["rate"]
        np.testing.assert_allclose(retold, times, rtol=1e-15, atol=1e-6)
    else:
        assert told["timestamps"] is times


def test_plain_arrays(tmp_path):
    recording = make_recording()
    recording.set_property("centroid", np.arange(10.0).reshape(5, 2))
    recording.set_property("centroid_unit", ["um"] * 5)
    recording.set_property("num_pixels", np.arange(5) + 50)
    recording.set_property("plane", ["upper"] * 5)
    sorting = make_sorting(recording).select_units(["r4", "r2"])
    sorting.register_recording(recording)
    session = {"NWBFile": {"session_start_time": "2024-05-31T14:30:00Z"}}
    path = write_nwb_units(sorting, tmp_path / "units.nwb", traces={"subthreshold": recording}, metadata=session)
    assert {check for check, _ in serious_messages(path)} == {"check_subject_exists"}  # none is made up
    nwbfile, _, columns, descriptions, _ = read(path)
    assert (columns["roi_x"], columns["roi_y"]) == ([8.0, 4.0], [9.0, 5.0])
    assert "µm" in descriptions["roi_x"]
    assert columns["roi_num_pixels"] == [54, 52]
    assert columns["roi_plane"] == ["upper", "upper"]
    assert "rois" not in columns
    assert len(nwbfile.imaging_planes) == len(nwbfile.devices) == 0
    series, data, *_ = read_trace(path, "subthreshold")
    assert type(series) is pynwb.TimeSeries
    np.testing.assert_array_equal(data, recording.get_traces()[:, [4, 2]])
    for unit_id in sorting.unit_ids:
        read_back = read_nwb_sorting(path).get_unit_spike_train(unit_id)
        np.testing.assert_array_equal(read_back, sorting.get_unit_spike_train(unit_id))

    recording.set_property("centroid_unit", ["pixels"] * 5)
    descriptions = read(write_nwb_units(sorting, path, metadata=METADATA, overwrite=True))[3]
    assert "in pixels" in descriptions["roi_x"]


def test_no_units_and_no_recording(source, tmp_path):
    recording = make_recording(nwb_series=LOWER)
    recording.set_property("roi_row", np.arange(5))
    none = make_sorting(recording).select_units([])
    none.register_recording(recording)
    path = write_nwb_units(none, tmp_path / "none.nwb", source=source, traces={"subthreshold": recording})
    assert {check for check, _ in serious_messages(path) - serious_messages(source)} == {"check_empty_table"}
    assert read_nwb_sorting(path).get_num_units() == 0

    alone = without_recording(make_sorting(recording))
    with pytest.raises(ValueError, match=r"sorting_or_analyzer: .*register_recording\(dlvolt.read_voltage_imaging\("):
        write_nwb_units(alone, tmp_path / "alone.nwb", source=source)
    assert not (tmp_path / "alone.nwb").exists()
    _, units, columns, *_ = read(write_nwb_units(alone, tmp_path / "alone.nwb", metadata=METADATA))
    assert "vnet" in units.description
    assert "rois" not in columns  # nobody knows which they are


def test_analyzer(source, tmp_path):
    recording = make_recording(nwb_series=LOWER)
    recording.set_property("roi_row", np.array([4, 0, 1, 2, 3]))
    probe = generate_linear_probe(5)
    probe.set_device_channel_indices(np.arange(5))
    recording.set_probe(probe)
    analyzer = si.create_sorting_analyzer(make_sorting(recording), recording, sparse=False, return_in_uV=False)
    analyzer.compute(["random_spikes", "noise_levels"], progress_bar=False)
    analyzer.compute("quality_metrics", metric_names=["num_spikes"])
    _, _, columns, _, electrodes = read(write_nwb_units(analyzer, tmp_path / "units.nwb", source=source))
    assert [rows.index[0] for rows in columns["rois"]] == [104, 100, 101, 102, 103]
    assert columns["num_spikes"] == [3, 0, 2, 5, 1]
    assert electrodes is None


def test_real_file(shared_data, tmp_path):
    source = shared_data / "nwb" / "ophys_roi_response_series.nwb"
    recording = read_voltage_imaging(source, "RoiResponseSeries")
    rng = np.random.default_rng(4)
    trains = {i: np.sort(rng.choice(250, n, replace=False)) for n, i in enumerate(recording.channel_ids)}
    sorting = si.NumpySorting.from_unit_dict([trains], recording.sampling_frequency)
    sorting.register_recording(recording)
    path = write_nwb_units(sorting, tmp_path / "units.nwb", source=source, traces={"fluorescence": recording})
    new = {check for check, _ in serious_messages(path) - serious_messages(source)}
    assert new == {"check_units_resolution_is_valid"}  # who expects no 10 Hz
    read_back = read_nwb_sorting(path)
    for unit_id, train in trains.items():
        np.testing.assert_array_equal(read_back.get_unit_spike_train(str(unit_id)), train)
    with pynwb.NWBHDF5IO(str(source), "r") as old_io, pynwb.NWBHDF5IO(str(path), "r") as new_io:
        old, new = (io.read().processing["ophys"] for io in (old_io, new_io))
        for column in ("RoiCentroid", "Accepted", "image_mask"):
            values = [file["ImageSegmentation"]["PlaneSegmentation"][column].data[:] for file in (old, new)]
            np.testing.assert_array_equal(*values)
        assert new["Fluorescence"]["fluorescence"].rois.table is new["ImageSegmentation"]["PlaneSegmentation"]
        traces = old["Fluorescence"]["RoiResponseSeries"].data[:]
        np.testing.assert_array_equal(new["Fluorescence"]["fluorescence"].data[:], traces)


def test_bad_rois(source, tmp_path):
    def write(recording, **kwargs):
        write_nwb_units(make_sorting(recording), tmp_path / "units.nwb", **{"source": source} | kwargs)

    recording = make_recording()
    with pytest.raises(ValueError, match=r"source: it has 2 tables of ROIs, 'upper ROIs', 'lower ROIs'.*nwb_series="):
        write(recording)
    recording.annotate(nwb_series="acquisition/other")
    with pytest.raises(ValueError, match=r"source: .*'acquisition/other'.* it has .*'processing/ophys/Fluor.*/lower'"):
        write(recording)
    recording.annotate(nwb_series=LOWER)
    with pytest.raises(ValueError, match=r"source: its table of ROIs 'lower ROIs' has 5 rows.*roi_row"):
        write(recording)
    recording.set_property("roi_row", np.arange(5) + 1)
    with pytest.raises(ValueError, match=r"source: .* has 5 rows, and the recording's 'roi_row' goes from 1 to 5"):
        write(recording)
    sorting = make_sorting(recording).rename_units(["r0", "r1", "nobody", "r3", "r4"])
    sorting.register_recording(recording)
    with pytest.raises(ValueError, match=r"sorting_or_analyzer: unit 'nobody' is none of the 5 ROIs.*rename_units"):
        write_nwb_units(sorting, tmp_path / "units.nwb", metadata=METADATA)
    assert list(tmp_path.iterdir()) == []


def test_the_source_of_another_session(source, tmp_path):
    recording = make_recording(nwb_series=LOWER, nwb_identifier="another")
    recording.set_property("roi_row", np.arange(5))
    with pytest.raises(ValueError, match="source: is the NWB file 'imaging', and the recording is of 'another'; give"):
        write_nwb_units(make_sorting(recording), tmp_path / "units.nwb", source=source)
    assert list(tmp_path.iterdir()) == []
    recording.annotate(nwb_identifier="imaging")
    assert "rois" in read(write_nwb_units(make_sorting(recording), tmp_path / "units.nwb", source=source))[2]


def test_bad_traces(tmp_path):
    recording = make_recording()
    sorting = make_sorting(recording)

    def write(traces, sorting=sorting):
        write_nwb_units(sorting, tmp_path / "units.nwb", traces={"dff": traces}, metadata=METADATA)

    with pytest.raises(TypeError, match="traces: 'dff' is a ndarray"):
        write(recording.get_traces())
    with pytest.raises(ValueError, match=r"traces: 'dff' has 999 samples at 400 Hz, .* has 1000 samples at 400 Hz"):
        write(recording.frame_slice(0, 999))
    with pytest.raises(ValueError, match="traces: 'dff' has 1000 samples at 500 Hz"):
        write(si.NumpyRecording([recording.get_traces()], 500.0, channel_ids=recording.channel_ids))
    with pytest.raises(ValueError, match="traces: 'dff' has other channels than the 5 ROIs"):
        write(make_recording(num_rois=6))
    with pytest.raises(ValueError, match=r"traces: .*register_recording"):
        write(recording, without_recording(sorting))
    electrical = si.NumpyRecording([recording.get_traces()], FS, channel_ids=recording.channel_ids)
    plain = without_recording(sorting)
    plain.annotate(modality="extracellular")
    plain.register_recording(electrical)
    with pytest.raises(ValueError, match=r'traces: .*annotate\(modality="optical"\)'):
        write(electrical, plain)
    assert list(tmp_path.iterdir()) == []


def test_zarr_source(source, tmp_path, monkeypatch):
    recording = make_recording(nwb_series=LOWER)
    recording.set_property("roi_row", np.arange(5))
    folder = tmp_path / "source.nwb.zarr"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "hdmf_zarr", None)
        folder.mkdir()
        with pytest.raises(FileNotFoundError, match="source: there is no NWB file"):
            write_nwb_units(make_sorting(recording), tmp_path / "units.nwb", source=folder)
        (folder / ".zgroup").touch()
        with pytest.raises(ImportError, match=r"source: .*pip install hdmf-zarr"):
            write_nwb_units(make_sorting(recording), tmp_path / "units.nwb", source=folder)

    hdmf_zarr = pytest.importorskip("hdmf_zarr")
    with pynwb.NWBHDF5IO(str(source), "r") as old, hdmf_zarr.NWBZarrIO(str(folder), mode="w") as new:
        new.export(src_io=old, write_args={"link_data": False})
    path = write_nwb_units(make_sorting(recording), tmp_path / "units.nwb", source=folder)
    assert serious_messages(path) <= serious_messages(source)
    with pynwb.NWBHDF5IO(str(source), "r") as old, pynwb.NWBHDF5IO(str(path), "r") as new:
        tables = [io.read().processing["ophys"]["ImageSegmentation"] for io in (old, new)]
        np.testing.assert_array_equal(*(table["upper ROIs"]["image_mask"].data[:] for table in tables))
        np.testing.assert_array_equal(*(table["lower ROIs"]["pixel_mask"].target.data[:] for table in tables))
