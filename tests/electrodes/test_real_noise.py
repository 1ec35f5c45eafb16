"""What amplifiers record beside neurons makes no units, hides none, and does not keep the sorter busy."""

import time

import numpy as np
import pytest
import spikeinterface.full as si
from scipy.signal import butter, sosfilt

FS = 30_000


def stimulation(traces, rng):
    """Five millivolts that ring for 3 ms, once a second."""
    n = FS * 3 // 1000
    ringing = 5000 * np.exp(-np.arange(n) / (n / 4)) * np.sign(np.sin(2 * np.pi * 1500 * np.arange(n) / FS))
    for start in range(FS // 2, len(traces) - n, FS):
        traces[start : start + n] += ringing[:, None] * rng.uniform(0.5, 1.5, traces.shape[1])


def saturation(traces, rng):
    """At the rails for half a second."""
    traces[5 * FS : 5 * FS + FS // 2] = 32_000


def muscles(traces, rng):
    """Three times as loud as noise, on all channels, for a fifth of a second, again and again."""
    band = butter(2, (80, 900), "bandpass", fs=FS, output="sos")
    for start in range(FS, len(traces) - FS, 4 * FS):
        heard = sosfilt(band, rng.standard_normal(FS // 5))
        traces[start : start + FS // 5] += (30 / heard.std() * heard)[:, None] * rng.uniform(0.8, 1.2, traces.shape[1])


def hum(traces, rng):
    """Mains with twenty harmonics."""
    t = np.arange(len(traces)) / FS
    traces += sum(800 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 20))[:, None]


def coarse_digits(traces, rng):
    """A digitiser with steps of two noise standard deviations."""
    noise = np.median(np.abs(traces)) / 0.6745
    traces[:] = np.round(traces / noise * 0.5)


def silence(traces, rng):
    """An amplifier that is plugged in late."""
    traces[: len(traces) // 2] = 0


def sort(recording, traces, folder):
    noisy = si.NumpyRecording([traces], FS)
    noisy.set_probe(recording.get_probe())
    start = time.process_time()
    sorting = si.run_sorter("dlvolt", noisy, folder=folder)
    return sorting, time.process_time() - start


@pytest.fixture(scope="module")
def clean(ground_truth, tmp_path_factory):
    """The recording, its truth, and how long it takes without any of that; compiled loops are compiled before."""
    recording, truth = ground_truth
    folder = tmp_path_factory.mktemp("clean")
    sort(recording, recording.get_traces().astype("float32"), folder / "first")
    sorting, seconds = sort(recording, recording.get_traces().astype("float32"), folder / "second")
    return recording, truth, sorting, seconds


@pytest.mark.parametrize("spoil", [stimulation, saturation, muscles, hum, coarse_digits, silence])
def test_no_unit_of_noise_no_neuron_lost_and_no_hang(spoil, clean, tmp_path):
    recording, truth, sorting_of_clean, seconds_of_clean = clean
    traces = recording.get_traces().astype("float32")
    spoil(traces, np.random.default_rng(0))
    sorting, seconds = sort(recording, traces, tmp_path / "sorted")
    assert seconds < 4 * seconds_of_clean

    spikes = truth.to_spike_vector()
    set_aside = [(start, end) for _, start, end, _ in sorting.get_annotation("set_aside")]
    time_s = spikes["sample_index"] / FS
    heard = ~np.any([(start <= time_s) & (time_s < end) for start, end in set_aside] or [time_s < 0], axis=0)
    left = si.NumpySorting(spikes[heard], FS, truth.unit_ids)
    comparison = si.compare_sorter_to_ground_truth(left, sorting, exhaustive_gt=True)
    clean = si.compare_sorter_to_ground_truth(truth, sorting_of_clean, exhaustive_gt=True)
    assert comparison.count_false_positive_units() <= clean.count_false_positive_units()
    assert comparison.get_performance()["accuracy"].mean() > clean.get_performance()["accuracy"].mean() - 0.05
