import numpy as np
import pytest
import spikeinterface as si
from scipy.signal import freqz, iirnotch

from dlvolt.preprocessing import NotchCombRecording, notch_comb

RATE = 1000.0
TIME = np.arange(12_000) / RATE
MIDDLE = slice(4000, 8000)  # far from both ends


def sine(frequency, amplitude=1.0, phase=0.3):
    return amplitude * np.sin(2 * np.pi * frequency * TIME + phase)


def hum(freq=50.0):
    return sum(sine(k * freq, 1 / k, phase=k) for k in range(1, int(RATE / 2 / freq)))


def filtered(trace, **kwargs):
    return notch_comb(si.NumpyRecording(np.asarray(trace)[:, None], RATE), **kwargs).get_traces()[:, 0]


@pytest.mark.parametrize("freq", [50.0, 60.0])
def test_hum_goes_and_the_rest_stays(freq):
    signal = 100 + sine(7.0) + sine(3.5 * freq)  # half way between two notches
    clean = filtered(signal + hum(freq), freq=freq)
    assert clean.dtype == "float32"
    np.testing.assert_allclose(clean[MIDDLE], signal[MIDDLE], atol=0.02)


@pytest.mark.parametrize("frequency", [20.0, 49.0, 49.9, 51.5, 100.5])
def test_response_is_that_of_the_notches_forward_and_backward(frequency):
    response = 1.0
    for k in range(1, 10):
        _, h = freqz(*iirnotch(50.0 * k, 20.0 * k, fs=RATE), worN=[frequency], fs=RATE)
        response *= abs(h[0]) ** 2
    np.testing.assert_allclose(filtered(sine(frequency), q=20.0)[MIDDLE], response * sine(frequency)[MIDDLE], atol=1e-3)


@pytest.mark.parametrize("freq", [50.0, 60.0])
@pytest.mark.parametrize("num_samples", [700, 12_000])
def test_hum_goes_at_the_ends_too(freq, num_samples):
    clean = filtered(100 + hum(freq)[:num_samples], freq=freq)
    np.testing.assert_allclose(clean, 100, atol=0.1)


def test_chosen_harmonics():
    clean = filtered(sine(50) + sine(100) + sine(150), harmonics=[1, 3])
    np.testing.assert_allclose(clean[MIDDLE], sine(100)[MIDDLE], atol=0.02)


@pytest.mark.parametrize("chunk_size", [37, 1000, 5000])
def test_exact_under_chunking(chunk_size):
    noise = np.random.default_rng(0).normal(size=(len(TIME), 2))
    traces = (1000 + 10 * hum()[:, None] + noise).astype("float32")
    recording = notch_comb(si.NumpyRecording([traces, traces[:3000]], RATE))
    for segment in (0, 1):
        whole = recording.get_traces(segment_index=segment)
        starts = np.arange(0, len(whole), chunk_size)[:40]
        pieces = [recording.get_traces(segment, t, min(t + chunk_size, len(whole))) for t in starts]
        pieces = np.concatenate(pieces)
        np.testing.assert_allclose(pieces, whole[: len(pieces)], atol=1e-3)  # 1e-4 of the hum


def test_chosen_channels():
    traces = np.random.default_rng(0).normal(size=(3000, 4))
    recording = notch_comb(si.NumpyRecording(traces, RATE))
    chosen = recording.get_traces(channel_ids=recording.channel_ids[[3, 1]])
    np.testing.assert_allclose(chosen, recording.get_traces()[:, [3, 1]], atol=1e-6)


def test_integers_are_not_rounded_and_keep_gain_and_offset():
    traces = np.round(1000 * (3 + hum()))[:, None].astype("int16")
    recording = si.NumpyRecording(traces, RATE)
    recording.set_channel_gains(0.5)
    recording.set_channel_offsets(7.0)
    clean = notch_comb(recording)
    assert clean.get_dtype() == "float32"
    np.testing.assert_allclose(clean.get_traces(return_in_uV=True)[MIDDLE], 0.5 * 3000 + 7, atol=15)


@pytest.mark.parametrize("num_samples", [1, 2, 5, 50])
def test_tiny_recordings(num_samples):
    clean = notch_comb(si.NumpyRecording(np.full((num_samples, 2), 5.0), RATE)).get_traces()
    np.testing.assert_allclose(clean, 5.0, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "argument"),
    [
        (dict(freq=500.0), "freq"),
        (dict(freq=-50.0), "freq"),
        (dict(harmonics=[1, 10]), "harmonics"),
        (dict(harmonics=[0]), "harmonics"),
        (dict(harmonics=[]), "harmonics"),
        (dict(q=0.0), "q"),
    ],
)
def test_bad_parameters(kwargs, argument):
    with pytest.raises(ValueError, match=f"^{argument} must"):
        filtered(TIME, **kwargs)


def test_not_a_number_is_an_error():
    trace = hum()
    trace[500] = np.nan
    with pytest.raises(ValueError, match=r"recording: .*fill_nan\(recording\) before notch_comb"):
        filtered(trace)


def test_round_trip(tmp_path, reload):
    saved = si.NumpyRecording(hum()[:3000, None], RATE).save(
        folder=tmp_path / "recording", chunk_duration="1000s", verbose=False
    )
    recording = notch_comb(saved, freq=60.0, harmonics=[1, 2], q=10.0)
    loaded = reload(recording)
    assert type(loaded) is NotchCombRecording
    np.testing.assert_array_equal(loaded.get_traces(), recording.get_traces())
