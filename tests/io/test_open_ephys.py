import json
import warnings

import numpy as np
import pytest
import spikeinterface as si
import spikeinterface.preprocessing as spre
from neo.rawio import OpenEphysBinaryRawIO, OpenEphysRawIO
from probeinterface import (
    ProbeGroup,
    generate_linear_probe,
    generate_multi_columns_probe,
    write_probeinterface,
)

from dlvolt import read_open_ephys

FS = 30000.0
UTC_MESSAGE = "Software Time (milliseconds since midnight Jan 1st 1970 UTC): 1700000000250\n"


def write_binary(recording_folder, channels, *, streams=("Board-100.0",), num_samples=300, first_sample=3000):
    """Write one recording folder of the binary format; sample t of channel n is 10 t + n."""
    continuous = []
    for name in streams:
        stream = recording_folder / "continuous" / name
        stream.mkdir(parents=True)
        traces = 10 * np.arange(num_samples)[:, None] + np.arange(len(channels))
        traces.astype("int16").tofile(stream / "continuous.dat")
        np.save(stream / "sample_numbers.npy", first_sample + np.arange(num_samples))
        described = [{"channel_name": channel, "bit_volts": 0.195, "units": ""} for channel in channels]
        continuous.append({"folder_name": f"{name}/", "sample_rate": FS, "channels": described})
    oebin = {"GUI version": "0.6.0", "continuous": continuous, "events": [], "spikes": []}
    (recording_folder / "structure.oebin").write_text(json.dumps(oebin))


@pytest.fixture
def session(tmp_path):
    """A session with one node, one experiment and two recordings of four channels, two AUX and one ADC."""
    channels = ["CH1", "CH2", "CH3", "CH4", "AUX1", "AUX2", "ADC1"]
    node = tmp_path / "session" / "Record Node 101"
    write_binary(node / "experiment1" / "recording1", channels)
    write_binary(node / "experiment1" / "recording2", channels, num_samples=200, first_sample=9000)
    (node / "settings.xml").write_text("<SETTINGS><INFO><DATE>9 Nov 2023 8:05:30</DATE></INFO></SETTINGS>")
    return tmp_path / "session"


@pytest.mark.parametrize("level", [".", "Record Node 118/experiment1", "Record Node 118/experiment1/recording1"])
def test_binary_traces_are_those_of_neo(shared_data, level):
    folder = shared_data / "open_ephys" / "binary_16ch_40khz"
    stream_name = "Record Node 118#File_Reader-106.0"
    recording = read_open_ephys(folder / level, stream_name=stream_name, probe="linear")

    reader = OpenEphysBinaryRawIO(str(folder))
    reader.parse_header()
    stream_index = list(reader.header["signal_streams"]["name"]).index(stream_name)
    expected = reader.get_analogsignal_chunk(0, 0, stream_index=stream_index)
    np.testing.assert_array_equal(recording.get_traces(), expected)
    assert recording.sampling_frequency == 40000
    np.testing.assert_allclose(recording.get_channel_gains(), 0.05)
    assert recording.get_start_time() == 54752 / 40000
    assert recording.get_annotation("session_start_time") == "2021-03-22T20:05:30"


def test_legacy_traces_are_those_of_neo(shared_data):
    folder = shared_data / "open_ephys" / "legacy_2ch_40khz"
    with pytest.warns(UserWarning, match="2 channels, in file order, on a vertical line 20 µm apart; give") as caught:
        recording = read_open_ephys(folder)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)

    reader = OpenEphysRawIO(str(folder))
    reader.parse_header()
    np.testing.assert_array_equal(recording.get_traces(), reader.get_analogsignal_chunk(0, 0, stream_index=0))
    np.testing.assert_array_equal(recording.get_channel_locations(), [[0, 0], [0, 20]])
    assert recording.get_annotation("session_start_time") == "2018-10-03T13:16:50"


def test_several_neural_streams_are_listed(shared_data):
    folder = shared_data / "open_ephys" / "binary_16ch_40khz"
    with pytest.raises(ValueError, match=r"(?s)stream_name: .*File_Reader-106.0.*16 channels, 40000 Hz.*114.0"):
        read_open_ephys(folder)
    with pytest.raises(ValueError, match=r"(?s)stream_name: there is no 'AP'.*File_Reader-106.0"):
        read_open_ephys(folder, stream_name="AP")


@pytest.mark.parametrize(
    "level",
    [
        ".",
        "Record Node 101",
        "Record Node 101/experiment1",
        "Record Node 101/experiment1/recording1/continuous",
    ],
)
def test_neural_channels_only_from_any_level(session, level):
    recording = read_open_ephys(session / level, probe="tetrode")
    assert list(recording.channel_ids) == ["CH1", "CH2", "CH3", "CH4"]
    traces = recording.get_traces(segment_index=0)
    np.testing.assert_array_equal(traces[7], [70, 71, 72, 73])
    if "continuous" not in level:
        assert recording.get_num_segments() == 2
        assert recording.get_num_samples(1) == 200
        assert recording.get_start_time(1) == pytest.approx(9000 / FS)


