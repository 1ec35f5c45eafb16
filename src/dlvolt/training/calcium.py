"""Train the packaged networks of spike rates on calcium recordings with known spikes.

``python -m dlvolt.training.calcium calcium FOLDER`` scores the network on cells it was not trained on, then trains and
writes the weights, from a folder of such recordings; with ``s2s`` it does the same for that network.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d, uniform_filter1d
from scipy.signal import correlate, resample_poly
from sklearn.base import clone
from torch import Tensor
from tqdm.auto import tqdm

from dlvolt.deconvolution.fluorescence import refined_rate
from dlvolt.evaluation import rate_scores
from dlvolt.evaluation.rates import CHALLENGE_BIN
from dlvolt.networks import RateNetwork, create, save, trace_rate
from dlvolt.networks.store import packaged_weights
from dlvolt.preprocessing.resampling import resampling_filter, resampling_ratio

from .fit import over_trace
from .packaged import model_card, one_cycle, script_parser
from .windows import window_samples

RATE = 100.0  # Hz, of the networks and of the spikefinder challenge
RATE_RANGE_HZ = (7.0, 1000.0)  # frame rates of the training data; faster recordings are averaged down
VERSION = "1"
SETTINGS: dict[str, dict[str, Any]] = {  # settings of training that differ from the published ones
    "s2s": dict(num_windows=8000, window_samples=8192, batch_size=5, lr=3e-3),
    "calcium": dict(num_windows=16000),  # for each member of the ensemble
}
SPIKEFINDER = ("DS01", "DS15", "spikefinder_4", "spikefinder_5", "spikefinder_6")  # DS01 is its set 2, DS15 its set 3
FAVOUR = 5  # how many times as often windows of these datasets are drawn
SILENT = 0.2  # share of the windows that are noise alone
FRAMES = (1, 17)  # samples per frame of simulated noise, at least and less than
NUM_FOLDS = 5
INDICATORS = {  # datasets that are left out together, to test on an indicator that was not trained on
    "OGB-1": ("DS01", "DS02", "spikefinder_4"),
    "GCaMP6f": ("DS09", "DS10", "DS11", "DS27"),
    "GCaMP6s": ("DS12", "DS13", "DS14", "DS15", "spikefinder_5"),
    "jRCaMP1a": ("DS19",),
    "GCaMP8": ("DS30", "DS32"),
}
MISALIGNED_S = 0.15  # if fluorescence leads the spikes by more, their clocks disagree and the spikes are moved
TYPICAL_LAG_S = 0.04  # from a spike to the steepest rise of fluorescence
LONGEST_LAG_S = 0.6  # that is searched for such a lead
STEP_S, BASELINE_S = 0.08, 3.0  # standard deviations of the Gaussians that smooth rises and estimate the baseline

ABOUT = {
    "s2s": "Spike rates from the fluorescence of calcium by the signal-to-signal network of Sebastian et al. (2021), "
    "with the paper's architecture, loss and targets.",
    "calcium": "Spike rates from the fluorescence of calcium by an ensemble of U-Nets, each trained without another "
    "fifth of the cells.",
}
DATA = (
    "Trained on published recordings of fluorescence with juxtacellular spikes: "
    "OGB-1, GCaMP6f, GCaMP6s, GCaMP8f, GCaMP8s and jRCaMP1a in mouse, as collected in PTRRupprecht/Cascade and "
    "PTRRupprecht/Autocalibrated-spike-inference (GPL-3 repositories; DS01 to DS32), and the training sets 4, 5 and 6 "
    "of the spikefinder challenge (berenslab/spikefinder_analysis, no licence given). No test set of the challenge was "
    "used."
)
SCORES = (
    "Scores as the spikefinder challenge defines them (25 Hz, per cell, then averaged), on cells that were not trained "
    f"on, in {NUM_FOLDS} folds; `±` is the standard deviation over cells, `count_ratio` the median over cells of the "
    """estimated by the true number of spikes; "spikefinder's" are sets like those of the challenge"""
)


class Labelled(NamedTuple):
    """A recording of one cell, at 100 Hz."""

    dataset: str
    cell: str
    trace: np.ndarray  # T, float32
    counts: np.ndarray  # T, int8: spikes from each sample to the next


def read_labelled(folder: str | Path) -> list[Labelled]:
    """Read all recordings of a folder, and `realign` their spikes.

    The folder has ``*.npz`` files, one for each dataset. A recording is either ``{cell}_{recording}_fluorescence`` with
    ``…_time_s``, the time of the first frame and the time between frames, and ``…_spike_times_s``; or, at 100 Hz,
    ``{cell}_calcium_100hz`` with ``{cell}_spike_counts_100hz``. Files of a spikefinder test set are refused.
    """
    recordings = []
    for path in sorted(Path(folder).glob("*.npz")):
        if "test" in path.stem:
            raise ValueError(f"folder: {path.name} looks like a test set, on which nothing is trained; move it")
        dataset = path.stem.split("-")[0].removesuffix("_train")
        with np.load(path) as file:
            for name in file.files:
                if name.endswith("_calcium_100hz"):
                    cell = name.removesuffix("_calcium_100hz")
                    recordings.append(Labelled(dataset, cell, file[name], file[f"{cell}_spike_counts_100hz"]))
                elif name.endswith("_fluorescence"):
                    name = name.removesuffix("_fluorescence")
                    (start, step), spike_times = file[f"{name}_time_s"], file[f"{name}_spike_times_s"]
                    resampled = at_rate(file[f"{name}_fluorescence"], (spike_times - start) / step, 1 / step)
                    recordings.append(Labelled(dataset, name.split("_")[0], *resampled))
    if not recordings:
        raise ValueError(f"folder: {folder} holds no recordings of calcium with known spikes (*.npz)")
    return [realign(recording) for recording in recordings]


def at_rate(trace: np.ndarray, spikes: np.ndarray, sampling_frequency: float) -> tuple[np.ndarray, np.ndarray]:
    """Resample a trace (T,) to 100 Hz as `spike_rate` does, and count its spikes, given in samples, in each sample."""
    ratio = resampling_ratio(RATE, sampling_frequency)
    taps, _ = resampling_filter(ratio.numerator, ratio.denominator)
    trace = trace.astype("float64")
    middle = np.median(trace)
    resampled = middle + resample_poly(trace - middle, ratio.numerator, ratio.denominator, window=taps, padtype="line")
    samples = np.floor(spikes * float(ratio))
    inside = samples[(samples >= 0) & (samples < len(resampled))].astype(int)
    return resampled.astype("float32"), np.bincount(inside, minlength=len(resampled)).astype("int8")


def realign(recording: Labelled) -> Labelled:
    """Return a recording with its spikes moved, if its fluorescence leads them by more than `MISALIGNED_S`."""
    lead = lead_samples(recording.trace, recording.counts)
    if lead <= MISALIGNED_S * RATE:
        return recording
    shift = lead + round(TYPICAL_LAG_S * RATE)
    return recording._replace(counts=np.append(recording.counts[shift:], np.zeros(shift, dtype="int8")))


def lead_samples(trace: np.ndarray, counts: np.ndarray) -> int:
    """Return by how many samples the steepest rises of fluorescence lead the spikes; negative if they follow."""
    trace = trace - gaussian_filter1d(trace, BASELINE_S * RATE)
    rises = np.maximum(np.gradient(gaussian_filter1d(trace, STEP_S * RATE)), 0)
    spikes = gaussian_filter1d(counts.astype(float), STEP_S * RATE)
    covariance = correlate(spikes - spikes.mean(), rises - rises.mean(), method="fft")
    reach, middle = round(LONGEST_LAG_S * RATE), len(trace) - 1
    return int(np.argmax(covariance[middle - reach : middle + reach + 1])) - reach


def folds(recordings: Sequence[Labelled]) -> np.ndarray:
    """Return the fold of each recording; the cells of each dataset are spread over folds, each cell as a whole."""
    rng = np.random.default_rng(0)
    fold_of: dict[tuple[str, str], int] = {}
    for dataset in sorted({each.dataset for each in recordings}):
        cells = sorted({each.cell for each in recordings if each.dataset == dataset})
        first = int(rng.integers(NUM_FOLDS))
        fold_of |= {(dataset, cells[n]): (first + i) % NUM_FOLDS for i, n in enumerate(rng.permutation(len(cells)))}
    return np.array([fold_of[each.dataset, each.cell] for each in recordings])


def draw_windows(
    recordings: Sequence[Labelled], num_windows: int, size: int, seed: int, favour: float = FAVOUR
) -> tuple[np.ndarray, np.ndarray]:
    """Draw windows (B, size) from anywhere in recordings, with added noise, drift and blur, and their spike counts.

    The number of windows of a dataset is proportional to the square root of its duration, so that large datasets do not
    dominate, and `favour` times as large for those like spikefinder's. Some windows hold nothing but noise, so that the
    network learns silence: noise in slow frames looks like the cells of some datasets.
    """
    rng = np.random.default_rng(seed)
    lengths = pd.Series([len(each.trace) for each in recordings])
    datasets = pd.Series([each.dataset for each in recordings])
    weights = lengths / np.sqrt(lengths.groupby(datasets).transform("sum"))
    weights *= np.where(datasets.isin(SPIKEFINDER), favour, 1)
    X, y = np.empty((num_windows, size), dtype="float32"), np.empty((num_windows, size), dtype="int8")
    for window, drawn in enumerate(rng.choice(len(recordings), num_windows, p=weights / weights.sum())):
        if rng.random() < SILENT:
            X[window], y[window] = noise(size, int(rng.integers(*FRAMES)), rng), 0
            continue
        trace, counts = recordings[drawn].trace, recordings[drawn].counts
        index = window_samples(len(trace), size, 0)[0] + rng.integers(max(len(trace) - size, 0) + 1)
        X[window], y[window] = varied(trace[index], rng), counts[index]
    return X, y


def varied(trace: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a trace (T,), at random with more noise of some frame rate, with drift, and with a longer exposure."""
    deviation, num_samples = trace.std(), len(trace)
    if rng.random() < 0.5:
        trace = trace + rng.uniform(0, 0.6) * deviation * noise(num_samples, int(rng.integers(*FRAMES)), rng)
    if rng.random() < 0.5:
        trace = trace + rng.uniform(0, 0.7) * deviation * drift(num_samples, int(rng.integers(500, 3000)), rng)
    if rng.random() < 0.3:
        trace = uniform_filter1d(trace, rng.integers(2, 12))
    return trace


