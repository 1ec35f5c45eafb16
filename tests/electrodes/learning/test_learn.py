import numpy as np
import pytest
import torch

from dlvolt.deconvolution import Events, low_rank, shift_bank, synthesize
from dlvolt.electrodes.learning import (
    Decoys,
    LearningSettings,
    Matcher,
    Matchers,
    Units,
    alignment,
    learn_units,
)
from dlvolt.electrodes.learning.learn import in_few_places
from dlvolt.electrodes.learning.sample import collect
from dlvolt.electrodes.learning.shadows import shadows_of

FS = 30000.0
NUM_CHANNELS, WIDTH, BEFORE = 6, 60, 20
SETTINGS = LearningSettings(rank=3, num_before=BEFORE, amplitude_range=(0.7, 1.3), separation=30)


def waveform(channel, scale, phase=0.0, spread=1.0):
    t = torch.arange(WIDTH) - BEFORE
    time = -torch.exp(-((t / 5) ** 2)) + 0.5 * torch.exp(-(((t - 10 - phase) / 7) ** 2))
    space = torch.exp(-(((torch.arange(NUM_CHANNELS) - channel) / spread) ** 2))
    return scale * space[:, None] * time


def record(waveforms, num_chunks=8, rate_hz=15.0, seed=0, refractory=0):
    """Chunks of one second with spikes of every unit at random times and sub-sample shifts; also their truth.

    No spike follows another of its unit within the refractory period, in samples.
    """
    generator = torch.Generator().manual_seed(seed)
    num_units, num_samples = len(waveforms), int(FS)
    templates, norms = low_rank(waveforms, rank=1), waveforms.flatten(1).norm(dim=1)  # `waveform` is of rank 1
    chunks, truth = [], []
    for _ in range(num_chunks):
        size = (int(rate_hz) * num_units,)
        times = torch.randint(0, num_samples - WIDTH, size, generator=generator).sort().values
        units = torch.randint(0, num_units, size, generator=generator)
        for unit in range(num_units):
            own = torch.nonzero(units == unit)[1:, 0]
            times[own] += refractory * torch.arange(len(own))  # as if the clock stood still after each spike
        times = times.clamp(max=num_samples - WIDTH)
        shifts = torch.randint(0, 7, size, generator=generator)
        amplitudes = norms[units] * (1 + 0.05 * torch.randn(size, generator=generator))
        events = Events(times, units, amplitudes, shifts)
        noise = torch.randn(NUM_CHANNELS, num_samples, generator=generator)
        chunks.append(synthesize(events, templates, num_samples) + noise)
        truth.append(events)
    return chunks, truth


def learn(chunks, start, num_sweeps=4):
    return learn_units(chunks, Units.new(start), SETTINGS, FS, num_sweeps, device="cpu").waveforms


def matches(learnt, true):
    """Relative distance of each true waveform to the closest learnt one, at the best shift."""
    both = torch.cat([true, learnt])
    return alignment(both).distances[: len(true), len(true) :].min(dim=1).values


TRUE = torch.stack([waveform(1, 25.0), waveform(4, 12.0, phase=6.0), waveform(3, 40.0, spread=1.6)])


def test_noisy_start_becomes_the_true_waveforms():
    chunks, _ = record(TRUE)
    noise = torch.randn(TRUE.shape, generator=torch.Generator().manual_seed(1))
    start = TRUE + 0.05 * TRUE.abs().amax(dim=(1, 2), keepdim=True) * noise
    assert matches(start, TRUE).min() > 0.2
    learnt = learn(chunks, start)
    assert len(learnt) == 3
    assert matches(learnt, TRUE).max() < 0.1


def test_a_unit_started_twice_half_a_sample_apart_is_merged():
    chunks, _ = record(TRUE)
    again = shift_bank(TRUE[:1])[-1]  # 0.43 samples later
    learnt = learn(chunks, torch.cat([TRUE, again]))
    assert len(learnt) == 3
    assert matches(learnt, TRUE).max() < 0.1


def test_a_large_unit_has_back_what_a_small_one_took_of_it():
    units = torch.stack([waveform(2, 60.0), waveform(3, 15.0, phase=6.0)])
    chunks, _ = record(units)
    start = torch.stack([units[0] - units[1], units[1]])  # with each large spike the small unit is seen to fire
    learnt = learn(chunks, start)
    assert len(learnt) == 2
    assert matches(learnt, units).max() < 0.1


def test_two_units_started_as_one_are_split():
    close = torch.stack([waveform(2, 30.0), waveform(2, 30.0, phase=5.0, spread=1.3)])
    chunks, _ = record(close)
    learnt = learn(chunks, close.mean(dim=0, keepdim=True))
    assert len(learnt) == 2
    assert matches(learnt, close).max() < 0.1


def test_two_small_units_that_look_like_one_are_told_apart_by_their_refractory_periods():
    like = torch.stack([waveform(2.0, 2.6, spread=1.3), waveform(2.6, 2.6, spread=1.3)])
    assert (like[0] - like[1]).norm() < 4  # noise standard deviations
    mean = like.mean(dim=0, keepdim=True)
    with_periods, _ = record(like, num_chunks=60, rate_hz=20.0, refractory=80)
    assert len(learn(with_periods, mean, num_sweeps=1)) == 2
    without, _ = record(like, num_chunks=60, rate_hz=20.0)
    assert len(learn(without, mean, num_sweeps=1)) == 1