def test_adc_stream_by_name(session):
    recording = read_open_ephys(session, stream_name="Record Node 101#Board-100.0_ADC", probe="linear")
    assert list(recording.channel_ids) == ["ADC1"]
    assert recording.get_traces(segment_index=0)[7] == [76]


def test_start_time(session, tmp_path):
    recording = read_open_ephys(session, probe="linear")
    assert recording.get_annotation("session_start_time") == "2023-11-09T08:05:30"
    assert recording.get_annotation("timestamps_reference_time") == "2023-11-09T08:05:29.900000"

    (session / "Record Node 101" / "experiment1" / "recording1" / "sync_messages.txt").write_text(UTC_MESSAGE)
    recording = read_open_ephys(session, probe="linear")
    assert recording.get_annotation("session_start_time") == "2023-11-14T22:13:20.250000+00:00"
    # The annotation goes with the recording through preprocessing and files, to the process of a sorter.
    centred = spre.center(recording, seed=0)
    centred.dump_to_json(tmp_path / "recording.json")
    loaded = si.load(tmp_path / "recording.json")
    assert loaded.get_annotation("session_start_time") == "2023-11-14T22:13:20.250000+00:00"


def test_two_experiments_must_be_told_apart(session):
    second = session / "Record Node 101" / "experiment2" / "recording1"
    write_binary(second, ["CH1", "CH2"])
    with pytest.raises(ValueError, match=r"(?s)folder: .*several experiments.*experiment1.*experiment2"):
        read_open_ephys(session)
    assert read_open_ephys(second.parent, probe="linear").get_num_channels() == 2


def test_two_sessions_must_be_told_apart(session, tmp_path):
    write_binary(tmp_path / "later" / "Record Node 101" / "experiment1" / "recording1", ["CH1"])
    with pytest.raises(ValueError, match=r"(?s)folder: .*several recordings.*later.*session"):
        read_open_ephys(tmp_path)


