"""The model of one trace, on traces that it makes itself: all is known."""

import numpy as np
import pytest
from scipy.signal import fftconvolve, find_peaks

from dlvolt.evaluation import event_scores
from dlvolt.rois import Models, TraceModel, find_spikes, learn
from dlvolt.rois.decided import gone_astray
from dlvolt.rois.refinement import Lesson, margin
from dlvolt.rois.waveforms import expected_waveforms

RATE = 1000.0
SEPARATION = 3
SPIKE = np.exp(-np.arange(30) / 4.0) - np.exp(-np.arange(30) / 0.7)  # rises and decays
SPIKE /= SPIKE.max()


def made_trace(height, num_samples=40_000, rate_hz=5.0, seed=0, times=None):
    """Spikes of SPIKE's form in white noise of unit variance, and when they are."""
    rng = np.random.default_rng(seed)
    if times is None:
        times = np.cumsum(rng.integers(30, int(2 * RATE / rate_hz) - 30, size=num_samples))
        times = times[times < num_samples - 50]
    train = np.zeros(num_samples)
    np.add.at(train, times, height * rng.normal(1, 0.1, len(times)))
    return fftconvolve(train, SPIKE)[:num_samples] + rng.normal(size=num_samples), times


def weak_network(times, num_samples, seed=0):
    """Probabilities that miss a quarter of the spikes, doubt the rest, and believe in as many that are none."""
    rng = np.random.default_rng(seed)
    probability = np.full(num_samples, 0.002)
    seen = rng.random(len(times)) < 0.75
    probability[times[seen]] = rng.uniform(0.2, 0.9, seen.sum())
    probability[times[~seen]] = 0.02
    nowhere = rng.integers(0, num_samples, len(times) // 4)
    probability[nowhere] = np.maximum(probability[nowhere], 0.3)
    return probability


def learnt(trace, probability):
    models, found = learn(trace[:, None], probability[:, None], RATE, SEPARATION)
    return models[0], found[0]


def f1(times, found, threshold=0.5):
    return event_scores(times / RATE, found.frames[found.probability > threshold] / RATE).f1


def test_the_trace_teaches_what_its_spikes_are_like():
    trace, times = made_trace(height=4.0)
    model, found = learnt(trace, weak_network(times, len(trace)))
    network = find_peaks(weak_network(times, len(trace)), height=0.25)[0]
    assert event_scores(times / RATE, network / RATE).f1 < 0.8
    assert f1(times, found) > 0.97
    assert model.height == pytest.approx(4.0 * np.linalg.norm(SPIKE), rel=0.1)  # of a matched filter in white noise
    assert model.rate * len(trace) == pytest.approx(len(times), rel=0.1)
    lags = np.correlate(model.template, SPIKE / np.linalg.norm(SPIKE), mode="full")
    assert lags.max() > 0.97


def test_of_small_spikes_the_true_ones_are_more_probable():
    trace, times = made_trace(height=2.0)
    _, found = learnt(trace, weak_network(times, len(trace)))
    hits = np.abs(found.frames[:, None] - times).min(axis=1) <= 5
    assert found.probability[hits].mean() > 0.5
    assert found.probability[~hits].mean() < 0.2


def test_spikes_of_a_burst_are_told_apart():
    singles = np.arange(200, 39_000, 400)
    pairs = np.sort(np.concatenate([singles, singles[::2] + 6]))
    trace, _ = made_trace(height=6.0, times=pairs)
    _, found = learnt(trace, weak_network(pairs, len(trace)))
    assert f1(pairs, found) > 0.97


def test_spikes_that_the_network_is_sure_of_are_learnt_from_even_if_the_model_lost_them():
    """A template of two spikes explains a doublet as one event; the second is recalled, what is doubtful is not."""
    trace, times = made_trace(height=6.0)
    probability = np.full(len(trace), 0.002)
    probability[times], probability[times[0] + 4], probability[times[1] + 15] = 0.6, 0.9, 0.4
    lesson = Lesson(trace, probability, RATE, SEPARATION, len(trace))
    lesson.found = lesson.found._replace(probability=np.full(len(lesson.found.frames), 0.99))
    known = ~np.isin(lesson.found.frames, [times[0] + 4, times[1] + 15])
    lesson.found = lesson.found.select(known)
    lesson.recall_spikes()
    assert lesson.found.frames.tolist() == [*times, times[0] + 4]
    assert lesson.found.probability[-1] == pytest.approx(0.9)
    lesson.recall_spikes()
    assert len(lesson.found.frames) == len(times) + 1


def test_where_a_trace_becomes_noisier_it_is_judged_by_its_noise_there():
    trace, times = made_trace(height=5.0)
    noise = np.random.default_rng(1).normal(size=len(trace)) * np.linspace(0, 2.5, len(trace))
    _, found = learnt(trace + noise, weak_network(times, len(trace)))
    sure = found.probability > 0.5
    for half in (found.frames < 20_000, found.frames >= 20_000):
        right = np.abs(found.frames[sure & half][:, None] - times).min(axis=1) <= 5
        assert right.mean() > 0.95


def test_brightness_that_bleaches_is_looked_at_relatively():
    trace, times = made_trace(height=6.0)
    bright = 1000 * np.exp(-np.arange(len(trace)) / 40_000) * (1 + 0.01 * trace)
    model, found = learnt(bright, weak_network(times, len(trace)))
    assert model.brightness > 0
    assert f1(times, found) > 0.97
    as_it_is, _ = learnt(trace, weak_network(times, len(trace)))
    assert as_it_is.brightness == 0


def test_too_few_spikes_teach_nothing():
    trace, times = made_trace(height=6.0, times=np.array([1000, 9000, 20_000]))
    model, found = learnt(trace, weak_network(times, len(trace)))
    assert model is None
    assert len(found.frames) == 0
    rng = np.random.default_rng(0)
    model, _ = learnt(rng.normal(size=20_000), np.full(20_000, 0.001))
    assert model is None


def test_maxima_of_noise_are_as_many_as_rice_says():
    template = np.exp(-0.5 * (np.arange(-30, 30) / 3) ** 2)
    template /= np.linalg.norm(template)
    model = TraceModel(RATE, 0.0, np.ones(501), template, height=6.0, variance=1.0, rate=1e-3)
    scores = fftconvolve(np.random.default_rng(0).normal(size=2_000_000), template[::-1], mode="valid")
    peaks = scores[find_peaks(scores)[0]]
    for level in (2.5, 3.0, 3.5):
        expected = np.sqrt(model.curvature) / (2 * np.pi) * np.exp(-(level**2) / 2)  # the density, integrated
        assert np.mean(peaks > level) * len(peaks) / len(scores) == pytest.approx(expected, rel=0.1)


def test_a_stretch_is_searched_as_the_whole():
    trace, times = made_trace(height=6.0)
    probability = weak_network(times, len(trace))
    model, found = learnt(trace, probability)
    sides, start, end = margin(RATE), 8000, 16_000
    stretch = trace[start - sides : end + sides]
    frames, channels, chances = find_spikes(
        np.stack([stretch, -stretch], axis=1),
        np.stack([probability[start:end]] * 2, axis=1),
        Models.of([model, model]),
        SEPARATION,
    )
    upright = channels == 0
    assert np.all(chances[~upright] < 0.5)
    sure = found.frames[(found.probability > 0.5) & (found.frames >= start) & (found.frames < end)] - start
    np.testing.assert_allclose(frames[upright & (chances > 0.5)], sure, atol=1)


@pytest.mark.parametrize("rate", [400.0, 1000.0, 3328.0])
def test_expected_waveforms_are_spikes_of_unit_height(rate):
    expected = expected_waveforms(rate)
    assert abs(np.argmax(expected.mean) - expected.num_before) <= max(1, 0.002 * rate)
    assert 0.4 < expected.mean.max() < 1.0  # the heights are one, the times of the peaks differ
    gram = expected.components @ expected.components.T
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-8)
    assert np.all(np.diff(np.diag(gram)) < 0)
    assert np.diag(gram)[-1] < 1e-2 * np.trace(gram)


def test_a_model_that_contradicts_the_network_is_not_believed():
    probability = np.zeros(10_000)
    probability[50:10_000:100] = 0.4
    assert gone_astray(np.full(20, 0.9), probability, SEPARATION)
    assert not gone_astray(np.full(40, 0.9), probability, SEPARATION)
    sure = 2.4 * probability
    assert not gone_astray(np.full(60, 0.9), sure, SEPARATION)  # it may see several spikes in one
    assert not gone_astray(np.full(110, 0.9), sure, SEPARATION)
    assert gone_astray(np.full(130, 0.9), sure, SEPARATION)
