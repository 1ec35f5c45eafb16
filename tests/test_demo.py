import re

import numpy as np
from matplotlib.image import imread
from pynwb import NWBHDF5IO

from dlvolt.cli import main
from dlvolt.cli.demo import measure, simulate


def test_demo_says_what_it_found_and_where(tmp_path, capsys):
    names = ["dlvolt_demo.nwb", "dlvolt_demo.png"]
    for name in names:
        (tmp_path / name).write_text("of an earlier demo")
    main(["demo", "--out", str(tmp_path), "--duration", "6", "--n-jobs", "1"])
    printed = capsys.readouterr().out
    assert all(str(tmp_path / name) in printed for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == names

    rows = re.findall(r"^ *\d+ +(\d+) +(\d+|-) +([\d.]+) +[\d.]+ +[\d.]+$", printed, re.MULTILINE)
    assert [int(spikes) for spikes, _, _ in rows] == list(simulate(6.0)[1].count_num_spikes_per_unit(outputs="array"))
    accuracy = np.array([float(accuracy) for *_, accuracy in rows])
    assert np.median(accuracy) > 0.8
    num_found, mean = re.search(r"(\d+) units found, 18 in the truth; mean accuracy ([\d.]+)", printed).groups()
    assert abs(float(mean) - accuracy.mean()) < 0.001
    with NWBHDF5IO(str(tmp_path / "dlvolt_demo.nwb"), "r") as io:
        units = io.read().units.to_dataframe()
    assert len(units) == int(num_found)
    assert {unit for _, unit, _ in rows} - {"-"} <= set(units["unit_name"])
    assert list(units["num_spikes"]) == [len(times) for times in units["spike_times"]]
    height, width, _ = imread(tmp_path / "dlvolt_demo.png").shape
    assert min(height, width) > 1000


def test_the_demo_is_silent_if_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dlvolt.plotting.plot_sorting_summary", lambda *_, figure: figure, raising=False)
    main(["demo", "--out", str(tmp_path / "new"), "--duration", "1", "--n-jobs", "1", "--quiet"])
    assert capsys.readouterr().out == ""


def test_measure():
    _, truth = simulate(2.0)
    found = truth.select_units(truth.unit_ids[:3], renamed_unit_ids=[10, 11, 12])
    performance = measure(found, truth)
    assert list(performance["true unit"]) == list(truth.unit_ids)
    assert list(performance["found"]) == [10, 11, 12] + ["-"] * 15
    assert list(performance["accuracy"]) == [1.0] * 3 + [0.0] * 15
    assert list(performance["spikes"]) == [len(truth.get_unit_spike_train(unit)) for unit in truth.unit_ids]


def test_same_seed_same_recording():
    (recording, truth), (again, truth_again) = simulate(1.0), simulate(1.0)
    assert (recording.get_traces() == again.get_traces()).all()
    assert (truth.to_spike_vector() == truth_again.to_spike_vector()).all()
    noise = np.median(np.abs(recording.get_traces()), axis=0) / 0.6745  # spikes hardly move the median
    np.testing.assert_allclose(noise, 8.0, rtol=0.2)
