import numpy as np
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.svm import SVC

from dlvolt.networks import create, mel_spectrogram, normalise

FS = 3328.0


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    y = rng.random((6, 100)) < 0.05
    return (6 * y + rng.normal(size=y.shape)).astype("float32"), y.astype(int)


def test_a_sample_is_described_by_the_bands_of_three_frames(windows):
    x = torch.from_numpy(windows[0])
    features = create("mel_svm", sampling_frequency=FS).features(windows[0]).reshape(6, 100, 7, 3)
    bands = torch.log1p(mel_spectrogram(normalise(x), FS))  # B×7×T
    torch.testing.assert_close(features[2, 50], bands[2, :, 49:52])
    torch.testing.assert_close(features[2, 0], bands[2][:, [0, 0, 1]])


def test_decisions_and_probabilities_are_those_of_scikit_learn(windows):
    x, y = windows
    model = create("mel_svm", sampling_frequency=FS).fit(x, y)
    features = model.features(x).numpy().astype("float64")

    machine = SVC(C=100, gamma="scale", kernel="rbf", class_weight="balanced").fit(features, y.ravel())
    np.testing.assert_allclose(model.decision_function(x).ravel(), machine.decision_function(features), atol=1e-9)
    calibrated = CalibratedClassifierCV(machine, cv=5, ensemble=False).fit(features, y.ravel())
    expected = calibrated.predict_proba(features)[:, 1]
    np.testing.assert_allclose(model.predict_proba(x).ravel(), expected, atol=1e-6)
    assert model.predict_proba(x).mean() == pytest.approx(y.mean(), rel=0.3)


def test_training_is_bounded_and_seeded(windows):
    x, y = windows
    settings = dict(sampling_frequency=FS, max_samples=200)
    model = create("mel_svm", **settings, seed=1).fit(x, y)
    assert len(model.state()["support_vectors"]) <= 200
    same, other = (create("mel_svm", **settings, seed=seed).fit(x, y).predict_proba(x) for seed in (1, 2))
    np.testing.assert_array_equal(model.predict_proba(x), same)
    assert not np.array_equal(same, other)


def test_batches_do_not_show(windows, monkeypatch):
    x, y = windows
    whole = create("mel_svm", sampling_frequency=FS, max_samples=300).fit(x, y)
    monkeypatch.setattr("dlvolt.networks.mel_svm.SAMPLES_PER_BATCH", {"cpu": 200})
    monkeypatch.setattr("dlvolt.networks.mel_svm.KERNEL_ENTRIES", 1000)
    pieces = create("mel_svm", sampling_frequency=FS, max_samples=300).fit(x, y)
    np.testing.assert_allclose(pieces.predict_proba(x), whole.predict_proba(x), atol=1e-6)


def test_two_spikes_are_the_least(windows):
    x, y = windows[0], np.zeros((6, 100))
    y[0, 50] = 1
    with pytest.raises(ValueError, match="y: an SVM needs two samples with a spike and two without"):
        create("mel_svm", sampling_frequency=FS).fit(x, y)
