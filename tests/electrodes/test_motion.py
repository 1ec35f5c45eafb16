"""Drift: the estimate against the displacement that was simulated, and sorting with it."""

from itertools import pairwise

import numpy as np
import pytest
import spikeinterface.full as si
import torch
from spikeinterface.core.job_tools import fix_job_kwargs
from spikeinterface.core.motion import Motion
from spikeinterface.generation import generate_drifting_recording
from spikeinterface.sortingcomponents.matching import find_spikes_from_templates

from dlvolt.electrodes import stages
from dlvolt.electrodes.learning import LearningSettings, Units, learn_units
from dlvolt.electrodes.learning.sample import Snippets
from dlvolt.electrodes.learning.structure import joined
from dlvolt.electrodes.learning.update import moving_mean
from dlvolt.electrodes.motion import (
    STEP_UM,
    Drift,
    in_proportion,
    interpolation,
    kernels,
    smoothing,
    why_not,
    with_sharp_jumps,
)
from dlvolt.parameters import SorterParameters

DURATION, RATE = 31.0, 12000.0
PROBE = dict(num_columns=2, num_contact_per_column=[16, 16], xpitch=20, ypitch=20, y_shift_per_column=[0, 10])
ZIGZAG = dict(drift_mode="zigzag", non_rigid_gradient=None, t_start_drift=5.0, t_end_drift=None, period_s=30)
STEPS_PER_S = 5.0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Ten units on 32 contacts: a static and a drifting recording, their sorting, and the displacement."""
    static, drifting, sorting, truth = generate_drifting_recording(
        num_units=10,
        duration=DURATION,
        sampling_frequency=RATE,
        generate_probe_kwargs=PROBE,
        generate_displacement_vector_kwargs=dict(
            displacement_sampling_frequency=STEPS_PER_S,
            drift_start_um=[0, 20],
            drift_stop_um=[0, -20],
            drift_step_um=2,
            motion_list=[ZIGZAG],
        ),
        generate_sorting_kwargs=dict(firing_rates=(6.0, 12.0), refractory_period_ms=4.0),
        generate_noise_kwargs=dict(noise_levels=7.0),
        extra_outputs=True,
        seed=5,
    )
    folder = tmp_path_factory.mktemp("drift")
    static, drifting = (
        recording.astype("float32").save(folder=folder / name, verbose=False, chunk_duration=f"{DURATION}s")
        for name, recording in (("static", static), ("drifting", drifting))
    )
    return static, drifting, sorting, truth["displacement_vectors"][:, 1, 0]


def find_peaks(recording):
    """The whitened recording, and the peaks in it."""
    p, job_kwargs = SorterParameters(), fix_job_kwargs({})
    finite = stages.set_aside(recording, p, job_kwargs)
    whitened = stages.preprocess(finite, p)
    sample = stages.take_sample(whitened, finite.artefacts, p.learning_duration_s, job_kwargs)
    shape = stages.find_shape(whitened, sample, p)
    return whitened, stages.detect(whitened, finite.artefacts, shape, p, job_kwargs)


@pytest.fixture(scope="module")
def drifting(simulated):
    return find_peaks(simulated[1])


def test_finds_the_displacement(simulated, drifting):
    _, recording, _, true = simulated
    drift = stages.find_drift(*drifting, SorterParameters())
    times = np.arange(1.0, DURATION - 1, 1.0)
    found = drift.displacements[drift.places(recording, (times * RATE).astype(int))]
    error = found - true[(times * STEPS_PER_S).astype(int)]
    error -= np.median(error)  # where zero is, nothing tells
    assert np.sqrt(np.mean(error**2)) < 2.5  # of a range of 39 µm, seen by ten units
    assert "moves by" in drift.remark


def test_stays_off_where_nothing_moves(simulated):
    drift = stages.find_drift(*find_peaks(simulated[0]), SorterParameters())
    assert drift.motion is None
    assert "µm only" in drift.remark


def test_can_be_turned_off(drifting):
    assert stages.find_drift(*drifting, SorterParameters(motion_correction=False)).motion is None


def test_too_few_peaks_show_no_motion(drifting):
    recording, found = drifting
    few = found._replace(peaks=found.peaks[::20], features=found.features[::20])
    drift = stages.find_drift(recording, few, SorterParameters())
    assert drift.motion is None
    assert "too few peaks" in drift.remark


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda recording: recording.select_channels(recording.channel_ids[:20]), "channels"),
        (lambda recording: recording.frame_slice(0, int(10 * RATE)), "lasts less"),
        (lambda recording: si.append_recordings([recording, recording]), "several segments"),
        (lambda recording: with_locations(recording, 0.5), "shorter"),
        (lambda recording: with_locations(recording, 10.0), "gaps"),
    ],
)
def test_recordings_in_which_motion_is_not_looked_for(simulated, drifting, tmp_path, change, reason):
    recording = change(simulated[1])
    assert reason in why_not(recording)
    drift = stages.find_drift(recording, drifting[1], SorterParameters())
    assert drift.motion is None
    assert reason in drift.remark
    with pytest.raises(ValueError, match=f"motion_correction.*{reason}"):
        si.run_sorter("dlvolt", recording, folder=tmp_path / "sorted", motion_correction=True)


def with_locations(recording, scale):
    changed = recording.clone()
    changed.set_dummy_probe_from_locations(recording.get_channel_locations() * scale)
    return changed


@pytest.mark.parametrize("value", ["always", 1, None])
def test_wrong_values(value):
    with pytest.raises(ValueError, match="motion_correction"):
        SorterParameters(motion_correction=value)


def test_a_drifting_recording_is_sorted_better_with_than_without(simulated, tmp_path):
    _, recording, truth, _ = simulated
    accuracy = {}
    for follow in ("auto", False):
        found = si.run_sorter("dlvolt", recording, folder=tmp_path / str(follow), motion_correction=follow)
        comparison = si.compare_sorter_to_ground_truth(truth, found, exhaustive_gt=True)
        accuracy[follow] = comparison.get_performance()["accuracy"].mean()
    assert accuracy["auto"] > accuracy[False] + 0.1
    assert accuracy["auto"] > 0.8  # with other seeds 0.78 to 0.99, as two or three of the ten units are weak


TIMES = np.arange(0.5, DURATION, 1.0)
RISING = Motion([np.linspace(-9.0, 12.0, len(TIMES))[:, None]], [TIMES], np.array([100.0]))


def test_places_span_the_motion_in_small_steps(simulated):
    drift = Drift.of(RISING)
    steps = np.diff(drift.displacements)
    assert len(drift.displacements) % 2 == 1
    assert steps.max() <= STEP_UM
    np.testing.assert_allclose(steps, steps[0])
    found = drift.displacements[drift.places(simulated[1], (TIMES * RATE).astype(int))]
    assert np.abs(found - RISING.displacement[0][:, 0]).max() <= STEP_UM / 2
    np.testing.assert_array_equal(Drift.none().places(simulated[1], np.arange(3)), 0)


def test_pieces_do_not_depend_on_where_chunks_start(simulated):
    recording, drift = simulated[1], Drift.of(RISING)
    whole = drift.pieces(recording, 0, int(DURATION * RATE))
    assert whole[0][0] == 0
    assert whole[-1][1] == DURATION * RATE
    assert all(before[1] == after[0] for before, after in pairwise(whole))
    assert len({place for *_, place in whole}) == len(drift.displacements)
    for start in (0, 1234, 20_000, 33_333):
        for first, last, place in drift.pieces(recording, start, start + 40_001):
            around = [piece for piece in whole if piece[0] <= first < piece[1]]
            assert last <= around[0][1]
            assert place == around[0][2]


def test_spikes_do_not_depend_on_the_chunks(simulated):
    """Units on noise that follow a rising displacement; many are found, and the same, whatever the chunks."""
    rng = np.random.default_rng(0)
    probe, depths = simulated[0].get_probe(), simulated[0].get_channel_locations()[:, 1]
    pulse = -np.exp(-(((np.arange(48) - 16) / 3) ** 2))
    drift = Drift.of(RISING)
    moved = [
        [np.outer(12 * np.exp(-(((depths - y - m) / 30) ** 2)), pulse) for m in drift.displacements] for y in (80, 160)
    ]
    moved = np.array(moved, dtype="float32")  # K×M×N×D
    traces = rng.normal(size=(int(DURATION * RATE), 32)).astype("float32")
    silent = si.NumpyRecording(traces, RATE)
    starts = np.arange(100, len(traces) - 100, 990)
    for start, unit in zip(starts, rng.integers(0, 2, len(starts)), strict=True):
        traces[start : start + 48] += moved[unit, drift.places(silent, np.array([start]))[0]].T
    recording = silent.set_probe(probe) or silent
    templates = si.Templates(
        moved[:, len(drift.displacements) // 2].transpose(0, 2, 1),
        RATE,
        16,
        unit_ids=range(2),
        probe=recording.get_probe(),
    )
    method = dict(noise_levels=np.ones(32), drift=drift, moved=torch.from_numpy(moved))
    whole, cut = (
        find_spikes_from_templates(
            recording, templates, method="dlvolt", method_kwargs=method, job_kwargs=dict(chunk_size=chunk_size)
        )
        for chunk_size in (len(traces), 7777)
    )
    assert len(whole) == len(starts)
    np.testing.assert_allclose(whole["sample_index"], starts + 16, atol=1)
    np.testing.assert_array_equal(whole["sample_index"], cut["sample_index"])
    np.testing.assert_array_equal(whole["cluster_index"], cut["cluster_index"])


@pytest.mark.parametrize("kernel", [interpolation, smoothing])
def test_a_footprint_that_moves_by_the_pitch_moves_by_one_contact(simulated, kernel):
    recording = simulated[0]
    depths = recording.get_channel_locations()[:, 1]
    footprint = np.exp(-(((depths - 160) / 30) ** 2))
    moved = footprint @ kernel(recording, 20.0)
    still = footprint @ kernel(recording, 0.0)
    inside = (depths > 60) & (depths < 270)
    expected = np.interp(depths - 20, np.unique(depths), [still[depths == depth].mean() for depth in np.unique(depths)])
    np.testing.assert_allclose(moved[inside], expected[inside], atol=0.05)


def test_a_waveform_that_is_not_seen_somewhere_changes_as_interpolation_has_it():
    """Many spikes in one place, none in the next: the second is the first and the change between the interpolated."""
    seen, kriged = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    squares = torch.tensor([1e9, 0.0])
    found = moving_mean(squares[:, None, None] * seen, squares, kriged)
    torch.testing.assert_close(found[0], seen[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1], seen[0] + kriged[1] - kriged[0], atol=1e-3, rtol=0)


def test_where_there_are_enough_spikes_waveforms_are_their_means():
    seen, kriged = torch.randn(2, 3, 3, 4, generator=torch.Generator().manual_seed(0))
    squares = torch.full((3,), 1e9)
    found = moving_mean(squares[:, None, None] * seen, squares, kriged)
    torch.testing.assert_close(found, seen, atol=1e-3, rtol=0)


def footprints_in_places(places):
    """Two units beside each other on twelve channels, each displaced by as many channels, shape (K, M, N, D)."""
    pulse = -torch.exp(-(((torch.arange(48) - 16) / 3) ** 2))
    depth = torch.arange(12.0)
    centres = torch.tensor([4.0, 7.0])[:, None] + torch.tensor(places)
    return 20 * torch.exp(-(((depth - centres[:, :, None]) / 1.2) ** 2))[..., None] * pulse


def learn_in_places(true, start, num_workers=1):
    generator = torch.Generator().manual_seed(0)
    places = [0] * 4 + [1] * 4 + [2] * 4
    chunks = []
    for place in places:
        chunk = torch.randn(12, 20_000, generator=generator)
        for time in range(100, 19_900, 400):
            unit = torch.randint(2, (), generator=generator)
            chunk[:, time : time + 48] += true[unit, place]
        chunks.append(chunk)
    kernels = torch.stack([torch.eye(12).roll(step, dims=1) for step in (-1, 0, 1)])  # whole channels
    settings = LearningSettings(rank=3, num_before=16, amplitude_range=(0.5, 1.5), separation=20)
    units = Units.new(start, kernels)
    return learn_units(
        chunks, units, settings, 20_000.0, 4, device="cpu", num_workers=num_workers, places=places, kernels=kernels
    )


def test_waveforms_are_learnt_in_every_place():
    true = footprints_in_places([-1.2, 0.0, 1.2])  # not quite what interpolation says,
    true = true * torch.tensor([0.8, 1.0, 0.7])[:, None, None]  # nor of the same size
    learnt = learn_in_places(true, true[:, 1]).moved
    assert len(learnt) == 2
    order = learnt[:, 1].norm(dim=2).argmax(dim=1).argsort()
    errors = (learnt[order] - true).flatten(2).norm(dim=2) / true.flatten(2).norm(dim=2)
    assert errors.max() < 0.15


def test_what_is_learnt_does_not_depend_on_the_number_of_threads():
    true = footprints_in_places([-1.0, 0.0, 1.0])
    one, two = (learn_in_places(true, 0.9 * true[:, 1], num_workers) for num_workers in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


def test_units_that_never_meet_are_joined_and_others_are_not():
    moved = footprints_in_places([-1.0, 0.0, 1.0])[:1].repeat(2, 1, 1, 1)
    apart = [
        Snippets(torch.zeros(50, 1, 1), torch.zeros(1), torch.full((50,), place), np.zeros(50)) for place in (0, 2)
    ]
    assert len(joined(Units.new(moved[:, 1])._replace(moved=moved), apart).moved) == 1
    together = [own._replace(places=torch.arange(50) % 3) for own in apart]
    assert len(joined(Units.new(moved[:, 1])._replace(moved=moved), together).moved) == 2


def unlike(distance, *, spikes=(50, 50), rest=50):
    """Two units at this relative distance, which are never in one place, and one far from both; their snippets."""
    first, second, third = torch.zeros(3, 3, 4, 10)
    first[:, 0, 2], third[:, 3, 2] = 10.0, 10.0
    second[:, 0, 2], second[:, 1, 2] = 10 * (1 - distance**2 / 2), 10 * (1 - (1 - distance**2 / 2) ** 2) ** 0.5
    moved = torch.stack([first, second, third])
    places = [torch.zeros(spikes[0]), torch.full((spikes[1],), 2.0), torch.arange(2 * rest) % 2 * 2.0]
    snippets = [Snippets(torch.zeros(len(own), 1, 1), torch.zeros(1), own.long(), np.zeros(len(own))) for own in places]
    return Units.new(moved[:, 1])._replace(moved=moved), snippets


@pytest.mark.parametrize(
    ("distance", "spikes", "num_left"), [(0.7, (50, 50), 2), (0.7, (50, 10), 3), (0.9, (50, 50), 3)]
)
def test_counterparts_are_joined_if_they_are_as_active_and_not_too_unlike(distance, spikes, num_left):
    assert len(joined(*unlike(distance, spikes=spikes)).moved) == num_left


def in_one_place_each(points, places):
    """Units whose waveforms are points in the plane, each of which fires in one place only; their snippets."""
    moved = torch.zeros(len(points), 3, 2, 10)
    moved[:, :, :, 2] = 10 * torch.tensor(points)[:, None]
    snippets = [Snippets(torch.zeros(50, 1, 1), torch.zeros(1), torch.full((50,), k), np.zeros(50)) for k in places]
    return Units.new(moved[:, 1])._replace(moved=moved), snippets


def test_neurons_that_move_to_where_others_were_are_not_confused():
    """The closest pair, the second and the third, would leave a pair that is far apart."""
    units, snippets = in_one_place_each([(1.0, 0.0), (1.0, 0.24), (1.0, 0.38), (1.0, 0.67)], [0, 2, 0, 2])
    waveforms = joined(units, snippets).moved
    assert len(waveforms) == 2
    waveforms = waveforms[waveforms[:, 0, 1, 2].argsort(), :, 1, 2] / 10
    assert torch.allclose(waveforms[:, [0, 2]], torch.tensor([[0.0, 0.24], [0.38, 0.67]]), atol=0.02)


def test_three_parts_of_a_neuron_are_joined_before_one_of_them_finds_another():
    units, snippets = in_one_place_each([(1.0, 0.0), (1.0, 0.06), (1.0, 0.12), (1.0, 0.5)], [0, 1, 2, 0])
    waveforms = joined(units, snippets).moved
    assert len(waveforms) == 2
    assert torch.allclose(waveforms[:, 2, 1, 2].sort().values / 10, torch.tensor([0.12, 0.5]), atol=0.02)


def test_tissue_that_jumps_is_never_in_the_middle(simulated):
    recording = simulated[1]
    jumping = np.where(TIMES < 15, 0.0, 30.0)
    drift = Drift.of(Motion([jumping[:, None]], [TIMES], np.array([100.0])))
    found = drift.places(recording, np.arange(0, recording.get_num_samples(), 50))
    assert set(found) == {0, len(drift.displacements) - 1}


@pytest.mark.parametrize("moment", [30.0, 37.3, 38.9])
@pytest.mark.parametrize("mixed", [None, 11.0, 30.0])
def test_a_jump_is_when_spikes_leave_their_depths(moment, mixed):
    rng = np.random.default_rng(1)
    seconds = np.sort(rng.uniform(0, 80, 8000))
    depths = rng.choice(rng.uniform(0, 600, 25), 8000) + rng.normal(scale=3, size=8000) + 30 * (seconds > moment)
    times = np.arange(1.0, 80, 2.0)
    moved = np.where(times > moment, 30.0, 0.0)
    if mixed is not None:  # what may be found in the bin in which it jumps
        moved[np.abs(times - moment).argmin()] = mixed
    sharp = with_sharp_jumps(Motion([moved[:, None]], [times], np.array([300.0])), seconds, depths)
    found, displacement = sharp.temporal_bins_s[0], sharp.displacement[0][:, 0]
    assert np.all(np.diff(found) > 0)
    assert set(displacement) == {0.0, 30.0}
    at = np.flatnonzero(np.diff(displacement))
    assert len(at) == 1
    np.testing.assert_allclose(found[at[0] : at[0] + 2].mean(), moment, atol=0.1)


def test_motion_without_jumps_stays_as_it_is():
    depths = np.linspace(0, 500, 50)
    same = with_sharp_jumps(RISING, np.linspace(0, DURATION, 50), depths)
    np.testing.assert_array_equal(same.displacement[0], RISING.displacement[0])
    np.testing.assert_array_equal(same.temporal_bins_s[0], RISING.temporal_bins_s[0])


def test_motion_that_grows_with_depth_is_one_motion_in_proportion():
    rng = np.random.default_rng(0)
    common = np.cumsum(rng.normal(size=300))
    common -= np.median(common)
    windows, depths = np.array([100.0, 300, 500, 700, 900]), np.linspace(0, 1000, 64)
    gains = 0.2 + 1.6 * windows / 1000
    errors = np.array([0.3, 0.5, 20.0, 0.4, 0.3])  # of one window nothing is known
    found, of_channels = in_proportion(
        np.outer(common, gains) + 7 + errors * rng.normal(size=(300, 5)), windows, depths
    )
    np.testing.assert_allclose(found, common, atol=2)
    np.testing.assert_allclose(of_channels, 0.2 + 1.6 * depths / 1000, atol=0.03)


def test_motion_that_is_none_is_in_no_proportion():
    found, gains = in_proportion(np.full((9, 4), 3.0), np.arange(4.0), np.arange(5.0))
    np.testing.assert_array_equal(found, 0)
    np.testing.assert_array_equal(gains, 1)


def test_templates_move_as_far_as_the_tissue_does_at_their_depth(simulated):
    recording = simulated[1]
    depths = recording.get_channel_locations()[:, 1]
    gains = 2 * depths / depths.max()
    rigid, drift = Drift.of(RISING), Drift.of(RISING, gains)
    assert len(drift.displacements) > len(rigid.displacements)  # as many as the end that moves farthest needs
    last = drift.from_reference[-1]
    middle = np.flatnonzero(gains == gains[np.abs(gains - 1).argmin()])
    np.testing.assert_allclose(
        kernels(recording, drift)[-1][:, middle],
        interpolation(recording, last * gains[middle[0]])[:, middle],
        atol=1e-6,
    )