def test_not_open_ephys(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder: .*nowhere"):
        read_open_ephys(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"folder: .*structure.oebin"):
        read_open_ephys(tmp_path)
    (tmp_path / "file.dat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"folder: .* is a file"):
        read_open_ephys(tmp_path / "file.dat")
    write_binary(tmp_path / "experiment1" / "recording1", ["ADC1", "ADC2"])
    with pytest.raises(ValueError, match=r"folder: .*no stream of neural channels; its streams are 'Board"):
        read_open_ephys(tmp_path)


def test_probes(session, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording = read_open_ephys(session, probe="linear:25")
    np.testing.assert_array_equal(recording.get_channel_locations()[:, 1], [0, 25, 50, 75])

    probe = generate_multi_columns_probe(num_columns=2, num_contact_per_column=2, xpitch=30, ypitch=40)
    probe.set_device_channel_indices([3, 2, 1, 0])
    probegroup = ProbeGroup()
    probegroup.add_probe(probe)
    write_probeinterface(tmp_path / "probe.json", probegroup)
    for given in (probe, probegroup, tmp_path / "probe.json", str(tmp_path / "probe.json")):
        recording = read_open_ephys(session, probe=given)
        np.testing.assert_array_equal(recording.get_channel_locations(), probe.contact_positions[::-1])

    unwired = generate_linear_probe(num_elec=4, ypitch=15)
    recording = read_open_ephys(session, probe=unwired)
    np.testing.assert_array_equal(recording.get_channel_locations(), unwired.contact_positions)
    assert unwired.device_channel_indices is None  # the caller's probe is left as it was


def test_wrong_probes(session, tmp_path):
    with pytest.raises(ValueError, match=r"probe: has 5 contacts, .* but the recording has 4 channels"):
        read_open_ephys(session, probe=generate_linear_probe(num_elec=5))
    with pytest.raises(FileNotFoundError, match=r"probe: no file .*missing.json"):
        read_open_ephys(session, probe=tmp_path / "missing.json")
    with pytest.raises(FileNotFoundError, match=r"probe: no file octrode.*'tetrode'"):
        read_open_ephys(session, probe="octrode")
    with pytest.raises(ValueError, match="probe: 'linear:wide' needs a pitch"):
        read_open_ephys(session, probe="linear:wide")
    (tmp_path / "probe.json").write_text('{"probes": 1}')
    with pytest.raises(ValueError, match=r"probe: .* is not a probeinterface JSON"):
        read_open_ephys(session, probe=tmp_path / "probe.json")
    write_binary(tmp_path / "three" / "experiment1" / "recording1", ["CH1", "CH2", "CH3"])
    with pytest.raises(ValueError, match="probe: 'tetrode' needs a multiple of four channels"):
        read_open_ephys(tmp_path / "three", probe="tetrode")


@pytest.mark.filterwarnings("ignore:No probe")
def test_folders_of_a_damaged_rig(session):
    oebin = session / "Record Node 101" / "experiment1" / "recording1" / "structure.oebin"
    structure = json.loads(oebin.read_text())
    del structure["events"]
    oebin.write_text(json.dumps(structure))
    assert read_open_ephys(session).get_num_channels() == 4  # without a folder of events nobody asks for them
    (oebin.parent / "events").mkdir()
    with pytest.raises(ValueError, match=r"folder: .*structure.oebin has no entry 'events', .*; add \"events\": \[\]"):
        read_open_ephys(session)
    oebin.write_text("{")
    with pytest.raises(ValueError, match=r"folder: .*structure.oebin is no JSON"):
        read_open_ephys(session)
    oebin.write_text("{}")
    with pytest.raises(ValueError, match=r"has no entry 'continuous'"):
        read_open_ephys(session)
    oebin.write_text(json.dumps(structure | {"events": []}))
    (oebin.parent / "continuous" / "Board-100.0" / "sample_numbers.npy").unlink()
    with pytest.raises(ValueError, match=r"folder: Neo cannot read .* FileNotFoundError"):
        read_open_ephys(session)


@pytest.mark.filterwarnings("ignore:No probe")
def test_lost_timestamps_fall_back_to_sample_numbers(session):
    for path in session.rglob("sample_numbers.npy"):
        np.save(path, np.full(len(np.load(path)), -1))
    with pytest.warns(UserWarning, match="where the rig lost its clock; its time is counted from its first sample"):
        recording = read_open_ephys(session)
    assert [recording.get_start_time(segment) for segment in range(2)] == [0.0, 0.0]


def test_a_stream_may_be_named_by_its_end(shared_data):
    folder = shared_data / "open_ephys" / "binary_16ch_40khz"
    recording = read_open_ephys(folder, stream_name="File_Reader-106.0", probe="linear")
    other = read_open_ephys(folder, stream_name="File_Reader-114.0", probe="linear")
    assert recording.get_num_channels() == other.get_num_channels() == 16
    assert not np.array_equal(recording.get_traces(), other.get_traces())


def write_legacy(folder, parts, recording_of=""):
    """Write two channels in the legacy format; `parts` are (first timestamp, number of records), records of 1024."""
    folder.mkdir(exist_ok=True)
    record = [("t", "<i8"), ("n", "<u2"), ("recording", "<u2"), ("samples", ">i2", 1024), ("marker", "u1", 10)]
    header = "".join(
        f"header.{key} = {value};\n"
        for key, value in {
            "format": "'Open Ephys Data Format'",
            "version": 0.4,
            "header_bytes": 1024,
            "date_created": "'3-Oct-2018 131650'",
            "channel": "'CH'",
            "channelType": "'Continuous'",
            "sampleRate": 30000,
            "blockLength": 1024,
            "bufferSize": 1024,
            "bitVolts": 0.2,
        }.items()
    )
    samples = np.arange(sum(number for _, number in parts) * 1024).reshape(-1, 1024)
    for channel in (1, 2):
        records = np.zeros(len(samples), record)
        records["t"] = np.concatenate([first + 1024 * np.arange(number) for first, number in parts])
        records["n"], records["samples"] = 1024, samples + channel
        data = header.encode().ljust(1024) + records.tobytes()
        (folder / f"100_CH{channel}{recording_of}.continuous").write_bytes(data)
    return np.add(samples.reshape(-1, 1), [1, 2])


def test_a_legacy_recording_that_was_stopped_and_restarted(tmp_path):
    """Within a file there are gaps, of which Neo reads none that a chunk ends in; a second file starts anew."""
    first = write_legacy(tmp_path / "rig", [(3000, 4), (90_000, 3), (120_000, 5)])
    second = write_legacy(tmp_path / "rig", [(6000, 6)], "_2")
    with pytest.warns(UserWarning, match=r"have 2 gaps, of 3.66 s in all; each stretch between them is a segment"):
        recording = read_open_ephys(tmp_path / "rig", probe="linear")
    expected = [first[: 4 * 1024], first[4 * 1024 : 7 * 1024], first[7 * 1024 :], second]
    starts = np.array([3000, 90_000, 120_000, 6000]) / 30_000
    assert recording.get_num_segments() == 4
    for segment, (samples, start) in enumerate(zip(expected, starts, strict=True)):
        assert recording.get_start_time(segment_index=segment) == pytest.approx(start)
        assert recording.get_num_samples(segment) == len(samples)
        for begin, end in ((0, None), (1000, 1100), (500, 2048), (1024, 3072)):
            np.testing.assert_array_equal(
                recording.get_traces(segment_index=segment, start_frame=begin, end_frame=end), samples[begin:end]
            )
