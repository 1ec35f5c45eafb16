"""The matching engine: its spikes do not depend on how the recording is cut into chunks."""

import numpy as np
import pytest
import spikeinterface.full as si
from probeinterface import generate_linear_probe
from spikeinterface.sortingcomponents.matching import find_spikes_from_templates
from spikeinterface.sortingcomponents.matching.method_list import matching_methods

RATE = 20000.0
NUM_BEFORE, WIDTH = 20, 60
CHUNK = 2000
NUM_SAMPLES, NUM_CROWDED = 40 * CHUNK, 6 * CHUNK
METHOD = dict(noise_levels=np.ones(4), amplitude_range=(0.7, 1.3), firing_rates=3e-4)  # an event costs 18 nats


@pytest.fixture(scope="module")
def templates():
    """Three biphasic units on four channels."""
    time = np.arange(WIDTH) - NUM_BEFORE
    slow = np.exp(-(((time - 14) / 9.0) ** 2))
    pulses = [-np.exp(-((time / width) ** 2)) + 0.4 * slow for width in (3.0, 4.5, 3.5)]
    footprints = np.array([[12.0, 6.0, 2.0, 0.0], [2.0, 10.0, 6.0, 0.0], [0.0, 4.0, 8.0, 11.0]])
    waveforms = np.stack([np.outer(*pair) for pair in zip(pulses, footprints, strict=True)])  # K×D×N
    return as_templates(waveforms)


def as_templates(waveforms):
    probe = generate_linear_probe(4, ypitch=20)
    probe.set_device_channel_indices(range(4))
    return si.Templates(
        templates_array=waveforms.astype("float32"),
        sampling_frequency=RATE,
        nbefore=NUM_BEFORE,
        channel_ids=np.arange(4),
        unit_ids=np.arange(len(waveforms)),
        probe=probe,
        is_in_uV=False,
    )


def recording_with(templates, samples, units, folder, num_samples=NUM_SAMPLES):
    """White noise of variance 1, and a spike of these units at each of these samples."""
    traces = np.random.default_rng(0).normal(size=(num_samples, 4)).astype("float32")
    for sample, unit in zip(samples, units, strict=True):
        start = sample - NUM_BEFORE
        first, last = max(0, -start), min(WIDTH, num_samples - start)
        traces[start + first : start + last] += templates.templates_array[unit][first:last]
    recording = si.NumpyRecording(traces, RATE, channel_ids=np.arange(4))
    recording.set_probe(templates.probe)
    return recording.save(folder=folder, verbose=False)


def match(recording, templates, chunk_size, **job_kwargs):
    job_kwargs = dict(n_jobs=1, chunk_size=chunk_size, progress_bar=False) | job_kwargs
    spikes = find_spikes_from_templates(
        recording, templates, method="dlvolt", method_kwargs=METHOD, job_kwargs=job_kwargs
    )
    return spikes[np.lexsort((spikes["cluster_index"], spikes["sample_index"]))]


def assert_same(spikes, expected):
    for field in ("sample_index", "cluster_index", "channel_index", "segment_index"):
        np.testing.assert_array_equal(spikes[field], expected[field])
    np.testing.assert_allclose(spikes["amplitude"], expected["amplitude"], rtol=3e-3)


@pytest.fixture(scope="module")
def at_borders(templates, tmp_path_factory):
    """A spike at every distance from a border, some with a spike of another unit in its way."""
    offsets = np.concatenate([np.arange(-60, 61, 4), [-1, 0, 1]])
    borders = CHUNK * (1 + np.arange(len(offsets)))
    samples, units = borders + offsets, np.arange(len(offsets)) % 3
    others = np.flatnonzero(np.arange(len(offsets)) % 2)
    samples = np.concatenate([samples, samples[others] + 23])
    units = np.concatenate([units, (units[others] + 1) % 3])
    order = np.argsort(samples)
    samples, units = samples[order], units[order]
    return recording_with(templates, samples, units, tmp_path_factory.mktemp("borders") / "r"), samples, units


@pytest.mark.parametrize("chunk_size", [CHUNK, 1000, 777, NUM_SAMPLES])
def test_spikes_at_chunk_borders_are_found_once(templates, at_borders, chunk_size):
    recording, samples, units = at_borders
    spikes = match(recording, templates, chunk_size)
    np.testing.assert_array_equal(spikes["cluster_index"], units)
    assert np.abs(spikes["sample_index"] - samples).max() <= 1
    np.testing.assert_allclose(spikes["amplitude"], 1, atol=0.25)
    assert_same(spikes, match(recording, templates, NUM_SAMPLES))


