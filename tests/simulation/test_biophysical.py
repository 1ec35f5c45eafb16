import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.signal import peak_widths

from dlvolt.simulation import biophysical, simulate_biophysical
from dlvolt.simulation.biophysical import (
    COMPLEX,
    FINE_FREQUENCY,
    INTERNEURON,
    PYRAMIDAL,
    Neuron,
    _follow,
    expose,
    integrate,
    spike_peaks,
)

SILENT = dict(excitation=0.0, inhibition=0.0)
NEURONS = {
    "pyramidal": Neuron(PYRAMIDAL, 1.0, 0.05, -70.0, 50.0, 5.0, g_m=0.07, g_axial=0.5, soma_fraction=0.6, **SILENT),
    "interneuron": Neuron(INTERNEURON, 1.0, 0.1, -65.0, 35.0, 9.0, g_axial=0.3, **SILENT),
    "complex": Neuron(
        COMPLEX,
        3.0,
        0.1,
        -60.0,
        30.0,
        15.0,
        g_m=0.8,
        g_ca=10.0,
        g_kc=15.0,
        g_axial=2.1,
        soma_fraction=0.5,
        num_compartments=1,
        **SILENT,
    ),
}
CONDITIONS = [
    dict(sampling_frequency=500.0, snr=4.0),
    dict(sampling_frequency=1000.0, snr=3.0),
    dict(sampling_frequency=3328.0, snr=5.0, compartment="dendrite"),
]


def respond(neuron, current, duration_ms=500):
    farthest = neuron.num_compartments - 1
    return integrate(neuron, np.full(duration_ms, float(current)), farthest, np.random.default_rng(0))


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_rests_without_current_and_fires_faster_with_more(name):
    currents = (0, 1, 3, 5, 8) if name != "complex" else (-1, 0.75, 3, 5, 8)
    counts = [len(spike_peaks(respond(NEURONS[name], current)[0])) for current in currents]
    assert counts[0] == 0
    assert counts[-1] >= 5
    assert counts == sorted(counts)


def test_interneuron_follows_the_equations_of_wang_and_buzsaki():
    """A single compartment, integrated once more by an adaptive solver, as the paper writes it."""

    def slopes(_, state):
        v, h, n = state
        a_m, b_m = -0.1 * (v + 35) / (np.exp(-0.1 * (v + 35)) - 1), 4 * np.exp(-(v + 60) / 18)
        a_h, b_h = 0.07 * np.exp(-(v + 58) / 20), 1 / (np.exp(-0.1 * (v + 28)) + 1)
        a_n, b_n = -0.01 * (v + 34) / (np.exp(-0.1 * (v + 34)) - 1), 0.125 * np.exp(-(v + 44) / 80)
        currents = 35 * (a_m / (a_m + b_m)) ** 3 * h * (v - 55) + 9 * n**4 * (v + 90) + 0.1 * (v + 65)
        return 1.0 - currents, 5 * (a_h * (1 - h) - b_h * h), 5 * (a_n * (1 - n) - b_n * n)

    samples = np.arange(300 * int(FINE_FREQUENCY / 1000))
    reference = solve_ivp(
        slopes, (0, 300), (-65, 0.05, 0.6), t_eval=samples * 1000 / FINE_FREQUENCY, rtol=1e-8, atol=1e-8, max_step=0.5
    ).y[0]
    isolated = NEURONS["interneuron"]._replace(g_axial=0.0)
    ours, theirs = (spike_peaks(v) * 1000 / FINE_FREQUENCY for v in (respond(isolated, 1.0, 300)[0], reference))
    assert len(theirs) > 10
    # The step of 0.025 ms shortens the intervals by 1.8 %, and one ten times smaller by a tenth of that.
    assert np.diff(ours).mean() == pytest.approx(np.diff(theirs).mean(), rel=0.025)
    assert ours[0] == pytest.approx(theirs[0], abs=0.5)
    assert np.ptp(respond(isolated, 1.0, 300)[0]) == pytest.approx(np.ptp(reference), rel=0.05)


def test_pinsky_rinzel_neuron_fires_a_complex_spike():
    soma, dendrite = respond(NEURONS["complex"], 0.75, 2000)
    first = spike_peaks(soma)[0]
    burst = slice(first, first + round(0.02 * FINE_FREQUENCY))
    assert dendrite[burst].max() > 0  # a calcium spike
    assert (dendrite[burst] > -30).sum() > 0.005 * FINE_FREQUENCY  # longer than 5 ms


def test_back_propagated_spikes_are_smaller_later_and_wider():
    soma, dendrite = respond(NEURONS["pyramidal"], 3.0)
    peak = spike_peaks(soma)[:1]
    window = slice(peak[0] - 200, peak[0] + 200)
    assert np.ptp(dendrite[window]) < 0.8 * np.ptp(soma[window])
    assert dendrite[window].argmax() > soma[window].argmax()
    widths = [peak_widths(v[window], [v[window].argmax()])[0][0] for v in (soma, dendrite)]
    assert widths[1] > 1.5 * widths[0]


