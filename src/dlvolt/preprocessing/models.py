"""Models by name, as preprocessors take them: checked, and loaded once in each process."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .resampling import resampling_ratio

if TYPE_CHECKING:
    from dlvolt.networks import MelSVM, Oasis, SnippetNetwork, TraceNetwork

SLOWEST = 1 / 5  # models that do not say whom they serve serve recordings from this part of their own rate on


def locate_model(model: str | Path) -> str:
    """Return a packaged model's name, or else the absolute path of its folder, as workers may be elsewhere."""
    if not isinstance(model, str | Path):
        raise ValueError(
            f"model must be the name of weights or the folder of a saved model, not a {type(model).__name__}; "
            "save it first: dlvolt.networks.save(model, folder)"
        )
    from dlvolt.networks import Oasis, available

    return str(model) if str(model) in (*available(), Oasis.name) else str(Path(model).absolute())


def locate_models(model: str | Path) -> list[str]:
    """Return what `locate_model` does for each of the models that a "+" joins."""
    if "+" not in str(model) or Path(model).is_dir():
        return [locate_model(model)]
    return [locate_model(one) for one in str(model).split("+")]


def load_model(model: str, device: str) -> TraceNetwork | SnippetNetwork | MelSVM | Oasis:
    """Load a model, once in each process, and again if its folder has changed."""
    config = Path(model) / "config.json"
    return _load(model, device, config.stat().st_mtime_ns if config.is_file() else 0)


@lru_cache(maxsize=8)
def _load(model: str, device: str, modified: int) -> TraceNetwork | SnippetNetwork | MelSVM | Oasis:
    from dlvolt.networks import load  # here, because SpikeInterface imports this module with its own preprocessors

    return load(model, device)


def load_classifier(model: str, device: str) -> TraceNetwork | MelSVM:
    """Load a model that gives the probability of a spike at every sample, and refuse those of snippets and of rates."""
    from dlvolt.networks import Oasis, RateNetwork, SnippetNetwork
    from dlvolt.networks.inference import hop_and_kept

    network = load_model(model, device)
    hop_and_kept(network)  # that it is for traces
    assert not isinstance(network, SnippetNetwork)
    if isinstance(network, RateNetwork | Oasis):
        raise ValueError(f"model: {network.name!r} gives rates, not probabilities; take spike_rate for it")
    return network


def rate_ratio(sampling_frequency: float, network: TraceNetwork | SnippetNetwork | MelSVM | Oasis) -> Fraction:
    """Return `resampling_ratio` for a model and a recording, if the model serves that sampling frequency."""
    rate = network.sampling_frequency
    if rate is None:
        raise ValueError(f"model: {network.name!r} does not know its sampling frequency; fit it with one")
    lowest, highest = network.rate_range_hz or (SLOWEST * rate, np.inf)
    if not lowest <= sampling_frequency <= highest:
        raise ValueError(
            f"recording: model {network.name!r} serves sampling frequencies from {lowest:g} to {highest:g} Hz, not "
            f"{sampling_frequency:g} Hz; take other weights (of calcium, 'calcium+s2s' from 7 Hz on), or train some at "
            "this rate (dlvolt.training.fit)"
        )
    return resampling_ratio(rate, sampling_frequency)
