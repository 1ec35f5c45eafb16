import numpy as np
import pytest

from dlvolt.simulation import CalciumSettings, simulate_calcium

ONE_KIND = dict(rise_s=(0.02, 0.02), decay_s=(0.5, 0.5), contrast=(0.2, 0.2), nonlinearity=(1, 1))
CLEAR = CalciumSettings(**ONE_KIND, snr=(1e6, 1e6), drift=(1e-6, 1e-6), firing_rate_hz=(0.05, 0.05))


def test_traces_are_the_seeds_whatever_else_is_simulated():
    three, times = simulate_calcium(3, 20.0, 30.0, seed=5)
    five, others = simulate_calcium(5, 20.0, 30.0, seed=5)
    assert three.shape == (600, 3)
    assert three.dtype == "float32"
    np.testing.assert_array_equal(three, five[:, :3])
    np.testing.assert_array_equal(times[2], others[2])
    assert not np.array_equal(three, simulate_calcium(3, 20.0, 30.0, seed=6)[0])


@pytest.mark.parametrize("rate", [10.0, 100.0, 600.0])
def test_a_lone_spike_has_its_contrast_rise_and_decay(rate):
    traces, spike_times = simulate_calcium(40, 30.0, rate, settings=CLEAR, seed=1)
    lone = [n for n, times in enumerate(spike_times) if len(times) == 1 and 2 < times[0] < 25]
    assert len(lone) > 5
    for n in lone:
        start = int(np.ceil(spike_times[n][0] * rate))
        relative = traces[:, n] / np.median(traces[: start - 1, n]) - 1
        assert abs(relative[: start - 1]).max() < 1e-4
        assert 0.165 < relative.max() < 0.2001  # a frame of 100 ms averages over the peak
        assert start - 1 <= relative.argmax() <= start + 0.12 * rate
        later = start + round(0.5 * rate)
        assert relative[later + round(0.5 * rate)] / relative[later] == pytest.approx(np.exp(-1), rel=0.03)


def test_firing_rates_and_noise_are_those_of_the_settings():
    settings = CalciumSettings(**ONE_KIND, snr=(2, 2), drift=(1e-6, 1e-6), firing_rate_hz=(2, 2))
    traces, spike_times = simulate_calcium(20, 60.0, 30.0, settings=settings, seed=2)
    assert np.mean([len(times) for times in spike_times]) == pytest.approx(120, rel=0.1)
    for times in spike_times:
        assert np.all(np.diff(times) >= 0)
        assert times[0] >= 0
        assert times[-1] < 60
    quiet = CalciumSettings(**ONE_KIND, snr=(2, 2), drift=(1e-6, 1e-6), firing_rate_hz=(1e-9, 1e-9))
    traces, _ = simulate_calcium(5, 60.0, 30.0, settings=quiet)
    np.testing.assert_allclose(traces.std(axis=0) / traces.mean(axis=0), 0.2 / 2, rtol=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1.0, 30.0), "num_traces: must be 1 or more, not 0"),
        ((1, 1.0, 0.0), "sampling_frequency: must be positive"),
        ((1, 0.001, 30.0), "duration_s: 0.001 s at 30.0 Hz holds no sample"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_calcium(*arguments)
