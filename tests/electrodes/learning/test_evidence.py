import numpy as np
import torch
from test_learn import BEFORE, FS, NUM_CHANNELS, SETTINGS, WIDTH, record, waveform

from dlvolt.electrodes.learning import Decoys, Matcher, Matchers, Units
from dlvolt.electrodes.learning.sample import collect

NOISE = waveform(0, 4.0, phase=3.0)  # nothing fires so


def units_of(waveforms, rate_hz=15.0):
    return Units.new(waveforms)._replace(
        rates=torch.full((len(waveforms),), rate_hz / FS), spreads=torch.full((len(waveforms),), 0.05)
    )


def evidence(units, chunks, which=None):
    which = torch.ones(len(units.moved), dtype=torch.bool) if which is None else which
    elsewhere = torch.arange(NUM_CHANNELS).roll(NUM_CHANNELS // 2)
    decoys = Decoys(units, which, SETTINGS, elsewhere, "cpu")
    nearby = torch.ones(NUM_CHANNELS, NUM_CHANNELS, dtype=torch.bool)
    matchers = Matchers(units, SETTINGS, "cpu")
    return collect(chunks, [0] * len(chunks), matchers, nearby, 1, decoys, list(range(len(chunks)))).evidence


def normed(waveforms, norm):
    return waveforms * (norm / waveforms.flatten(1).norm(dim=1))[:, None, None]


def test_noise_makes_a_unit_that_decoys_match_and_neurons_do_not():
    neurons = normed(torch.stack([waveform(2, 1.0), waveform(5, 1.0, phase=6.0)]), 9.0)
    chunks, truth = record(neurons, num_chunks=6)
    units = units_of(torch.cat([neurons, NOISE[None] * 4.3 / NOISE.norm()]))
    units.rates[2] = 100 / FS  # as of units that noise makes
    found = evidence(units, chunks)
    assert torch.all(found.false_discovery_rates[:2] < 0.02)
    assert found.false_discovery_rates[2] > 0.6
    assert found.is_noise().tolist() == [False, False, True]
    spikes = torch.bincount(torch.cat([events.units for events in truth]), minlength=2)
    np.testing.assert_allclose(found.events[:2], spikes, rtol=0.06)


def test_rates_are_those_of_false_events():
    estimated, true = [], []
    for seed, norm in enumerate((4.6, 5.2, 6.0)):
        neurons = normed(torch.stack([waveform(1, 1.0), waveform(4, 1.0, phase=6.0)]), norm)
        chunks, truth = record(neurons, num_chunks=24, rate_hz=6.0, seed=seed)
        units = units_of(neurons, rate_hz=60.0)  # a lower threshold, so that noise has its share
        estimated += evidence(units, chunks).false_discovery_rates.tolist()
        true += false_shares(units, chunks, truth)
    assert max(true) > 0.05
    assert abs(np.mean(estimated) - np.mean(true)) < 0.05  # the most successful of three kinds errs upwards


def false_shares(units, chunks, truth):
    """Share of the events of each unit that have no true spike of the unit within half a millisecond."""
    matcher, wrong = Matcher(units, SETTINGS, "cpu"), []
    for chunk, true in zip(chunks, truth, strict=True):
        events = matcher.pursue(chunk)
        near = (events.times[:, None] - true.times).abs() <= FS / 2000
        same = events.units[:, None] == true.units
        wrong.append(torch.stack([events.units, ~(near & same).any(dim=1)]))
    units_found, is_wrong = torch.cat(wrong, dim=1)
    return [float(is_wrong[units_found == unit].double().mean()) for unit in range(len(units.moved))]


def test_only_those_that_are_asked_for_have_decoys():
    neurons = normed(torch.stack([waveform(2, 1.0), waveform(5, 1.0)]), 9.0)
    chunks, _ = record(neurons, num_chunks=1)
    units = units_of(torch.cat([neurons, NOISE[None] * 4.3 / NOISE.norm()]))
    found = evidence(units, chunks, torch.tensor([True, True, False]))
    assert found.decoys[2] == 0


def test_what_is_left_of_a_large_spike_counts_for_nobody():
    large = waveform(2, 40.0)
    echo = torch.zeros(NUM_CHANNELS, WIDTH)
    echo[2, BEFORE + 20 :] = 3.0 * torch.sin(torch.arange(WIDTH - BEFORE - 20) / 3.0)
    echo = echo.roll(-20, dims=1)
    chunks, _ = record(large[None] + echo.roll(20, dims=1)[None], num_chunks=4)
    found = evidence(units_of(torch.stack([large, echo])), chunks)
    assert found.events[0] > 50
    assert found.events[1] < 0.2 * found.events[0]


def test_silence_has_no_evidence():
    neurons = normed(torch.stack([waveform(2, 1.0)]), 9.0)
    found = evidence(units_of(neurons), [torch.zeros(NUM_CHANNELS, int(FS))])
    assert found.events.tolist() == found.decoys.tolist() == [0]
    assert found.false_discovery_rates.tolist() == [0.0]
