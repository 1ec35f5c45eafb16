import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from spikeinterface.core.base import base_peak_dtype

from dlvolt.detection import gaussian_threshold
from dlvolt.rois import flag_crosstalk, neighbouring_pairs
from dlvolt.simulation.voltage_traces import coloured_noise, low_pass, transients
from dlvolt.sortings import count_pairs

DURATION_S = 60.0


def poisson(rate_hz, rng):
    times = np.sort(rng.uniform(0.1, DURATION_S - 0.1, rng.poisson(rate_hz * DURATION_S)))
    return times[np.diff(times, prepend=-1) > 0.004]


def neuron(times, rate, rng):
    """Fluorescence of a neuron that fires at given times: spikes 1 high and a tenth up or down, and slow waves."""
    frame = int(np.ceil(5000 / rate))
    fine_hz = frame * rate
    time = 1000 * np.arange(round(0.04 * fine_hz)) / fine_hz - 10
    spike = low_pass(np.exp(-np.log(2) * (time / 0.5) ** 2), fine_hz, 1.5)
    exposed = np.convolve(spike / spike.max(), np.full(frame, 1 / frame), mode="valid")
    spike /= spike.max() * np.mean([exposed[phase::frame].max() for phase in range(frame)])
    num_samples = round(DURATION_S * rate) * frame
    fine = transients(times, rng.normal(1, 0.1, len(times)), spike, num_samples, fine_hz)
    fine += 0.15 * low_pass(coloured_noise(num_samples, fine_hz, 6.0, 1.2, rng), fine_hz, 1.5)
    return fine.reshape(-1, frame).mean(axis=1)


class Mixture:
    """Neurons seen through ROIs into which they leak, and the spikes that a threshold finds.

    Parameters
    ----------
    leaks : array, shape (N, N)
        Part of each neuron (column) that each ROI (row) sees; 1 of its own.
    rates_hz : list of float
        Of the neurons; an ROI of rate 0 has none.
    synchrony : float
        Part of the spikes of neuron 1 at which neuron 0 fires too.
    """

    def __init__(self, leaks, rates_hz, *, seed, snr=8.0, rate=1000.0, synchrony=0.0):
        rng = np.random.default_rng(seed)
        trains = [poisson(rate_hz, rng) for rate_hz in rates_hz]
        if synchrony:
            shared = trains[1][rng.random(len(trains[1])) < synchrony]
            trains[0] = np.sort(np.append(trains[0], shared + rng.uniform(-0.0005, 0.0005, len(shared))))
            trains[0] = trains[0][np.diff(trains[0], prepend=-1) > 0.003]
        clean = np.transpose([neuron(times, rate, rng) * (len(times) > 0) for times in trains])
        traces = clean @ np.transpose(leaks)
        traces += rng.normal(scale=1 / snr, size=traces.shape)
        self.recording = si.NumpyRecording(100 + traces.astype("float32"), rate)
        found = [gaussian_threshold(trace, rate, smoothing_ms=0.5, threshold=4.0) for trace in traces.T]
        self.peaks = as_peaks(found)
        self.pairs = np.transpose(np.triu_indices(len(rates_hz), 1))
        tolerance = max(2, round(0.002 * rate))
        near = np.array(
            [
                [np.min(np.abs(rate * train - frame), initial=np.inf) <= tolerance for train in trains]
                for frame in self.peaks["sample_index"]
            ]
        )  # spikes × neurons
        self.own = near[np.arange(len(near)), self.peaks["channel_index"]]
        also_found = np.array(
            [
                np.any(
                    (np.abs(self.peaks["sample_index"] - peak["sample_index"]) <= 1)
                    & (self.peaks["channel_index"] != peak["channel_index"])
                )
                for peak in self.peaks
            ]
        )
        self.leaked = ~self.own & near.any(axis=1) & also_found

    def flag(self, **kwargs):
        return flag_crosstalk(self.recording, self.peaks, **(dict(pairs=self.pairs) | kwargs))


def as_peaks(trains):
    peaks = np.zeros(sum(map(len, trains)), dtype=base_peak_dtype)
    peaks["sample_index"] = np.concatenate(trains)
    peaks["channel_index"] = np.repeat(np.arange(len(trains)), [len(train) for train in trains])
    return peaks[np.argsort(peaks["sample_index"], kind="stable")]


def scores(mixture, flags):
    """Return recall among the leaked spikes, and the part of own spikes that is flagged."""
    return np.mean(flags[mixture.leaked]), np.mean(flags[mixture.own])


