import numpy as np
import pytest
import spikeinterface.full as si
from spikeinterface.core.node_pipeline import PeakRetriever, run_node_pipeline
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.detection import AdaptivePeakDetector
from dlvolt.electrodes import SpikeProbabilityOfPeaks, classify_peaks
from dlvolt.networks import load

NETWORK = load("waveform_cnn")


@pytest.fixture(scope="module")
def recording(ground_truth):
    return (
        si.bandpass_filter(ground_truth[0], 300, 8000, dtype="float32")
        .frame_slice(0, 300_000)
        .save(format="memory", chunk_duration="10s")
    )


@pytest.fixture(scope="module")
def peaks(recording):
    return detect_peaks(recording, method="dlvolt-adaptive")


def score(recording, peaks, noise_levels, **kwargs):
    source = PeakRetriever(recording, peaks)
    return run_node_pipeline(
        recording, [source, SpikeProbabilityOfPeaks(recording, source, noise_levels, **kwargs)], {}
    )


def is_near(peaks, sorting, samples=12):
    spikes = sorting.to_spike_vector()["sample_index"]
    return np.abs(peaks["sample_index"][:, None] - spikes).min(axis=1) <= samples


def share_found(peaks, sorting, samples=12):
    spikes = sorting.to_spike_vector()["sample_index"]
    return np.mean(np.abs(spikes[:, None] - peaks["sample_index"]).min(axis=1) <= samples)


@pytest.mark.parametrize("model", ["waveform_cnn", "waveform_gru"])
@pytest.mark.parametrize(("threshold", "purity"), [("noise", 0.975), ("predict", 0.99)])
def test_noise_goes_and_spikes_stay(recording, peaks, ground_truth, model, threshold, purity):
    sorting = ground_truth[1].frame_slice(0, 300_000)
    labels = classify_peaks(recording, peaks, model=model, threshold=threshold)
    assert labels.shape == peaks.shape
    assert is_near(peaks, sorting).mean() < 0.7
    assert is_near(peaks[labels == 1], sorting).mean() > purity
    assert share_found(peaks[labels == 1], sorting) > 0.95


@pytest.fixture(scope="module")
def small_beside_large():
    """Six neurons, small and large: recording, its sorting and its peaks."""
    recording, sorting = si.generate_ground_truth_recording(
        durations=[10.0], sampling_frequency=24_000.0, num_channels=8, num_units=6, seed=5
    )
    filtered = si.bandpass_filter(recording, 300, 8000, dtype="float32").save(format="memory", chunk_duration="10s")
    return filtered, sorting, detect_peaks(filtered, method="dlvolt-adaptive")


@pytest.mark.parametrize("model", ["waveform_cnn", "waveform_gru"])
def test_small_neurons_beside_large_ones_stay(small_beside_large, model):
    filtered, sorting, peaks = small_beside_large
    found = share_found(peaks, sorting)
    spikes, apart = (
        peaks[classify_peaks(filtered, peaks, model=model, threshold=t) == 1] for t in ("noise", "predict")
    )
    assert share_found(spikes, sorting) > found - 0.02
    assert len(apart) < 0.9 * len(spikes)
    assert is_near(apart, sorting).mean() > 0.99
    assert is_near(spikes, sorting).mean() > 0.98 > is_near(peaks, sorting).mean()


@pytest.fixture(scope="module")
def noise():
    """A recording without a neuron, and its peaks."""
    traces = np.random.default_rng(5).normal(scale=8, size=(900_000, 4)).astype("float32")
    noise = si.bandpass_filter(si.NumpyRecording(traces, 30_000.0), 300, 8000, dtype="float32")
    noise = noise.save(format="memory", chunk_duration="30s")
    return noise, detect_peaks(noise, method="dlvolt-adaptive")


@pytest.mark.parametrize("model", ["waveform_cnn", "waveform_gru"])
def test_of_peaks_of_noise_one_in_a_hundred_stays(noise, model):
    noise, peaks = noise
    assert len(peaks) > 3000
    assert 0.003 < classify_peaks(noise, peaks, model=model).mean() < 0.03


def test_a_number_may_be_the_threshold(recording, peaks):
    same = dict(return_in_uV=False, force_recompute=True, random_slices_kwargs=dict(seed=0))
    probability = score(recording, peaks, si.get_noise_levels(recording, **same))
    np.testing.assert_array_equal(classify_peaks(recording, peaks, threshold=0.2), probability >= 0.2)


