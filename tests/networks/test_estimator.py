import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV

from dlvolt.networks import create

TINY = dict(channels=(8, 8), window_samples=50, overlap_samples=0, batch_size=8, max_epochs=8, lr=0.02)


def labelled_windows(num_windows=40, height=15.0, seed=0, rate=0.03):
    """Windows (B, 50) of noise with spikes of three samples, and where those begin."""
    rng = np.random.default_rng(seed)
    y = rng.random((num_windows, 50)) < rate
    x = height * (y + 0.5 * np.roll(y, 1, axis=1)) + rng.normal(size=y.shape)
    return x.astype("float32"), y.astype(int)


X, Y = labelled_windows()
X_TEST, Y_TEST = labelled_windows(seed=1)


@pytest.fixture(scope="module")
def fitted():
    return create("tcn", **TINY).fit(X, Y)


def test_it_is_a_multilabel_classifier_of_windows(fitted):
    probability = fitted.predict_proba(X_TEST)
    assert (probability.shape, probability.dtype) == (Y_TEST.shape, "float32")
    assert probability.min() >= 0
    assert probability.max() <= 1
    np.testing.assert_array_equal(fitted.predict(X_TEST), probability >= 0.5)
    np.testing.assert_array_equal(clone(fitted).set_params(threshold=0.9).fit(X, Y).predict(X_TEST), probability >= 0.9)
    assert fitted.score(X_TEST, Y_TEST) == f1_score(Y_TEST, fitted.predict(X_TEST), average="micro") > 0.9
    assert is_classifier(fitted)


def test_same_seed_same_result_and_nobody_elses_dice_are_touched(fitted):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    again = create("tcn", **TINY).fit(X, Y)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002
    np.testing.assert_array_equal(again.predict_proba(X_TEST), fitted.predict_proba(X_TEST))
    other = create("tcn", **TINY, seed=1).fit(X, Y)
    assert not np.array_equal(other.predict_proba(X_TEST), fitted.predict_proba(X_TEST))


def test_settings_have_flat_names_and_survive_cloning():
    model = create("bilstm", hidden_size=32, lr=0.5, weight_decay=0.1, sampling_frequency=1000.0, seed=3)
    parameters = clone(model).get_params()
    assert parameters["module__hidden_size"] == 32
    assert parameters["optimizer__weight_decay"] == 0.1
    assert (parameters["lr"], parameters["sampling_frequency"], parameters["seed"]) == (0.5, 1000.0, 3)
    model.set_params(module__hidden_size=8, max_epochs=1).fit(X, Y)
    assert model.module_.lstm.hidden_size == 8
    assert model.optimizer_.param_groups[0]["weight_decay"] == 0.1


def test_a_grid_search_over_a_torch_network_is_three_lines():
    grid = {"module__channels": [(2,), (8, 8)], "lr": [1e-6, 0.02]}
    search = GridSearchCV(create("tcn", **TINY), grid, scoring="f1_micro", cv=2).fit(X, Y)
    assert search.best_params_["lr"] == 0.02
    assert search.score(X_TEST, Y_TEST) > 0.8


def test_a_grid_search_over_the_svm_is_three_lines():
    model = create("mel_svm", sampling_frequency=1000.0)
    search = GridSearchCV(model, {"C": [1e-4, 1.0]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"C": 1.0}


def test_training_ends_with_the_best_weights_on_the_validation_windows():
    misleading = np.roll(Y_TEST, 7, axis=1)  # so that validation gets worse while training gets better
    model = create("tcn", **{**TINY, "max_epochs": 30}, patience=4).fit(X, Y, validation=(X_TEST, misleading))
    losses = np.array(model.history[:, "valid_loss"])
    assert len(losses) < 30
    assert len(losses) - 1 - losses.argmin() == 4
    odds = torch.from_numpy(model.predict_proba(X_TEST)).logit() + np.log(model.loss_weight_)
    target = torch.from_numpy(misleading).float()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        odds, target, pos_weight=torch.tensor(model.loss_weight_)
    )
    assert loss.item() == pytest.approx(losses.min(), rel=1e-3)
    assert losses[-1] > 1.01 * losses.min()


