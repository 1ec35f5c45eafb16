"""Train the packaged networks of snippets on snippets that were labelled by hand.

``python -m dlvolt.training.waveforms waveform_cnn snippets.npz`` writes the weights to the folder that
`dlvolt.networks.load` reads, and scores such networks on channels they were not trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dlvolt.networks import SnippetNetwork, create, save
from dlvolt.networks.store import packaged_weights

from .packaged import model_card, one_cycle, script_parser

TRAINING, VALIDATION = (9, 16, 33), 11  # channels
EPOCHS, BATCH_SIZE, PEAK_LEARNING_RATE = 8, 256, 4e-3
JITTER = 2  # samples by which a snippet is shifted, at most
STRETCH, GAIN = 0.4, 0.1  # standard deviations of the logarithms of the factors in time and amplitude
NOISE_UV = 100.0  # standard deviation of the added noise, before it is smoothed over three samples
BEYOND = 0.3  # a mixture of two spikes may lie beyond either of them by this share of their difference

Channel = tuple[np.ndarray, np.ndarray]  # snippets (B, D) in µV, labels (B,)


def read_channels(path: str | Path) -> dict[int, Channel]:
    """Read the labelled snippets of each channel n from the arrays ``channeln_spikes`` and ``channeln_background``."""
    with np.load(path) as arrays:
        numbers = sorted(int(key[len("channel") : -len("_spikes")]) for key in arrays if key.endswith("_spikes"))
        pairs = {n: [arrays[f"channel{n}_{kind}"] for kind in ("background", "spikes")] for n in numbers}
    if not pairs:
        raise ValueError(f"path: {path} has no arrays like channel9_spikes and channel9_background")
    return {n: (np.concatenate(pair), np.repeat([0, 1], list(map(len, pair)))) for n, pair in pairs.items()}


def augment(X: np.ndarray, y: np.ndarray, copies: int, num_before: int, seed: int = 0) -> Channel:
    """Return copies of snippets, varied as they may differ from channel to channel.

    Each spike is mixed with another, of any channel, so that there are more shapes than neurons. Then snippets are
    shifted by some samples, stretched in time around the peak, scaled a little, and noise is added. The amplitude stays
    nearly as it is, because labels were drawn around large spikes.

    Parameters
    ----------
    X : np.ndarray, shape (B, D)
        Snippets in µV.
    y : np.ndarray, shape (B,)
        1 for spikes, else 0.
    copies : int
        Number of copies of each snippet.
    num_before : int
        Sample of the peak in a snippet.
    seed : int
        Same seed, same copies.

    Returns
    -------
    X, y : np.ndarray, shapes (copies B, D), float32, and (copies B,)
        Varied snippets, and their labels.
    """
    rng = np.random.default_rng(seed)
    X, y = np.tile(X, (copies, 1)).astype("float64"), np.tile(y, copies)
    spikes = np.flatnonzero(y)
    share = rng.uniform(-BEYOND, 1 + BEYOND, size=(len(spikes), 1))
    X[spikes] = share * X[spikes] + (1 - share) * X[rng.permutation(spikes)]

    shift = rng.integers(-JITTER, JITTER + 1, size=(len(X), 1))
    factor = np.exp(STRETCH * rng.normal(size=(len(X), 1)))
    last = X.shape[1] - 1
    position = np.clip(num_before + factor * (np.arange(last + 1) - num_before - shift), 0, last)  # B×D
    before = np.minimum(position.astype(int), last - 1)
    weight = position - before
    X = np.take_along_axis(X, before, 1) * (1 - weight) + np.take_along_axis(X, before + 1, 1) * weight

    X *= np.exp(GAIN * rng.normal(size=(len(X), 1)))
    noise = rng.normal(scale=NOISE_UV, size=(len(X), last + 3))
    X += (noise[:, :-2] + noise[:, 1:-1] + noise[:, 2:]) / 3**0.5
    return X.astype("float32"), y


def train(architecture: str, channels: Sequence[Channel], validation: Channel, seed: int = 0) -> SnippetNetwork:
    """Train "waveform_cnn" or "waveform_gru" on some channels; the losses that it prints are those of another one."""
    X, y = (np.concatenate(parts) for parts in zip(*channels, strict=True))
    model = create(
        architecture,
        version="1",
        rate_range_hz=(20_000.0, 50_000.0),
        batch_size=BATCH_SIZE,
        max_epochs=1,
        positive_weight=1.0,
        callbacks=one_cycle(PEAK_LEARNING_RATE, len(X), BATCH_SIZE, EPOCHS),
        seed=seed,
    )
    return model.fit(*augment(X, y, EPOCHS, model.num_before, seed), validation=validation)


def leave_one_channel_out(
    architecture: str, channels: dict[int, Channel], seeds: Sequence[int] = (0, 1, 2)
) -> pd.DataFrame:
    """Score networks on each channel in turn that were trained on all others.

    Returns
    -------
    DataFrame
        Macro-F1. Rows: the channel left out, and the mean over channels. Columns: the seed, and the mean and standard
        deviation over seeds.
    """
    table = pd.DataFrame(index=list(channels), columns=[f"seed {seed}" for seed in seeds], dtype=float)
    for number, left_out in channels.items():
        others = [channel for other, channel in channels.items() if other != number]
        for seed in seeds:
            table.loc[number, f"seed {seed}"] = train(architecture, others, left_out, seed).score(*left_out)
    table.loc["mean"] = table.mean()
    return table.assign(mean=table.mean(axis=1), sd=table.std(axis=1, ddof=0))


def describe(model: SnippetNetwork) -> str:
    """Return what a network is for and trained on, for its model card."""
    return f"""Is the snippet of a threshold crossing a spike? Snippets of {model.window_samples} samples at 30 kHz, in
µV, band-pass filtered from 300 to 8000 Hz, with the peak near sample {model.num_before}. Trained on channels {TRAINING}
of a zebra finch (Cambridge Neurotech ASSY-236-H5; henryxcham/spike_detection_classification, Apache-2.0), labelled by
hand around a cluster in PCA space, as `dlvolt.training.waveforms` says; channel {VALIDATION} was looked at only."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m dlvolt.training.waveforms``."""
    parser = script_parser("waveforms", __doc__)
    parser.add_argument("architecture", choices=["waveform_cnn", "waveform_gru"])
    parser.add_argument("path", type=Path, help="labelled snippets, see read_channels")
    args = parser.parse_args(arguments)
    channels = read_channels(args.path)
    model = train(args.architecture, [channels[n] for n in TRAINING], channels[VALIDATION], args.seed)
    table = leave_one_channel_out(args.architecture, channels)
    score = model.score(*channels[VALIDATION])
    command = f"python -m dlvolt.training.waveforms {args.architecture} {args.path.name} --seed {args.seed}"
    scores = (
        f"which also measured these scores. Macro-F1 on channel {VALIDATION}: {score:.3f}. Macro-F1 of networks "
        "trained likewise on three channels, on the fourth, whose number stands on the left"
    )
    card = model_card(model.name, model.version, describe(model), args.architecture, command, [(scores, table)])
    save(model, args.out or packaged_weights() / args.architecture, card=card)
    print(f"channel {VALIDATION}: {score:.3f}\n{table.round(3).to_string()}")


if __name__ == "__main__":
    main()
