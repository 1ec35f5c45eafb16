import numpy as np
import pytest
import spikeinterface as si
from hypothesis import given
from hypothesis import strategies as st
from spikeinterface.core.base import base_peak_dtype

from dlvolt.rois import label_events
from dlvolt.simulation.biophysical import (
    COMPLEX,
    FINE_FREQUENCY,
    INTERNEURON,
    PYRAMIDAL,
    camera,
    fluorescence,
    indicator_response,
    integrate,
    random_drive,
    random_neuron,
    spike_peaks,
)
from dlvolt.simulation.voltage_traces import coloured_noise, low_pass, transients

RATE = 1000.0


def as_peaks(trains, segment=0):
    """Peaks of one train of frames per channel, in order of time."""
    peaks = np.zeros(sum(map(len, trains)), dtype=base_peak_dtype)
    peaks["sample_index"] = np.concatenate(trains)
    peaks["channel_index"] = np.repeat(np.arange(len(trains)), [len(train) for train in trains])
    peaks["segment_index"] = segment
    return peaks[np.argsort(peaks["sample_index"], kind="stable")]


def label(trace, train, **kwargs):
    return label_events(si.NumpyRecording(np.reshape(trace, (len(trace), -1)), RATE), as_peaks([train]), **kwargs)


def spiky(train, num_samples=1000, height=1.0):
    trace = np.zeros(num_samples)
    trace[train] = height
    return trace


@given(intervals=st.lists(st.integers(3, 40), min_size=1, max_size=25), longest=st.integers(3, 30))
def test_bursts_are_runs_of_short_intervals(intervals, longest):
    train = 100 + np.cumsum(intervals)
    events = label(spiky(train, 1500), train, burst_interval_ms=float(longest))
    number, runs = 0, [[0]]
    for index, interval in enumerate(intervals[1:], start=1):
        if interval > longest:
            number += 1
            runs.append([])
        runs[-1].append(index)
    for number, run in enumerate(runs):
        assert set(events["event"][run]) == {number}
        assert set(events["label"][run]) == {"burst" if len(run) > 1 else "single"}
    np.testing.assert_array_equal(events["depolarisation"], 0)


SINGLES = np.arange(600, 900, 60)  # of height 1


@pytest.mark.parametrize(
    ("train", "label_of_first", "num_events"),
    [
        ([301, 306, 312, 319], "complex", 1),
        ([301], "complex", 1),  # all the others were missed
        ([312], "complex", 1),  # only one in the middle was found
        ([330], "complex", 1),  # only the last
        ([301, 318], "complex", 1),  # further apart than in a burst, and the trace stays up in between
        ([301, 360], "complex", 2),  # the second comes when all is over
        ([200, 205], "burst", 1),
        ([200, 218], "single", 2),
    ],
)
def test_a_plateau_makes_a_complex_spike(train, label_of_first, num_events):
    trace = spiky(np.append(train, SINGLES))
    trace[302:332] += 0.8
    events = label(trace, np.append(train, SINGLES))
    first = events[: len(train)]
    assert first["label"][0] == label_of_first
    assert first["event"].max() + 1 == num_events
    assert set(events["label"][len(train) :]) == {"single"}
    # All but the spikes of a few on the plateau are 1 high.
    assert first["depolarisation"][0] == pytest.approx(0.8 if label_of_first == "complex" else 0)


def test_lower_and_shorter_depolarisations_are_none():
    train = np.append([301, 306, 312], SINGLES)
    for start, end, height, expected in [
        (302, 332, 0.6, "burst"),
        (302, 307, 2.0, "burst"),
        (302, 332, 0.75, "complex"),
    ]:
        trace = spiky(train)
        trace[start:end] += height
        assert label(trace, train)["label"][0] == expected


