import sys

import numpy as np
import pytest
import spikeinterface as si
from probeinterface import generate_linear_probe, generate_tetrode
from scipy.linalg import toeplitz
from scipy.signal import butter, fftconvolve, lfilter
from spikeinterface.core.job_tools import fix_job_kwargs
from spikeinterface.preprocessing import common_reference, highpass_filter

from dlvolt.electrodes.stages import preprocess, set_aside
from dlvolt.parameters import SorterParameters
from dlvolt.preprocessing import WhitenNoiseRecording, whiten_noise
from dlvolt.preprocessing.whiten_noise import _robust_covariance, estimate_whitening_filters

RATE = 25000.0
COLOUR = np.array([1.0, 0.7, 0.3, 0.1])  # impulse response that colours the noise
COVARIANCE = 36 * toeplitz([1.0, 0.6, 0.5, 0.3])  # of four channels, µV²
PULSE = -np.exp(-(((np.arange(40) - 12) / 4.0) ** 2)) + 0.3 * np.exp(-(((np.arange(40) - 24) / 7.0) ** 2))
FOOTPRINT = np.array([120.0, 90.0, 100.0, 70.0])  # a spike on all four channels, µV


def coloured_noise(num_samples, seed):
    white = np.random.default_rng(seed).normal(size=(num_samples, 4))
    coloured = lfilter(COLOUR / np.linalg.norm(COLOUR), 1.0, white, axis=0)
    return coloured @ np.linalg.cholesky(COVARIANCE).T


def recording_of(traces, probe=None):
    segments = traces if isinstance(traces, list) else [traces]
    probe = probe or generate_tetrode()
    probe.set_device_channel_indices(range(probe.get_contact_count()))
    recording = si.NumpyRecording(segments, RATE)
    recording.set_probe(probe)
    return recording


@pytest.fixture(scope="module")
def noise():
    return coloured_noise(int(10 * RATE), seed=0)


@pytest.fixture(scope="module")
def spikes():
    """Ten spikes a second of the same unit, and nothing else."""
    traces = np.zeros((int(10 * RATE), 4))
    for start in np.random.default_rng(1).choice(len(traces) // 100, size=100, replace=False) * 100:
        traces[start : start + 40] += PULSE[:, None] * FOOTPRINT
    return traces


@pytest.fixture(scope="module")
def whitened(noise, spikes):
    return whiten_noise(recording_of(noise + spikes))


def with_filters_of(whitened, recording, **kwargs):
    filters = {key: whitened._kwargs[key] for key in ("spatial", "temporal")}
    return WhitenNoiseRecording(recording, **filters, **kwargs)


def filtered(whitened, traces):
    """Pass other traces through the same filters."""
    return with_filters_of(whitened, recording_of(traces)).get_traces()


def test_noise_becomes_white(whitened):
    white = filtered(whitened, coloured_noise(int(10 * RATE), seed=2))  # noise that the filters have not seen
    np.testing.assert_allclose(white.var(axis=0), 1, atol=0.1)  # the variance of scores is 1, see below
    num_samples = len(white) - 30
    for lag in range(30):
        correlations = white[lag : lag + num_samples].T @ white[:num_samples] / num_samples
        np.testing.assert_allclose(correlations, np.diag(white.var(axis=0)) if lag == 0 else 0, atol=0.05)


def noise_of_far_neurons(num_samples, seed):
    """Noise of which neighbours share the low frequencies, as of far neurons, beside white noise of each."""
    rng = np.random.default_rng(seed)
    far = lfilter(*butter(2, [300, 3000], "bandpass", fs=RATE), rng.normal(size=(num_samples, 6)), axis=0)
    seen = np.exp(-np.abs(np.subtract.outer(np.arange(6) - 1.0, np.arange(4))))
    return 30 * far @ seen + 5 * rng.normal(size=(num_samples, 4))


@pytest.mark.parametrize("make_noise", [coloured_noise, noise_of_far_neurons])
def test_scores_of_spikes_have_variance_one_on_any_channels(spikes, make_noise):
    """Also where noise is not separable; whitened by the covariance of its samples, scores would have 1.3."""
    whitened = whiten_noise(recording_of(make_noise(int(10 * RATE), seed=0) + spikes))
    white = filtered(whitened, make_noise(int(10 * RATE), seed=2))
    temporal = np.convolve(PULSE, np.squeeze(whitened._kwargs["temporal"]))
    scores = fftconvolve(white, temporal[::-1, None] / np.linalg.norm(temporal), axes=0)
    covariance = np.cov(scores.T)
    np.testing.assert_allclose(covariance, np.diag(covariance.diagonal()), atol=0.05)
    footprints = np.random.default_rng(0).normal(size=(20, 4))
    for weights in [*footprints, np.ones(4)]:
        assert (scores @ weights / np.linalg.norm(weights)).std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("num_channels", [1, 3, 12])
def test_the_covariance_is_that_of_most_points(num_channels):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(num_channels, num_channels)) + 2 * np.eye(num_channels)
    points = root @ rng.normal(size=(num_channels, 20_000))
    far = rng.random(20_000) < 0.1
    outliers = points + far * rng.choice([4.0, 10.0, 30.0], size=20_000) * root.sum(axis=1, keepdims=True)
    found, expected = _robust_covariance(outliers), root @ root.T
    distance = np.linalg.eigvals(found @ np.linalg.inv(expected))
    assert np.all(np.abs(distance - 1) < 0.12)
    assert np.linalg.eigvals(outliers @ outliers.T / 20_000 @ np.linalg.inv(expected)).max() > 3