@pytest.mark.parametrize(
    ("leaks", "rates_hz", "kwargs"),
    [
        ([[1, 0.5], [0, 1]], (0, 6), {}),  # ROI 0 has no neuron
        ([[1, 0.4], [0, 1]], (4, 6), dict(snr=10.0)),
        ([[1, 0.6], [0, 1]], (4, 6), {}),
        ([[1, 0.5], [0.5, 1]], (5, 5), {}),  # both ways
        ([[1, 0.6], [0, 1]], (4, 6), dict(rate=400.0)),
        ([[1, 0.4, 0.6], [0, 1, 0], [0, 0, 1]], (3, 4, 6), dict(snr=10.0)),
    ],
)
def test_leaked_spikes_are_flagged_and_own_ones_are_not(leaks, rates_hz, kwargs):
    mixture = Mixture(leaks, rates_hz, seed=7, **kwargs)
    result = mixture.flag()
    assert np.sum(mixture.leaked) >= 20
    recall, wrong = scores(mixture, result.is_crosstalk)
    assert recall >= 0.85
    assert wrong <= 0.02
    np.testing.assert_array_equal(result.is_crosstalk, result.source >= 0)
    assert np.all(result.source != mixture.peaks["channel_index"])
    found = {tuple(pair): leak for pair, leak in zip(result.pairs.tolist(), result.leak, strict=True)}
    for a, b in found:
        assert found[a, b] == pytest.approx(leaks[a][b], abs=0.07)


def test_a_spike_seen_by_three_rois_is_of_the_one_that_sees_most():
    mixture = Mixture([[1, 0, 0.4], [0, 1, 0.6], [0, 0, 1]], (0, 0, 6), seed=8, snr=12.0)
    result = mixture.flag()
    flagged = result.source[result.is_crosstalk]
    assert np.mean(result.is_crosstalk[mixture.leaked]) > 0.85
    assert np.mean(flagged == 2) > 0.95


@pytest.mark.parametrize("synchrony", [0.0, 0.4, 0.8])
def test_synchrony_without_a_leak_survives(synchrony):
    mixture = Mixture(np.eye(2), (4, 5), seed=9, synchrony=synchrony)
    result = mixture.flag()
    assert not result.is_crosstalk.any()
    np.testing.assert_array_equal(result.leak, 0)
    np.testing.assert_array_equal(result.pairs, [[0, 1], [1, 0]])


def test_synchrony_beside_a_leak_survives():
    mixture = Mixture([[1, 0.5], [0, 1]], (4, 5), seed=10, snr=10.0, synchrony=0.4)
    recall, wrong = scores(mixture, mixture.flag().is_crosstalk)
    assert recall >= 0.85
    assert wrong <= 0.02


def test_of_an_roi_and_its_copy_one_keeps_the_spikes():
    mixture = Mixture(np.eye(1), (5,), seed=11)
    traces = np.repeat(mixture.recording.get_traces(), 2, axis=1)
    peaks = as_peaks([mixture.peaks["sample_index"]] * 2)
    result = flag_crosstalk(si.NumpyRecording(traces, 1000.0), peaks, pairs=[[0, 1]])
    channel = peaks["channel_index"]
    kept = [np.mean(~result.is_crosstalk[channel == one]) for one in (0, 1)]
    assert sorted(kept) == [0, 1]
    assert result.leak.max() == pytest.approx(1)


@pytest.fixture(scope="module")
def leaking():
    return Mixture([[1, 0.6], [0, 1]], (4, 6), seed=12)


def test_flags_do_not_depend_on_polarity_chunks_segments_or_the_order_of_spikes(leaking):
    expected = leaking.flag()
    traces = leaking.recording.get_traces()
    turned = si.NumpyRecording(traces * [-1, 1], 1000.0)
    order = np.random.default_rng(0).permutation(len(leaking.peaks))
    result = flag_crosstalk(
        turned,
        leaking.peaks[order],
        ["negative", "positive"],
        pairs=leaking.pairs[:, ::-1],
        job_kwargs=dict(chunk_size=777),
    )
    np.testing.assert_array_equal(result.is_crosstalk, expected.is_crosstalk[order])
    np.testing.assert_array_equal(result.source, expected.source[order])
    np.testing.assert_allclose(result.leak, expected.leak, atol=1e-4)

    end = 30_000
    cut = leaking.peaks.copy()
    cut["segment_index"] = cut["sample_index"] >= end
    cut["sample_index"] -= end * cut["segment_index"]
    halves = flag_crosstalk(si.NumpyRecording([traces[:end], traces[end:]], 1000.0), cut, pairs=leaking.pairs)
    assert np.mean(halves.is_crosstalk == expected.is_crosstalk) > 0.995  # noise is estimated from other chunks


def test_a_sorting_with_empty_units(leaking):
    recording = si.NumpyRecording(leaking.recording.get_traces()[:, [1, 0, 0]], 1000.0, channel_ids=["b", "a", "e"])
    frames, channels = leaking.peaks["sample_index"], leaking.peaks["channel_index"]
    trains = {"a": frames[channels == 0], "e": np.zeros(0, dtype=int), "b": frames[channels == 1]}
    sorting = si.NumpySorting.from_unit_dict(trains, 1000.0)
    result = flag_crosstalk(recording, sorting, pairs=[[0, 1], [1, 2], [0, 2]])
    expected = leaking.flag().is_crosstalk
    unit = sorting.to_spike_vector()["unit_index"]
    np.testing.assert_array_equal(result.is_crosstalk[unit == 0], expected[channels == 0])
    np.testing.assert_array_equal(result.is_crosstalk[unit == 2], expected[channels == 1])
    assert set(result.source[result.is_crosstalk]) == {0}  # the channel "b"