def in_bursts_and_complex_spikes(seed, rate=RATE, snr=4.0, duration_s=20.0):
    """A trace of single spikes, bursts without and with a plateau: (trace, frames, labels), some spikelets missed."""
    rng = np.random.default_rng(seed)
    frame = int(np.ceil(10_000 / rate))
    fine_hz = frame * rate
    num_samples = round(duration_s * rate)
    plateau, trains, kinds, heights = np.zeros(num_samples * frame), [], [], []
    start = 0.2
    while start < duration_s - 0.3:
        kind = rng.choice(["single", "burst", "complex"], p=[0.5, 0.25, 0.25])
        number = 1 if kind == "single" else rng.integers(2, 6)
        train = start + np.append(0, np.cumsum(rng.uniform(0.003, 0.007, number - 1)))
        if kind == "complex":
            end = max(start + rng.uniform(0.02, 0.06), train[-1] + 0.004)
            plateau[int(start * fine_hz) : int(end * fine_hz)] += rng.uniform(0.4, 1.0)
        trains.append(train)
        kinds += [kind] * number
        heights.append(np.maximum((0.7 if kind == "complex" else 0.9) ** np.arange(number), 0.3))
        start = train[-1] + 0.08 + rng.exponential(0.2)
    times, kinds = np.concatenate(trains), np.array(kinds)
    time = 1000 * np.arange(round(0.04 * fine_hz)) / fine_hz - 10
    spike = low_pass(np.exp(-np.log(2) * (time / 0.4) ** 2), fine_hz, 2.0)
    spike /= np.convolve(spike, np.full(frame, 1 / frame)).max()
    fine = transients(times, np.concatenate(heights), spike, len(plateau), fine_hz) + low_pass(plateau, fine_hz, 4.0)
    fine += 0.2 * coloured_noise(len(plateau), fine_hz, 8.0, 1.2, rng)
    trace = fine.reshape(num_samples, frame).mean(axis=1) + rng.normal(scale=1 / snr, size=num_samples)
    return trace, *missed(times, kinds, rate, rng)


def missed(times, truth, rate, rng):
    """Frames of the spikes that a detector finds: most that come first, some of the others, not to the frame."""
    found = rng.random(len(times)) < np.where(np.diff(times, prepend=-1) > 0.02, 0.95, 0.7)
    frames = (times[found] * rate).astype(int) + rng.choice([-1, 0, 0, 0, 1], found.sum())
    frames, index = np.unique(frames, return_index=True)
    return frames, truth[found][index]


def test_plateaus_are_told_from_bursts():
    traces, trains, truths = zip(*(in_bursts_and_complex_spikes(seed) for seed in range(200, 208)), strict=True)
    recording = si.NumpyRecording(np.transpose(traces).astype("float32"), RATE)
    peaks = as_peaks(trains)
    truth = np.zeros(len(peaks), dtype="U7")
    for channel, of_channel in enumerate(truths):
        truth[peaks["channel_index"] == channel] = of_channel
    found = label_events(recording, peaks)["label"]
    counts = {(t, f): np.sum((truth == t) & (found == f)) for t in set(truth) for f in ("single", "burst", "complex")}
    assert counts["single", "single"] >= 0.97 * np.sum(truth == "single")
    assert counts["single", "complex"] <= 0.02 * np.sum(truth == "single")
    assert counts["complex", "complex"] >= 0.75 * np.sum(truth == "complex")
    assert counts["complex", "complex"] >= 0.68 * np.sum(found == "complex")  # though intervals are 3 to 7 ms


def conductance_based(kind, seed, snr=4.0, duration_s=15.0):
    """A neuron of a kind: (trace, frames, whether a spike rides on a calcium spike of the dendrite, polarity)."""
    rng = np.random.default_rng([kind, seed])
    times = []
    while not 10 <= len(times) <= 20 * duration_s:
        cell = next(cell for cell in iter(lambda: random_neuron(rng), None) if cell.kind == kind)
        conductance = cell.g_leak + cell.excitation + cell.inhibition
        soma, dendrite = integrate(cell, random_drive(rng, round(1000 * duration_s)) * conductance, 0, rng)
        times = spike_peaks(soma) / FINE_FREQUENCY
    borders = np.flatnonzero(np.diff(dendrite > -30, prepend=False, append=False)).reshape(-1, 2) / FINE_FREQUENCY
    plateaus = borders[np.diff(borders)[:, 0] >= 0.005] + [-0.005, 0.005]
    if kind != COMPLEX:
        plateaus = plateaus[:0]
    truth = np.any((times[:, None] >= plateaus[:, 0]) & (times[:, None] <= plateaus[:, 1]), axis=1)
    sign = int(rng.choice([-1, 1]))
    clean = fluorescence(rng, indicator_response(rng, soma), times, RATE, sign)
    return camera(rng, clean, times, RATE, snr), *missed(times, truth, RATE, rng), sign


def test_calcium_spikes_of_pinsky_rinzel_neurons_are_complex_and_other_neurons_have_hardly_any():
    neurons = [(kind, seed) for kind in (COMPLEX, PYRAMIDAL, INTERNEURON) for seed in (50, 51)]
    traces, trains, truths, signs = zip(*(conductance_based(*neuron) for neuron in neurons), strict=True)
    recording = si.NumpyRecording(np.transpose(traces).astype("float32"), RATE)
    peaks = as_peaks(trains)
    polarity = ["positive" if sign == 1 else "negative" for sign in signs]
    found = label_events(recording, peaks, polarity)["label"] == "complex"
    truth = np.zeros(len(peaks), dtype=bool)
    for channel, of_channel in enumerate(truths):
        truth[peaks["channel_index"] == channel] = of_channel
    assert np.sum(truth) > 50
    assert np.sum(found & truth) > 0.85 * np.sum(truth)
    assert np.sum(found & truth) > 0.85 * np.sum(found)
    regular = peaks["channel_index"] >= 2
    assert np.mean(found[regular]) < 0.03


