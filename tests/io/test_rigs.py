"""Small files as the rigs write them, each of known samples, through `read_recording`."""

import json
import struct
import warnings

import h5py
import numpy as np
import pytest
import spikeinterface as si

from dlvolt.io import hdf5, read_recording
from dlvolt.io.rigs import READERS, choose_neural_stream

T, N = 1024, 4
RNG = np.random.default_rng(0)
TRACES = RNG.integers(-500, 500, size=(T, N)).astype("int16")


def write_spikeglx(folder):
    """One Neuropixels 1.0 probe: AP, LF and its sync."""
    probe = folder / "run_g0" / "run_g0_imec0"
    probe.mkdir(parents=True)
    sync = np.zeros((T, 1), "int16")
    for band, rate, counts in (("ap", 30000, f"{N},0,1"), ("lf", 2500, f"0,{N},1")):
        stem = f"run_g0_t0.imec0.{band}"
        np.hstack([TRACES, sync]).tofile(probe / f"{stem}.bin")
        names = "".join(f"({band.upper()}{n};{n}:{n})" for n in range(N))
        meta = {
            "acqApLfSy": "384,384,1",
            "appVersion": "20230905",
            "fileName": f"C:/data/{stem}.bin",
            "fileSizeBytes": T * (N + 1) * 2,
            "firstSample": 0,
            "imAiRangeMax": 0.6,
            "imAiRangeMin": -0.6,
            "imDatPrb_pn": "NP1000",
            "imDatPrb_type": 0,
            "imMaxInt": 512,
            "imSampRate": rate,
            "nSavedChans": N + 1,
            "snsApLfSy": counts,
            "snsSaveChanSubset": f"0:{N - 1},384",
            "typeThis": "imec",
            "~imroTbl": "(0,384)" + "".join(f"({n} 0 0 500 250 1)" for n in range(384)),
            "~snsChanMap": f"(384,384,1){names}(SY0;384:384)",
        }
        text = "".join(f"{key}={value}\n" for key, value in meta.items())
        (probe / f"{stem}.meta").write_text(text)
    return folder / "run_g0", "spikeglx", TRACES, 30000.0


def q_string(text):
    data = text.encode("utf-16-le")
    return struct.pack("<I", len(data)) + data


