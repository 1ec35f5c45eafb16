"""Networks by name: make one, write it to a folder, read it back."""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from dlvolt.whole import written_whole

from .bilstm import BiLSTM
from .calcium import Calcium
from .estimator import Network, TraceNetwork
from .fcn import FCN
from .inference import hop_and_kept
from .mel_svm import MelSVM
from .oasis import Oasis
from .rate import RateNetwork
from .s2s import S2S
from .snippets import SnippetNetwork
from .tcn import TCN
from .transformer import Transformer
from .unet import UNet
from .waveform_cnn import WaveformCNN
from .waveform_gru import WaveformGRU

CONFIG, WEIGHTS, CARD = "config.json", "weights.safetensors", "MODEL_CARD.md"

LONG = dict(window_samples=500, overlap_samples=50)
SHORT = dict(window_samples=100, overlap_samples=50, prune_samples=10)  # 100 ms at 1 kHz
PUBLISHED: dict[str, dict[str, Any]] = {
    "mel_svm": LONG,
    "tcn": dict(LONG, lr=1e-3, weight_decay=1e-4, batch_size=32, max_epochs=50, patience=10),
    "transformer": dict(LONG, lr=1e-3, batch_size=32, max_epochs=100, patience=20),
    "bilstm": dict(LONG, lr=1e-3, batch_size=32, max_epochs=50, patience=10),
    "fcn": dict(SHORT, lr=1e-3, batch_size=128, max_epochs=50, patience=10),
    "unet": dict(SHORT, lr=1e-3, batch_size=128, max_epochs=50, patience=10),
    "waveform_cnn": {},
    "waveform_gru": {},
    "s2s": dict(window_samples=2048, lr=1e-3, batch_size=20, max_epochs=50, patience=6),
    "calcium": dict(lr=3e-3, batch_size=8, max_epochs=10, patience=6, overlap_samples=1024, prune_samples=256),
}
TORCH = (TCN, Transformer, BiLSTM, FCN, UNet, S2S, Calcium, WaveformCNN, WaveformGRU)
MODULES = {module.architecture: module for module in TORCH}
FACES = {"s2s": RateNetwork, "calcium": RateNetwork, "waveform_cnn": SnippetNetwork, "waveform_gru": SnippetNetwork}
OF_SPIKES = ("threshold", "detection_threshold", "shadow_ms", "spike_polarity", "positive_weight")  # unknown to rates
OF_SKORCH = ("module", "criterion", "optimizer", "train_split", "kwargs")
OF_THE_RUN = ("device", "verbose", "callbacks", "warm_start")  # settings of a session, not of a network; not saved


def create(architecture: str, **settings: Any) -> TraceNetwork | SnippetNetwork | MelSVM:
    """Make an untrained network with the published settings, or others.

    Parameters
    ----------
    architecture : str
        "mel_svm", "tcn", "transformer", "bilstm", "fcn" or "unet" for the spikes in traces; "s2s" or "calcium" for the
        rate of spikes; "waveform_cnn" or "waveform_gru" for snippets.
    **settings
        Settings of the architecture (``hidden_size=64``), of its training (``lr=1e-3``, ``max_epochs=50``) and of its
        windows (``window_samples=500``), all by their plain names. In a grid search, settings of torch architectures
        are called ``module__hidden_size``.

    Returns
    -------
    TraceNetwork, RateNetwork, SnippetNetwork or MelSVM
        A scikit-learn classifier of windows or of snippets; for rates, a regressor.

    Raises
    ------
    ValueError
        If the name or a setting is unknown, or windows would leave samples out.

    Examples
    --------
    >>> from dlvolt.networks import create
    >>> create("bilstm", hidden_size=32, sampling_frequency=1000.0).get_params()["module__hidden_size"]
    32
    """
    if architecture not in PUBLISHED:
        raise ValueError(f"architecture must be one of {', '.join(PUBLISHED)}, not {architecture!r}")
    settings = {"name": architecture, **PUBLISHED[architecture], **settings}
    known = setting_names(architecture)
    if unknown := [name for name in settings if name not in known and name not in OF_THE_RUN]:
        raise ValueError(f"{architecture!r} has no setting {unknown[0]!r}; it has {', '.join(known)}")
    routed = {known.get(name, name): value for name, value in settings.items()}
    if architecture == "mel_svm":
        model = MelSVM(**routed)
    else:
        model = FACES.get(architecture, TraceNetwork)(MODULES[architecture], **routed)
    if not isinstance(model, SnippetNetwork):
        hop_and_kept(model)  # checks the windows
    return model


