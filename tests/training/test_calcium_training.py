import numpy as np
import pytest
from scipy.signal import welch

from dlvolt.networks import load
from dlvolt.simulation import CalciumSettings, simulate_calcium
from dlvolt.training import calcium
from dlvolt.training.calcium import Labelled

CLEAR = CalciumSettings(snr=(4, 8), firing_rate_hz=(1, 2), decay_s=(0.4, 0.6), rise_s=(0.01, 0.02), drift=(0.1, 0.2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two datasets: three cells at 30 Hz, the first with two recordings, and three cells at 100 Hz."""
    folder = tmp_path_factory.mktemp("labelled")
    traces, spike_times = simulate_calcium(4, 50.0, 30.0, settings=CLEAR, seed=0)
    slow = {}
    for n, name in enumerate(("cell000_rec00", "cell000_rec01", "cell001_rec00", "cell002_rec00")):
        slow[f"{name}_fluorescence"], slow[f"{name}_time_s"] = traces[:, n], [0.5, 1 / 30]
        slow[f"{name}_spike_times_s"] = spike_times[n] + 0.5
    np.savez(folder / "DS02-OGB1-simulated.npz", **slow)
    traces, spike_times = simulate_calcium(3, 50.0, 100.0, settings=CLEAR, seed=1)
    fast = {f"cell{n:03}_calcium_100hz": traces[:, n] for n in range(3)}
    for n, times in enumerate(spike_times):
        fast[f"cell{n:03}_spike_counts_100hz"] = np.bincount((times * 100).astype(int), minlength=5000).astype("int8")
    np.savez(folder / "spikefinder_5_train.npz", **fast)
    return folder


@pytest.fixture(scope="module")
def recordings(folder):
    return calcium.read_labelled(folder)


def test_all_come_at_100_hz_with_their_spikes(folder, recordings):
    assert [(each.dataset, each.cell) for each in recordings] == [
        ("DS02", "cell000"), ("DS02", "cell000"), ("DS02", "cell001"), ("DS02", "cell002"),
        ("spikefinder_5", "cell000"), ("spikefinder_5", "cell001"), ("spikefinder_5", "cell002"),
    ]  # fmt: skip
    with np.load(folder / "DS02-OGB1-simulated.npz") as file:
        native, spike_times = file["cell001_rec00_fluorescence"], file["cell001_rec00_spike_times_s"]
    resampled = recordings[2]
    assert len(resampled.trace) == len(resampled.counts) == 5000
    samples = np.repeat(np.arange(len(resampled.counts)), resampled.counts)
    np.testing.assert_allclose(samples, np.floor((spike_times - 0.5) * 100), atol=1)
    inner = slice(50, -50)
    at_frames = np.interp(np.arange(1500) / 30, np.arange(len(resampled.trace)) / 100, resampled.trace)
    assert np.corrcoef(at_frames[inner], native[inner])[0, 1] > 0.98


def test_spikes_that_come_long_after_their_light_are_moved(recordings):
    right = recordings[4]
    np.testing.assert_array_equal(calcium.realign(right).counts, right.counts)
    late = right._replace(counts=np.append(np.zeros(36, dtype="int8"), right.counts[:-36]))
    assert calcium.lead_samples(late.trace, late.counts) == calcium.lead_samples(right.trace, right.counts) + 36
    moved = calcium.realign(late)
    shift = np.flatnonzero(moved.counts)[:5] - np.flatnonzero(right.counts)[:5]
    assert np.all(np.abs(shift) <= 6)


def test_folds_keep_cells_whole_and_share_out_datasets(recordings):
    fold = calcium.folds(recordings)
    assert fold[0] == fold[1]
    assert len(set(fold[[0, 2, 3]])) == len(set(fold[4:])) == 3
    np.testing.assert_array_equal(fold, calcium.folds(recordings))
    assert calcium.indicators(recordings).tolist() == ["OGB-1"] * 4 + ["GCaMP6s"] * 3


def test_windows_are_the_seeds_and_come_with_their_spikes(recordings):
    X, y = calcium.draw_windows(recordings, 40, 1000, seed=3)
    assert X.shape == y.shape == (40, 1000)
    assert np.isfinite(X).all()
    np.testing.assert_array_equal(X, calcium.draw_windows(recordings, 40, 1000, seed=3)[0])
    assert not np.array_equal(X, calcium.draw_windows(recordings, 40, 1000, seed=4)[0])
    after, before = (np.mean([x[t + s].mean() for x, c in zip(X, y, strict=True) for t in np.flatnonzero(c[20:-20]) + 20
                              for s in [at]]) for at in (15, -15))  # fmt: skip
    assert after > before
    short = Labelled("DS09", "cell000", np.arange(300.0), np.zeros(300, dtype="int8"))
    assert calcium.draw_windows([short], 2, 1000, seed=0)[0].shape == (2, 1000)


def test_some_windows_are_noise_alone_without_spikes(recordings, monkeypatch):
    clear = [Labelled(each.dataset, each.cell, each.trace, np.ones_like(each.counts)) for each in recordings]
    assert np.mean(~calcium.draw_windows(clear, 2000, 100, seed=0)[1].any(axis=1)) == pytest.approx(0.2, abs=0.025)
    monkeypatch.setattr(calcium, "SILENT", 1)
    X, y = calcium.draw_windows(clear, 200, 1000, seed=0)
    assert not y.any()
    assert abs(X.mean()) < 0.02
    assert X.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("step", [1, 4, 13])
def test_noise_has_the_frames_of_its_rate(step):
    x = calcium.noise(20000, step, np.random.default_rng(0))
    assert x.shape == (20000,)
    frequency, power = welch(x, calcium.RATE, nperseg=1000)
    assert power[frequency > 0.6 * calcium.RATE / step].sum() < 0.02 * power.sum()
    assert np.corrcoef(x[:-step:step], x[step::step])[0, 1] == pytest.approx(0, abs=0.05)


def test_favoured_datasets_have_more_of_the_windows(recordings, monkeypatch):
    marked = [
        each._replace(counts=np.full_like(each.counts, each.dataset in calcium.SPIKEFINDER)) for each in recordings
    ]
    monkeypatch.setattr(calcium, "varied", lambda trace, rng: trace)
    monkeypatch.setattr(calcium, "noise", lambda num_samples, step, rng: np.zeros(num_samples))
    share = [calcium.draw_windows(marked, 4000, 10, 0, favour)[1].any(axis=1).mean() for favour in (1, 5)]
    lengths = [sum(len(e.counts) for e in marked if e.dataset == name) ** 0.5 for name in ("DS02", "spikefinder_5")]
    for found, favour in zip(share, (1, 5), strict=True):
        expected = (1 - calcium.SILENT) * favour * lengths[1] / (lengths[0] + favour * lengths[1])
        assert found == pytest.approx(expected, abs=0.03)


def test_the_script_trains_scores_and_saves(folder, tmp_path, monkeypatch, capsys):
    small = dict(window_samples=512, overlap_samples=128, prune_samples=32)
    of_calcium, of_s2s = (
        dict(num_windows=150, base_channels=8, depth=2),
        dict(num_windows=100, num_filters=8, batch_size=2, lr=5e-3),
    )
    for name, own in (("calcium", of_calcium), ("s2s", of_s2s)):
        monkeypatch.setitem(calcium.SETTINGS, name, small | own)
        calcium.main([name, str(folder), "--out", str(tmp_path / name), "--seed", "1"])
        card = (tmp_path / name / "MODEL_CARD.md").read_text()
        assert f"python -m dlvolt.training.calcium {name} FOLDER --seed 1" in card
        assert "spikefinder_5" in card
        assert "GPL-3" in card
        model = load(tmp_path / name)
        assert (model.name, model.architecture) == (name, name)
    capsys.readouterr()
    assert load(tmp_path / "calcium").get_params()["module__num_members"] == calcium.NUM_FOLDS
    both, labelled = [load(tmp_path / name) for name in ("calcium", "s2s")], calcium.read_labelled(folder)
    single = calcium.members(both[0])
    window = labelled[0].trace[None, :512]
    assert len(single) == calcium.NUM_FOLDS
    together = np.mean([one._outputs(window).numpy() for one in single], axis=0)
    np.testing.assert_allclose(together, both[0]._outputs(window).numpy(), rtol=1e-3)
    refined = calcium.score(both, labelled, refine=True)["correlation"]
    assert refined.mean() > calcium.score(both, labelled)["correlation"].mean()
    table = calcium.score(both[0], labelled)
    assert len(table) == 6
    assert table["auc"].mean() > 0.7
    mean = calcium.summary(table).loc["all"]
    assert mean["correlation"] == pytest.approx(table["correlation"].mean())
    assert mean["± rank"] == pytest.approx(table["rank"].std())
    assert calcium.summary(table).loc["GCaMP6s", "cells"] == 3


def test_test_sets_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folder: .* holds no recordings of calcium"):
        calcium.read_labelled(tmp_path)
    np.savez(tmp_path / "spikefinder_1_test.npz", cell000_calcium_100hz=np.zeros(10))
    with pytest.raises(ValueError, match=r"spikefinder_1_test\.npz looks like a test set, on which nothing is trained"):
        calcium.read_labelled(tmp_path)
