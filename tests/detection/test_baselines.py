import numpy as np
import pytest
from scipy.signal import lfilter

from dlvolt.detection import adaptive_matched_filter, adaptive_threshold, gaussian_threshold
from dlvolt.detection.baselines import whiten
from dlvolt.evaluation import event_scores

RATE = 500.0
NUM_SAMPLES = 15_000
DETECTORS = [gaussian_threshold, adaptive_matched_filter]
each_detector = pytest.mark.parametrize("detector", DETECTORS)


def simulate(snr, seed=0, polarity="positive"):
    """Spikes that decay within 6 ms, in noise with slow swings, on a bleaching baseline."""
    rng = np.random.default_rng(seed)
    spikes = np.sort(rng.choice(NUM_SAMPLES // 10, size=150, replace=False) * 10 + 5)
    train = np.bincount(spikes, minlength=NUM_SAMPLES).astype(float)
    signal = snr * lfilter([1], [1, -np.exp(-2 / 6)], train)
    swings = 4 * np.sin(2 * np.pi * 2 * np.arange(NUM_SAMPLES) / RATE)
    trace = signal + rng.normal(size=NUM_SAMPLES) + swings
    bleaching = 300 * np.exp(-np.arange(NUM_SAMPLES) / NUM_SAMPLES)
    return bleaching + (trace if polarity == "positive" else -trace), spikes


def f1(spikes, found):
    return event_scores(spikes / RATE, found / RATE, tolerance_s=0.005).f1


@each_detector
@pytest.mark.parametrize("polarity", ["positive", "negative"])
def test_clear_spikes_are_found(detector, polarity):
    trace, spikes = simulate(10.0, polarity=polarity)
    found = detector(trace, RATE, polarity)
    assert f1(spikes, found) > 0.98
    wrong = detector(trace, RATE, "negative" if polarity == "positive" else "positive")
    assert f1(spikes, wrong) < 0.3


def test_the_matched_filter_finds_weak_spikes_better():
    simulated = [simulate(3.5, seed) for seed in range(5)]
    scores = np.array([[f1(spikes, detector(trace, RATE)) for detector in DETECTORS] for trace, spikes in simulated])
    assert scores[:, 1].mean() > 0.8
    assert scores[:, 1].mean() > scores[:, 0].mean() + 0.1


@each_detector
def test_scale_and_baseline_make_no_difference(detector):
    trace, _ = simulate(6.0)
    np.testing.assert_array_equal(detector(0.01 * trace - 70, RATE), detector(trace, RATE))


def test_few_false_alarms_in_gaussian_noise():
    for seed in range(3):
        trace = np.random.default_rng(seed).normal(size=NUM_SAMPLES)  # 30 s
        assert len(gaussian_threshold(trace, RATE)) < 10
        assert len(adaptive_matched_filter(trace, RATE)) < 90


def test_of_close_peaks_the_larger_stays():
    trace = np.random.default_rng(0).normal(scale=0.3, size=2000)
    trace[[500, 504, 1000, 1030]] += 10, 16, 16, 10
    found = gaussian_threshold(trace, RATE, threshold=8.0, refractory_ms=20.0)
    assert found.tolist() == [504, 1000, 1030]


def test_adaptive_threshold_parts_peaks_from_noise():
    rng = np.random.default_rng(0)
    trace = rng.normal(size=20_000)
    spikes = np.arange(50, 20_000, 100)
    trace[spikes] = 10 + rng.normal(size=200)
    found = adaptive_threshold(trace)
    assert set(spikes) <= set(found)
    assert len(found) < 220  # of some 6,700 peaks


def test_whitened_noise_is_white_and_spikes_are_left_out_of_its_spectrum():
    noise = lfilter([1, 0.5], [1], np.random.default_rng(0).normal(size=40_000))  # power falls to one ninth
    spikes = np.arange(100, 39_900, 200)
    trace = noise.copy()
    trace[spikes[:, None] + np.arange(-3, 4)] += 100
    white = whiten(trace, spikes, reach=5)
    quiet = np.abs(np.arange(40_000)[:, None] - spikes).min(axis=1) > 60  # where spikes do not reach through the filter
    assert np.var(white[quiet]) == pytest.approx(np.var(whiten(noise, spikes, reach=5)), rel=0.05)
    power = np.abs(np.fft.rfft(whiten(noise, spikes, reach=5))[1:]) ** 2
    bands = power.reshape(20, -1).mean(axis=1)
    assert bands.max() / bands.min() < 1.3


def test_a_real_neuron(shared_data):
    with np.load(shared_data / "voltage" / "volpy_l1_neuron.npz") as neuron:
        trace, spikes = neuron["trace"], neuron["volpy_spike_frames"]  # what VolPy found; 400 Hz
    assert event_scores(spikes / 400, gaussian_threshold(trace, 400.0) / 400).f1 > 0.95
    scores = event_scores(spikes / 400, adaptive_matched_filter(trace, 400.0) / 400)
    assert scores.recall == 1
    assert scores.precision > 0.7


@each_detector
@pytest.mark.parametrize("trace", [np.zeros(1000), np.full(50, 3.0), np.arange(2.0)])
def test_nothing_in_nothing(detector, trace):
    assert len(detector(trace, RATE)) == 0


@each_detector
@pytest.mark.parametrize(
    ("trace", "polarity", "argument"),
    [
        (np.zeros((100, 2)), "positive", "trace"),
        (np.full(100, np.nan), "positive", "trace"),
        (np.zeros(1), "positive", "trace"),
        (np.zeros(100), "up", "polarity"),
    ],
)
def test_bad_input(detector, trace, polarity, argument):
    with pytest.raises(ValueError, match=f"^{argument} must"):
        detector(trace, RATE, polarity)