def test_indicator_relaxes_exponentially_with_its_own_time_constant_each_way():
    step = np.repeat([0.0, 1.0, 0.0], [1, 400, 400])
    response = _follow(step, 20.0, 50.0)
    n = np.arange(1, 401)
    np.testing.assert_allclose(response[1:401], 1 - np.exp(-n / 20), atol=1e-12)
    np.testing.assert_allclose(response[401:], response[400] * np.exp(-n / 50), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(sampling_frequency=st.floats(100, FINE_FREQUENCY / 2), slope=st.floats(-10, 10))
def test_a_frame_is_the_mean_over_its_exposure(sampling_frequency, slope):
    # The signal is constant within a fine sample, so that a ramp's integral is that of its staircase to second order.
    ramp = slope * (np.arange(4000) + 0.5) / FINE_FREQUENCY
    frames = expose(ramp, sampling_frequency)
    assert len(frames) == int(4000 / FINE_FREQUENCY * sampling_frequency + 1e-6)
    centres = slope * (np.arange(len(frames)) + 0.5) / sampling_frequency
    np.testing.assert_allclose(frames, centres, atol=abs(slope) / FINE_FREQUENCY + 1e-12)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_traces_are_as_asked(condition):
    traces, spike_times, polarities = simulate_biophysical(2, 3.0, **condition, seed=1)
    assert traces.shape == (3 * condition["sampling_frequency"], 2)
    assert traces.dtype == np.float32
    assert np.isfinite(traces).all()
    assert traces.min() > 0  # counts
    assert set(polarities) <= {"positive", "negative"}
    for times in spike_times:
        assert 3 <= len(times) <= 60
        assert (np.diff(times) >= 0.001).all()
        assert times[0] >= 0
        assert times[-1] < 3


def isolated_heights(clean, times, sampling_frequency):
    """Signed height of the isolated spikes of one noise-free trace, measured spike by spike."""
    heights = []
    for k, time in enumerate(times):
        others = np.delete(times, k) - time
        if np.any((others > -0.05) & (others < 0.02)) or not 0.02 < time < len(clean) / sampling_frequency - 0.02:
            continue
        frame = time * sampling_frequency
        before = np.median(clean[int(frame - 0.008 * sampling_frequency) : int(frame - 0.002 * sampling_frequency)])
        around = clean[int(frame) : int(frame + 0.005 * sampling_frequency) + 1] - before
        heights.append(around[np.abs(around).argmax()])
    return np.array(heights)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_signal_to_noise_ratio_is_as_asked_and_spikes_point_the_way_of_the_polarity(condition):
    sampling_frequency = condition["sampling_frequency"]
    noisy, spike_times, polarities = simulate_biophysical(2, 8.0, **condition, seed=2)
    clean, same_times, _ = simulate_biophysical(2, 8.0, **(condition | {"snr": 1e9}), seed=2)
    for n, times in enumerate(spike_times):
        np.testing.assert_array_equal(times, same_times[n])
        heights = isolated_heights(clean[:, n].astype("float64"), times, sampling_frequency)
        assert len(heights) >= 3
        sign = 1 if polarities[n] == "positive" else -1
        assert np.mean(sign * heights > 0) > 0.9
        snr = abs(np.median(heights)) / np.std(noisy[:, n] - clean[:, n])
        assert snr == pytest.approx(condition["snr"], rel=0.1)


def test_noise_follows_the_brightness():
    bright_then_dark = np.repeat([400.0, 100.0], 50_000)
    bright_then_dark[1001] += 40.0  # a spike
    noisy = biophysical.camera(np.random.default_rng(0), bright_then_dark, np.array([1.0005]), 1000.0, 4.0)
    noise = np.delete(noisy - bright_then_dark, 1001)
    assert noise[:50_000].std() / noise[50_000:].std() == pytest.approx(2, rel=0.03)
    assert noise.std() == pytest.approx(10, rel=0.02)


def test_same_seed_same_traces_whatever_their_number():
    first, first_times, first_polarities = simulate_biophysical(1, 1.5, 1000.0, 4.0, seed=3)
    again, times, polarities = simulate_biophysical(2, 1.5, 1000.0, 4.0, seed=3)
    np.testing.assert_array_equal(first, again[:, :1])
    np.testing.assert_array_equal(first_times[0], times[0])
    assert first_polarities == polarities[:1]
    other, _, _ = simulate_biophysical(1, 1.5, 1000.0, 4.0, seed=4)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("polarity", ["positive", "negative"])
def test_polarity_can_be_said(polarity):
    assert simulate_biophysical(2, 1.0, 500.0, 4.0, polarity=polarity, seed=0)[2] == [polarity] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        dict(num_traces=0),
        dict(duration_s=0.5),
        dict(duration_s=float("nan")),
        dict(sampling_frequency=20_000.0),
        dict(snr=0.0),
        dict(compartment="axon"),
        dict(polarity="up"),
    ],
)
def test_bad_input_is_named(wrong):
    arguments = dict(num_traces=1, duration_s=2.0, sampling_frequency=1000.0, snr=4.0, seed=0) | wrong
    with pytest.raises(ValueError, match=next(iter(wrong))):
        simulate_biophysical(**arguments)
