import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from spikeinterface.preprocessing import common_reference, highpass_filter
from spikeinterface.preprocessing.pipeline import apply_preprocessing_pipeline

from dlvolt.preprocessing import HighpassReferenceRecording, highpass_reference
from dlvolt.preprocessing.highpass_reference import row_medians

RATE = 20000.0
NOISE = 10.0  # standard deviation
MIDDLE = slice(1000, -1000)  # far from both ends
TEMPORAL = np.array([-0.1, 0.3, 1.0, 0.3, -0.1])


def traces_of(num_channels, num_samples=8000, seed=0):
    """Noise on different offsets and slow waves, and what all channels see: hum, and an artefact."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_samples) / RATE
    traces = rng.normal(scale=NOISE, size=(num_samples, num_channels))
    traces += rng.uniform(-2000, 2000, size=num_channels)
    traces += rng.uniform(-200, 200, size=num_channels) * np.sin(2 * np.pi * 8 * time)[:, None]
    common = 50 * np.sin(2 * np.pi * 400 * time)
    common[num_samples // 2 : num_samples // 2 + 100] += 1000
    return traces + common[:, None]


def recording_of(traces):
    return si.NumpyRecording(traces if isinstance(traces, list) else [traces], RATE)


def by_spikeinterface(recording, reference=True):
    recording = highpass_filter(recording, freq_min=300.0, filter_order=3, dtype="float32")
    return common_reference(recording) if reference else recording


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint16"])
@pytest.mark.parametrize("num_channels", [5, 8])
@pytest.mark.parametrize("reference", [False, True])
def test_it_is_what_spikeinterface_does(dtype, num_channels, reference):
    traces = (traces_of(num_channels) + (2**15 if dtype == "uint16" else 0)).astype(dtype)
    filtered = highpass_reference(recording_of(traces), reference=reference).get_traces()
    assert filtered.dtype == "float32"
    expected = by_spikeinterface(recording_of(traces.astype("float64")), reference).get_traces()
    np.testing.assert_allclose(filtered[MIDDLE], expected[MIDDLE], atol=1e-3 * NOISE)


def test_what_all_channels_have_in_common_goes():
    filtered = highpass_reference(recording_of(traces_of(15))).get_traces()
    np.testing.assert_allclose(filtered[MIDDLE].std(axis=0), NOISE, rtol=0.1)
    without = highpass_reference(recording_of(traces_of(15)), reference=False).get_traces()
    assert np.all(without[MIDDLE].std(axis=0) > 3 * NOISE)


def test_another_filter_in_the_same_pass():
    recording = recording_of(traces_of(7))
    both = highpass_reference(recording, reference=False, temporal=TEMPORAL).get_traces()
    first = highpass_reference(recording, reference=False).get_traces()
    expected = np.array([np.convolve(trace, TEMPORAL, mode="same") for trace in first.T]).T
    np.testing.assert_allclose(both[MIDDLE], expected[MIDDLE], atol=1e-3 * NOISE)
    referenced = highpass_reference(recording, temporal=TEMPORAL).get_traces()
    np.testing.assert_allclose(referenced, both - np.median(both, axis=1, keepdims=True), atol=1e-3 * NOISE)


@pytest.mark.parametrize("chunk_size", [1, 37, 1000, 3001])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_exact_under_chunking(chunk_size, dtype):
    traces = (traces_of(6) + 2**15).astype(dtype)
    recording = highpass_reference(recording_of([traces, traces[:700]]), temporal=TEMPORAL)
    for segment in (0, 1):
        whole = recording.get_traces(segment_index=segment)
        starts = np.arange(0, len(whole), chunk_size)
        for start in [*starts[:20], *starts[-20:]]:
            end = min(start + chunk_size, len(whole))
            piece = recording.get_traces(segment, start, end)
            np.testing.assert_allclose(piece, whole[start:end], atol=1e-4 * NOISE)


def test_offsets_leave_no_trace_at_the_ends():
    noise = np.random.default_rng(0).normal(scale=NOISE, size=(4000, 5))
    filtered = highpass_reference(recording_of(noise + 5000), reference=False).get_traces()
    assert np.abs(filtered).max() < 5 * NOISE
    constant = highpass_reference(recording_of(np.full((4000, 5), 5000.0)), reference=False).get_traces()
    np.testing.assert_array_equal(constant, 0)


@pytest.mark.parametrize("num_samples", [1, 2, 5, 50])
def test_tiny_recordings(num_samples):
    filtered = highpass_reference(recording_of(np.full((num_samples, 2), 5.0))).get_traces()
    np.testing.assert_array_equal(filtered, np.zeros((num_samples, 2)))


@pytest.mark.parametrize("reference", [False, True])
def test_chosen_channels(reference):
    recording = highpass_reference(recording_of(traces_of(6)), reference=reference)
    for ids in (recording.channel_ids[[3, 1]], recording.channel_ids[2:5]):
        chosen = recording.get_traces(start_frame=500, end_frame=900, channel_ids=ids)
        whole = recording.get_traces(start_frame=500, end_frame=900)
        np.testing.assert_allclose(chosen, whole[:, recording.ids_to_indices(ids)], atol=1e-4 * NOISE)


def test_units():
    recording = recording_of(traces_of(5).astype("int16"))
    recording.set_channel_gains(0.5)
    recording.set_channel_offsets(-300.0)
    filtered = highpass_reference(recording)
    assert filtered.is_filtered()
    np.testing.assert_allclose(filtered.get_traces(return_in_uV=True), 0.5 * filtered.get_traces(), rtol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "argument"),
    [
        (dict(freq_min=0.0), "freq_min"),
        (dict(freq_min=RATE / 2), "freq_min"),
        (dict(temporal=[0.2, 1.0, 0.5]), "temporal"),
        (dict(temporal=[1.0, 1.0]), "temporal"),
    ],
)
def test_bad_parameters(kwargs, argument):
    with pytest.raises(ValueError, match=f"^{argument} must"):
        highpass_reference(recording_of(traces_of(2, 100)), **kwargs)


def test_not_a_number_is_an_error():
    traces = traces_of(3)
    traces[500, 1] = np.nan
    with pytest.raises(ValueError, match=r"recording: .*fill_nan\(recording\) before highpass_reference"):
        highpass_reference(recording_of(traces)).get_traces()


def test_round_trip(tmp_path, reload):
    saved = recording_of(traces_of(5)).save(folder=tmp_path / "recording", verbose=False)
    kwargs = dict(freq_min=400.0, reference=True, temporal=TEMPORAL.tolist())
    recording = highpass_reference(saved, **kwargs)
    by_name = apply_preprocessing_pipeline(saved, [{"name": "highpass_reference", "params": kwargs}])
    for loaded in (reload(recording), by_name):
        assert type(loaded) is HighpassReferenceRecording
        np.testing.assert_array_equal(loaded.get_traces(), recording.get_traces())


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9))
def test_medians(num_rows, num_columns, seed):
    values = np.random.default_rng(seed).integers(0, 5, size=(num_rows, num_columns)).astype("float32")
    np.testing.assert_array_equal(row_medians(values), np.median(values, axis=1))