def test_without_temporal_filter_only_channels_are_decorrelated(noise, spikes):
    whitened = whiten_noise(recording_of(noise + spikes), temporal_ms=0)
    assert np.shape(whitened._kwargs["temporal"]) == (1,)
    white = filtered(whitened, coloured_noise(int(10 * RATE), seed=2))
    np.testing.assert_allclose(np.cov(white.T), np.eye(4), atol=0.05)
    assert np.mean(white[1:] * white[:-1]) > 0.5


def test_spatial_filter_is_the_inverse_root_of_the_noise_covariance(whitened):
    spatial = np.array(whitened._kwargs["spatial"])
    white = spatial @ COVARIANCE @ spatial.T
    np.testing.assert_allclose(white / white.diagonal().mean(), np.eye(4), atol=0.05)
    np.testing.assert_allclose(spatial, spatial.T, atol=0.02 * spatial.max())
    temporal = np.array(whitened._kwargs["temporal"])
    assert len(temporal) == 2 * round(0.67e-3 * RATE) + 1
    np.testing.assert_allclose(temporal, temporal[::-1], atol=1e-6)


def test_spikes_on_all_channels_of_a_tetrode_survive(noise, spikes, whitened):
    def snr_of_best_linear_detector(spike, noise):
        """Output of the matched filter at the spike over the standard deviation of its output on noise."""
        template = spike / np.linalg.norm(spike)
        output = sum(np.correlate(noise[:, n], template[:, n]) for n in range(noise.shape[1]))
        return np.linalg.norm(spike) / output.std()

    one_spike = np.zeros((120, 4))
    one_spike[40:80] = PULSE[:, None] * FOOTPRINT
    scaled = snr_of_best_linear_detector(one_spike / noise.std(axis=0), noise / noise.std(axis=0))
    white_spike = filtered(whitened, one_spike)
    white_noise = filtered(whitened, noise)
    assert snr_of_best_linear_detector(white_spike, white_noise) > scaled

    assert np.abs(white_spike).argmax(axis=0) == pytest.approx(52, abs=1)  # zero phase: peaks stay
    assert np.all(white_spike[52] < -3)  # in noise standard deviations, on every channel


def test_spikes_do_not_enter_the_estimate(noise, spikes, whitened):
    without = whiten_noise(recording_of(noise))
    scale = np.abs(without._kwargs["spatial"]).max()
    np.testing.assert_allclose(whitened._kwargs["spatial"], without._kwargs["spatial"], atol=0.08 * scale)


