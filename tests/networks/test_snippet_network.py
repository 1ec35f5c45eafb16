import numpy as np
import pytest
import spikeinterface as si
import torch
from scipy.special import expit, logit
from sklearn.base import clone, is_classifier
from sklearn.metrics import f1_score

from dlvolt.networks import create, load, save
from dlvolt.networks.snippets import channel_threshold, outlines, settled
from dlvolt.preprocessing import spike_probability

ARCHITECTURES = ["waveform_cnn", "waveform_gru"]
each_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
BRIEF = dict(max_epochs=4, lr=0.01, batch_size=32)


def labelled_snippets(num_snippets=600, seed=0):
    """Noise of 50 µV that dips at sample 14; one in five dips far lower, and is wider."""
    rng = np.random.default_rng(seed)
    y = (np.arange(num_snippets) % 5 == 0).astype(int)
    rng.shuffle(y)
    time = np.arange(42) - 14.0
    dips = np.where(y, 500, 150)[:, None] * np.exp(-0.5 * (time / np.where(y, 4.0, 1.5)[:, None]) ** 2)
    return (rng.normal(scale=50, size=(num_snippets, 42)) - dips).astype("float32"), y


X, Y = labelled_snippets()


@pytest.fixture(scope="module", params=ARCHITECTURES)
def fitted(request):
    return create(request.param, **BRIEF).fit(X, Y)


def test_it_tells_spikes_from_the_rest_and_is_a_scikit_learn_classifier(fitted):
    other, truth = labelled_snippets(seed=1)
    probability = fitted.predict_proba(other)
    assert (probability.shape, probability.dtype) == ((600,), "float32")
    assert fitted.score(other, truth) == f1_score(truth, fitted.predict(other), average="macro") > 0.98
    assert is_classifier(fitted)
    again = clone(fitted).set_params(threshold=0.9).fit(X, Y)
    np.testing.assert_array_equal(again.predict(other), probability >= 0.9)  # the same seed, the same weights


def test_what_is_loaded_is_what_was_saved(fitted, tmp_path):
    loaded = load(save(fitted, tmp_path))
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert (loaded.threshold, loaded.window_samples, loaded.noise_uv) == ("auto", 42, 50.0)


def test_probabilities_do_not_depend_on_company_but_labels_may(fitted):
    probability = fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.predict_proba(X[5:8]), probability[5:8], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(fitted.predict(X[:10]), probability[:10] >= 0.5)  # few: no company to look at
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(fitted.predict(X[order]), fitted.predict(X)[order])
    np.testing.assert_array_equal(fitted.predict(X), fitted.label(probability, outlines(X)))


def test_parameters_are_those_of_the_published_settings():
    def count(architecture):
        return sum(parameter.numel() for parameter in create(architecture).initialize().module_.parameters())

    length = ((42 - 4) // 2 - 4) // 2
    norm, dense = 2 * 16 * length, 16 * length * 32 + 32
    assert count("waveform_cnn") == (5 * 8 + 8) + (5 * 8 * 16 + 16) + norm + dense + (32 * 2 + 2)
    gates = [3 * units * (inputs + units + 2) for inputs, units in ((1, 16), (16, 32))]
    assert count("waveform_gru") == sum(gates) + (32 * 32 + 32) + (32 * 2 + 2)


def test_the_weight_of_rare_spikes_does_not_change_what_a_probability_means():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(2000, 42)).astype("float32"), (rng.random(2000) < 0.1).astype(int)  # nothing to learn
    for weight in (1.0, "sqrt", 9.0):
        model = create("waveform_cnn", positive_weight=weight, max_epochs=3).fit(X, y)
        assert model.predict_proba(X).mean() == pytest.approx(0.1, abs=0.05)


