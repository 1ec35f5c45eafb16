"""Train the weights that come with dlvolt, on simulated traces.

``python -m dlvolt.training.pretrain voltage`` writes them again, to the folder that `dlvolt.networks.load` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.signal import resample_poly
from spikeinterface.core import NumpyRecording
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.detection import shadow
from dlvolt.evaluation import EventScores, best_threshold, event_scores, threshold_sweep
from dlvolt.networks import TraceNetwork, create, save
from dlvolt.networks.store import packaged_weights
from dlvolt.preprocessing.resampling import resampling_filter, resampling_ratio
from dlvolt.simulation import (
    VoltageSettings,
    extracellular_scores,
    extracellular_windows,
    simulate_biophysical,
    simulate_voltage,
)

from .packaged import model_card, one_cycle, script_parser

TRACE_WINDOWS = 4  # length of a simulated trace, in windows
WRONG_WAY = 0.1  # share of windows turned and without targets, so that the network can tell the polarity
FRAME_RATES = (200, 250, 300, 400, 500, 600, 800, 1000, 1000, 1250, 2000, 3328, 4000, 5000)  # Hz
CONDITIONS = {  # Hz, SNR per sample, compartment in view
    "soma, 500 Hz, SNR 4": (500.0, 4.0, "soma"),
    "soma, 1 kHz, SNR 3": (1000.0, 3.0, "soma"),
    "soma, 1 kHz, SNR 6": (1000.0, 6.0, "soma"),
    "dendrite, 3,328 Hz, SNR 5": (3328.0, 5.0, "dendrite"),
}
TEST_TRACES, TEST_SEED = 24, 1
BATCH_SIZE = 32
PEAK_LEARNING_RATE = 2e-3


class Recipe(NamedTuple):
    """How one set of weights is made, and scored."""

    architecture: str
    settings: dict[str, Any]  # of `dlvolt.networks.create`
    windows: Callable[[int, int, float, int], tuple[np.ndarray, np.ndarray]]  # (B, T, sampling frequency, seed) -> X, y
    score: Callable[[Path], pd.DataFrame]  # scores the saved model on data of another kind
    tolerance_s: float  # within which an event counts as found when the threshold is chosen
    version: str
    about: str


def voltage_windows(
    num_windows: int, window_samples: int, sampling_frequency: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate windows (B, T) of voltage traces of all frame rates, resampled to the network's, and `soft_targets`.

    Spikes go up, but a tenth of the windows is turned upside down, with targets of 0.
    """
    settings = VoltageSettings(firing_rate_hz=(0.3, 20.0))  # windows without spikes teach little
    X, y = (np.empty((num_windows, window_samples), dtype="float32") for _ in range(2))
    starts = range(0, num_windows, TRACE_WINDOWS)
    for first, rng in zip(starts, np.random.default_rng(seed).spawn(len(starts)), strict=True):
        frame_rate = float(rng.choice(FRAME_RATES))
        ratio = resampling_ratio(sampling_frequency, frame_rate)
        duration = (TRACE_WINDOWS * window_samples + 1) / (float(ratio) * frame_rate) + 1 / frame_rate
        traces, spike_times, _ = simulate_voltage(
            1, duration, frame_rate, polarity="positive", settings=settings, seed=int(rng.integers(2**31))
        )
        taps, _ = resampling_filter(ratio.numerator, ratio.denominator)
        trace = resample_poly(traces[:, 0], ratio.numerator, ratio.denominator, window=taps, padtype="line")
        centres = (spike_times[0] * frame_rate - 0.5) * float(ratio)  # a frame is at the middle of its exposure
        target = soft_targets(centres, len(trace), 1.5e-3 * sampling_frequency)
        stop = min(first + TRACE_WINDOWS, num_windows)
        for window, start in zip(range(first, stop), range(0, len(trace), window_samples), strict=False):
            turned = rng.random() < WRONG_WAY
            cut = slice(start, start + window_samples)
            X[window], y[window] = (-trace[cut], 0) if turned else (trace[cut], target[cut])
    return X, y


def soft_targets(centres: np.ndarray, num_samples: int, deviation: float) -> np.ndarray:
    """Return the maximum, at each of T samples, of Gaussians of height 1 at spikes (E,), in fractions of samples.

    A network that cannot tell the exact sample of a spike would learn small probabilities at many samples from targets
    of single samples.
    """
    target = np.zeros(num_samples, dtype="float32")
    reach = int(np.ceil(4 * deviation))
    for offset in range(-reach, reach + 1):
        samples = np.floor(centres).astype(int) + offset
        inside = (samples >= 0) & (samples < num_samples)
        near = np.exp(-0.5 * ((samples - centres)[inside] / deviation) ** 2)
        np.maximum.at(target, samples[inside], near)
    return target


