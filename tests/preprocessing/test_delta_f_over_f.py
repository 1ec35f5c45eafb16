import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.preprocessing import DeltaFOverFRecording, delta_f_over_f, subthreshold

RATE = 200.0
TIME = np.arange(4000) / RATE
BLEACHED = 1000 * np.exp(-TIME / 30)  # to one half
SPIKES = np.random.default_rng(0).choice(len(TIME), size=400, replace=False)  # one sample in ten


def trace(height, noise=0.0):
    """Fluorescence that bleaches, with spikes of a given ΔF/F."""
    relative = np.random.default_rng(1).normal(scale=noise, size=len(TIME))
    relative[SPIKES] += height
    return BLEACHED * (1 + relative)


def computed(traces, **kwargs):
    return delta_f_over_f(si.NumpyRecording(np.reshape(traces, (len(traces), -1)), RATE), **kwargs).get_traces()


@pytest.mark.parametrize(("polarity", "height"), [("positive", 0.1), ("negative", -0.1)])
def test_height_of_spikes_on_a_bleaching_baseline(polarity, height):
    result = computed(trace(height), window_s=2.0, polarity=polarity)[:, 0]
    inner = slice(200, -200)  # at the ends the window is cut off
    expected = np.zeros(len(TIME))
    expected[SPIKES] = height
    np.testing.assert_allclose(result[inner], expected[inner], atol=0.025)


def test_spikes_do_not_pull_the_baseline():
    quiet, spiking = trace(0.0, noise=0.02), trace(0.5, noise=0.02)
    others = np.setdiff1d(np.arange(len(TIME)), SPIKES)
    shift = np.median((computed(spiking, window_s=2.0) - computed(quiet, window_s=2.0))[others])
    assert abs(shift) < 0.01
    wrong = computed(spiking, window_s=2.0, polarity="negative") - computed(quiet, window_s=2.0, polarity="negative")
    assert abs(np.median(wrong[others])) > abs(shift)


@given(
    num_samples=st.integers(1, 300),
    window=st.integers(1, 80),
    quantile=st.floats(0, 0.5),
    polarity=st.sampled_from(["positive", "negative"]),
    seed=st.integers(0, 100),
)
def test_brute_force(num_samples, window, quantile, polarity, seed):
    values = np.random.default_rng(seed).uniform(1, 2, size=(num_samples, 2))
    hop = max(1, round(window / 4))
    nodes = np.arange(0, num_samples + hop, hop)
    baselines = []
    for node in np.minimum(nodes, num_samples):
        around = values[max(0, node - 2 * hop) : node + 2 * hop]
        baselines.append(np.quantile(around, quantile if polarity == "positive" else 1 - quantile, axis=0))
    baselines = np.array(baselines)
    baseline = np.transpose([np.interp(np.arange(num_samples), nodes, column) for column in baselines.T])
    result = computed(values, window_s=window / RATE, quantile=quantile, polarity=polarity)
    np.testing.assert_allclose(result, values / baseline - 1, atol=1e-6)


@pytest.mark.parametrize("chunk_size", [1, 7, 199, 1500])
def test_exact_under_chunking(chunk_size):
    traces = np.stack([trace(0.1, 0.02), trace(-0.1, 0.02)], axis=1)
    recording = delta_f_over_f(si.NumpyRecording([traces, traces[:333]], RATE), polarity=["positive", "negative"])
    for segment in (0, 1):
        whole = recording.get_traces(segment_index=segment)
        assert whole.dtype == "float32"
        starts = np.arange(0, len(whole), chunk_size)[-40:]
        pieces = [recording.get_traces(segment, t, min(t + chunk_size, len(whole))) for t in starts]
        np.testing.assert_allclose(np.concatenate(pieces), whole[starts[0] :], atol=1e-6)


def test_chosen_channels_each_with_its_polarity():
    traces = np.stack([trace(0.1), trace(-0.1), trace(0.2)], axis=1)
    recording = delta_f_over_f(si.NumpyRecording(traces, RATE), polarity=["positive", "negative", "positive"])
    chosen = recording.get_traces(channel_ids=recording.channel_ids[[2, 1]])
    np.testing.assert_array_equal(chosen, recording.get_traces()[:, [2, 1]])


def test_gains_and_offsets_are_applied_and_forgotten():
    fluorescence = trace(0.1, 0.02)
    recording = si.NumpyRecording(np.round(fluorescence / 0.1 - 5000)[:, None].astype("int16"), RATE)
    recording.set_channel_gains(0.1)
    recording.set_channel_offsets(500.0)
    result = delta_f_over_f(recording)
    np.testing.assert_allclose(result.get_traces(), computed(fluorescence), atol=5e-4)
    np.testing.assert_array_equal(result.get_traces(return_in_uV=True), result.get_traces())


def test_it_says_what_its_numbers_are():
    recording = si.NumpyRecording(trace(0.1)[:, None], RATE)
    recording.annotate(value="fluorescence")
    relative = delta_f_over_f(recording)
    slow = subthreshold(relative, si.NumpySorting.from_unit_dict({0: SPIKES[:1]}, RATE))
    for derived in (relative, relative.select_channels([0]), slow):
        assert derived.get_annotation("value") == "delta_f_over_f"
    assert recording.get_annotation("value") == "fluorescence"


def test_a_constant_trace_gives_zeros():
    np.testing.assert_array_equal(computed(np.full(100, 7.0)), 0)


@pytest.mark.parametrize("polarity", ["positive", "negative"])
def test_centred_traces_are_an_error(polarity):
    centred = np.random.default_rng(0).normal(size=1000)
    with pytest.raises(ValueError, match=r"recording: the baseline of channel .* is zero or negative"):
        computed(centred, polarity=polarity)


def test_not_a_number_is_an_error():
    with pytest.raises(ValueError, match=r"recording: .*fill_nan\(recording\) before delta_f_over_f"):
        computed(np.append(trace(0.1), np.nan))


@pytest.mark.parametrize(
    ("kwargs", "argument"),
    [
        (dict(quantile=0.8), "quantile"),
        (dict(window_s=0.0), "window_s"),
        (dict(polarity="up"), "polarity"),
        (dict(polarity=["positive", "negative"]), "polarity"),
    ],
)
def test_bad_parameters(kwargs, argument):
    with pytest.raises(ValueError, match=f"^{argument} must"):
        computed(trace(0.1), **kwargs)


def test_round_trip(tmp_path, reload):
    traces = np.stack([trace(0.1), trace(-0.1)], axis=1)
    saved = si.NumpyRecording(traces, RATE).save(folder=tmp_path / "recording", chunk_duration="1000s", verbose=False)
    recording = delta_f_over_f(saved, window_s=1.0, quantile=0.1, polarity=["positive", "negative"])
    loaded = reload(recording)
    assert type(loaded) is DeltaFOverFRecording
    np.testing.assert_array_equal(loaded.get_traces(), recording.get_traces())