def test_the_threshold_of_a_channel_lies_in_the_valley_before_its_spikes():
    rng = np.random.default_rng(0)
    for spikes in (-3.0, 0.0, 1.0, 5.0):  # wherever that is
        log_odds = np.concatenate([rng.normal(-15, 1, 3000), rng.normal(-10, 2, 1000), rng.normal(spikes, 0.7, 400)])
        threshold, told_by = channel_threshold(expit(log_odds))
        assert told_by == "valley"
        assert spikes - 3.5 < logit(threshold) < spikes - 1
    slope = -8 + rng.exponential(2, 3000)
    for log_odds in (slope, rng.normal(-12, 1, 3000)):
        assert channel_threshold(expit(log_odds)) == (0.5, "one mode")
    assert channel_threshold(np.full(500, 0.3)) == (0.5, "one mode")
    assert channel_threshold(expit(rng.normal(size=10))) == (0.5, "too few")


def test_a_channel_says_where_the_cluster_of_its_spikes_ends():
    snippets, truth = labelled_snippets(2000)
    shapes = outlines(snippets)
    cautious = truth.astype(bool) & (shapes[:, 4] < np.quantile(shapes[truth == 1, 4], 0.85))
    bold = truth.astype(bool) | (shapes[:, 4] < np.quantile(shapes[truth == 0, 4], 0.05))
    for guess in (cautious, bold):
        assert np.mean(guess == truth) < 0.98
        assert np.mean(settled(shapes, guess) == truth) > 0.98
    few = np.arange(2000) < 5
    np.testing.assert_array_equal(settled(shapes, few), few)
    assert shapes.shape == (2000, 14)
    np.testing.assert_allclose(shapes[:, 1], snippets[:, 3:6].mean(axis=1), rtol=1e-5)


TWO_OF_EACH = "y: there must be two spikes and two others at least; label more of both classes"
BAD = {
    "length": (X[:, :41], Y, r"X must be snippets of shape \(B, 42\), not \(600, 41\); cut them so long at 30000 Hz"),
    "one snippet": (X[0], Y[:1], r"X must be snippets of shape \(B, 42\), not \(42,\)"),
    "NaN": (np.where(np.arange(42) == 3, np.nan, X), Y, "X has samples that are NaN or infinite"),
    "labels": (X, Y[:-1], r"y must have one label per snippet, shape \(600,\), not \(599,\)"),
    "label": (X, Y + 1, "y must be 1 for spikes and 0 for the rest"),
    "one class": (X, 0 * Y, TWO_OF_EACH),
    "other class": (X, 0 * Y + 1, TWO_OF_EACH),
    "none": (X[:0], Y[:0], TWO_OF_EACH),
    "lone spike": (X, np.arange(600) == 3, TWO_OF_EACH),
}


@pytest.mark.parametrize(("X", "y", "message"), BAD.values(), ids=BAD)
def test_bad_training_data_get_one_clear_error(X, y, message):
    with pytest.raises(ValueError, match=message):
        create("waveform_cnn", **BRIEF).fit(X, y)


def test_bad_snippets_to_predict_get_the_same_errors(fitted):
    for kind in ("length", "one snippet", "NaN"):
        wrong, _, message = BAD[kind]
        with pytest.raises(ValueError, match=message):
            fitted.predict(wrong)
    assert fitted.predict(X[:0]).shape == (0,)


def test_snippets_too_short_for_the_convolutions_are_refused():
    with pytest.raises(ValueError, match="window_samples: 12 are too few for 2 convolutions of 5 samples"):
        create("waveform_cnn", window_samples=12).initialize()


def test_training_leaves_nobody_elses_dice_touched():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    create("waveform_cnn", max_epochs=1).fit(X, Y)
    assert torch.rand(1) == expected


def test_a_network_of_snippets_reads_no_traces(fitted, tmp_path):
    recording = si.NumpyRecording(np.zeros((1000, 1)), 30_000.0)
    with pytest.raises(ValueError, match=r"is for snippets, not for traces; take dlvolt\.electrodes\.classify_peaks"):
        spike_probability(recording, model=save(fitted, tmp_path))