def test_at_its_own_rate_a_snippet_is_what_the_recording_holds(recording, peaks):
    inside = peaks[(peaks["sample_index"] > 50) & (peaks["sample_index"] < 299_950)]
    window = np.arange(42) - NETWORK.num_before
    snippets = recording.get_traces()[inside["sample_index"][:, None] + window, inside["channel_index"][:, None]]
    levels = np.linspace(5, 12, 8)
    expected = NETWORK.predict_proba(snippets * (50 / levels[inside["channel_index"]])[:, None])
    np.testing.assert_allclose(score(recording, inside, levels), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rate", [24_000.0, 40_000.0])
def test_a_snippet_is_the_same_at_other_rates(rate):
    def spikes(rate):
        """Eight spikes that grow, made of Gaussians no narrower than those of a band up to 8 kHz."""
        time = np.arange(round(0.1 * rate)) / rate - 0.01 * np.arange(1, 9)[:, None]
        shape = 0.4 * np.exp(-0.5 * ((time - 5e-4) / 2e-4) ** 2) - np.exp(-0.5 * (time / 1e-4) ** 2)
        traces = (np.linspace(100, 500, 8)[:, None] * shape).sum(axis=0)[:, None].astype("float32")
        peaks = np.zeros(
            8, dtype=[("sample_index", int), ("channel_index", int), ("amplitude", float), ("segment_index", int)]
        )
        peaks["sample_index"], peaks["amplitude"] = np.round(0.01 * np.arange(1, 9) * rate), -1
        return si.NumpyRecording(traces, rate), peaks

    probabilities = [score(*spikes(of), np.array([40.0])) for of in (30_000.0, rate)]
    assert np.ptp(probabilities[0]) > 0.5
    np.testing.assert_allclose(probabilities[1], probabilities[0], atol=0.02)


def test_neither_unit_nor_polarity_matters(recording, peaks):
    labels = classify_peaks(recording, peaks)
    other = si.scale(recording, gain=-0.02)
    turned = peaks.copy()
    turned["amplitude"] *= -0.02
    np.testing.assert_array_equal(classify_peaks(other, turned), labels)


@pytest.mark.parametrize("job_kwargs", [dict(chunk_size=997), dict(n_jobs=2, pool_engine="thread", chunk_size=30_000)])
def test_same_labels_however_the_work_is_cut_and_whatever_the_order(recording, peaks, job_kwargs):
    two = si.append_recordings([recording, recording.frame_slice(0, 100_000)])
    again = peaks[peaks["sample_index"] < 100_000].copy()
    again["segment_index"] = 1
    both = np.concatenate([peaks, again])
    expected = classify_peaks(two, both)
    order = np.random.default_rng(0).permutation(len(both))
    np.testing.assert_array_equal(classify_peaks(two, both[order], job_kwargs=job_kwargs), expected[order])


def test_peaks_can_be_scored_in_the_pass_that_finds_them(recording, peaks):
    detector, levels = AdaptivePeakDetector(recording), np.full(8, 8.0)
    found, probability = run_node_pipeline(
        recording, [detector, SpikeProbabilityOfPeaks(recording, detector, levels)], dict(chunk_size=10_000)
    )
    np.testing.assert_array_equal(found, peaks)
    np.testing.assert_allclose(probability, score(recording, peaks, levels), rtol=1e-3, atol=1e-6)


def test_peaks_at_the_very_ends_and_on_dead_channels_have_labels(recording):
    peaks = np.zeros(4, dtype=AdaptivePeakDetector(recording).get_dtype())
    peaks["sample_index"] = [0, 1, 299_998, 299_999]
    assert classify_peaks(recording, peaks).tolist() == [0] * 4
    dead = si.NumpyRecording(np.zeros((1000, 1), dtype="float32"), 30_000.0)
    peaks["sample_index"] = [5, 10, 15, 999]
    assert classify_peaks(dead, peaks).tolist() == [0] * 4


def test_no_peaks_no_labels(recording, peaks):
    assert classify_peaks(recording, peaks[:0]).shape == (0,)


def test_bad_input(recording, peaks):
    with pytest.raises(ValueError, match="model: 'extracellular' is for traces, not for snippets; take 'waveform_cnn'"):
        classify_peaks(recording, peaks, model="extracellular")
    for threshold in ("spike", 1.5):
        with pytest.raises(
            ValueError, match=f"threshold must be a probability, 'noise' or 'predict', not {threshold!r}"
        ):
            classify_peaks(recording, peaks, threshold=threshold)
    elsewhere = peaks.copy()
    elsewhere["channel_index"] += 1
    with pytest.raises(ValueError, match="peaks: some lie on channels that are not among the 8 of the recording"):
        classify_peaks(recording, elsewhere)
    slow = si.NumpyRecording(np.zeros((1000, 8)), 1000.0)
    with pytest.raises(ValueError, match="model 'waveform_cnn' serves sampling frequencies from 20000 to 50000 Hz"):
        classify_peaks(slow, peaks[:10])
    traces = recording.get_traces().copy()
    traces[peaks["sample_index"][50]] = np.nan
    with pytest.raises(
        ValueError, match=r"recording: traces around a peak are NaN or infinite; put fill_nan\(recording\)"
    ):
        classify_peaks(si.NumpyRecording(traces, 30_000.0), peaks)
