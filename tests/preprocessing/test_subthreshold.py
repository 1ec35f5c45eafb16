import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st

from dlvolt.preprocessing import SubthresholdRecording, subthreshold
from dlvolt.simulation import VoltageSettings
from dlvolt.simulation.voltage_traces import (
    complex_spike_depolarisation,
    low_pass,
    sampled_height,
    spike_train,
    spike_transient,
    subthreshold_potential,
    transients,
)

RATE = 500.0
NO_SPIKES = np.zeros(0, dtype=int)
SETTINGS = VoltageSettings(silent=0.0, firing_rate_hz=(2.0, 10.0), decay_ms=(0.5, 4.0), slow_fraction=(0.0, 0.2))


def as_sorting(trains, rate=RATE):
    """Sort spikes of one segment, or of several: a list of dictionaries from unit to frames."""
    return si.NumpySorting.from_unit_dict(trains, rate)


def low_passed(trace, cutoff_hz, rate):
    """Smooth with a Gaussian of 4 standard deviations to either side, in so many words."""
    width = rate * np.sqrt(np.log(2)) / (2 * np.pi * cutoff_hz)
    reach = int(np.ceil(4 * width))
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * width**2))
    return np.convolve(np.pad(trace, reach, mode="edge"), weights / weights.sum(), mode="valid")


def simulated(seed, snr=5.0, duration_s=20.0):
    """A trace with noise, its subthreshold part without, and the frames of the spikes."""
    rng = np.random.default_rng(seed)
    frame, fine_hz, num_samples = 10, 10 * RATE, round(duration_s * RATE)
    potential = rng.uniform(0.1, 0.6) * subthreshold_potential(num_samples * frame, fine_hz, rng)
    spike = spike_transient(fine_hz, SETTINGS, rng)
    spike /= sampled_height(spike, frame)
    times, heights = spike_train(potential, fine_hz, SETTINGS, rng)
    slow = low_pass(potential, fine_hz, 2.0) + complex_spike_depolarisation(times, len(potential), fine_hz, rng)
    traces = [slow + transients(times, heights, spike, len(slow), fine_hz), slow]
    trace, truth = (fine.reshape(num_samples, frame).mean(axis=1) for fine in traces)
    return trace + rng.normal(scale=1 / snr, size=num_samples), truth, np.unique((times * RATE).astype(int))


@pytest.fixture(scope="module")
def simulation():
    """Twelve ROIs: traces (T, 12), truths (T, 12), trains."""
    traces, truths, trains = zip(*(simulated(seed) for seed in range(12)), strict=True)
    return np.transpose(traces), np.transpose(truths), dict(enumerate(trains))


@pytest.fixture(scope="module")
def saved(simulation, tmp_path_factory):
    """Three ROIs in two segments, and the spikes of two of them, on disk."""
    folder = tmp_path_factory.mktemp("subthreshold")
    traces, _, trains = simulation
    recording = si.NumpyRecording([traces[:3000, :3], traces[:700, :3]], RATE, channel_ids=["a", "b", "c"])
    cut = [{"c": trains[2][trains[2] < end], "a": trains[0][trains[0] < end]} for end in (3000, 700)]
    recording = recording.save(folder=folder / "recording", chunk_duration="1000s", verbose=False)
    return recording, as_sorting(cut).save(folder=folder / "sorting")


@pytest.mark.parametrize("cutoff_hz", [20.0, 50.0])
def test_nearer_to_the_truth_than_a_low_pass_alone(simulation, cutoff_hz):
    traces, truths, trains = simulation
    recording = si.NumpyRecording(traces, RATE)
    error, correlation = {}, {}
    for name, of in (("removed", trains), ("left", {})):
        found = subthreshold(recording, as_sorting(of), cutoff_hz=cutoff_hz).get_traces()
        off = (found - found.mean(axis=0)) - (truths - truths.mean(axis=0))
        error[name] = np.sqrt(np.mean(off**2, axis=0))
        correlation[name] = np.array([np.corrcoef(*pair)[0, 1] for pair in zip(found.T, truths.T, strict=True)])
    assert np.mean(error["removed"] < error["left"]) >= 0.7
    assert error["removed"].mean() < 0.9 * error["left"].mean()
    assert correlation["removed"].mean() > correlation["left"].mean() + 0.01


def test_equal_spikes_on_a_straight_line_vanish():
    spike = np.array([0.0, 0.2, 1.0, 0.5, 0.3, 0.2, 0.1, 0.0, 0.0])
    train = np.array([100, 150, 151, 153, 300, 301, 500, 700])  # they overlap
    apart = np.array([100, 300, 500, 700])
    line = 5 + 0.01 * np.arange(1000)
    trace = line.copy()
    for t in train:
        trace[t - 2 : t + 7] += spike
    only = line.copy()
    for t in apart:
        only[t - 2 : t + 7] += spike
    durations = dict(ms_before=4.0, ms_after=12.0)
    waveforms = subthreshold(si.NumpyRecording(only[:, None], RATE), as_sorting({0: apart}), **durations)
    np.testing.assert_allclose(waveforms._kwargs["waveforms"][0], spike, atol=1e-5)
    recording = si.NumpyRecording(trace[:, None], RATE)
    cleaned = subthreshold(recording, as_sorting({0: train}), waveforms=[spike], **durations).get_traces()[:, 0]
    np.testing.assert_allclose(cleaned, low_passed(line, 20.0, RATE), atol=1e-5)


def test_without_spikes_it_is_a_low_pass(simulation):
    traces = simulation[0]
    expected = np.transpose([low_passed(trace, 35.0, RATE) for trace in traces.T])
    for sorting in (as_sorting({0: NO_SPIKES}), as_sorting({})):
        found = subthreshold(si.NumpyRecording(traces, RATE), sorting, cutoff_hz=35.0).get_traces()
        np.testing.assert_allclose(found, expected, atol=1e-6)


