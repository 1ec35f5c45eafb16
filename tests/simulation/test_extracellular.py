import numpy as np
import pytest
from scipy.stats import norm
from spikeinterface.core import NumpySorting
from spikeinterface.core.node_pipeline import base_peak_dtype

from dlvolt.simulation import ExtracellularSettings, extracellular_windows, simulate_extracellular
from dlvolt.simulation.extracellular import VISIBLE, peak_scores, spike_band

RATE = 30_000.0
PLAIN = dict(
    slow=(1e-6, 1e-6), hum=(1e-6, 1e-6), step=(1e-4, 1e-4), amplitude_deviation=(0.0, 0.0), derivative=(0.0, 0.0)
)
TALL = ExtracellularSettings(snr=(100.0, 200.0), firing_rate_hz=(2.0, 5.0), bursting=0.0, **PLAIN)
DOWNWARD = ExtracellularSettings(num_channels=(1, 1), snr=(30.0, 40.0), upward=0.0, afterpotential=(0.0, 0.2), **PLAIN)


@pytest.mark.parametrize("seed", [3, 5, 10, 11, 13, 14])
def test_labels_lie_at_the_extrema_of_spikes_on_the_channels_that_see_them(seed):
    traces, spikes = simulate_extracellular(60_000, RATE, settings=TALL, seed=seed)
    band = np.abs(spike_band(traces, RATE, axis=0))
    height = band / np.median(band, axis=0) * norm.ppf(0.75)  # in standard deviations of the noise
    magnitude = np.abs(traces - np.median(traces, axis=0))
    checked = 0
    for frame, channel in zip(*np.nonzero(spikes), strict=True):
        around = slice(frame - 30, frame + 31)
        alone = spikes[max(frame - 300, 0) : frame + 301, channel].sum() == 1
        if alone and 30 <= frame < len(traces) - 30 and height[around, channel].max() > 20:
            assert abs(magnitude[around, channel].argmax() - 30) <= 2  # noise, and spikes lie between samples
            checked += 1
    assert checked > 10
    for channel in range(traces.shape[1]):
        labelled, tall = np.flatnonzero(spikes[:, channel]), np.flatnonzero(height[:, channel] > 20)
        assert not len(tall) or np.abs(labelled - tall[:, None]).min(axis=1).max() < 100  # no spike goes without
        assert not len(labelled) or np.median(height[labelled, channel]) > VISIBLE - 1  # and none is made up


@pytest.mark.parametrize(("snr", "counts"), [(0.9 * VISIBLE, False), (1.1 * VISIBLE, True)])
def test_spikes_count_where_the_template_rises_far_enough_above_the_noise(snr, counts):
    settings = ExtracellularSettings(num_channels=(1, 1), snr=(snr, snr), **PLAIN)
    _, spikes = simulate_extracellular(60_000, RATE, settings=settings, seed=3)
    assert spikes.any() == counts


def test_spikes_go_down_unless_told_otherwise():
    for seed in range(5):
        traces, spikes = simulate_extracellular(60_000, RATE, settings=DOWNWARD, seed=seed)
        assert np.median((traces - np.median(traces, axis=0))[spikes]) < 0


def test_same_seed_same_windows():
    X, y = extracellular_windows(30, 512, RATE, seed=1)
    again, _ = extracellular_windows(30, 512, RATE, seed=1)
    other, _ = extracellular_windows(30, 512, RATE, seed=2)
    np.testing.assert_array_equal(X, again)
    assert not np.array_equal(X, other)
    assert X.shape == y.shape == (30, 512)
    assert X.dtype == y.dtype == np.float32


def test_windows_cut_up_the_channels_and_targets_are_one_at_spikes_and_gaussian_beside():
    X, y = extracellular_windows(6, 512, RATE, seed=4)
    seed = int(np.random.default_rng(4).integers(2**31))
    traces, spikes = simulate_extracellular(4 * 512, RATE, seed=seed)
    np.testing.assert_array_equal(X[:4].ravel(), traces[:, 0])
    np.testing.assert_array_equal(X[4:].ravel(), traces[:1024, 1])
    away = np.arange(4 * 512)[:, None] - np.flatnonzero(spikes[:, 0])
    assert away.shape[1] > 0
    expected = np.exp(-0.5 * (away / 3.0) ** 2).sum(axis=1).clip(max=1)  # 0.1 ms are 3 samples
    np.testing.assert_allclose(y[:4].ravel(), expected, atol=1e-3)


def test_too_low_a_sampling_frequency_is_refused():
    with pytest.raises(ValueError, match="sampling_frequency: must be above 12000 Hz, not 5000"):
        simulate_extracellular(1000, 5000.0)


def test_scores_of_peaks():
    sorting = NumpySorting.from_unit_dict({0: np.array([100, 1000]), 1: np.array([500, 2000])}, RATE)
    near = np.array([[True, True, False], [False, False, True]])
    peaks = np.zeros(5, dtype=base_peak_dtype)
    peaks["sample_index"] = [99, 100, 488, 1013, 2000]  # within 12 samples counts
    peaks["channel_index"] = [0, 1, 2, 0, 0]  # the last one is true, but not where its unit is
    scores = peak_scores(peaks, sorting, near)
    assert scores == pytest.approx(dict(precision=4 / 5, recall=2 / 4, f1=2 * 0.8 * 0.5 / 1.3))