def test_weighted_training_gives_probabilities_all_the_same():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 50)).astype("float32")
    chance = 0.04
    y = (rng.random(noise.shape) < chance).astype(int)  # nothing in the traces tells
    model = create("tcn", **{**TINY, "channels": (2,), "batch_size": 32}).fit(noise, y)
    assert model.loss_weight_ == pytest.approx(np.sqrt((1 - chance) / chance), rel=0.05)
    assert model.predict_proba(noise).mean() == pytest.approx(chance, rel=0.25)


def test_warm_start_goes_on_from_where_it_was(fitted):
    warm = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, lr=1e-9, max_epochs=1)
    before = warm.predict_proba(X_TEST)
    np.testing.assert_allclose(warm.fit(X, Y).predict_proba(X_TEST), before, atol=1e-4)


@pytest.mark.parametrize("num_windows", [1, 2, 9])
def test_few_windows_and_odd_batches_train(num_windows):
    model = create("unet", base_channels=8, depth=1, sampling_frequency=1000.0, batch_size=4, max_epochs=1)
    x, y = labelled_windows(num_windows, rate=0.2)
    assert model.fit(x, y).predict_proba(x).shape == (num_windows, 50)


def test_pickled_networks_predict_the_same(fitted):
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.predict_proba(X_TEST), fitted.predict_proba(X_TEST))


def test_silent_unless_verbose(capfd):
    model = create("tcn", **{**TINY, "max_epochs": 2})
    model.fit(X, Y)
    model.set_params(lr=0.1).fit(X, Y)
    assert capfd.readouterr() == ("", "")
    model.set_params(verbose=1).fit(X, Y)
    assert "valid_loss" in capfd.readouterr().out


def test_the_device_is_chosen_or_given():
    assert create("tcn").device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert create("tcn", device="cpu").device == "cpu"


nan = X.copy()
nan[3, 3] = np.nan
BAD = {
    "one trace": (X[0], Y[0], r"X must be windows of shape \(B, T\), not \(50,\)"),
    "no window": (X[:0], Y[:0], r"X must be windows of shape \(B, T\), not \(0, 50\)"),
    "NaN": (nan, Y, "X has samples that are NaN or infinite; fill them"),
    "other shape": (X, Y[:, :-1], r"y must have one value per sample of X, shape \(40, 50\), not \(40, 49\)"),
    "counts": (X, 2 * Y, "y must be 1 where there is a spike and 0 elsewhere"),
    "no spike": (X, 0 * Y, "y: "),
    "all spikes": (X, 0 * Y + 1, "y: "),
}


@pytest.mark.parametrize("architecture", ["tcn", "mel_svm"])
@pytest.mark.parametrize(("x", "y", "message"), BAD.values(), ids=BAD)
def test_bad_windows_are_refused_before_training(architecture, x, y, message):
    model = create(architecture, sampling_frequency=1000.0)
    with pytest.raises(ValueError, match=message):
        model.fit(x, y)
    assert not hasattr(model, "classes_")


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"architecture must be one of mel_svm, tcn, .*, not 'lstm'"):
        create("lstm")
    with pytest.raises(
        ValueError, match=r"'tcn' has no setting 'hidden_size'; it has .*channels, kernel_size, dropout"
    ):
        create("tcn", hidden_size=3)
    with pytest.raises(ValueError, match="'mel_svm' has no setting 'lr'"):
        create("mel_svm", lr=3)
    with pytest.raises(ValueError, match="windows leave samples out"):
        create("tcn", window_samples=100, overlap_samples=100)
    with pytest.raises(ValueError, match="positive_weight must be positive or 'sqrt', not 'full'"):
        create("tcn", positive_weight="full").fit(X, Y)
    for architecture in ("unet", "mel_svm"):
        with pytest.raises(ValueError, match=rf"sampling_frequency: .*create\('{architecture}', sampling_frequency=…"):
            create(architecture).fit(X, Y)


def test_an_untrained_network_says_so():
    for architecture in ("tcn", "mel_svm"):
        with pytest.raises(Exception, match=r"(?i)not (initialized|fitted)"):
            create(architecture, sampling_frequency=1000.0).predict_proba(X)
