import io
import json
import re
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from datetime import datetime, timezone

import numpy as np
import pandas as pd
import pytest
import spikeinterface as si
from probeinterface import write_probeinterface
from pynwb import NWBHDF5IO, NWBFile
from pynwb.ecephys import ElectricalSeries
from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.extractors import read_nwb_sorting, read_phy

import dlvolt
from dlvolt import write_nwb_units
from dlvolt.cli import main, make_parser
from dlvolt.cli.arguments import ELECTRODE_PARAMETERS, ROI_PARAMETERS
from dlvolt.cli.compare import agreement, read_units
from dlvolt.evaluation import event_scores
from dlvolt.networks import load
from dlvolt.parameters import SorterParameters
from dlvolt.simulation import write_simulated_imaging

START = datetime(2024, 5, 31, 14, 30, tzinfo=timezone.utc)
PLAIN = ["--quiet", "--n-jobs", "1"]
QUICK = [*PLAIN, "--num-sweeps", "1"]
LITTLE = ["--learning-duration-s", "0.5"]
STREAM = "Record Node 118#File_Reader-106.0"


@pytest.fixture(scope="module")
def simulated():
    """Three loud units on four channels, 5 s."""
    return si.generate_ground_truth_recording(
        durations=[5.0],
        sampling_frequency=30_000.0,
        num_channels=4,
        num_units=3,
        generate_sorting_kwargs=dict(firing_rates=12.0, refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(minimum_z=5.0, maximum_z=10.0, minimum_distance=20.0),
        noise_kwargs=dict(noise_levels=4.0, strategy="on_the_fly"),
        seed=3,
    )


def write_recording(path, recording, starting_time):
    """Write an ElectricalSeries and what belongs to it, as a lab would with pynwb."""
    nwbfile = NWBFile("a mouse on a wheel", "recording-1", START, experimenter=["Galvani, Luigi"])
    device = nwbfile.create_device(name="probe", description="a probe")
    group = nwbfile.create_electrode_group("shank", description="a shank", location="CA1", device=device)
    for x, y in recording.get_channel_locations():
        nwbfile.add_electrode(group=group, location="CA1", rel_x=float(x), rel_y=float(y))
    electrodes = nwbfile.create_electrode_table_region([0, 1, 2, 3], "all electrodes")
    data = np.round(recording.get_traces() / 0.2).astype("int16")
    nwbfile.add_acquisition(
        ElectricalSeries(
            name="AP",
            data=data,
            electrodes=electrodes,
            rate=30_000.0,
            starting_time=starting_time,
            conversion=0.2e-6,
        )
    )
    with NWBHDF5IO(str(path), "w") as writing:
        writing.write(nwbfile)
    return path


def in_folder(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "num_channels", "duration_s", "pitch_um"),
    [
        (
            "binary_16ch_40khz",
            ["--stream", STREAM, "--probe", "linear:25", "--detect-threshold", "9", *LITTLE],
            16,
            3.06,
            25.0,
        ),
        ("legacy_2ch_40khz", ["--detect-threshold", "8", *LITTLE], 2, 10.6, 20.0),
    ],
)
def test_open_ephys(shared_data, tmp_path, capsys, name, options, num_channels, duration_s, pitch_um):
    out = tmp_path / "spikes.nwb"
    main(["sort", str(shared_data / "open_ephys" / name), "--out", str(out), *options, *QUICK])
    printed = capsys.readouterr()
    assert ("No probe in the source" in printed.err) == ("--probe" not in options)
    num_units, num_spikes = map(int, re.search(r"(\d+) units, (\d+) spikes", printed.out).groups())
    assert num_units > 0

    with NWBHDF5IO(str(out), "r") as reading:
        nwbfile = reading.read()
        assert np.ptp(nwbfile.electrodes["rel_y"].data[:]) == pitch_um * (num_channels - 1)
        units = nwbfile.units.to_dataframe()
    assert len(units) == num_units
    assert sum(map(len, units["spike_times"])) == num_spikes
    for times, intervals in zip(units["spike_times"], units["obs_intervals"], strict=True):
        assert intervals.shape == (1, 2)
        assert np.ptp(intervals) == pytest.approx(duration_s, abs=0.01)
        assert intervals[0, 0] <= times.min() <= times.max() < intervals[0, 1]
    np.testing.assert_allclose(units["firing_rate"], units["num_spikes"] / duration_s, rtol=0.01)
    assert units["waveform_mean"].map(np.nanmin).max() < 0  # volts; spikes point downwards
    assert in_folder(tmp_path) == ["spikes.nwb"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory, simulated):
    """One run that writes all it can: its folder, what it said, and the true units."""
    recording, truth = simulated
    folder = tmp_path_factory.mktemp("kept")
    source = write_recording(folder / "recording.nwb", recording, starting_time=7.0)
    recording = recording.clone()
    recording.shift_times(7.0)
    truth.register_recording(recording)
    write_nwb_units(truth, folder / "truth.nwb", source=source)
    given = ["--num-sweeps", "1", "--detect-threshold", "6", "--n-jobs", "1", "--compare", str(folder / "truth.nwb")]
    places = [("folder", "run"), *((kind, kind) for kind in ("report", "phy", "csv", "npy"))]
    handed_on = [word for kind, name in places for word in (f"--{kind}", str(folder / name))]
    with redirect_stdout(io.StringIO()) as said:
        main(["sort", str(source), "--out", str(folder / "first.nwb"), *given, *handed_on])
    return folder, said.getvalue(), truth