@pytest.mark.parametrize("pool_engine", ["thread", "process"])
def test_workers_find_the_same(templates, at_borders, pool_engine):
    recording, _, _ = at_borders
    spikes = match(recording, templates, CHUNK, n_jobs=2, pool_engine=pool_engine)
    np.testing.assert_array_equal(spikes, match(recording, templates, CHUNK))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Eight units of either sign that nearly always overlap: their recording, templates and spikes in one piece."""
    rng = np.random.default_rng(1)
    time = np.arange(WIDTH) - NUM_BEFORE
    pulses = [
        rng.uniform(0, 0.75) * np.exp(-(((time - rng.uniform(8, 20)) / rng.uniform(5, 10)) ** 2))
        - np.exp(-((time / rng.uniform(2, 5)) ** 2))
        for _ in range(8)
    ]
    waveforms = np.stack([np.outer(pulse, rng.normal(size=4)) for pulse in pulses])
    templates = as_templates(15 * waveforms / np.linalg.norm(waveforms, axis=(1, 2), keepdims=True))
    trains = [np.cumsum(rng.integers(25, 200, size=NUM_CROWDED // 100)) for _ in range(8)]
    samples, units = np.concatenate(trains), np.repeat(np.arange(8), NUM_CROWDED // 100)
    inside = samples < NUM_CROWDED - WIDTH
    folder = tmp_path_factory.mktemp("crowd") / "r"
    recording = recording_with(templates, samples[inside], units[inside], folder, NUM_CROWDED)
    whole = match(recording, templates, NUM_CROWDED)
    assert len(whole) > 0.7 * inside.sum()
    return recording, templates, whole


@pytest.mark.parametrize("chunk_size", [CHUNK, 777])
def test_crowded_spikes_do_not_depend_on_the_chunks(crowd, chunk_size):
    recording, templates, whole = crowd
    assert_same(match(recording, templates, chunk_size), whole)


def test_no_templates(templates, at_borders):
    recording, _, _ = at_borders
    with pytest.raises(ValueError, match="templates"):
        matching_methods["dlvolt"](recording, templates=as_templates(templates.templates_array[:0]))


def test_segments_and_ends(templates, tmp_path):
    """Templates that hang over an end of the recording are found where the peak is inside, never outside."""
    samples, units = np.array([NUM_BEFORE, 5000, NUM_SAMPLES - WIDTH + NUM_BEFORE]), np.array([0, 1, 2])
    recording = recording_with(templates, samples, units, tmp_path / "recording")
    spikes = match(si.append_recordings([recording, recording]), templates, CHUNK)
    spikes = spikes[np.lexsort((spikes["sample_index"], spikes["segment_index"]))]
    np.testing.assert_array_equal(spikes["segment_index"], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(spikes["cluster_index"], [0, 1, 2, 0, 1, 2])
    assert np.abs(spikes["sample_index"] - np.tile(samples, 2)).max() <= 1


def test_refractory_period_and_amplitude_range(templates, tmp_path):
    recording = recording_with(templates, [1000, 1010, 3000, 3300], [0, 0, 1, 1], tmp_path / "recording")
    spikes = match(recording, templates, NUM_SAMPLES)
    assert spikes["cluster_index"].tolist().count(1) == 2
    for unit in range(3):
        assert np.all(np.diff(spikes["sample_index"][spikes["cluster_index"] == unit]) >= 20)  # 1 ms
    assert np.all((spikes["amplitude"] >= 0.7 - 1e-6) & (spikes["amplitude"] <= 1.3 + 1e-6))


def test_noise_levels_are_estimated_where_none_are_given(templates, at_borders):
    recording, _, units = at_borders
    louder = si.scale(recording, gain=3.0)
    louder_templates = as_templates(3 * templates.templates_array)
    spikes = find_spikes_from_templates(
        louder, louder_templates, method="dlvolt", method_kwargs={}, job_kwargs=dict(n_jobs=1)
    )
    np.testing.assert_array_equal(np.sort(spikes["cluster_index"]), np.sort(units))
