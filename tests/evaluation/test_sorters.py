import subprocess
import sys

import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.sorters import installed_sorters, read_sorter_folder

from dlvolt.evaluation import compare_sorters, score_sortings
from dlvolt.evaluation import sorters as sorters_module

RATE = 30_000.0
A, B, C, D = (
    np.arange(first, 290_000, step) for first, step in ((1000, 3000), (1500, 4100), (2100, 5300), (2700, 6100))
)


def sorting(*trains, ids=None):
    ids = range(len(trains)) if ids is None else ids
    return si.NumpySorting.from_unit_dict([dict(zip(ids, map(np.array, trains), strict=True))], RATE)


@pytest.fixture(scope="module")
def tetrode():
    """Three units on four channels, 6 s, only in memory."""
    recording, truth = si.generate_ground_truth_recording(
        durations=[6.0],
        sampling_frequency=RATE,
        num_channels=4,
        num_units=3,
        generate_sorting_kwargs=dict(firing_rates=10.0, refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(minimum_z=5.0, maximum_z=10.0, minimum_distance=20.0),
        noise_kwargs=dict(noise_levels=5.0, strategy="on_the_fly"),
        seed=3,
    )
    in_memory = si.NumpyRecording([recording.get_traces()], RATE)
    in_memory.set_probe(recording.get_probe())
    return in_memory, truth


def test_scores_against_the_truth():
    truth = sorting(A, B, C, D, [])
    half = B[::2]
    found = sorting(A + 12, half, np.sort(np.concatenate([C, D])), A[::4] - 9, np.arange(50, 290_000, 1000) + 400)
    scores = score_sortings({"mine": found, "nothing": sorting()}, truth)
    merged = len(C) / (len(C) + len(D))  # tp / (tp + fp) of the larger one
    expected = np.array([1.0, len(half) / len(B), merged, 0.0])
    mine = scores.loc["mine"]
    assert mine["accuracy"] == pytest.approx(expected.mean())
    assert mine["recall"] == pytest.approx(np.mean([1, len(half) / len(B), 1, 0]))
    assert mine["precision"] == pytest.approx(np.mean([1, 1, merged, 0]))
    counts = ["units", "spikes", "true_units", "well_detected", "false_positive", "redundant", "overmerged"]
    assert mine[counts].tolist() == [5, sum(map(len, (A, half, C, D, A[::4]))) + 290, 4, 1, 1, 1, 1]
    assert scores.loc["nothing", counts].tolist() == [0, 0, 4, 0, 0, 0, 0]
    assert scores.loc["nothing", ["accuracy", "precision", "recall"]].tolist() == [0, 0, 0]


def test_more_units_than_a_partial_truth_are_no_mistake():
    scores = score_sortings({"mine": sorting(A, B, C)}, sorting(A), exhaustive_gt=False)
    assert scores.loc["mine", "accuracy"] == 1
    assert not {"false_positive", "redundant", "overmerged"} & set(scores)


def test_a_spike_further_than_the_tolerance_is_another():
    for shift, accuracy in ((12, 1), (-12, 1), (13, 0), (-13, 0)):  # 0.4 ms are 12 frames
        scores = score_sortings({"mine": sorting(A + shift)}, sorting(A))
        assert scores.loc["mine", "accuracy"] == accuracy


def test_agreement_without_the_truth():
    # A is in all three, B in two, C and D in one each.
    found = {
        "one": sorting(A, B, C),
        "two": sorting(B + 5, A - 5, ids=["x", "y"]),
        "three": sorting(D, A, ids=[7, 3]),
        "four": sorting(),
    }
    scores = score_sortings(found)
    assert scores["units"].tolist() == [3, 2, 2, 0]
    assert scores["agreed_units"].tolist() == [2, 2, 1, 0]
    np.testing.assert_allclose(scores["agreed_share"].astype(float), [2 / 3, 1, 1 / 2, np.nan])
    assert scores["consensus_units"].tolist() == [2, 2, 2, 2]


def test_alone_there_is_nobody_to_agree_with():
    assert score_sortings({"one": sorting(A, B)})[["agreed_units", "consensus_units"]].to_numpy().tolist() == [[0, 0]]


@given(st.lists(st.permutations([0, 1, 2, 3]), min_size=2, max_size=4), st.integers(1, 4))
def test_sorters_that_found_the_same_agree_in_whatever_order(orders, num_units):
    trains = [A, B, C, D]
    found = {str(i): sorting(*(trains[k] for k in order if k < num_units)) for i, order in enumerate(orders)}
    scores = score_sortings(found)
    assert (scores["agreed_share"] == 1).all()
    assert (scores["consensus_units"] == num_units).all()
    assert (score_sortings(found, sorting(*trains[:num_units]))["accuracy"] == 1).all()


def test_sorters_run_and_those_that_cannot_are_rows(tetrode, tmp_path, capfd):
    recording, truth = tetrode
    kept = tmp_path / "kept"
    table = compare_sorters(
        recording,
        ["hdsort", "simple", "dlvolt"],
        truth,
        sorter_params={"simple": {"no_such": 1}, "dlvolt": {"num_sweeps": 1}},
        job_kwargs=dict(n_jobs=1),
        folder=kept,
    )
    assert "".join(capfd.readouterr()) == ""
    assert table["sorter"].tolist() == ["hdsort", "simple", "dlvolt"]
    assert table["error"][0].startswith("not installed. To use HDSort run:")
    assert table["error"][1].startswith("ValueError: Invalid parameters: ['no_such']")
    assert table.loc[:1, ["seconds", "units", "accuracy"]].isna().all(axis=None)

    row, found = table.loc[2], read_sorter_folder(kept / "dlvolt")
    comparison = compare_sorter_to_ground_truth(truth, found, exhaustive_gt=True)
    assert row["accuracy"] == pytest.approx(comparison.get_performance()["accuracy"].mean())
    assert row["accuracy"] > 0.8
    assert row["units"] == len(found.unit_ids)
    assert row["spikes"] == found.count_total_num_spikes()
    assert row["realtime"] == pytest.approx(6.0 / row["seconds"])
    assert 0 < found.sorting_info["log"]["run_time"] < row["seconds"]
    assert found.sorting_info["params"]["sorter_params"]["num_sweeps"] == 1
    assert row["version"] == found.sorting_info["log"]["sorter_version"]
    assert 0.1 < row["peak_memory_gb"] < 5  # Python and torch are not less
    assert np.isnan(row["error"])
    assert "Invalid parameters" in (kept / "simple.log").read_text()


def test_a_process_that_dies_is_a_row(tetrode, monkeypatch, capsys):
    code = "import sys; print('a last word'); sys.exit(7)"
    monkeypatch.setattr(sorters_module, "COMMAND", (sys.executable, "-c", code))
    table = compare_sorters(tetrode[0], ["simple", "dlvolt"], verbose=True)
    assert table["error"].tolist() == ["its process died with exit code 7 a last word"] * 2
    assert capsys.readouterr().out.splitlines() == [f"dlvolt: {row.sorter}: {row.error}" for row in table.itertuples()]


def test_memory_is_that_of_all_processes():
    grow = "import time; block = bytearray(150_000_000); time.sleep(1)"
    code = f"import subprocess, sys; block = bytearray(150_000_000); subprocess.run([sys.executable, '-c', {grow!r}])"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        assert 300e6 < sorters_module._watch(process) < 400e6


def test_default_sorters_are_those_installed():
    assert set(sorters_module.check_sorters(None)) == set(sorters_module.SORTERS) & set(installed_sorters())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (dict(sorters=["dlvolt", "nosort"]), "sorters: SpikeInterface knows no 'nosort'; it knows .*dlvolt"),
        (dict(sorters=["dlvolt", "dlvolt"]), "sorters: give one or more, each once"),
        (dict(sorters=[]), "sorters: give one or more, each once, not none"),
        (
            dict(sorters="simple", sorter_params={"dlvolt": {}}),
            "sorter_params: dlvolt is not among the sorters: simple",
        ),
        (dict(sorters="simple", job_kwargs={"jobs": 2}), "job_kwargs: has no jobs; SpikeInterface knows .*n_jobs"),
        (dict(sorters="simple", truth=sorting([])), "truth: there is not a single spike"),
        (dict(sorters="simple", truth=si.append_sortings([sorting(A)] * 2)), "truth: has 2 segments, the recording 1"),
    ],
)
def test_bad_input_is_told_before_any_work(tetrode, tmp_path, monkeypatch, arguments, error):
    monkeypatch.setattr(sorters_module, "_run_alone", lambda *_: pytest.fail("sorted"))
    with pytest.raises(ValueError, match=error):
        compare_sorters(tetrode[0], folder=tmp_path / "kept", **arguments)
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_is_there_stays_as_it_is(tetrode, tmp_path):
    with pytest.raises(FileExistsError, match=r"folder: .* exists; give the name of a new one"):
        compare_sorters(tetrode[0], ["dlvolt"], folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("blank", ["", "\n"])
def test_an_error_is_its_last_line_but_for_the_hint(blank):
    error = Exception(f"Traceback:\nValueError: no spikes\n{blank}Spike sorting failed. You can inspect the trace")
    assert sorters_module._essence(error) == "ValueError: no spikes"