def test_nwb_compared_with_the_truth(kept):
    folder, said, truth = kept
    out = folder / "first.nwb"
    found = read_nwb_sorting(out, sampling_frequency=30_000.0, t_start=7.0)
    accuracy = compare_sorter_to_ground_truth(truth, found, exhaustive_gt=True).get_performance()["accuracy"]
    assert accuracy.astype(float).min() > 0.9
    rows = re.findall(r"^ *(\d+) +(\d+) +(\w+) +(\d+) +([01]\.\d+)$", said, re.MULTILINE)
    assert len(rows) == len(found.unit_ids)
    best = {match: float(agreement) for _, _, match, _, agreement in rows}
    np.testing.assert_allclose([best[str(unit)] for unit in truth.unit_ids], accuracy.astype(float), atol=6e-4)

    with NWBHDF5IO(str(out), "r") as reading:
        nwbfile = reading.read()
        assert nwbfile.session_description == "a mouse on a wheel"
        assert nwbfile.session_start_time == START
        assert nwbfile.electrodes["location"][0] == "CA1"
    parameters = json.loads((folder / "run" / "sorter" / "spikeinterface_params.json").read_text())
    assert parameters["sorter_params"]["detect_threshold"] == 6.0
    analyzer = si.load(folder / "run" / "analyzer")
    assert analyzer.get_num_units() == len(found.unit_ids)
    assert analyzer.has_extension("quality_metrics")


def test_a_run_is_kept_and_repeated(kept, tmp_path, capsys):
    folder, said, _ = kept
    assert re.search(r"recording.nwb by read_nwb_recording.*: 4 channels, 30000 Hz, 5.0 s", said)
    log = (folder / "run" / "log.txt").read_text()
    assert "4 channels, 30000 Hz" in log
    assert f"spikes: {folder / 'first.nwb'}" in log
    assert "it/s" not in log
    record = json.loads((folder / "run" / "run.json").read_text())
    assert record["parameters"]["detect_threshold"] == 6.0
    assert {"dlvolt", "spikeinterface", "torch"} <= set(record["versions"])
    params = ["--params", str(folder / "run" / "run.json")]
    main(["sort", str(folder / "recording.nwb"), "--out", str(tmp_path / "again.nwb"), *params, *PLAIN])
    assert capsys.readouterr().err == ""
    first, again = (
        read_nwb_sorting(path, sampling_frequency=30_000.0, t_start=7.0)
        for path in (folder / "first.nwb", tmp_path / "again.nwb")
    )
    np.testing.assert_array_equal(first.to_spike_vector(), again.to_spike_vector())


def test_a_run_is_handed_on(kept):
    folder, *_ = kept
    assert "located spike by spike" in (folder / "report" / "report.html").read_text(encoding="utf-8")
    first = read_nwb_sorting(folder / "first.nwb", sampling_frequency=30_000.0, t_start=7.0)
    spikes, units = (pd.read_csv(folder / "csv" / f"{name}.csv") for name in ("spikes", "units"))
    np.testing.assert_array_equal(spikes["sample"], first.to_spike_vector()["sample_index"])
    np.testing.assert_allclose(spikes["time_s"], 7.0 + spikes["sample"] / 30_000.0)
    assert list(units["label"].isin(["good", "mua"])) == [True] * len(first.unit_ids)
    arrays = {path.stem: np.load(path) for path in (folder / "npy").iterdir()}
    np.testing.assert_array_equal(arrays["spike_times"], spikes["sample"])
    assert arrays["templates"].shape[0] == arrays["unit_ids"].size == len(units)
    assert arrays["amplitudes"].shape == arrays["spike_clusters"].shape
    phy = read_phy(folder / "phy", load_all_cluster_properties=False)
    assert sorted(phy.count_num_spikes_per_unit(outputs="array")) == sorted(units["num_spikes"])
    assert "dat_path = r'recording.dat'" in (folder / "phy" / "params.py").read_text()