def voltage_scores(model: str | Path) -> pd.DataFrame:
    """Score a saved model, in each condition, on neurons that it was not trained on; its card explains the columns."""
    rows = {}
    for condition, (frame_rate, snr, compartment) in CONDITIONS.items():
        traces, spike_times, polarities = simulate_biophysical(
            TEST_TRACES, 20.0, frame_rate, snr, compartment=compartment, seed=TEST_SEED
        )
        recording = NumpyRecording(traces, frame_rate)
        peaks = detect_peaks(recording, method="dlvolt", method_kwargs=dict(model=model, refine=False))
        frames = [peaks["sample_index"][peaks["channel_index"] == channel] for channel in range(TEST_TRACES)]
        scores = [event_scores(true, found / frame_rate) for true, found in zip(spike_times, frames, strict=True)]
        total = sum(scores, EventScores())
        rows[condition] = dict(
            precision=total.precision,
            recall=total.recall,
            f1=total.f1,
            mean_f1=np.mean([score.f1 for score in scores]),
            polarity=np.mean(recording.get_property("polarity") == polarities),
        )
    return pd.DataFrame.from_dict(rows, orient="index")


RECIPES = {
    "voltage": Recipe(
        "unet",
        dict(
            sampling_frequency=1000.0,
            rate_range_hz=(150.0, 6000.0),
            detection_threshold="auto",
            window_samples=2048,
            overlap_samples=256,
            prune_samples=128,
            spike_polarity="positive",
            base_channels=24,
            depth=5,
            kernel_size=5,
            growth=1.25,
            context=True,
        ),
        voltage_windows,
        voltage_scores,
        tolerance_s=0.005,
        version="1",
        about="Spikes in voltage imaging traces from 200 Hz to 5 kHz, one trace per ROI. Trained on "
        "`dlvolt.simulation.simulate_voltage`; scored on `dlvolt.simulation.simulate_biophysical`, 20 s per trace, "
        "polarity and threshold found by the detector itself, the network alone (`refine=False`). F1 is that of the "
        "events of all traces within 5 ms, `mean_f1` the mean over traces, `polarity` the fraction that was inferred "
        "rightly.",
    ),
    "extracellular": Recipe(
        "unet",
        dict(
            sampling_frequency=30_000.0,
            rate_range_hz=(20_000.0, 50_000.0),
            window_samples=2048,
            overlap_samples=128,
            prune_samples=64,
            shadow_ms=0.5,
            spike_polarity="any",
            base_channels=8,
            depth=3,
            kernel_size=7,
            growth=1.5,
            features=("raw",),
        ),
        extracellular_windows,
        extracellular_scores,
        tolerance_s=0.0004,
        version="1",
        about="Spikes in extracellular traces, raw or band-pass filtered, of 20 to 50 kHz, one channel at a time; "
        "those count whose template has a peak of at least 3.5 standard deviations of the noise. Trained on "
        "`dlvolt.simulation.simulate_extracellular`; scored on recordings of SpikeInterface's generator of 20 s, as "
        "`dlvolt.simulation.extracellular_scores` says.",
    ),
}


def train(name: str, num_windows: int, max_epochs: int, seed: int) -> TraceNetwork:
    """Train weights by their recipe, each window seen `max_epochs` times.

    A twentieth as many windows are simulated in addition, to choose the threshold.
    """
    recipe = RECIPES[name]
    model = create(
        recipe.architecture,
        **recipe.settings,
        name=name,
        version=recipe.version,
        batch_size=BATCH_SIZE,
        max_epochs=max_epochs,
        patience=max_epochs,  # the schedule runs to its end
        positive_weight=1.0,  # simulated data do not lack spikes
        callbacks=one_cycle(PEAK_LEARNING_RATE, num_windows, BATCH_SIZE, max_epochs, pct_start=0.05),
        seed=seed,
        verbose=1,
    )
    size = model.window_samples, recipe.settings["sampling_frequency"]
    training = recipe.windows(num_windows, *size, 2 * seed)
    validation = recipe.windows(max(num_windows // 20, 1), *size, 2 * seed + 1)
    model.fit(*training, validation=validation)
    return model.set_params(threshold=event_threshold(model, *validation, recipe.tolerance_s))


def event_threshold(model: TraceNetwork, X: np.ndarray, y: np.ndarray, tolerance_s: float) -> float:
    """Return the threshold at which the events found in windows have the best F1."""
    frames, windows = shadow(y.T, 0.9, 0)  # a target is at least 0.9 at the sample of a spike only
    fs = model.sampling_frequency
    assert fs is not None  # every recipe sets it
    true = [frames[windows == window] / fs for window in range(len(y))]
    probability = model.predict_proba(X).T
    return best_threshold(threshold_sweep(true, probability, fs, tolerance_s=tolerance_s, shadow_ms=model.shadow_ms))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m dlvolt.training.pretrain``."""
    parser = script_parser("pretrain", __doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--num-windows", type=int, default=40_000)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args(arguments)
    out = args.out or packaged_weights() / args.name
    model = train(args.name, args.num_windows, args.epochs, args.seed)
    save(model, out)
    command = (
        f"python -m dlvolt.training.pretrain {args.name} --num-windows {args.num_windows} --epochs {args.epochs} "
        f"--seed {args.seed}"
    )
    recipe = RECIPES[args.name]
    scores = recipe.score(out)
    tables = [("which also measured these scores", scores)]
    card = model_card(args.name, recipe.version, recipe.about, recipe.architecture, command, tables)
    save(model, out, card=card)
    print(scores.round(3).to_string())


if __name__ == "__main__":
    main()
