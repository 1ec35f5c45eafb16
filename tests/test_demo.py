import numpy as np
from matplotlib.image import imread
from pynwb import NWBHDF5IO

from dlvolt.cli import main
from dlvolt.cli.run_demo import measure, run_demo, simulate


def test_demo_says_what_it_found_and_where(tmp_path, capsys, monkeypatch):
    names = ["dlvolt_demo.nwb", "dlvolt_demo.png"]
    for name in names:
        (tmp_path / name).write_text("of an earlier demo")
    made = []
    monkeypatch.setattr("dlvolt.cli.run_demo.run_demo", lambda *args, **kwargs: made.append(run_demo(*args, **kwargs)))
    main(["demo", "--out", str(tmp_path), "--duration", "6", "--n-jobs", "1"])
    (demo,) = made
    printed = capsys.readouterr().out
    assert f"mean accuracy {demo.performance['accuracy'].mean():.3f}" in printed
    assert all(str(tmp_path / name) in printed for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == names

    assert len(demo.performance) == 18
    assert demo.performance["accuracy"].median() > 0.8
    with NWBHDF5IO(str(demo.nwb_file), "r") as io:
        units = io.read().units.to_dataframe()
    assert list(units["unit_name"]) == [str(unit) for unit in demo.sorting.unit_ids]
    assert list(units["num_spikes"]) == list(demo.sorting.count_num_spikes_per_unit(outputs="array"))
    height, width, _ = imread(demo.figure_file).shape
    assert min(height, width) > 1000


def test_the_demo_is_silent_unless_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dlvolt.cli.run_demo.plot_sorting_summary", lambda *_, figure: figure)
    run_demo(tmp_path / "new", duration_s=1.0, n_jobs=1)
    assert capsys.readouterr().out == ""


def test_measure():
    _, truth = simulate(duration_s=2.0)
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