@pytest.mark.parametrize("chunk_size", [1, 7, 500, 999])
def test_exact_under_chunking(noise, spikes, whitened, chunk_size):
    traces = (noise + spikes)[:3000]
    recording = with_filters_of(whitened, recording_of([traces[:1000], traces]))
    for segment in (0, 1):
        whole = recording.get_traces(segment_index=segment)
        assert whole.dtype == "float32"
        starts = range(0, min(len(whole), 40 * chunk_size), chunk_size)
        pieces = [
            recording.get_traces(segment_index=segment, start_frame=t, end_frame=min(t + chunk_size, len(whole)))
            for t in starts
        ]
        pieces = np.concatenate(pieces)
        np.testing.assert_allclose(pieces, whole[: len(pieces)], atol=1e-5)


def test_chosen_channels(whitened):
    whole = whitened.get_traces(start_frame=50, end_frame=90)
    chosen = whitened.get_traces(start_frame=50, end_frame=90, channel_ids=whitened.channel_ids[[3, 1]])
    np.testing.assert_allclose(chosen, whole[:, [3, 1]], atol=1e-5)


def test_far_channels_are_left_out(noise):
    probe = generate_linear_probe(4, ypitch=60)
    spatial = np.array(whiten_noise(recording_of(noise, probe), radius_um=100.0)._kwargs["spatial"])
    distance = np.abs(np.subtract.outer(range(4), range(4)))
    np.testing.assert_array_equal(spatial != 0, distance <= 1)