@pytest.fixture(scope="module")
def two_channels():
    (first, train, _), (second, other, _) = (in_bursts_and_complex_spikes(seed, duration_s=6.0) for seed in (300, 301))
    return np.stack([first, -second], axis=1), [train, other]


def test_labels_do_not_depend_on_scale_offset_chunks_or_the_order_of_spikes(two_channels):
    traces, trains = two_channels
    polarity = ["positive", "negative"]
    recording = si.NumpyRecording([traces, traces[:3000]], RATE)
    peaks = np.concatenate([as_peaks(trains), as_peaks([train[train < 3000] for train in trains], segment=1)])
    expected = label_events(recording, peaks, polarity)
    assert len(np.unique(expected["event"])) == expected["event"].max() + 1 > 20
    order = np.random.default_rng(0).permutation(len(peaks))
    shuffled = label_events(recording, peaks[order], polarity, job_kwargs=dict(chunk_size=77))
    np.testing.assert_array_equal(shuffled, expected[order])
    scaled = si.NumpyRecording([100 + 7 * part for part in (traces, traces[:3000])], RATE)
    again = label_events(scaled, peaks, polarity)
    np.testing.assert_array_equal(again["label"], expected["label"])
    np.testing.assert_array_equal(again["event"], expected["event"])
    np.testing.assert_allclose(again["depolarisation"], expected["depolarisation"], atol=1e-6)


def test_a_sorting_of_some_rois(two_channels):
    traces, trains = two_channels
    recording = si.NumpyRecording(traces[:, [0, 1, 1]], RATE, channel_ids=["a", "b", "c"])
    sorting = si.NumpySorting.from_unit_dict({"c": trains[1], "b": np.array([], dtype=int), "a": trains[0]}, RATE)
    polarity = ["positive", "negative", "negative"]
    from_sorting = label_events(recording, sorting, polarity)
    peaks = as_peaks([trains[0], [], trains[1]])
    from_peaks = label_events(recording, peaks, polarity)
    vector = sorting.to_spike_vector()
    for unit, channel in ((0, 2), (2, 0)):
        np.testing.assert_array_equal(
            from_sorting[vector["unit_index"] == unit], from_peaks[peaks["channel_index"] == channel]
        )


def test_spikes_at_the_ends_flat_traces_and_missing_samples():
    train = np.array([0, 1, 500, 998, 999])
    flat = label(np.full(1000, 5.0), train)
    assert flat["label"].tolist() == ["burst", "burst", "single", "burst", "burst"]
    assert np.isnan(flat["depolarisation"]).all()
    train = np.array([0, 1, 100, 200, 500, 505, 998, 999])
    trace = 1000 + spiky(train)
    trace[490:495] = np.nan
    events = label(trace, train)
    assert events["label"].tolist() == ["burst", "burst", "single", "single", "burst", "burst", "burst", "burst"]
    np.testing.assert_array_equal(np.isnan(events["depolarisation"]), [1, 1, 0, 0, 1, 1, 0, 0])


def test_no_spikes():
    recording = si.NumpyRecording(np.zeros((100, 2)), RATE)
    for none in (as_peaks([[], []]), si.NumpySorting.from_unit_dict({0: np.array([], dtype=int)}, RATE)):
        assert len(label_events(recording, none)) == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(burst_interval_ms=-1.0), "burst_interval_ms must"),
        (dict(polarity="up"), "polarity must"),
        (dict(spikes=as_peaks([[5], [5]])), "spikes: some lie outside"),
        (dict(spikes=as_peaks([[100]])), "spikes: some lie outside"),
        (dict(spikes=as_peaks([[5]], segment=1)), "spikes: some lie outside"),
        (dict(spikes=np.array([3, 4])), "spikes: fields .* are missing"),
        (dict(spikes=si.NumpySorting.from_unit_dict({7: np.array([3])}, RATE)), "spikes: unit 7 is no channel"),
    ],
)
def test_bad_input(kwargs, message):
    recording = si.NumpyRecording(np.zeros((100, 1)), RATE)
    with pytest.raises(ValueError, match=f"^{message}"):
        label_events(recording, **(dict(spikes=as_peaks([[5]])) | kwargs))
