import re

import numpy as np
import pandas as pd
import pytest
import spikeinterface as si
from matplotlib.image import imread

from dlvolt import write_nwb_units
from dlvolt.cli import main
from dlvolt.evaluation import score_sortings

pytestmark = pytest.mark.filterwarnings("ignore:The extractor is not serializable")  # generated ones are not


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A saved recording of three loud units on four channels, 6 s, and its true spikes, saved and as NWB."""
    folder = tmp_path_factory.mktemp("data")
    recording, truth = si.generate_ground_truth_recording(
        durations=[6.0],
        sampling_frequency=30_000.0,
        num_channels=4,
        num_units=3,
        generate_sorting_kwargs=dict(firing_rates=12.0, refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(minimum_z=5.0, maximum_z=10.0, minimum_distance=20.0),
        noise_kwargs=dict(noise_levels=4.0, strategy="on_the_fly"),
        seed=3,
    )
    recording = recording.save(folder=folder / "recording", verbose=False)
    truth.save(folder=folder / "truth")
    si.append_recordings([recording, recording]).save(folder=folder / "twice", verbose=False)
    truth.register_recording(recording)
    session = {"session_start_time": "2024-05-31T14:30:00+02:00", "session_description": "simulated"}
    write_nwb_units(truth, folder / "truth.nwb", metadata={"NWBFile": session})
    (folder / "there.csv").write_text("an earlier file")
    return folder


@pytest.fixture
def here(data, tmp_path, monkeypatch):
    """A working directory with links to these."""
    for path in data.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sorters_beside_the_truth(here, capsys):
    before = sorted(here.iterdir())
    options = ["--sorters", "dlvolt,hdsort", "--duration", "5", "--threads", "1", "--folder", "kept"]
    main(["evaluate", "recording", "--truth", "truth", *options, "--out", "table.csv", "--plot", "plot.png"])
    printed = capsys.readouterr()
    assert printed.err == ""
    table = pd.read_csv("table.csv", index_col="sorter")
    assert list(table.index) == ["dlvolt", "hdsort"]

    found, truth = si.load("kept/dlvolt"), si.load("truth").frame_slice(0, 150_000)
    expected = score_sortings({"dlvolt": found}, truth).loc["dlvolt"]
    assert expected["accuracy"] > 0.8
    np.testing.assert_allclose(
        table.loc["dlvolt", list(expected.index)].astype(float), expected.astype(float), atol=1e-4
    )
    assert table.loc["dlvolt", "realtime"] == pytest.approx(5 / table.loc["dlvolt", "seconds"], rel=1e-3)
    assert table.loc["hdsort", "error"].startswith("not installed")

    progress, head, row, error = printed.out.splitlines()[0], *printed.out.splitlines()[-3:]
    assert re.fullmatch(r"dlvolt: dlvolt: [\d.]+ s", progress)
    shown = dict(zip(head.split(), row.split(), strict=True))
    assert shown["sorter"] == "dlvolt"
    assert float(shown["accuracy"]) == pytest.approx(expected["accuracy"], abs=6e-4)
    assert error.startswith("hdsort: not installed")
    assert min(imread("plot.png").shape[:2]) > 300
    assert sorted(here.iterdir()) == sorted([*before, *(here / name for name in ("kept", "table.csv", "plot.png"))])


def fake(name, found):
    """Stand in for `compare_sorters`, which has its own test; keep what it was asked."""
    asked = {}

    def compare(recording, sorters, truth, **kwargs):
        asked.update(recording=recording, sorters=sorters, truth=truth, **kwargs)
        error = None if found else "it crashed"
        return pd.DataFrame([{"sorter": name, "seconds": 3.0 if found else np.nan, "error": error}])

    return compare, asked


def test_true_spikes_of_an_nwb_file(here, capsys, monkeypatch):
    compare, asked = fake("dlvolt", found=True)
    monkeypatch.setattr("dlvolt.evaluation.compare_sorters", compare, raising=False)
    options = ["--partial-truth", "--threads", "1", "--sorters", "dlvolt,simple", "--quiet"]
    main(["evaluate", "recording", "--truth", "truth.nwb", *options, "--out", "there.csv", "--overwrite"])
    truth = si.load("truth")
    for true, read in zip(truth.unit_ids, asked["truth"].unit_ids, strict=True):
        np.testing.assert_array_equal(asked["truth"].get_unit_spike_train(read), truth.get_unit_spike_train(true))
    assert asked["sorters"] == ["dlvolt", "simple"]
    assert not asked["exhaustive_gt"]
    assert not asked["verbose"]
    assert asked["job_kwargs"] == dict(n_jobs=1)
    assert (here / "there.csv").read_text() == "sorter,seconds,error\ndlvolt,3.0000,\n"
    assert capsys.readouterr().out == "sorter seconds\ndlvolt     3.0\n"


def test_where_all_fail_the_exit_code_tells(here, capsys, monkeypatch):
    compare, asked = fake("simple", found=False)
    monkeypatch.setattr("dlvolt.evaluation.compare_sorters", compare, raising=False)
    with pytest.raises(SystemExit) as leaving:
        main(["evaluate", "recording", "--sorters", "simple", "--out", "table.csv"])
    assert leaving.value.code == 1
    assert asked["truth"] is None
    assert capsys.readouterr().out == "simple: it crashed\n"
    assert (here / "table.csv").exists()


GOOD = ["evaluate", "recording", "--sorters", "simple"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["evaluate", "nowhere"], r"SOURCE: nowhere does not exist"),
        (
            ["evaluate", "recording", "--sorters", "dlvolt,nosort"],
            r"--sorters: SpikeInterface knows no 'nosort'; it knows",
        ),
        (["evaluate", "recording", "--sorters", "dlvolt,dlvolt"], r"--sorters: give one or more, each once"),
        (["evaluate", "truth"], r"SOURCE: truth holds a \w+, not a recording"),
        ([*GOOD, "--truth", "nowhere"], r"--truth: there is no file nowhere"),
        ([*GOOD, "--truth", "there.csv"], r"--truth: there.csv is not an NWB file"),
        ([*GOOD, "--truth", "recording"], r"--truth: recording is not a sorting saved by SpikeInterface"),
        ([*GOOD, "--truth", "."], r"--truth: . is not a sorting saved by SpikeInterface"),
        (["evaluate", "twice", "--truth", "truth"], r"--truth: has 1 segments, the recording 2"),
        ([*GOOD, "--duration", "0"], r"--duration: must be positive, not 0"),
        ([*GOOD, "--duration", "7"], r"--duration: the recording lasts 6 s only"),
        (["evaluate", "twice", "--duration", "1"], r"--duration: there are 2 segments"),
        ([*GOOD, "--truth", "truth", "--duration", "0.0001"], r"--truth: there is not a single spike in it"),
        ([*GOOD, "--threads", "0"], r"--threads: must be positive, not 0"),
        ([*GOOD, "--out", "there.csv"], r"--out: there.csv exists; .* --overwrite"),
        ([*GOOD, "--out", "truth", "--overwrite"], r"--out: truth exists"),
        ([*GOOD, "--out", "no/table.csv"], r"--out: there is no folder .*no to put table.csv in"),
        ([*GOOD, "--plot", "plot.png"], r"--plot: draws accuracy, .* give --truth"),
        ([*GOOD, "--truth", "truth", "--plot", "plot.foo"], r"--plot: plot.foo has no ending .* png"),
        ([*GOOD, "--folder", "recording"], r"--folder: recording exists; give the name of a new one"),
    ],
)
def test_bad_input_is_one_line_before_the_work(here, monkeypatch, capsys, arguments, error):
    monkeypatch.setattr("dlvolt.evaluation.compare_sorters", lambda *_, **__: pytest.fail("sorted"), raising=False)
    before = sorted(here.iterdir())
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.fullmatch(rf"dlvolt: error: .*{error}.*\n", printed.err), printed.err
    assert sorted(here.iterdir()) == before
