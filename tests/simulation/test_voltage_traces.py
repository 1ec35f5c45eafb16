import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlvolt.simulation import VoltageSettings, simulate_voltage
from dlvolt.simulation.voltage_traces import bleaching, coloured_noise, low_pass, sampled_height, spike_transient

CLEAN = dict(
    subthreshold=(1e-4, 1e-4), bleaching=(0.0, 0.0), motion=(1e-4, 1e-4), neighbour=(0.0, 0.0), contrast=(0.01, 0.01)
)


def around(trace, frames, before=5, after=8):
    frames = frames[(frames >= before) & (frames < len(trace) - after)]
    return trace[frames[:, None] + np.arange(-before, after)]


@given(
    st.integers(1, 3),
    st.floats(0.1, 2),
    st.sampled_from([200, 333.3, 1000, 5000]),
    st.integers(0, 10**6),
    st.booleans(),
)
@settings(max_examples=20)
def test_any_traces_are_finite_and_their_spikes_lie_within(num_traces, duration, rate, seed, up):
    polarity = "positive" if up else "negative"
    traces, spike_times, polarities = simulate_voltage(num_traces, duration, rate, polarity=polarity, seed=seed)
    assert traces.shape == (round(duration * rate), num_traces)
    assert np.isfinite(traces).all()
    assert polarities == [polarity] * num_traces
    for times in spike_times:
        assert np.all((times >= 0) & (times < len(traces) / rate))
        assert np.all(np.diff(times) > 0.002)  # refractory


def test_a_trace_is_the_seeds_whatever_their_number():
    few, many, other = (simulate_voltage(n, 1.0, 500.0, seed=seed) for n, seed in ((2, 3), (5, 3), (2, 4)))
    np.testing.assert_array_equal(few[0], many[0][:, :2])
    np.testing.assert_array_equal(few[1][1], many[1][1])
    assert few[2] == many[2][:2]
    assert not np.allclose(few[0], other[0])


@pytest.mark.parametrize("rate", [400.0, 1000.0, 3328.0])
@pytest.mark.parametrize("polarity", ["positive", "negative"])
def test_spikes_are_where_they_are_said_to_be_and_as_high_as_asked(rate, polarity):
    asked = VoltageSettings(snr=(30.0, 30.0), firing_rate_hz=(2.0, 2.0), decay_ms=(0.4, 2.0), silent=0.0, **CLEAN)
    traces, spike_times, _ = simulate_voltage(24, 10.0, rate, polarity=polarity, settings=asked, seed=1)
    sign = 1 if polarity == "positive" else -1
    lags, ratios = [], []
    for trace, times in zip(traces.T.astype(float), spike_times, strict=True):
        isolated = times[np.diff(times, prepend=-1, append=times[-1] + 1).min(initial=1) < np.inf]
        isolated = isolated[(np.diff(isolated, prepend=-1) > 0.1) & (np.diff(isolated, append=99) > 0.1)]
        reach = round(0.005 * rate) + 3
        snippets = sign * around(trace, np.floor(isolated * rate).astype(int), reach, reach)
        if len(snippets) < 3:
            continue
        noise = np.median(np.abs(np.diff(trace))) / 0.6745 / np.sqrt(2)
        lags.append((snippets.mean(axis=0).argmax() - reach) / rate)
        ratios.append(np.median(snippets.max(axis=1) - snippets[:, 0]) / noise)
    assert len(ratios) >= 10
    assert abs(np.median(lags)) <= 0.002 + 1 / rate
    assert np.median(ratios) == pytest.approx(30, rel=0.3)


def test_silent_cells_have_no_spikes_and_rates_are_as_asked():
    silent = simulate_voltage(10, 2.0, 500.0, settings=VoltageSettings(silent=1.0), seed=0)[1]
    assert [len(times) for times in silent] == [0] * 10
    asked = VoltageSettings(silent=0.0, firing_rate_hz=(2.0, 2.0))
    spikes = simulate_voltage(40, 10.0, 500.0, settings=asked, seed=0)[1]
    assert 1 < np.median([len(times) / 10 for times in spikes]) < 5  # bursts bring more


def test_both_polarities_are_drawn():
    assert set(simulate_voltage(20, 0.1, 500.0, seed=0)[2]) == {"positive", "negative"}


def test_low_pass_is_an_exponential():
    impulse = np.zeros(200)
    impulse[10] = 1
    response = low_pass(impulse, 10_000.0, 2.0)
    np.testing.assert_allclose(response[:10], 0, atol=1e-12)
    np.testing.assert_allclose(response[11:60] / response[10:59], np.exp(-0.1 / 2.0), rtol=1e-9)
    assert response.sum() == pytest.approx(1, rel=0.01)


def test_sampled_height_averages_over_the_phases_of_the_frame():
    triangle = np.array([0, 0, 0, 1, 2, 1, 0, 0, 0.0])
    assert sampled_height(triangle, 1) == 2
    assert sampled_height(triangle, 2) == pytest.approx(1.5)  # (1+2)/2 whichever the phase


def test_a_spike_peaks_at_a_quarter_of_its_transient():
    for seed in range(20):
        instant = VoltageSettings(rise_ms=(0.01, 0.01), decay_ms=(0.4, 0.5), slow_fraction=(0.0, 0.0))
        spike = spike_transient(5000.0, instant, np.random.default_rng(seed))
        assert abs(spike.argmax() / len(spike) - 0.25) < 0.01


def test_coloured_noise_falls_as_it_should():
    noise = coloured_noise(2**16, 1000.0, 5.0, 1.0, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(2**16, 1e-3)
    low, high = (power[(frequency > f / 1.2) & (frequency < f * 1.2)].mean() for f in (50, 200))
    assert low / high == pytest.approx(16, rel=0.2)  # 1/f²
    assert noise.std() == pytest.approx(1)


def test_bleaching_begins_at_one_and_only_falls():
    time = np.arange(1000) / 50
    left = bleaching(time, VoltageSettings(bleaching=(0.5, 0.5)), np.random.default_rng(0))
    assert left[0] == 1
    assert np.all(np.diff(left) < 0)
    assert left[-1] > 0.5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0, 1.0, 500.0), "num_traces"), ((1, 0.0, 500.0), "duration_s"), ((1, 1.0, 0.0), "sampling_frequency")],
)
def test_impossible_traces_are_refused(arguments, named):
    with pytest.raises(ValueError, match=named):
        simulate_voltage(*arguments)
    with pytest.raises(ValueError, match="polarity"):
        simulate_voltage(1, 1.0, 500.0, polarity="up")