def save(model: TraceNetwork | SnippetNetwork | MelSVM, folder: str | Path, card: str | None = None) -> Path:
    """Write a trained network to a folder.

    Parameters
    ----------
    model : TraceNetwork, SnippetNetwork or MelSVM
        Trained network.
    folder : path
        Where to write it; made if need be. Files that are there are replaced, and never left half written.
    card : str, optional
        Text of a model card: what the network was trained on, how to train it again, and its scores.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    state, config = model.state(), {"architecture": model.architecture, **settings_of(model)}
    text = json.dumps(config, indent=2, default=np.generic.item) + "\n"  # settings may be NumPy's numbers
    folder.mkdir(parents=True, exist_ok=True)
    contents = {WEIGHTS: to_bytes(state), CONFIG: text.encode()}  # a file of save_file is readable by its owner only
    if card is not None:
        contents[CARD] = card.encode()
    for name, content in contents.items():
        with written_whole(folder / name) as path:
            path.write_bytes(content)
    return folder


def load(name: str | Path, device: str = "auto") -> TraceNetwork | SnippetNetwork | MelSVM | Oasis:
    """Read a trained network.

    Parameters
    ----------
    name : str or path
        Name of weights that come with dlvolt (see `available`), or a folder that `save` wrote; or "oasis", see `Oasis`.
    device : str
        Device to run on; "auto" takes CUDA where there is one.

    Returns
    -------
    TraceNetwork, RateNetwork, SnippetNetwork, MelSVM or Oasis
        The network, ready to predict.

    Raises
    ------
    FileNotFoundError
        If there is no such name or folder, or a file is missing.
    ValueError
        If a file is damaged, or the weights do not fit the configuration.
    """
    if str(name) == Oasis.name:
        return Oasis()
    folder = packaged_weights() / str(name) if str(name) in available() else Path(name)
    if not folder.is_dir():
        names = ", ".join(available()) or "none"
        raise FileNotFoundError(f"{str(name)!r} is not a folder, nor among the weights of dlvolt ({names})")
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} has no {file}; save the model there again (dlvolt.networks.save)")
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        config = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
        model = create(**config, device=device)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a network of dlvolt ({error}); save it again") from error
    try:
        return model.load_state(load_file(folder / WEIGHTS))
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(
            f"{folder / WEIGHTS} is damaged, or not the weights of the {model.architecture!r} that {CONFIG} describes "
            f"({error}); copy or save the model again"
        ) from error


def available() -> list[str]:
    """Return the names of the weights that come with dlvolt."""
    return sorted(path.parent.name for path in packaged_weights().glob(f"*/{CONFIG}"))


def settings_of(model: TraceNetwork | SnippetNetwork | MelSVM) -> dict[str, Any]:
    """Return all settings with which `create` makes the same network again, by their plain names."""
    given = model.get_params(deep=False)
    defaults = {} if isinstance(model, MelSVM) else inspect.signature(model.module).parameters
    values = {
        name: given[key] if key in given else defaults[name].default
        for name, key in setting_names(model.architecture).items()
        if key in given or name in defaults
    }
    first = ("name", "version", "sampling_frequency")  # in the file
    return {name: values[name] for name in sorted(values, key=lambda name: name not in first)}


def setting_names(architecture: str) -> dict[str, str]:
    """Return the plain names of the settings that an architecture has, each with its name in the estimator."""
    if architecture == "mel_svm":
        return {name: name for name in inspect.signature(MelSVM).parameters if name not in OF_THE_RUN}
    face = FACES.get(architecture, TraceNetwork)
    absent = (*OF_SKORCH, *OF_THE_RUN, *OF_SPIKES) if face is RateNetwork else (*OF_SKORCH, *OF_THE_RUN)
    names: dict[str, str] = {}
    for each in face.__mro__:
        if issubclass(each, Network):  # a network passes what it does not know on to its base
            names |= {name: name for name in inspect.signature(each).parameters if name not in absent}
    names["weight_decay"] = "optimizer__weight_decay"
    of_module = inspect.signature(MODULES[architecture]).parameters
    return names | {name: f"module__{name}" for name in of_module if name not in names}


def packaged_weights() -> Path:
    """Return the folder of the weights that come with dlvolt."""
    return Path(str(files("dlvolt") / "weights"))
