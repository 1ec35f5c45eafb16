import numpy as np
import pytest
import spikeinterface.full as si
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN
from sklearn.metrics import adjusted_rand_score
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.sortingcomponents.clustering import find_clusters_from_peaks

from dlvolt.electrodes.clustering import dbscan, density_clusters

CENTRES = np.array([[0, 0, 0], [10, 0, 0], [0, 8, 4]])


def three_clusters(scale=1.0, each=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], each)
    return scale * (CENTRES[labels] + rng.normal(size=(3 * each, 3))).astype("float32"), labels


@given(scale=st.floats(1e-3, 1e3))
def test_eps_follows_the_scale_of_the_points(scale):
    points, labels = three_clusters(scale)
    eps, found = density_clusters(points, 10)
    assert adjusted_rand_score(labels, found) > 0.9
    assert eps == pytest.approx(scale * density_clusters(points / scale, 10)[0], rel=1e-3)


def test_eps_is_the_knee_of_the_distances_to_the_kth_neighbour():
    points, _ = three_clusters(each=60)
    distances = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, 5]  # the zeroth is itself
    curve = np.sort(distances)
    below = np.interp(np.arange(180), [0, 179], curve[[0, -1]]) - curve
    eps, labels = density_clusters(points, 5)
    assert eps == pytest.approx(curve[below.argmax()], rel=1e-5)
    np.testing.assert_array_equal(labels, DBSCAN(eps=eps, min_samples=5).fit_predict(points))


def test_many_points_join_the_clusters_of_some(monkeypatch):
    points, labels = three_clusters()
    monkeypatch.setattr(dbscan, "MAX_POINTS", 450)
    _, found = density_clusters(points, 10, seed=3)
    assert adjusted_rand_score(labels, found) > 0.9
    assert found.max() == 2
    far = np.concatenate([points, [[100, 100, 100]]])
    assert density_clusters(far, 10, seed=3)[1][-1] == -1


def test_equal_points_are_one_cluster():
    assert density_clusters(np.ones((50, 3)), 10)[1].tolist() == [0] * 50


def peaks_of(sorting):
    """Peaks at the true spikes, on the channel that is nearest to each unit."""
    spikes = sorting.to_spike_vector()
    peaks = np.zeros(len(spikes), dtype=base_peak_dtype)
    peaks["sample_index"] = spikes["sample_index"]
    peaks["channel_index"] = sorting.get_property("main_channel_index")[spikes["unit_index"]]
    return peaks, spikes["unit_index"]


@pytest.fixture(scope="module")
def tetrode():
    """Four units on four channels, filtered."""
    recording, sorting = si.generate_ground_truth_recording(
        durations=[20.0],
        num_channels=4,
        num_units=4,
        sampling_frequency=30_000.0,
        generate_probe_kwargs=dict(num_columns=2, xpitch=25, ypitch=25),
        generate_sorting_kwargs=dict(firing_rates=8.0, refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(margin_um=10.0, minimum_z=5.0, maximum_z=25.0, minimum_distance=10.0),
        seed=2,
    )
    sorting.set_property("main_channel_index", np.zeros(4, dtype=int))
    return si.bandpass_filter(recording, 300, 8000, dtype="float32").save(format="memory"), *peaks_of(sorting)


def cluster(recording, peaks, **kwargs):
    return find_clusters_from_peaks(recording, peaks, method="dlvolt-dbscan", method_kwargs=kwargs, extra_outputs=True)


@pytest.mark.parametrize("embedding", ["pca", "autoencoder"])
def test_several_neurons_on_several_channels(tetrode, embedding):
    recording, peaks, units = tetrode
    labels_set, labels, more = cluster(recording, peaks, embedding=embedding)
    assert adjusted_rand_score(units, labels) > 0.8
    assert labels_set.tolist() == list(range(labels.max() + 1))
    assert more["points"].shape == (len(peaks), 3)
    assert list(more["eps"]) == [0]  # every channel sees every other: one group
    order = np.random.default_rng(0).permutation(len(peaks))
    if embedding == "pca":
        np.testing.assert_array_equal(cluster(recording, peaks[order], embedding=embedding)[1], labels[order])


def test_channels_that_are_far_apart_are_clustered_one_by_one(tetrode):
    recording, peaks, units = tetrode
    peaks = peaks.copy()
    peaks["channel_index"] = units % 2  # as if the units had two main channels
    _, labels, more = cluster(recording, peaks, radius_um=10.0)
    assert list(more["eps"]) == [0, 1]
    shared = set(labels[peaks["channel_index"] == 0]) & set(labels[peaks["channel_index"] == 1])
    assert shared <= {-1}


@pytest.mark.parametrize("num_peaks", [0, 1, 3, 10])
def test_too_few_peaks_are_in_no_cluster(tetrode, num_peaks):
    recording, peaks, _ = tetrode
    labels_set, labels, more = cluster(recording, peaks[:num_peaks], min_samples=10)
    assert len(labels_set) == 0
    assert labels.tolist() == [-1] * num_peaks
    assert more["eps"] == {}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(min_samples=0), "min_samples must be at least 1, not 0"),
        (dict(num_components=0), "num_components must be at least 1, not 0"),
        (dict(eps=3.0), "method_kwargs: there is no eps"),
        (dict(embedding="umap"), "embedding must be 'pca' or 'autoencoder', not 'umap'"),
    ],
)
def test_bad_parameters(tetrode, kwargs, message):
    with pytest.raises(ValueError, match=message):
        cluster(*tetrode[:2], **kwargs)