def test_noise_gives_an_empty_table_with_its_metadata(tmp_path, capsys):
    noise = si.generate_recording(num_channels=4, durations=[0.3], seed=0)
    noise.save(folder=tmp_path / "recording", verbose=False)
    out = tmp_path / "spikes.nwb"
    command = ["sort", str(tmp_path / "recording"), "--out", str(out), "--detect-threshold", "20", *QUICK]
    main([*command, "--session-start-time", START.isoformat(), "--session-description", "silence"])
    assert "0 units, 0 spikes" in capsys.readouterr().out
    assert len(read_nwb_sorting(out, t_start=0).unit_ids) == 0
    with NWBHDF5IO(str(out), "r") as reading:
        nwbfile = reading.read()
        assert nwbfile.session_start_time == START
        assert nwbfile.session_description == "silence"

    metadata = tmp_path / "session.json"
    metadata.write_text(
        '{"NWBFile": {"session_description": "a nap"}, "Subject": {"subject_id": "cat-1"}, '
        '"ElectrodeGroup": {"location": "tail"}}'
    )
    options = ["--metadata", str(metadata), "--overwrite", "--compare", str(out)]
    main([*command, "--session-start-time", START.isoformat(), *options])
    assert "none to compare: 0 units against 0" in capsys.readouterr().out
    with NWBHDF5IO(str(out), "r") as reading:
        nwbfile = reading.read()
        assert nwbfile.session_description == "a nap"
        assert nwbfile.subject.subject_id == "cat-1"
        assert set(nwbfile.electrodes["location"][:]) == {"tail"}


def test_every_sorter_parameter_is_a_flag():
    parser = make_parser()
    defaults = SorterParameters.defaults()
    by_hand = {"modality", "model", "polarity", "probability_threshold", "shadow_ms", "job_kwargs"}
    assert {*ELECTRODE_PARAMETERS, *ROI_PARAMETERS, *by_hand} == set(defaults)
    args = parser.parse_args(["sort", "source", "--out", "out.nwb"])
    of_rois = parser.parse_args(["detect", "source", "--out", "out.nwb"])
    assert all(getattr(of_rois, name) == defaults[name] for name in ROI_PARAMETERS)
    for name, default in defaults.items():
        if name not in ELECTRODE_PARAMETERS:
            continue
        assert getattr(args, name) == default
        flag = name.replace("_", "-")
        given = [f"--no-{flag}"] if default is True else [f"--{flag}", "pos" if isinstance(default, str) else "7"]
        changed = getattr(parser.parse_args(["sort", "source", "--out", "out.nwb", *given]), name)
        assert type(changed) is type(default)
        assert changed != default


@pytest.fixture(scope="module")
def short_recording(tmp_path_factory, simulated):
    """A folder with a recording that does not tell its start time."""
    recording, _ = simulated
    path = tmp_path_factory.mktemp("short") / "recording"
    recording.frame_slice(0, 3000).save(folder=path, verbose=False)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch, short_recording):
    """A working directory with a recording; sorting it fails the test."""
    (tmp_path / "recording").symlink_to(short_recording)
    (tmp_path / "there.nwb").write_text("an earlier file")
    (tmp_path / "empty").mkdir()
    for name in ("tape.raw", "tape.npy"):
        (tmp_path / name).write_bytes(b"digits")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spikeinterface.sorters.run_sorter", lambda *_, **__: pytest.fail("sorted bad input"))
    return tmp_path


