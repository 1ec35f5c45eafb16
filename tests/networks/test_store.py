import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from dlvolt.networks import available, create, load, save

TINY = {
    "mel_svm": dict(C=10.0, num_frames=5),
    "tcn": dict(channels=(4, 8)),
    "transformer": dict(d_model=8, num_layers=1),
    "bilstm": dict(hidden_size=4),
    "fcn": dict(channels=(4,)),
    "unet": dict(base_channels=8, depth=1, features=("raw", "median")),
}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 100)).astype("float32")
Y = (RNG.random(X.shape) < 0.1).astype(int)
SETTINGS = dict(sampling_frequency=500.0, name="mine", version="3", threshold=0.25, spike_polarity="positive")


def trained(architecture):
    model = create(architecture, **TINY[architecture], **SETTINGS)
    return model.fit(X, Y) if architecture == "mel_svm" else model.set_params(max_epochs=1).fit(X, Y)


@pytest.fixture
def folder(tmp_path):
    return save(trained("tcn"), tmp_path / "model")


@pytest.mark.parametrize("architecture", TINY)
def test_what_is_loaded_is_what_was_saved(architecture, tmp_path):
    model = trained(architecture)
    folder = save(model, tmp_path / "deep" / "model", card="# A card")
    assert sorted(path.name for path in folder.iterdir()) == ["MODEL_CARD.md", "config.json", "weights.safetensors"]
    loaded = load(folder)
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    for name, value in SETTINGS.items():
        assert getattr(loaded, name) == value
    assert loaded.architecture == architecture
    np.testing.assert_array_equal(clone(loaded).fit(X, Y).predict_proba(X), model.predict_proba(X))


def test_the_config_is_for_people_and_keeps_defaults(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "tcn"
    assert (config["name"], config["version"], config["sampling_frequency"]) == ("mine", "3", 500.0)
    assert (config["window_samples"], config["kernel_size"], config["channels"]) == (500, 3, [4, 8])
    assert "device" not in config


def test_numpys_numbers_are_settings_too(tmp_path):
    model = create("fcn", channels=(np.int64(4),), lr=np.float32(0.5), sampling_frequency=1e3, max_epochs=1).fit(X, Y)
    assert load(save(model, tmp_path)).get_params()["module__channels"] == (4,)


def test_saving_again_replaces(folder):
    other = trained("fcn")
    save(other, folder)
    np.testing.assert_array_equal(load(folder).predict_proba(X), other.predict_proba(X))
    assert len(list(folder.iterdir())) == 2


def test_an_untrained_network_leaves_nothing_behind(tmp_path):
    with pytest.raises(Exception, match=r"(?i)not initialized"):
        save(create("tcn"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_packaged_weights_are_found_by_name(folder, monkeypatch):
    monkeypatch.setattr("dlvolt.networks.store.packaged_weights", lambda: folder.parent)
    assert available() == ["model"]
    assert load("model").name == "mine"


@pytest.mark.parametrize("name", available())
def test_packaged_weights_load_and_run(name):
    model = load(name)
    assert model.name == name
    assert np.isfinite(model.predict_proba(np.zeros((1, model.window_samples)))).all()


def truncate(folder):
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def empty(folder):
    (folder / "weights.safetensors").write_bytes(b"")


def of_another_architecture(folder):
    weights = save(trained("bilstm"), folder.parent / "other") / "weights.safetensors"
    weights.replace(folder / "weights.safetensors")


def edit(**changes):
    def change(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def without_architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["architecture"]
    (folder / "config.json").write_text(json.dumps(config))


DAMAGES = {
    "truncated": (truncate, r"weights.safetensors is damaged, .*copy or save the model again"),
    "empty": (empty, r"weights.safetensors is damaged"),
    "other architecture": (of_another_architecture, r"weights.safetensors is damaged, or not the weights of the 'tcn'"),
    "other size": (edit(channels=[4, 16]), r"not the weights of the 'tcn'.*should be .* but is"),
    "impossible size": (edit(channels=["a"]), r"not the weights of the 'tcn'"),
    "unknown": (edit(architecture="perceptron"), r"config.json does not describe a network .*not 'perceptron'"),
    "unknown setting": (edit(colour="red"), r"config.json does not describe a network .*no setting 'colour'"),
    "no architecture": (without_architecture, r"config.json does not describe a network of dlvolt"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config.json does not describe a network"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), r"config.json does not describe a network"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_folders_get_one_clear_error(damage, message, folder):
    damage(folder)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_an_svm_of_other_features_is_refused(tmp_path):
    folder = save(trained("mel_svm"), tmp_path)
    edit(num_bands=6)(folder)
    with pytest.raises(ValueError, match=r"support_vectors should be \(\d+, 30\) but is \(\d+, 35\)"):
        load(folder)


def test_what_is_missing_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"'voltaic' is not a folder, nor among the weights of dlvolt \("):
        load("voltaic")
    (folder / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no weights.safetensors; save the model there again"):
        load(Path(folder))


def test_a_network_for_rates_has_no_settings_of_spikes():
    with pytest.raises(ValueError, match="'s2s' has no setting 'shadow_ms'"):
        create("s2s", shadow_ms=1.0)
    assert create("unet", shadow_ms=1.0).shadow_ms == 1.0
