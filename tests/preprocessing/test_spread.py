"""The preprocessors that turn each channel into several: five features, or mel bands."""

import numpy as np
import pytest
import spikeinterface as si
import torch

from dlvolt import networks
from dlvolt.preprocessing import (
    FeatureChannelsRecording,
    MelSpectrogramRecording,
    feature_channels,
    mel_spectrogram,
)

RATE = 1000.0
TRACES = 1e4 + np.cumsum(np.random.default_rng(0).normal(size=(700, 3)), axis=0)
CASES = {
    "features": (
        feature_channels,
        FeatureChannelsRecording,
        lambda x: networks.feature_channels(x, RATE),
        ["raw", "smoothed", "highpass", "derivative", "median"],
    ),
    "mel": (
        mel_spectrogram,
        MelSpectrogramRecording,
        lambda x: networks.mel_spectrogram(x, RATE),
        [f"mel{band}" for band in range(7)],
    ),
}
each_case = pytest.mark.parametrize("case", CASES)


@each_case
def test_values_and_names(case):
    function, _, reference, names = CASES[case]
    recording = function(si.NumpyRecording(TRACES, RATE, channel_ids=["a", "b", "c"]))
    assert recording.channel_ids.tolist() == [f"{channel}:{name}" for channel in "abc" for name in names]
    expected = reference(torch.from_numpy(TRACES.T.copy())).flatten(0, 1).T
    values = recording.get_traces()
    assert values.dtype == "float32"
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)


def test_features_do_what_they_say():
    pulse = np.zeros((200, 1))
    pulse[100] = 1
    raw, smoothed, highpass, derivative, median = feature_channels(si.NumpyRecording(pulse, RATE)).get_traces().T
    np.testing.assert_array_equal(raw, pulse[:, 0])
    assert smoothed[100] == pytest.approx(1 / np.sqrt(2 * np.pi), abs=0.01)  # a Gaussian of 1 ms
    assert highpass.sum() == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(derivative[[99, 101]], [0.5, -0.5])
    np.testing.assert_array_equal(median, 0)


def test_mel_bands_of_other_frames():
    recording = mel_spectrogram(si.NumpyRecording(TRACES, RATE), frame=32, num_bands=3)
    expected = networks.mel_spectrogram(torch.from_numpy(TRACES.T.copy()), RATE, 32, 3).flatten(0, 1).T
    np.testing.assert_allclose(recording.get_traces(), expected, rtol=1e-5)


@each_case
@pytest.mark.parametrize("chunk_size", [1, 13, 350])
def test_exact_under_chunking(case, chunk_size):
    recording = CASES[case][0](si.NumpyRecording([TRACES, TRACES[:20]], RATE))
    for segment in (0, 1):
        whole = recording.get_traces(segment_index=segment)
        starts = np.arange(0, len(whole), chunk_size)[-60:]
        pieces = [recording.get_traces(segment, t, min(t + chunk_size, len(whole))) for t in starts]
        np.testing.assert_allclose(np.concatenate(pieces), whole[starts[0] :], rtol=1e-6, atol=1e-6)


@each_case
def test_chosen_channels(case):
    recording = CASES[case][0](si.NumpyRecording(TRACES, RATE))
    chosen = [14, 2, 3, 0]
    some = recording.get_traces(channel_ids=recording.channel_ids[chosen], start_frame=5, end_frame=50)
    np.testing.assert_allclose(some, recording.get_traces()[5:50, chosen], rtol=1e-6)


@each_case
def test_integers_and_tiny_recordings(case):
    recording = CASES[case][0](si.NumpyRecording(np.array([[3, 4]], dtype="int16"), RATE))
    values = recording.get_traces()
    assert values.shape == (1, recording.get_num_channels())
    assert np.isfinite(values).all()


@each_case
def test_properties_go_along_and_units_do_not(case):
    recording = si.NumpyRecording(TRACES, RATE)
    recording.set_channel_gains(0.2)
    recording.set_channel_offsets(1.0)
    recording.set_property("depth", [10, 20, 30])
    recording.annotate(animal="m1")
    spread = CASES[case][0](recording)
    num_names = len(CASES[case][3])
    np.testing.assert_array_equal(spread.get_property("depth"), np.repeat([10, 20, 30], num_names))
    assert spread.get_annotation("animal") == "m1"
    assert not spread.has_scaleable_traces()


@each_case
def test_not_a_number_is_an_error(case):
    traces = TRACES.copy()
    traces[100, 1] = np.inf
    recording = CASES[case][0](si.NumpyRecording(traces, RATE))
    with pytest.raises(ValueError, match=r"recording: .*fill_nan"):
        recording.get_traces()


@pytest.mark.parametrize(("kwargs", "argument"), [(dict(frame=1), "frame"), (dict(num_bands=0), "num_bands")])
def test_bad_parameters(kwargs, argument):
    with pytest.raises(ValueError, match=f"^{argument} must"):
        mel_spectrogram(si.NumpyRecording(TRACES, RATE), **kwargs)


@each_case
def test_round_trip(tmp_path, case, reload):
    function, expected_class, *_ = CASES[case]
    recording = function(
        si.NumpyRecording(TRACES, RATE).save(folder=tmp_path / "recording", chunk_duration="1000s", verbose=False)
    )
    loaded = reload(recording)
    assert type(loaded) is expected_class
    np.testing.assert_array_equal(loaded.get_traces(), recording.get_traces())