START_GIVEN = ["--session-start-time", "2024-05-31"]
GOOD = ["sort", "recording", "--out", "out.nwb", *START_GIVEN]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], r"required: COMMAND"),
        (["sort", "recording"], r"required: --out"),
        (["sort", "nowhere", "--out", "out.nwb"], r"SOURCE: nowhere does not exist"),
        (["sort", "empty", "--out", "out.nwb"], r"SOURCE: empty is neither an Open Ephys folder nor"),
        (["sort", "there.nwb", "--out", "out.nwb"], r"SOURCE: there.nwb is not an NWB file"),
        (
            ["sort", "tape.raw", "--out", "out.nwb"],
            r"is raw binary; write tape.json beside it with dtype, num",
        ),
        (["sort", "tape.npy", "--out", "out.nwb"], r"tape.npy holds plain traces, which dlvolt detect and"),
        (["sort", "recording", "--out", "out.nwb"], r"--session-start-time: .* give it, e.g. 20\d\d"),
        (["sort", "recording", "--out", "there.nwb", *START_GIVEN], r"--out: there.nwb exists; .* --overwrite"),
        (["sort", "recording", "--out", "no/out.nwb", *START_GIVEN], r"--out: there is no folder .*no"),
        (["sort", "recording", "--out", "empty", *START_GIVEN], r"--out: empty is a folder"),
        ([*GOOD, "--stream", "AP"], r"--stream: recording, saved by SpikeInterface, has only one"),
        ([*GOOD, "--probe", "nowhere.json"], r"--probe: no file nowhere.json; give a probeinterface JSON"),
        ([*GOOD, "--probe", "linear:x"], r"--probe: 'linear:x' needs a pitch in µm"),
        ([*GOOD, "--folder", "empty"], r"--folder: empty exists; give the name of a new folder"),
        ([*GOOD, "--compare", "nowhere.nwb"], r"--compare: there is no file nowhere.nwb"),
        ([*GOOD, "--compare", "there.nwb"], r"--compare: there.nwb is not an NWB file"),
        ([*GOOD, "--session-start-time", "noon"], r"--session-start-time: 'noon' is not a time like 20\d\d"),
        ([*GOOD, "--detect-treshold", "6"], r"unknown arguments: --detect-treshold 6; did you mean --detect-threshold"),
        ([*GOOD, "--zzz", "6"], r"unknown arguments: --zzz 6; 'dlvolt sort --help'"),
        ([*GOOD, "--reader", "tape"], r"--reader: there is no 'tape'; choose one of"),
        ([*GOOD, "--phy", "empty"], r"--phy: empty exists; give the name of a new folder"),
        ([*GOOD, "--csv", "no/csv"], r"--csv: there is no folder .*no to put csv in"),
        ([*GOOD, "--params", "there.nwb"], r"--params: there.nwb is not a JSON file"),
        (["info", "nowhere"], r"SOURCE: nowhere does not exist"),
        ([*GOOD, "--rank", "two"], r"--rank: invalid int value: 'two'"),
        ([*GOOD, "--rank", "0"], r"rank must be positive"),
        ([*GOOD, "--peak-sign", "up"], r"peak_sign must be 'neg', 'pos' or 'both', not 'up'"),
        (["demo", "--out", "there.nwb"], r"--out: there.nwb is a file; give the name of a folder"),
        (["demo", "--duration", "0"], r"--duration: must be positive"),
    ],
)
def test_bad_input_is_one_line_before_the_work(folder, capsys, arguments, error):
    before = in_folder(folder)
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"dlvolt: error: .*{error}.*\n", printed.err), printed.err
    assert in_folder(folder) == before
    assert (folder / "there.nwb").read_text() == "an earlier file"


def test_streams_are_listed(shared_data, folder, capsys):
    with pytest.raises(SystemExit):
        main(["sort", str(shared_data / "open_ephys" / "binary_16ch_40khz"), "--out", "out.nwb"])
    assert re.search(
        rf"error: --stream: .* choose one of '{STREAM}' \(16 channels, 40000 Hz\); ", capsys.readouterr().err
    )
    assert not (folder / "out.nwb").exists()