def noise(num_samples: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Return Gaussian noise (T,) of frames `step` samples apart, resampled as recordings are."""
    return at_rate(rng.normal(size=num_samples // step + 1), np.zeros(0), RATE / step)[0][:num_samples]


def drift(num_samples: int, step: int, rng: np.random.Generator) -> np.ndarray:
    """Return a baseline (T,) that is drawn from a Gaussian every `step` samples, and linear in between."""
    nodes = rng.normal(size=num_samples // step + 2)
    return np.interp(np.arange(num_samples) / step, np.arange(len(nodes)), nodes)


def train(name: str, recordings: Sequence[Labelled], seed: int = 0, **settings: Any) -> RateNetwork:
    """Train "s2s", or one member of "calcium", on windows that are drawn and varied, each seen once.

    The last fifth of them validates it. It is calibrated on a fifth as many further windows, drawn without favour, so
    that the number of spikes is right for all datasets. Settings are those of `dlvolt.networks.create`, and
    ``num_windows`` to draw.
    """
    given = dict[str, Any](name=name, version=VERSION, rate_range_hz=RATE_RANGE_HZ, seed=seed, max_epochs=1)
    settings = given | SETTINGS[name] | settings
    num_windows = settings.pop("num_windows")
    model = create(name, **settings)
    num_trained = num_windows - num_windows // 5
    callbacks = one_cycle(model.lr, num_trained, model.batch_size, model.max_epochs, pct_start=0.1)
    model.set_params(callbacks=callbacks)
    model.fit(*draw_windows(recordings, num_windows, model.window_samples, seed))
    return model.calibrate(*draw_windows(recordings, num_windows // 5, model.window_samples, seed, favour=1))


def ensemble(members: Sequence[RateNetwork], X: np.ndarray, y: np.ndarray) -> RateNetwork:
    """Return the network that averages several networks `Calcium` of one member, calibrated on windows (B, T)."""
    state = {
        key.replace("members.0", f"members.{n}"): value
        for n, member in enumerate(members)
        for key, value in member.state().items()
    }
    return clone(members[0]).set_params(module__num_members=len(members)).load_state(state).calibrate(X, y)


def members(model: RateNetwork) -> list[RateNetwork]:
    """Return the members of a network `Calcium`; the first was trained without the first of `folds`, and so on."""
    single: list[dict[str, Tensor]] = [{} for _ in range(model.get_params()["module__num_members"])]
    for key, value in model.state().items():
        _, number, rest = key.split(".", 2)
        single[int(number)][f"members.0.{rest}"] = value
    return [clone(model).set_params(module__num_members=1).load_state(state) for state in single]


def score(
    models: RateNetwork | Sequence[RateNetwork], recordings: Sequence[Labelled], refine: bool = False
) -> pd.DataFrame:
    """Score a network, or the mean of several, cell by cell in bins of 40 ms, as the spikefinder challenge does.

    The table has a row for each cell with the index (dataset, cell), the columns of `dlvolt.evaluation.rate_scores` and
    ``count_ratio``, the estimated over the true number of spikes. The rates may be refined by the trace, see
    `dlvolt.deconvolution.fluorescence.refined_rate`.
    """
    models = [models] if isinstance(models, RateNetwork) else models
    cells: dict[tuple[str, str], list[np.ndarray]] = {}
    for each in recordings:
        rates = np.stack([over_trace(trace_rate, model, each.trace) for model in models])
        rate = refined_rate(each.trace, rates, RATE) if refine else rates.mean(axis=0)
        whole = len(rate) // CHALLENGE_BIN * CHALLENGE_BIN  # samples of whole bins
        cells.setdefault((each.dataset, each.cell), []).append(np.stack([each.counts, rate])[:, :whole])
    joined = [np.concatenate(parts, axis=1) for parts in cells.values()]
    all_counts, all_rates = zip(*joined, strict=True)
    table = rate_scores(all_counts, all_rates)
    table["count_ratio"] = [rate.sum() / RATE / counts.sum() if counts.any() else np.nan for counts, rate in joined]
    return table.set_index(pd.MultiIndex.from_tuples(cells, names=["dataset", "cell"]))


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """Return mean scores over cells, by dataset, by indicator, of sets like spikefinder's, and of all.

    Columns with ``±`` are standard deviations. ``count_ratio`` is the median, as cells that hardly fire have extreme
    ratios.
    """
    dataset = cells.index.get_level_values("dataset")
    groups = {name: cells[dataset == name] for name in sorted(set(dataset))}
    groups |= {name: cells[dataset.isin(several)] for name, several in INDICATORS.items()}
    groups |= {"spikefinder's": cells[dataset.isin(SPIKEFINDER)], "all": cells}
    rows = {
        name: {
            "cells": len(some),
            **some.mean(),
            "count_ratio": some["count_ratio"].median(),
            **some.drop(columns="count_ratio").std().add_prefix("± "),
        }
        for name, some in groups.items()
        if len(some)
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def cross_validate(
    name: str, recordings: Sequence[Labelled], groups: np.ndarray, seed: int
) -> tuple[list[RateNetwork], pd.DataFrame]:
    """Train without each group of recordings in turn, and `score` the network on it.

    `groups` names the group of each recording, from `folds` or `indicators`; the networks come in their order.
    """
    models, tables = [], []
    for group in tqdm(np.unique(groups), desc=name):
        held_out = [each for each, own in zip(recordings, groups, strict=True) if own == group]
        rest = [each for each, own in zip(recordings, groups, strict=True) if own != group]
        models.append(train(name, rest, seed))
        tables.append(score(models[-1], held_out))
    return models, pd.concat(tables)


def indicators(recordings: Sequence[Labelled]) -> np.ndarray:
    """Return the indicator of each recording."""
    indicator_of = {dataset: name for name, datasets in INDICATORS.items() for dataset in datasets}
    return np.array([indicator_of.get(each.dataset, each.dataset) for each in recordings])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m dlvolt.training.calcium``."""
    parser = script_parser("calcium", __doc__)
    parser.add_argument("name", choices=ABOUT)
    parser.add_argument("folder", type=Path, help="folder of labelled recordings, see read_labelled")
    args = parser.parse_args(arguments)
    recordings = read_labelled(args.folder)
    models, by_cell = cross_validate(args.name, recordings, folds(recordings), args.seed)
    _, by_indicator = cross_validate(args.name, recordings, indicators(recordings), args.seed)
    if args.name == "calcium":
        num_windows = SETTINGS["calcium"]["num_windows"] // 5
        windows = draw_windows(recordings, num_windows, models[0].window_samples, args.seed, favour=1)
        model = ensemble(models, *windows)
    else:
        model = train(args.name, recordings, args.seed)
    command = f"python -m dlvolt.training.calcium {args.name} FOLDER --seed {args.seed}"
    tables = [
        (f"{DATA}\n\n{SCORES}", summary(by_cell)),
        ("Trained without an indicator, and scored on it", summary(by_indicator)),
    ]
    card = model_card(args.name, VERSION, ABOUT[args.name], args.name, command, tables)
    save(model, args.out or packaged_weights() / args.name, card=card)
    print(card)


if __name__ == "__main__":
    main()
