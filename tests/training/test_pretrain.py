import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dlvolt.networks import load
from dlvolt.training import pretrain

SMALL = dict(base_channels=8, depth=2, window_samples=512, overlap_samples=64, prune_samples=32)


def test_soft_targets_are_gaussians_around_fractions_of_samples():
    target = pretrain.soft_targets(np.array([5.25, 30.0, 31.0, -0.5, 39.9]), 40, 1.5)
    gaussian = np.exp(-0.5 * ((np.arange(40)[:, None] - [5.25, 30.0, 31.0, -0.5, 39.9]) / 1.5) ** 2)
    np.testing.assert_allclose(target, gaussian.max(axis=1), atol=4e-4)  # they end at four standard deviations
    assert not pretrain.soft_targets(np.empty(0), 10, 1.0).any()


def test_voltage_windows_are_the_seeds_and_spikes_go_up_where_targets_are():
    X, y = pretrain.voltage_windows(120, 512, 1000.0, seed=4)
    again = pretrain.voltage_windows(120, 512, 1000.0, seed=4)
    np.testing.assert_array_equal(X, again[0])
    np.testing.assert_array_equal(y, again[1])
    assert X.shape == y.shape == (120, 512)
    assert np.isfinite(X).all()
    assert 0 < y.mean() < 0.1
    assert y.min() == 0
    assert y.max() == pytest.approx(1, abs=0.06)
    rise = X - np.median(X, axis=1, keepdims=True)
    rise /= rise.std(axis=1, keepdims=True)
    assert rise[y > 0.9].mean() > 0.5


def test_the_threshold_is_the_one_with_the_best_event_f1():
    class Says:
        sampling_frequency, shadow_ms = 1000.0, 2.0

        def predict_proba(self, X):
            return X

    y = np.zeros((3, 200), dtype="float32")
    probability = np.zeros_like(y)
    for window, frame in ((0, 50), (0, 120), (2, 80)):
        y[window, frame] = 1
        probability[window, frame] = 0.7  # spikes
    probability[1, ::20] = 0.4  # false ones
    threshold = pretrain.event_threshold(Says(), probability, y, 0.005)
    assert 0.4 < threshold <= 0.7


def test_the_script_trains_a_network_that_ranks_spikes_first(monkeypatch, tmp_path, capsys):
    recipe = pretrain.RECIPES["voltage"]
    scores = pd.DataFrame({"f1": [0.5]}, index=["somewhere"])
    tiny = recipe._replace(settings=recipe.settings | SMALL, score=lambda folder: scores)
    monkeypatch.setitem(pretrain.RECIPES, "voltage", tiny)
    for folder in ("one", "two"):
        pretrain.main(
            ["voltage", "--num-windows", "256", "--epochs", "8", "--seed", "3", "--out", str(tmp_path / folder)]
        )
    capsys.readouterr()
    assert (tmp_path / "one" / "weights.safetensors").read_bytes() == (
        tmp_path / "two" / "weights.safetensors"
    ).read_bytes()
    card = (tmp_path / "one" / "MODEL_CARD.md").read_text()
    assert "--num-windows 256 --epochs 8 --seed 3" in card
    assert "somewhere" in card
    model = load(tmp_path / "one")
    assert (model.name, model.spike_polarity) == ("voltage", "positive")
    X, y = pretrain.voltage_windows(64, 512, 1000.0, seed=99)
    probability = model.predict_proba(X)
    assert roc_auc_score((y > 0.9).ravel(), probability.ravel()) > 0.75