@pytest.mark.parametrize("num_rois", [1, 2])
def test_without_positions_or_with_one_roi_nothing_is_flagged(leaking, num_rois):
    recording = leaking.recording.select_channels(leaking.recording.channel_ids[:num_rois])
    result = flag_crosstalk(recording, leaking.peaks[leaking.peaks["channel_index"] < num_rois])
    assert not result.is_crosstalk.any()
    assert set(result.source) == {-1}
    assert result.pairs.shape == (0, 2)
    assert len(result.leak) == 0


def test_without_spikes_nothing_is_flagged(leaking):
    result = flag_crosstalk(leaking.recording, leaking.peaks[:0], pairs=[[0, 1]])
    assert len(result.is_crosstalk) == len(result.source) == 0
    np.testing.assert_array_equal(result.leak, [0, 0])


def test_flat_and_missing_traces_flag_nothing():
    traces = np.zeros((20_000, 2), dtype="float32")
    traces[:, 1] = np.nan
    peaks = as_peaks([np.arange(100, 19_000, 300)] * 2)
    assert not flag_crosstalk(si.NumpyRecording(traces, 1000.0), peaks, pairs=[[0, 1]]).is_crosstalk.any()


@given(
    one=st.lists(st.integers(0, 60), max_size=20).map(sorted),
    other=st.lists(st.integers(0, 60), max_size=20).map(sorted),
    lag=st.integers(0, 20),
)
def test_pairs_of_times_are_counted(one, other, lag):
    expected = sum(abs(a - b) <= lag for a in one for b in other)
    assert count_pairs(np.array(one, dtype=int), np.array(other, dtype=int), lag) == expected


def rois(**properties):
    recording = si.NumpyRecording(np.zeros((10, len(properties["centroid"]))), 500.0)
    for key, values in properties.items():
        recording.set_property(key, values)
    return recording


CENTROIDS = np.array([[0.0, 0.0], [30.0, 0.0], [30.0, 41.0], [np.nan, 0.0]])
UM = np.array(["um"] * 4)


def test_neighbours_are_as_close_as_radii_and_scatter():
    pixels = np.array([100, 100, 400, 100])  # radii of discs: 5.64, 5.64 and 11.28 pixels
    in_um = rois(centroid=CENTROIDS, centroid_unit=UM, num_pixels=pixels)
    assert neighbouring_pairs(in_um, 29.0).tolist() == []  # radii are not known in µm
    assert neighbouring_pairs(in_um, 31.0).tolist() == [[0, 1]]
    in_um.annotate(pixel_size_um=2.0)  # now they are 11.28, 11.28 and 22.57 µm
    assert neighbouring_pairs(in_um, 7.0).tolist() == []
    assert neighbouring_pairs(in_um, 7.5).tolist() == [[0, 1], [1, 2]]
    in_um.set_property("plane", np.array(["top", "top", "bottom", "top"]))
    assert neighbouring_pairs(in_um, 7.5).tolist() == [[0, 1]]
    in_um.annotate(pixel_size_um=[1.0, 1.0], overwrite=True)
    assert neighbouring_pairs(in_um, 7.5).tolist() == []
    in_um.annotate(same_neuron=True)
    assert neighbouring_pairs(in_um, 1000.0).tolist() == []  # parts of one dendrite
    in_pixels = rois(centroid=CENTROIDS / 2.7, centroid_unit=np.array(["pixels"] * 4), num_pixels=pixels)
    assert neighbouring_pairs(in_pixels, 1000.0).tolist() == [[0, 1], [1, 2]]  # no micrometres: masks that overlap


def test_the_probe_gives_positions_too():
    recording = si.NumpyRecording(np.zeros((10, 3)), 500.0)
    assert neighbouring_pairs(recording).shape == (0, 2)
    recording.set_dummy_probe_from_locations(np.array([[0.0, 0.0], [100.0, 0.0], [100.0, 15.0]]))
    assert neighbouring_pairs(recording, 20.0).tolist() == [[1, 2]]


def test_positions_decide_which_rois_may_leak(leaking):
    recording = leaking.recording.clone()
    recording.set_property("centroid_unit", UM[:2])
    recording.set_property("centroid", np.array([[0.0, 0.0], [15.0, 0.0]]))
    near = flag_crosstalk(recording, leaking.peaks)
    np.testing.assert_array_equal(near.is_crosstalk, leaking.flag().is_crosstalk)
    assert not flag_crosstalk(recording, leaking.peaks, scatter_um=10.0).is_crosstalk.any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(pairs=[[0, 2]]), "pairs must be of different channels"),
        (dict(pairs=[[1, 1]]), "pairs must be of different channels"),
        (dict(pairs=[0, 1]), "pairs must be channel indices"),
        (dict(pairs=[["a", "b"]]), "pairs must be channel indices"),
        (dict(pairs=None, scatter_um=-1.0), "scatter_um must"),
        (dict(polarity="up"), "polarity must"),
    ],
)
def test_bad_input(leaking, kwargs, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        leaking.flag(**kwargs)
