"""NWB files as labs have them, from the source to the electrodes of the units that are written."""

import re
from datetime import datetime, timezone

import numpy as np
import pytest
import spikeinterface as si
from hdmf_zarr import NWBZarrIO
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries

from dlvolt import write_nwb_units
from dlvolt.cli import main
from dlvolt.io import read_recording

FS = 30_000.0
T = 3_000
ROWS = {"first": [0, 1, 2], "second": [6, 4, 5, 3]}  # the second out of order
TRACES = {
    name: np.random.default_rng(len(rows)).integers(-500, 500, (T, len(rows))).astype("int16")
    for name, rows in ROWS.items()
}
CONVERSION = {"first": None, "second": [1.0, 2.0, 3.0, 4.0]}


def write_source(path, *, names=None, timestamps=False, io=NWBHDF5IO):
    """Two series over different rows of one table of seven electrodes, 25 µm apart."""
    nwbfile = NWBFile("a test", "test", datetime(2024, 5, 31, tzinfo=timezone.utc))
    device = nwbfile.create_device(name="probe", description="a probe")
    group = nwbfile.create_electrode_group("shank", description="a shank", location="CA1", device=device)
    if names is not None:
        nwbfile.add_electrode_column("channel_name", "name of the channel")
    for row in range(7):
        more = {} if names is None else {"channel_name": names[row]}
        nwbfile.add_electrode(group=group, location="CA1", rel_x=0.0, rel_y=25.0 * row, **more)
    for name, rows in ROWS.items():
        clock = dict(timestamps=100.0 + np.arange(T) / FS) if timestamps else dict(rate=FS, starting_time=100.0)
        nwbfile.add_acquisition(
            ElectricalSeries(
                name=name,
                data=TRACES[name],
                electrodes=nwbfile.create_electrode_table_region(rows, "its electrodes"),
                conversion=1e-7,
                channel_conversion=CONVERSION[name],
                **clock,
            )
        )
    with io(str(path), "w") as file:
        file.write(nwbfile)
    return path


def units_of(recording, path, source):
    """Write a unit for each channel, seen on that channel only; return the row of each unit's electrode."""
    n = recording.get_num_channels()
    sorting = si.NumpySorting.from_unit_dict([{unit: 50 + np.arange(5) * 400 + unit for unit in range(n)}], FS)
    sorting.set_property("main_channel_id", recording.channel_ids)
    analyzer = si.create_sorting_analyzer(
        sorting, recording, sparsity=si.ChannelSparsity(np.eye(n, dtype=bool), sorting.unit_ids, recording.channel_ids)
    )
    write_nwb_units(analyzer, path, source=source)
    with NWBHDF5IO(str(path), "r") as io:
        units = io.read().units
        times = [units["spike_times"][unit] for unit in range(n)]
        return [list(units["electrodes"][unit].index) for unit in range(n)], times


@pytest.mark.parametrize("names", [None, [f"CH{10 - row}" for row in range(7)]], ids=["no names", "string ids"])
@pytest.mark.parametrize("timestamps", [False, True], ids=["rate", "timestamps"])
@pytest.mark.parametrize("series", ROWS)
def test_units_point_to_the_rows_of_their_series(tmp_path, names, timestamps, series):
    source = write_source(tmp_path / "source.nwb", names=names, timestamps=timestamps)
    recording = read_recording(source, stream_name=series)
    np.testing.assert_array_equal(recording.get_traces(), TRACES[series])
    in_microvolts = TRACES[series] * 0.1 * np.array(CONVERSION[series] or 1.0)
    np.testing.assert_allclose(recording.get_traces(return_in_uV=True), in_microvolts, rtol=1e-5)
    np.testing.assert_array_equal(recording.get_channel_locations()[:, 1], 25.0 * np.array(ROWS[series]))
    rows, times = units_of(recording, tmp_path / "units.nwb", source)
    assert rows == [[row] for row in ROWS[series]]
    np.testing.assert_allclose(times[1], 100.0 + (51 + np.arange(5) * 400) / FS, atol=1e-6)


def test_zarr(tmp_path, capsys):
    source = write_source(tmp_path / "source.nwb.zarr", io=NWBZarrIO)
    recording = read_recording(source, stream_name="second")
    np.testing.assert_array_equal(recording.get_traces(), TRACES["second"])
    rows, _ = units_of(recording, tmp_path / "units.nwb", source)
    assert rows == [[row] for row in ROWS["second"]]
    main(["info", str(source), "--stream", "second"])
    assert re.search(r"first sample at +100 s\n", capsys.readouterr().out)


@pytest.mark.parametrize("length", [8, 100, 2000, 20_000])
def test_truncated_file(tmp_path, capsys, length):
    source = write_source(tmp_path / "source.nwb")
    source.write_bytes(source.read_bytes()[:length])
    with pytest.raises(SystemExit) as leaving:
        main(["info", str(source)])
    assert leaving.value.code == 2
    assert re.fullmatch(r"dlvolt: error: SOURCE: .*source\.nwb.*\n", capsys.readouterr().err)