def long_probe_noise(num_channels, seconds, seed=0):
    """Coloured noise that neighbours share, and that all channels see besides, on offsets."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(scale=10, size=(int(seconds * RATE), num_channels + 2))
    noise = noise[:, :-2] + 0.6 * noise[:, 1:-1] + 0.3 * noise[:, 2:]
    noise += rng.normal(scale=20, size=(len(noise), 1))
    return lfilter(COLOUR, 1.0, noise, axis=0) + rng.uniform(-1000, 1000, size=num_channels)


@pytest.fixture(scope="module")
def shuffled():
    """A probe longer than the blocks that are decorrelated at once, its channels in no order, one of them dead."""
    traces = highpass_filter(si.NumpyRecording(long_probe_noise(40, 2.0), RATE)).get_traces()
    traces[:, 17] = 0
    return recording_of(traces, generate_linear_probe(40, ypitch=25)).select_channels(
        np.random.default_rng(0).permutation(40)
    )


def test_channels_may_come_in_any_order(shuffled):
    in_order = shuffled.select_channels(np.sort(shuffled.channel_ids))
    expected, temporal = estimate_whitening_filters(in_order)
    spatial, _ = estimate_whitening_filters(shuffled)
    order = shuffled.channel_ids.astype(int)
    np.testing.assert_allclose(spatial, expected[np.ix_(order, order)], atol=1e-6)

    white = whiten_noise(shuffled, spatial=spatial, temporal=temporal).get_traces()
    by_definition = fftconvolve(shuffled.get_traces() @ spatial.T, temporal[:, None], axes=0, mode="same")
    np.testing.assert_allclose(white, by_definition, atol=1e-4)
    np.testing.assert_array_equal(white[:, order == 17], 0)


@pytest.mark.parametrize(("num_channels", "dtype"), [(4, "float32"), (4, "int16"), (80, "int16")])
def test_the_sorter_whitens_in_one_pass_what_takes_three(num_channels, dtype):
    probe = generate_linear_probe(num_channels, ypitch=25)
    recording = recording_of(long_probe_noise(num_channels, 4.0).astype(dtype), probe)
    p = SorterParameters()
    white = preprocess(set_aside(recording, p, fix_job_kwargs({"pool_engine": "thread"})), p)
    filtered = highpass_filter(recording, filter_order=3, dtype="float32")
    by_steps = whiten_noise(common_reference(filtered) if num_channels == 80 else filtered)
    whole, middle = white.get_traces(), slice(1000, -1000)
    difference = whole[middle] - by_steps.get_traces()[middle]
    # exactly the same without a reference; with it, the median is of other noise, of 80 channels
    assert difference.std() < (1e-4 if num_channels == 4 else 0.15)
    test = whole[middle]
    np.testing.assert_allclose(test.var(axis=0), 1, atol=0.15)  # that of scores is 1
    for lag in range(1, 30):
        assert np.mean(test[lag:] * test[:-lag]) == pytest.approx(0, abs=0.08)  # low frequencies are gone
    neighbouring = np.corrcoef(test.T)[np.arange(num_channels - 1), np.arange(1, num_channels)]
    np.testing.assert_allclose(neighbouring, 0, atol=0.05)
    pieces = [white.get_traces(start_frame=start, end_frame=start + 7001) for start in range(0, len(test), 7001)]
    np.testing.assert_allclose(np.concatenate(pieces)[: len(test)], whole[: len(test)], atol=1e-4)


def test_filters_that_shift_phases_are_refused(noise, whitened):
    with pytest.raises(ValueError, match=r"^temporal must be symmetric"):
        whiten_noise(recording_of(noise), spatial=np.eye(4), temporal=[0.0, 1.0, 0.5])


def test_a_loud_channel_does_not_drown_the_others(noise):
    white = whiten_noise(recording_of(noise * [1, 1, 1, 500])).get_traces()
    np.testing.assert_allclose(np.cov(white.T), np.eye(4), atol=0.05)


def test_same_seed_same_filters(noise, spikes):
    recording = recording_of(noise + spikes)
    a, b, c = (whiten_noise(recording, seed=seed) for seed in (1, 1, 2))
    assert a._kwargs["spatial"] == b._kwargs["spatial"]
    assert a._kwargs["temporal"] == b._kwargs["temporal"]
    assert a._kwargs["spatial"] != c._kwargs["spatial"]


def test_round_trip_keeps_the_filters(tmp_path, monkeypatch, noise, whitened, reload):
    saved = recording_of(noise[:2000].astype("float32")).save(folder=tmp_path / "recording", verbose=False)
    whitened = with_filters_of(whitened, saved, seed=3)
    module = sys.modules["dlvolt.preprocessing.whiten_noise"]  # the package's attribute is the function
    monkeypatch.setattr(module, "estimate_whitening_filters", lambda *_: pytest.fail("estimated again"))
    loaded = reload(whitened)
    assert type(loaded) is WhitenNoiseRecording
    assert loaded._kwargs["seed"] == 3
    frames = dict(start_frame=1000, end_frame=1200)
    np.testing.assert_array_equal(loaded.get_traces(**frames), whitened.get_traces(**frames))


def test_integers(noise):
    traces = np.round(noise * 20).astype("int16")
    white = whiten_noise(recording_of(traces)).get_traces()
    assert white.dtype == "float32"
    np.testing.assert_allclose(white.var(axis=0), 1, atol=0.05)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 500.0])
@pytest.mark.parametrize("dead", [[1], [0, 1, 2, 3]])
@pytest.mark.parametrize("radius_um", [100.0, 1.0])
def test_constant_channels_stay_quiet(noise, value, dead, radius_um):
    traces = noise[: int(2 * RATE)].astype("float32")
    traces[:, dead] = value
    white = whiten_noise(highpass_filter(recording_of(traces)), radius_um=radius_um).get_traces()
    alive = np.setdiff1d(range(4), dead)
    assert np.all(np.isfinite(white))
    assert np.all(np.abs(white[1000:-1000, dead]) < 1)
    np.testing.assert_allclose(white[:, alive].var(axis=0), 1, atol=0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number_is_an_error(noise, value):
    traces = noise.copy()
    traces[100_000:200_000, 2] = value
    with pytest.raises(ValueError, match=r"recording: .*fill_nan"):
        whiten_noise(recording_of(traces))


def test_a_recording_shorter_than_the_chunks_of_the_estimate(noise):
    white = whiten_noise(recording_of(noise[: int(0.3 * RATE)])).get_traces()
    np.testing.assert_allclose(white.var(axis=0), 1, atol=0.2)