def test_nwb_files_without_what_is_asked_for(shared_data, folder, capsys):
    nwb = shared_data / "nwb"
    for arguments, error in (
        (["sort", str(nwb / "ophys_roi_response_series.nwb"), "--out", "out.nwb"], "SOURCE: .* no ElectricalSeries"),
        ([*GOOD, "--compare", str(nwb / "ophys_roi_response_series.nwb")], "--compare: .* has no units"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert re.search(f"dlvolt: error: {error}", capsys.readouterr().err)


RATE = ["--sampling-frequency", "500"]
SMALL = ["--model", "fcn", "--epochs", "8", "--lr", "0.02", "--set", "channels=[8, 8]", "--set", "batch_size=64"]


@pytest.fixture(scope="module")
def voltage(tmp_path_factory):
    """Three traces of 20 s with clear spikes, the last without any: their files, spike times, and a trained model."""
    folder = tmp_path_factory.mktemp("voltage")
    rng = np.random.default_rng(0)
    traces = rng.normal(size=(10_000, 3))
    frames = [np.arange(20 + 30 * n, 9_990, 97) for n in range(2)]
    for n, of_trace in enumerate(frames):
        traces[of_trace, n] += 12
        traces[of_trace + 1, n] += 6
    np.save(folder / "traces.npy", traces)
    np.save(folder / "upside_down.npy", traces * [1, -1, 1])
    rows = [(n, frame / 500) for n, of_trace in enumerate(frames) for frame in of_trace]
    np.savetxt(folder / "spikes.csv", rows, delimiter=",", header="channel,time_s", comments="")
    command = ["train", str(folder / "traces.npy"), "--labels", str(folder / "spikes.csv"), *RATE, *SMALL, "--quiet"]
    main([*command, "--set", "spike_polarity=positive", "--out", str(folder / "my_model")])
    return folder, [of_trace / 500 for of_trace in frames]


def test_train_then_detect(voltage, tmp_path, capsys):
    folder, times = voltage
    model = load(folder / "my_model")
    assert model.get_params()["module__channels"] == (8, 8)
    assert model.sampling_frequency == 500.0
    assert "precision" in (folder / "my_model" / "MODEL_CARD.md").read_text()

    out = tmp_path / "spikes.nwb"
    command = ["detect", str(folder / "upside_down.npy"), *RATE, "--model", str(folder / "my_model")]
    main([*command, "--out", str(out), *START_GIVEN, *PLAIN])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert re.search(rf"3 units, \d+ spikes: {out}", printed.out)
    with NWBHDF5IO(str(out), "r") as reading:
        units = reading.read().units.to_dataframe()
    assert list(units["unit_name"]) == ["0", "1", "2"]
    assert list(units["polarity"][:2]) == ["positive", "negative"]
    assert set(units["model_name"]) == {"my_model"}
    for found, true in zip(units["spike_times"], times, strict=False):
        assert event_scores(true, found).f1 > 0.97
    assert len(units["spike_times"][2]) < 5
    assert units["obs_intervals"][2].tolist() == [[0, 20]]
    assert in_folder(tmp_path) == ["spikes.nwb"]

    shown = ["--report", str(tmp_path / "page"), "--csv", str(tmp_path / "csv")]
    main([*command, "--traces", "subthreshold", "--overwrite", "--out", str(out), *START_GIVEN, *PLAIN, *shown])
    assert "upside_down.npy" in (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    with NWBHDF5IO(str(out), "r") as reading:
        nwbfile = reading.read()
        units = nwbfile.units.to_dataframe()
        spikes = pd.read_csv(tmp_path / "csv" / "spikes.csv")
        for index, unit in enumerate(("0", "1", "2")):
            of_unit = spikes[spikes["unit"].astype(str) == unit]
            np.testing.assert_allclose(of_unit["time_s"], units["spike_times"][index])
            np.testing.assert_allclose(of_unit["probability"], units["spike_probability"][index], rtol=1e-6)
        assert list(pd.read_csv(tmp_path / "csv" / "units.csv")["polarity"][:2]) == ["positive", "negative"]
        assert "voltage imaging" in nwbfile.units.description
        assert nwbfile.processing["ophys"]["subthreshold"].data.shape == (10_000, 3)


def test_detect_in_an_nwb_file(voltage, tmp_path):
    folder, times = voltage
    nwbfile = NWBFile("a fish", "recording-1", START)
    plane = nwbfile.create_imaging_plane(
        name="plane",
        description="a plane",
        device=nwbfile.create_device(name="microscope", description="a microscope"),
        optical_channel=OpticalChannel(name="green", description="green light", emission_lambda=520.0),
        excitation_lambda=488.0,
        indicator="zArchon1",
        location="spinal cord",
    )
    device = nwbfile.create_device(name="amplifier", description="an amplifier")
    group = nwbfile.create_electrode_group("pipette", description="a pipette", location="tail", device=device)
    nwbfile.add_electrode(group=group, location="tail", rel_x=0.0, rel_y=0.0)
    module = nwbfile.create_processing_module("ophys", "optical physiology")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    cells = segmentation.create_plane_segmentation("all cells", plane, name="cells")
    for _ in range(3):
        cells.add_roi(image_mask=np.ones((2, 2)))
    fluorescence = Fluorescence()
    module.add(fluorescence)
    fluorescence.create_roi_response_series(
        name="Voltage",
        data=np.load(folder / "traces.npy"),
        unit="a.u.",
        rois=cells.create_roi_table_region("all cells", region=[0, 1, 2]),
        rate=500.0,
        starting_time=100.0,
    )
    source = tmp_path / "recording.nwb"
    with NWBHDF5IO(str(source), "w") as writing:
        writing.write(nwbfile)

    out = tmp_path / "spikes.nwb"
    main(["detect", str(source), "--model", str(folder / "my_model"), "--threshold", "1", "--out", str(out), *PLAIN])
    with NWBHDF5IO(str(out), "r") as reading:
        nwbfile = reading.read()
        assert (nwbfile.session_description, nwbfile.session_start_time) == ("a fish", START)
        units = nwbfile.units.to_dataframe()
    assert list(map(len, units["spike_times"])) == [0, 0, 0]  # nothing is certain

    options = ["--polarity", "positive", "--shadow-ms", "20", "--out", str(out), "--overwrite"]
    main(["detect", str(source), "--model", str(folder / "my_model"), *options, *PLAIN])
    with NWBHDF5IO(str(out), "r") as reading:
        units = reading.read().units.to_dataframe()
    assert set(units["polarity"]) == {"positive"}
    for found, true in zip(units["spike_times"], times, strict=False):
        assert event_scores(100 + true, found).f1 > 0.97
        assert np.diff(found).min() > 0.02


def test_train_is_repeatable_and_replaces_only_when_told(voltage, tmp_path, capsys):
    folder, _ = voltage
    np.save(tmp_path / "trace.npy", np.load(folder / "traces.npy")[:, 0])
    labels = np.zeros(10_000, dtype=int)
    labels[20:9_990:97] = 1
    np.save(tmp_path / "labels.npy", labels)
    files = [str(tmp_path / "trace.npy"), "--labels", str(tmp_path / "labels.npy")]
    weights = []
    for seed in ("1", "1", "2"):
        options = ["--epochs", "2", "--seed", seed, "--out", str(tmp_path / "model"), "--overwrite", "--quiet"]
        main(["train", *files, *RATE, *SMALL, *options])
        weights.append((tmp_path / "model" / "weights.safetensors").read_bytes())
        printed = capsys.readouterr()
        assert re.fullmatch(r"test: samples: precision [\d.]+, .*; events within 5 ms: .* F1 [\d.]+: .*\n", printed.out)
        assert printed.err == ""
    assert weights[0] == weights[1] != weights[2]
    with pytest.raises(SystemExit):
        main(["train", *files, *RATE, *SMALL, "--out", str(tmp_path / "model")])
    assert re.search(r"error: --out: .*model exists; .* --overwrite$", capsys.readouterr().err)


DETECT = ["detect", "traces.npy", "--model", "my_model", *RATE, "--out", "out.nwb", *START_GIVEN, "--quiet"]
TRAIN = ["train", "traces.npy", "--labels", "spikes.csv", *RATE, "--model", "fcn", "--out", "new", "--quiet"]


def changed(command, **flags):
    """Return a command with some flags changed, or left out where they are None."""
    command = list(command)
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if flag in command:
            del command[command.index(flag) : command.index(flag) + 2]
        command += [] if value is None else [flag, value]
    return command


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([*DETECT[:1], "nowhere.npy", *DETECT[2:]], r"SOURCE: nowhere.npy does not exist"),
        (changed(DETECT, sampling_frequency=None), r"--sampling-frequency: traces.npy does not tell how many"),
        (changed(DETECT, sampling_frequency="0"), r"--sampling-frequency: must be positive, not 0"),
        (changed(DETECT, sampling_frequency="5"), r"SOURCE: model 'my_model' serves sampling frequencies from"),
        (changed(DETECT, session_start_time=None), r"--session-start-time: traces.npy does not tell when"),
        (changed(DETECT, model="nowhere"), r"nowhere' is not a folder, nor among the weights"),
        (changed(DETECT, model="damaged"), r"damaged.weights.safetensors is damaged"),
        (changed(DETECT, threshold="1.5"), r"probability_threshold must be at most 1, not 1.5"),
        (changed(DETECT, shadow_ms="-1"), r"shadow_ms must not be negative, not -1.0"),
        (changed(DETECT, polarity="up"), r"--polarity: invalid choice: 'up'"),
        ([*DETECT, "--device", "nonsense"], r"device must be 'auto', 'cpu' or 'cuda', not 'nonsense'"),
        ([*DETECT, "--traces", "delta_f_over_f"], r"--traces: there is no ΔF/F, as the trace of ROI 0 reaches zero"),
        (changed(DETECT, stream="trace"), r"--stream: traces.npy holds one array"),
        (changed(DETECT, out="my_model"), r"--out: my_model is a folder"),
        (changed(DETECT, out="traces.npy"), r"--out: traces.npy exists; .* --overwrite"),
        (changed(TRAIN, labels="nowhere.csv"), r"--labels: there is no file nowhere.csv"),
        (changed(TRAIN, labels="silent.npy"), r"--labels: there is not a single spike in them"),
        (changed(TRAIN, labels="short.npy"), r"--labels: there are 3 traces, so give"),
        (changed(TRAIN, labels="traces.npy"), r"labels\[0\] must be|labels\[0\]: the spike at .* lies outside"),
        (changed(TRAIN, model="lstm"), r"architecture must be one of mel_svm, .*, not 'lstm'"),
        (changed(TRAIN, set="hidden=3"), r"'fcn' has no setting 'hidden'"),
        (changed(TRAIN, set="hidden"), r"--set: 'hidden' is not NAME=VALUE"),
        (changed(TRAIN, set="channels=few"), r".+"),
        (changed(TRAIN, epochs="0"), r"--epochs: must be positive, not 0"),
        (changed(TRAIN, lr="fast"), r"--lr: invalid float value: 'fast'"),
        (changed(TRAIN, set="window_samples=20000"), r"SOURCE: trace 0 has 10000 samples, fewer than a window"),
        (changed(TRAIN, out="my_model"), r"--out: my_model exists; give the name of a new folder, or --overwrite"),
        (changed(TRAIN, out="no/model"), r"--out: there is no folder .*no to put model in"),
    ],
)
def test_bad_traces_labels_and_models_are_one_line(voltage, tmp_path, monkeypatch, capsys, arguments, error):
    folder, _ = voltage
    for name in ("traces.npy", "spikes.csv", "my_model"):
        (tmp_path / name).symlink_to(folder / name)
    shutil.copytree(folder / "my_model", tmp_path / "damaged")
    (tmp_path / "damaged" / "weights.safetensors").write_bytes(b"half")
    np.save(tmp_path / "silent.npy", np.zeros((10_000, 3)))
    np.save(tmp_path / "short.npy", np.ones((5_000, 3)))
    monkeypatch.chdir(tmp_path)
    before = in_folder(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"dlvolt: error: .*({error}).*\n", printed.err), printed.err
    assert in_folder(tmp_path) == before


def test_the_command_itself(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from dlvolt.cli import main; main()", "sort", "nowhere", "--out", "out.nwb"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "dlvolt: error: SOURCE: nowhere does not exist.\n"


@pytest.mark.parametrize("text", [None, "not JSON", "[1, 2]", '{"NWBFile": 3}'])
def test_bad_metadata_is_told_before_any_work(shared_data, tmp_path, capsys, text):
    metadata = tmp_path / "session.json"
    if text is not None:
        metadata.write_text(text)
    out = tmp_path / "spikes.nwb"
    source = str(shared_data / "open_ephys" / "legacy_2ch_40khz")
    with pytest.raises(SystemExit) as leave:
        main(["sort", source, "--out", str(out), "--probe", "linear", "--metadata", str(metadata), *QUICK])
    assert leave.value.code == 2
    assert "dlvolt: error: --metadata:" in capsys.readouterr().err
    assert not out.exists()


def test_detect_from_file_to_file(tmp_path, capsys):
    session = write_simulated_imaging(tmp_path / "session.nwb", 3, 10.0, 500.0, 8.0, seed=2)
    write_nwb_units(session.sorting, tmp_path / "truth.nwb", source=session.path)
    out = tmp_path / "spikes.nwb"
    options = ["--traces", "delta_f_over_f", "subthreshold", "--compare", str(tmp_path / "truth.nwb"), *PLAIN]
    main(["detect", str(session.path), "--out", str(out), *options])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert re.search(rf"3 units, \d+ spikes: {out}\n\nbest match .*truth.nwb, spikes within 3 ms:", printed.out)
    agreement = [float(line.split()[-1]) for line in printed.out.splitlines()[-3:]]
    assert np.median(agreement) > 0.8
    with NWBHDF5IO(str(out), "r") as reading:
        nwbfile = reading.read()
        assert nwbfile.units["rois"].data[:].tolist() == [0, 1, 2]
        assert nwbfile.units["spike_label"][0].shape == nwbfile.units["spike_times"][0].shape
        names = {name for module in nwbfile.processing.values() for name in module.data_interfaces}
        assert {"DfOverF", "ImageSegmentation"} <= names
        series = nwbfile.processing["ophys"]["DfOverF"].roi_response_series
        assert set(series) == {"delta_f_over_f", "subthreshold"}
        assert series["delta_f_over_f"].data.shape == (5000, 3)


def test_segments_some_without_spikes(tmp_path, capsys, simulated):
    """A recording that was stopped and restarted, the last time without a cell."""
    recording, _ = simulated
    silent = si.generate_recording(num_channels=4, durations=[0.4], seed=0)
    parts = [recording, silent, recording.frame_slice(0, 30_000), silent]
    whole = si.NumpyRecording([part.get_traces() for part in parts], 30_000.0)
    whole.set_probegroup(recording.get_probegroup())
    whole.save(folder=tmp_path / "recording", verbose=False)
    command = ["sort", str(tmp_path / "recording"), *START_GIVEN, *QUICK, *LITTLE, "--detect-threshold", "8"]
    out, run, phy = tmp_path / "spikes.nwb", tmp_path / "run", tmp_path / "phy"
    main([*command, "--out", str(out), "--folder", str(run), "--phy", str(phy)])
    sorted_units, read_back = si.load(run / "analyzer").sorting, read_units(out, whole)
    np.testing.assert_array_equal(read_back.to_spike_vector(), sorted_units.to_spike_vector())
    assert len(read_back.unit_ids) >= 2
    rows = agreement(read_back, read_units(out, whole), out).splitlines()[3:]
    assert {row.split()[-1] for row in rows} == {"1.000"}

    units_in_phy = read_phy(phy, load_all_cluster_properties=False)
    with NWBHDF5IO(str(out), "r") as reading:
        units = reading.read().units.to_dataframe()
    np.testing.assert_allclose(units["obs_intervals"][0], [[0, 5], [5, 5.4], [5.4, 6.4], [6.4, 6.8]], atol=1e-9)
    in_phy = np.concatenate([units_in_phy.get_unit_spike_train(unit) for unit in units_in_phy.unit_ids]) / 30_000.0
    np.testing.assert_allclose(np.sort(in_phy), np.sort(np.concatenate(list(units["spike_times"]))), atol=1e-9)


def test_unsigned_integers(tmp_path, simulated):
    recording, truth = simulated
    digits = np.round(recording.get_traces() / 0.2).astype(int) + 2**15
    (tmp_path / "rec.json").write_text(
        json.dumps(dict(sampling_frequency=30_000.0, num_channels=4, dtype="uint16", gain_to_uV=0.2, offset_to_uV=0.0))
    )
    digits.astype("uint16").tofile(tmp_path / "rec.dat")
    write_probeinterface(tmp_path / "probe.json", recording.get_probegroup())
    command = ["sort", str(tmp_path / "rec.dat"), "--probe", str(tmp_path / "probe.json"), *START_GIVEN, *QUICK]
    main([*command, "--detect-threshold", "6", "--out", str(tmp_path / "out.nwb")])
    found = read_nwb_sorting(tmp_path / "out.nwb", sampling_frequency=30_000.0, t_start=0)
    accuracy = compare_sorter_to_ground_truth(truth, found, exhaustive_gt=True).get_performance()["accuracy"]
    assert accuracy.astype(float).min() > 0.9


def test_info(shared_data, tmp_path, capsys):
    open_ephys = str(shared_data / "open_ephys" / "binary_16ch_40khz")
    main(["info", open_ephys])
    printed = capsys.readouterr().out
    assert re.search(r"streams +'Record Node 118#File_Reader-106.0' \(16 channels, 40000 Hz\)\n", printed)
    assert re.search(
        r"\n +'Record Node 118#File_Reader-114.0' .*\n.*choose one of the 2 streams with --stream", printed
    )
    main(["info", open_ephys, "--stream", "File_Reader-114.0"])
    printed = capsys.readouterr().out
    for line in (
        r"read by +read_open_ephys",
        r"channels +16 \(",
        r"duration +3\.\d+ s",
        r"probe .*assumed: a vertical line",
        r"session start +2021-03-22",
        r"would be done +dlvolt sort",
    ):
        assert re.search(line, printed), (line, printed)
    np.save(tmp_path / "traces.npy", np.zeros((1000, 3)))
    main(["info", str(tmp_path / "traces.npy"), "--sampling-frequency", "500"])
    assert "dlvolt detect: a unit for each of the 3 traces" in capsys.readouterr().out
    main(["info", str(tmp_path / "traces.npy"), "--sampling-frequency", "30"])
    assert "dlvolt detect --model calcium+s2s, if these are" in capsys.readouterr().out


def test_version_and_completion(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"dlvolt {dlvolt.__version__}\n"
    pytest.importorskip("shtab")
    main(["completion", "bash"])
    assert "--detect-threshold" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize("work", ["time.sleep(60)", "pool()"])
def test_ctrl_c_is_one_line_within_two_seconds(tmp_path, work):
    """Also where a pool of threads waits for all it was given, and a temporary folder would be left."""
    script = f"""
import os, signal, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from dlvolt.cli.interrupt import in_one_line

def pool():
    with ThreadPoolExecutor(1) as executor:
        list(executor.map(time.sleep, [60, 60]))

threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
with in_one_line(), tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
    {work}
"""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert time.monotonic() - started < 10  # 0.5 s of work and 2 s to stop, on a busy machine
    assert done.returncode == 130
    assert done.stderr.split("\n") == ["", "dlvolt: stopped by Ctrl-C; what was there before is whole", ""]
    assert in_folder(tmp_path) == []
