import numpy as np
import pandas as pd
import pytest

from dlvolt.networks import load
from dlvolt.training import waveforms

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], [320, 80])
DIPS = np.where(LABELS, 400, 120)[:, None] * np.exp(-0.5 * ((np.arange(42) - 14) / 3) ** 2)


@pytest.fixture
def file(tmp_path):
    """Four channels of snippets, one a little louder than the other."""
    arrays = {}
    for gain, number in zip((0.9, 1.0, 1.1, 1.2), (9, 16, 33, 11), strict=True):
        X = gain * (RNG.normal(scale=30, size=(400, 42)) - DIPS)
        arrays |= {f"channel{number}_background": X[:320], f"channel{number}_spikes": X[320:]}
    np.savez(tmp_path / "snippets.npz", **{key: value.astype("float32") for key, value in arrays.items()})
    return tmp_path / "snippets.npz"


def test_channels_are_read_with_their_labels(file, shared_data):
    channels = waveforms.read_channels(file)
    assert list(channels) == [9, 11, 16, 33]
    X, y = channels[33]
    assert (X.shape, X.dtype, y.tolist()) == ((400, 42), "float32", LABELS.tolist())
    real = waveforms.read_channels(shared_data / "zebra_finch" / "snippets.npz")
    assert {number: (len(y), y.sum()) for number, (_, y) in real.items()} == {
        9: (6783, 1079),
        11: (7654, 819),
        16: (4577, 253),
        33: (4093, 1159),
    }
    np.savez(file, other=np.zeros(3))
    with pytest.raises(ValueError, match=r"path: .* has no arrays like channel9_spikes"):
        waveforms.read_channels(file)


def test_augmented_snippets_are_like_those_they_come_from(monkeypatch):
    X, y = waveforms.augment(-DIPS, LABELS, copies=5, num_before=14, seed=1)
    assert (X.shape, X.dtype, y.tolist()) == ((2000, 42), "float32", LABELS.tolist() * 5)
    again, _ = waveforms.augment(-DIPS, LABELS, copies=5, num_before=14, seed=1)
    np.testing.assert_array_equal(again, X)
    noise = X[:, 32:]  # beyond the dips
    assert noise.std() == pytest.approx(waveforms.NOISE_UV, rel=0.03)
    assert np.corrcoef(noise[:, 0], noise[:, 1])[0, 1] == pytest.approx(2 / 3, abs=0.05)  # smoothed over three

    monkeypatch.setattr(waveforms, "NOISE_UV", 0.0)
    X, _ = waveforms.augment(-DIPS, LABELS, copies=5, num_before=14, seed=1)
    assert set(X[y == 0].argmin(axis=1)) == set(14 + np.arange(-waveforms.JITTER, waveforms.JITTER + 1))
    depth = np.log(-X[y == 0].min(axis=1) / 120)
    assert depth.std() == pytest.approx(waveforms.GAIN, rel=0.1)
    for name in ("STRETCH", "GAIN", "JITTER"):
        monkeypatch.setattr(waveforms, name, 0)
    X, _ = waveforms.augment(-DIPS, LABELS, copies=1, num_before=14)
    np.testing.assert_allclose(X, -DIPS, atol=1e-3)  # spikes are all alike, so mixing them changes nothing


def test_spikes_are_mixed_with_spikes_only():
    X = np.where(LABELS, RNG.choice([100.0, 300.0], 400), -5.0)[:, None] * np.ones(42)
    mixed, _ = waveforms.augment(X, LABELS, copies=1, num_before=14)
    level = np.median(mixed, axis=1)
    assert np.median(level[LABELS == 0]) == pytest.approx(-5, abs=15)
    assert level[LABELS == 1].min() > -100
    assert np.ptp(level[LABELS == 1]) > 200


def test_the_script_writes_weights_and_their_card(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(waveforms, "EPOCHS", 4)
    for folder in ("one", "two"):
        waveforms.main(["waveform_cnn", str(file), "--out", str(tmp_path / folder), "--seed", "3"])
    weights = [(tmp_path / folder / "weights.safetensors").read_bytes() for folder in ("one", "two")]
    assert weights[0] == weights[1]
    card = (tmp_path / "one" / "MODEL_CARD.md").read_text()
    assert "python -m dlvolt.training.waveforms waveform_cnn snippets.npz --seed 3" in card
    assert str(tmp_path) not in card
    table = capsys.readouterr().out
    assert table.splitlines()[-6] in card
    model = load(tmp_path / "one")
    assert model.score(*waveforms.read_channels(file)[11]) > 0.95
    assert (model.name, model.rate_range_hz) == ("waveform_cnn", (20_000.0, 50_000.0))


def test_the_channel_left_out_is_not_trained_on(file, monkeypatch):
    seen = []

    class Says:
        def score(self, X, y):
            return X.max()

    def train(architecture, channels, validation, seed):
        seen.append([X.max() for X, _ in channels])
        return Says()

    monkeypatch.setattr(waveforms, "train", train)
    channels = {number: (np.full((2, 42), float(number)), np.array([0, 1])) for number in (1, 2, 3)}
    table = waveforms.leave_one_channel_out("waveform_cnn", channels, seeds=(0, 1))
    assert seen == [[2, 3], [2, 3], [1, 3], [1, 3], [1, 2], [1, 2]]
    expected = pd.DataFrame([[1.0, 1.0, 1.0, 0.0], [2, 2, 2, 0], [3, 3, 3, 0], [2, 2, 2, 0]], index=[1, 2, 3, "mean"])
    np.testing.assert_allclose(table, expected)
    assert list(table.columns) == ["seed 0", "seed 1", "mean", "sd"]