@given(cutoff_hz=st.floats(5, 50), ratio=st.floats(0.2, 2))
def test_a_sine_comes_through_as_a_gaussian_says_and_does_not_move(cutoff_hz, ratio):
    wave = np.exp(2j * np.pi * ratio * cutoff_hz / RATE * np.arange(1000))
    recording = si.NumpyRecording(np.stack([wave.real, wave.imag], axis=1), RATE)
    found = subthreshold(recording, as_sorting({}), cutoff_hz=cutoff_hz).get_traces()
    inner = slice(300, -300)
    expected = 2 ** (-0.5 * ratio**2) * wave  # 1/√2 at the cut-off
    np.testing.assert_allclose(found[inner], np.stack([expected.real, expected.imag], axis=1)[inner], atol=2e-3)


@pytest.mark.parametrize("chunk_size", [1, 7, 200, 2999])
def test_the_same_numbers_whichever_chunk_asks(saved, chunk_size):
    recording = subthreshold(*saved)
    for segment in (0, 1):
        whole = recording.get_traces(segment)
        assert whole.dtype == "float32"
        starts = np.arange(0, len(whole), chunk_size)[:40]
        pieces = [recording.get_traces(segment, t, min(t + chunk_size, len(whole))) for t in starts]
        np.testing.assert_array_equal(np.concatenate(pieces), whole[: starts[-1] + len(pieces[-1])])
    np.testing.assert_array_equal(recording.get_traces(1, channel_ids=["c", "a"]), whole[:, [2, 0]])
    assert recording.get_traces(0, 5, 5).shape == (0, 3)


def test_spikes_of_other_rois_and_a_common_offset_do_not_matter(saved):
    recording, sorting = saved
    expected = subthreshold(recording, sorting).get_traces(1)
    alone = subthreshold(recording.select_channels(["c"]), sorting.select_units(["c"])).get_traces(1)
    np.testing.assert_array_equal(alone, expected[:, 2:])
    higher = si.NumpyRecording(
        [7 * recording.get_traces(segment) + 100 for segment in (0, 1)], RATE, channel_ids=["a", "b", "c"]
    )
    np.testing.assert_allclose(subthreshold(higher, sorting).get_traces(1), 7 * expected + 100, atol=1e-3)


def test_integers(saved):
    recording, sorting = saved
    counts = [np.round(1000 * recording.get_traces(segment)).astype("int16") for segment in (0, 1)]
    found = subthreshold(si.NumpyRecording(counts, RATE, channel_ids=["a", "b", "c"]), sorting).get_traces(0)
    np.testing.assert_allclose(found / 1000, subthreshold(recording, sorting).get_traces(0), atol=1e-3)


def test_spikes_at_the_ends():
    trace = np.random.default_rng(0).normal(size=60)
    recording = si.NumpyRecording(trace[:, None], RATE)
    assert np.isfinite(subthreshold(recording, as_sorting({0: np.array([0, 1, 30, 59])})).get_traces()).all()
    none_whole = subthreshold(recording, as_sorting({0: np.array([0, 59])})).get_traces()[:, 0]
    np.testing.assert_allclose(none_whole, low_passed(trace, 20.0, RATE), atol=1e-6)


def test_round_trip(saved, reload):
    recording = subthreshold(*saved, cutoff_hz=30.0)
    loaded = reload(recording)
    assert type(loaded) is SubthresholdRecording
    for segment in (0, 1):
        np.testing.assert_array_equal(loaded.get_traces(segment), recording.get_traces(segment))


def test_in_workers(saved, tmp_path):
    recording = subthreshold(*saved)
    job_kwargs = dict(n_jobs=2, chunk_size=500, pool_engine="process", mp_context="spawn", progress_bar=False)
    written = recording.save(folder=tmp_path / "written", verbose=False, **job_kwargs)
    np.testing.assert_array_equal(written.get_traces(0), recording.get_traces(0))


def test_it_is_silent(saved, capfd):
    subthreshold(*saved).get_traces(0, 0, 100)
    assert capfd.readouterr() == ("", "")


def test_missing_samples_are_an_error():
    trace = np.zeros((1000, 1))
    trace[500] = np.nan
    recording = si.NumpyRecording(trace, RATE)
    with pytest.raises(ValueError, match=r"recording: .*fill_nan\(recording\) before subthreshold"):
        subthreshold(recording, as_sorting({0: np.array([501])}))
    elsewhere = subthreshold(recording, as_sorting({0: np.array([100])}))
    with pytest.raises(ValueError, match=r"recording: .*fill_nan\(recording\) before subthreshold"):
        elsewhere.get_traces()
    assert np.isfinite(elsewhere.get_traces(start_frame=0, end_frame=400)).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(cutoff_hz=0.0), "cutoff_hz must"),
        (dict(cutoff_hz=250.0), "cutoff_hz must"),
        (dict(ms_before=0.0), "ms_before must"),
        (dict(ms_after=-1.0), "ms_after must"),
        (dict(sorting=as_sorting({"x": np.array([3])})), "sorting: unit 'x' is no channel"),
        (dict(sorting=as_sorting({0: np.array([3])}, 400.0)), "sorting: 1 segments at 400 Hz do not match"),
        (dict(sorting=as_sorting([{0: np.array([3])}] * 2)), "sorting: 2 segments at 500 Hz do not match"),
    ],
)
def test_bad_input(kwargs, message):
    recording = si.NumpyRecording(np.zeros((100, 1)), RATE)
    with pytest.raises(ValueError, match=f"^{message}"):
        subthreshold(recording, **(dict(sorting=as_sorting({0: np.array([3])})) | kwargs))