def test_units_of_one_shape_and_two_sizes_stay_two():
    sizes = torch.stack([waveform(2, 15.0), waveform(2, 30.0)])
    chunks, _ = record(sizes)
    learnt = learn(chunks, sizes)
    assert sorted(round(float(norm) / float(sizes[0].norm()), 1) for norm in learnt.flatten(1).norm(dim=1)) == [1, 2]


def test_units_that_never_fire_are_dropped_and_none_may_be_left():
    chunks = [torch.randn(NUM_CHANNELS, int(FS), generator=torch.Generator().manual_seed(2))]
    assert learn(chunks, TRUE).shape == (0, NUM_CHANNELS, WIDTH)


def test_shadows_fall_on_the_small_events_beside_large_ones():
    events = Events(
        times=torch.tensor([5000, 100, 110, 300, 390, 395]),
        units=torch.tensor([0, 0, 1, 1, 2, 0]),
        amplitudes=torch.ones(6),
    )
    casts = torch.tensor([[False, True, False], [False, False, False], [False, False, False]])
    in_shadow, counts = shadows_of(events, casts, width=60)
    assert in_shadow.tolist() == [False, False, True, False, False, False]
    assert counts.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_what_a_large_unit_leaves_is_no_unit():
    chunks, _ = record(TRUE[:1])
    echo = 0.15 * TRUE[:1].roll(3, dims=2)  # of a template that is learnt badly
    assert len(learn(chunks, torch.cat([0.9 * TRUE[:1], echo]))) == 1


def test_a_unit_beside_a_much_larger_one_is_kept():
    small = torch.stack([waveform(1, 60.0), waveform(2, 5.0, phase=4.0)])
    chunks, _ = record(small)
    learnt = learn(chunks, small + 0.02 * torch.randn(small.shape, generator=torch.Generator().manual_seed(3)))
    assert matches(learnt, small).max() < 0.15


def test_artefacts_do_not_change_a_template():
    chunks, truth = record(TRUE[:1])
    for chunk, events in zip(chunks, truth, strict=True):
        chunk[:, events.times[0] : events.times[0] + 20] += 500.0
    learnt = learn(chunks, TRUE[:1])
    assert matches(learnt, TRUE[:1]).max() < 0.05


@pytest.mark.parametrize("lag", [0, 3, -4])
@pytest.mark.parametrize("shift", [1, 3, 6])
def test_alignment_finds_lag_and_shift(lag, shift):
    late = shift_bank(TRUE[0])[shift].roll(lag, dims=1)
    _, distances, lags, shifts = alignment(torch.stack([TRUE[0], late]))
    assert distances[0, 1] < 0.01
    assert (lags[0, 1], shifts[0, 1]) == (lag, shift)


def test_matcher_finds_the_spikes_of_overlapping_units():
    chunks, truth = record(TRUE, num_chunks=2)
    matcher = Matcher(Units.new(TRUE), SETTINGS, device="cpu")
    for chunk, events in zip(chunks, truth, strict=True):
        found = matcher.pursue(chunk)
        for unit in range(3):
            expected = events.times[events.units == unit].numpy()
            times = found.times[found.units == unit].numpy()
            near = np.abs(expected[:, None] - times[None]).min(axis=1) <= 1
            # spikes of one unit closer than the refractory period cannot both be found
            assert near.mean() > 0.9
            assert len(times) <= len(expected) + 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_matcher_takes_and_gives_cpu_tensors_whatever_its_device():
    (chunk,), _ = record(TRUE, num_chunks=1)
    on_cpu, on_cuda = (Matcher(Units.new(TRUE), SETTINGS, device=device).pursue(chunk) for device in ("cpu", "cuda"))
    assert on_cuda.times.device.type == "cpu"
    assert torch.equal(on_cuda.times, on_cpu.times)
    assert torch.equal(on_cuda.units, on_cpu.units)


def test_the_channels_of_all_units_are_in_one_order():
    chunks, _ = record(TRUE, num_chunks=1)
    nearby = (torch.arange(NUM_CHANNELS)[:, None] - torch.arange(NUM_CHANNELS)).abs() <= 1
    units = Units.new(TRUE)
    decoys = Decoys(units, torch.zeros(len(TRUE), dtype=torch.bool), SETTINGS, None, "cpu")
    sample = collect(chunks, [0], Matchers(units, SETTINGS, "cpu"), nearby, 1, decoys, [])
    assert (sample.channels.diff(dim=1) > 0).all()


def test_a_unit_started_twice_on_other_channels_is_merged():
    chunks, _ = record(TRUE)
    again = TRUE[2:].clone()
    again[:, :2] = 0  # of which the first channels are not known
    learnt = learn(chunks, torch.cat([TRUE, again]))
    assert len(learnt) == 3


@pytest.mark.parametrize(
    ("places", "share", "expected"),
    [
        ([0] * 12, 0.25, [0, 4, 8]),
        ([0] * 3, 2.0, [0, 1, 2]),
        ([0, 0, 1, 1, 1, 1, 2], 0.3, [2, 4]),
        ([0, 0, 1, 1, 1, 2], 0.8, [0, 1, 2, 3, 4]),
        ([0, 1], 0.01, [0]),
    ],
)
def test_decoys_are_counted_in_as_few_places_as_will_do(places, share, expected):
    assert in_few_places(places, share) == expected