def write_intan(folder):
    """RHD2000, version 1.5: amplifier channels and one auxiliary input, interleaved in blocks of 60 samples."""
    block, num_blocks = 60, 17
    header = struct.pack("<Ihh", 0xC6912702, 1, 5)
    header += struct.pack("<fhffffffhff", 20000.0, 1, 1, 0.1, 7500, 1, 0.1, 7500, 0, 1000, 1000)
    header += q_string("") * 3 + struct.pack("<hhh", 0, 0, 1)  # temperature sensors, board mode, groups
    header += q_string("Port A") + q_string("A") + struct.pack("<hhh", 1, N + 1, N)
    for n in range(N + 1):
        name, kind = (f"A-{n:03d}", 0) if n < N else ("A-AUX1", 1)
        header += q_string(name) * 2 + struct.pack("<10h2f", n, n, kind, 1, n, 0, 0, 0, 0, 0, 1e5, 0.0)
    traces = TRACES[: block * num_blocks]
    with (folder / "rec.rhd").open("wb") as file:
        file.write(header)
        for i in range(num_blocks):
            file.write((i * block + np.arange(block)).astype("<i4").tobytes())
            file.write((traces[i * block : (i + 1) * block].astype(int) + 32768).astype("<u2").T.tobytes())
            file.write(np.zeros(block // 4, "<u2").tobytes())
    return folder / "rec.rhd", "intan", (traces.astype(int) + 32768).astype("uint16"), 20000.0


def write_blackrock(folder):
    """One .ns5 file of specification 2.2."""
    size = 314 + 66 * N
    header = struct.pack("<8sBBI16s256sII8HI", b"NEURALCD", 2, 2, size, b"raw", b"", 1, 30000, *[2024, 5, 5, 31] * 2, N)
    for n in range(N):
        label = f"elec{n}".encode()
        header += struct.pack(
            "<2sH16sBBhhhh16sIIHIIH", b"CC", n + 1, label, 1, n, -8191, 8191, -8191, 8191, b"uV", 0, 0, 0, 0, 0, 0
        )
    data = struct.pack("<BII", 1, 0, T) + TRACES.tobytes()
    (folder / "rec.ns5").write_bytes(header + data)
    return folder, "blackrock", TRACES, 30000.0


def write_neuralynx(folder):
    """A .ncs file for each channel, in records of 512 samples."""
    for n in range(N):
        lines = [
            "######## Neuralynx Data File Header",
            r"## File Name C:\data\CSC.ncs",
            "## Time Opened (m/d/y): 5/31/2024  (h:m:s.ms) 14:30:0.0",
            "## Time Closed (m/d/y): 5/31/2024  (h:m:s.ms) 14:31:0.0",
            "-CheetahRev 5.6.3",
            f"-AcqEntName CSC{n + 1}",
            "-HardwareSubSystemType DigitalLynxSX",
            "-SamplingFrequency 32000",
            "-ADMaxValue 32767",
            "-ADBitVolts 0.0000000305",
            f"-ADChannel {n}",
            "-InputRange 1000",
            "-InputInverted False",
        ]
        text = "\r\n".join(lines).encode("latin-1").ljust(2**14, b"\0")
        records = b"".join(
            struct.pack("<QIII", i * 16000, n, 32000, 512) + TRACES[512 * i : 512 * (i + 1), n].tobytes()
            for i in range(T // 512)
        )
        (folder / f"CSC{n + 1}.ncs").write_bytes(text + records)
    return folder, "neuralynx", TRACES, 32000.0


def write_maxwell(folder):
    """MaxOne, the format of 2016."""
    path = folder / "data.raw.h5"
    mapping = np.zeros(N, [("channel", "i4"), ("electrode", "i4"), ("x", "f8"), ("y", "f8")])
    mapping["channel"] = mapping["electrode"] = np.arange(N)
    mapping["y"] = 17.5 * np.arange(N)
    unsigned = (TRACES.astype(int) + 512).astype("uint16")
    with h5py.File(path, "w") as file:
        file["version"] = [b"20160704"]
        file["mapping"] = mapping
        file["settings/lsb"] = [6.29e-6]
        file["sig"] = unsigned.T
    return path, "maxwell", unsigned, 20000.0


def write_mearec(folder):
    """What MEArec saves of a simulation."""
    path = folder / "recordings.h5"
    with h5py.File(path, "w") as file:
        file.attrs["mearec_version"] = "1.9.0"
        file["info/recordings/fs"] = 32000.0
        file["info/recordings/duration"] = T / 32000.0
        file["info/recordings/dtype"] = "int16"
        file["info/electrodes/electrode_name"] = "tetrode"
        file["info/electrodes/shape"] = "square"
        file["info/electrodes/size"] = 7.5
        file["info/electrodes/plane"] = "yz"
        file["info/electrodes/sortlist"] = "null"
        file["channel_positions"] = np.column_stack([np.zeros(N), np.zeros(N), 25.0 * np.arange(N)])
        file["recordings"] = TRACES
    return path, "mearec", TRACES, 32000.0


def write_binary(folder):
    TRACES.tofile(folder / "rec.dat")
    described = dict(sampling_frequency=25000.0, num_channels=N, dtype="int16", gain_to_uV=0.2, offset_to_uV=0.0)
    (folder / "rec.json").write_text(json.dumps(described))
    return folder / "rec.dat", "binary", TRACES, 25000.0


WRITERS = [write_spikeglx, write_intan, write_blackrock, write_neuralynx, write_maxwell, write_mearec, write_binary]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))
@pytest.mark.filterwarnings("ignore")
def test_every_sample_by_the_reader_that_is_for_it(tmp_path, write):
    source, reader, expected, rate = write(tmp_path)
    if reader == "mearec":
        pytest.importorskip("MEArec")  # which Neo needs
    recording = read_recording(source)
    assert recording.get_annotation("reader") == f"read_{reader}"
    assert recording.sampling_frequency == rate
    np.testing.assert_array_equal(recording.get_traces(), expected)
    assert recording.has_probe()
    np.testing.assert_array_equal(si.load(recording.to_dict()).get_traces(), expected)  # as in a worker
    again = read_recording(source, reader=reader)
    np.testing.assert_array_equal(again.get_traces(), expected)


@pytest.mark.filterwarnings("ignore")
def test_the_stream_of_electrodes_is_taken_and_others_can_be_asked_for(tmp_path):
    source, *_ = write_spikeglx(tmp_path)
    assert read_recording(source).get_annotation("reader_stream") == "imec0.ap"
    assert read_recording(source, stream_name="imec0.lf").sampling_frequency == 2500.0
    with pytest.raises(ValueError, match=r"stream_name: there is no 'nidq' .* 'imec0.ap' \(4 channels, 30000 Hz\)"):
        read_recording(source, stream_name="nidq")
    channels = np.array([(30000.0,)] * 2, [("sampling_rate", float)])
    with pytest.raises(ValueError, match=r"several streams; choose one of 'imec0.ap'.*'imec1.ap'"):
        choose_neural_stream({"imec0.ap": channels, "imec1.ap": channels}, None, source)
    with pytest.raises(ValueError, match="no stream that is sure to be of electrodes; choose one of 'nidq'"):
        choose_neural_stream({"nidq": channels}, None, source)


def test_nothing_is_guessed(tmp_path):
    write_blackrock(tmp_path)
    (tmp_path / "rec.plx").write_bytes(b"PLEX")
    with pytest.raises(ValueError, match=r"several recordings; give one of blackrock: .*rec.ns5.*plexon: .*rec.plx"):
        read_recording(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recording = read_recording(tmp_path, reader="blackrock")
    np.testing.assert_array_equal(recording.get_traces(), TRACES)
    with pytest.raises(ValueError, match="reader: there is no 'tape'; choose one of alphaomega"):
        read_recording(tmp_path, reader="tape")
    assert "spikeglx" in READERS


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_"))
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_one_line(tmp_path, write):
    write(tmp_path)
    described = [path for path in tmp_path.rglob("*") if path.suffix in (".meta", ".json")]
    for path in described or [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[:40])
    source = tmp_path / "run_g0" if write is write_spikeglx else tmp_path
    with pytest.raises(ValueError, match="source: ") as caught:
        read_recording(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("described", "error"),
    [
        (dict(num_channels=4, dtype="int16"), "rec.json must tell dtype, num_channels, sampling_frequency"),
        (dict(sampling_frequency=1.0, num_channels=4, dtype="int16", gain=2), "rec.json tells gain; it may tell"),
        (dict(sampling_frequency=1.0, num_channels=5000, dtype="int16"), "no whole sample of 5000 channels"),
    ],
)
def test_binary_that_is_badly_described(tmp_path, described, error):
    path, *_ = write_binary(tmp_path)
    (tmp_path / "rec.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=error):
        read_recording(path)
    (tmp_path / "rec.json").unlink()
    with pytest.raises(ValueError, match=r"there is no rec.json beside it that tells dtype"):
        read_recording(path, reader="binary")


@pytest.mark.parametrize(
    ("look", "end"), [("while True: pass", "hangs"), ("import os; os.abort()", "crashes"), ("raise OSError", None)]
)
def test_where_hdf5_does_not_come_back_from_attributes(tmp_path, monkeypatch, look, end):
    path, *_ = write_mearec(tmp_path)
    hdf5.check_hdf5(path)
    monkeypatch.setattr(hdf5, "LOOK", look)
    monkeypatch.setattr(hdf5, "LIMIT_S", 0.5)
    if end is None:  # told by the reader
        hdf5.check_hdf5(path)
        return
    with pytest.raises(
        ValueError, match=rf"^source: .* is damaged: the HDF5 library {end} on its attributes or values\.$"
    ):
        read_recording(path)
