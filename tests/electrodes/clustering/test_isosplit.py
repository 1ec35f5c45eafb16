import numpy as np
import pytest

from dlvolt.electrodes.clustering.isosplit import is_unimodal, isosplit_recursive, principal_components, split_locally


def blobs(rng, centres, size=200):
    return np.concatenate([rng.normal(size=(size, len(centre))) + centre for centre in centres])


@pytest.mark.parametrize("num_clusters", [1, 2, 4])
def test_recursive_isosplit_finds_well_separated_clusters(num_clusters):
    rng = np.random.default_rng(0)
    centres = 12 * np.eye(6)[:num_clusters]
    labels = isosplit_recursive(blobs(rng, centres))
    truth = np.repeat(np.arange(num_clusters), 200)
    pairs = np.unique(np.stack([truth, labels]), axis=1)
    assert pairs.shape[1] == num_clusters  # one label for each cluster, and the other way round


def test_recursion_splits_what_the_first_components_hide():
    rng = np.random.default_rng(1)
    loud = np.repeat(np.eye(10)[:9] * 300, 100, axis=0)  # nine clusters take all eight components,
    quiet = np.tile(np.repeat([[0, 8]], 50, axis=0).ravel(), 9)  # and each of them is two, along one more axis
    points = loud + rng.normal(size=loud.shape)
    points[:, 9] += quiet
    assert isosplit_recursive(points, depth=0).max() + 1 == 9
    assert isosplit_recursive(points, depth=1).max() + 1 == 18


def test_principal_components_span_what_svd_spans():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(50, 7)) * np.arange(1, 8)
    u, s, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    assert np.allclose(np.abs(principal_components(points, 3)), np.abs(u * s)[:, :3])
    assert principal_components(points, 20).shape == (50, 7)


def test_is_unimodal_tells_one_cluster_cut_in_two_from_two_clusters():
    rng = np.random.default_rng(3)
    one = rng.normal(size=(400, 5))
    left = one[:, 0] < 0.3
    assert is_unimodal(one[left], one[~left])
    assert not is_unimodal(one, one + 6 * np.eye(5)[0])


def test_split_locally_shares_no_label_between_channels_and_gives_up_small_clusters():
    rng = np.random.default_rng(4)
    peaks = np.zeros(430, dtype=[("channel_index", int)])
    peaks["channel_index"][200:400] = 2
    peaks["channel_index"][400:] = 1  # 30 peaks only
    neighbours = np.abs(np.subtract.outer(np.arange(3), np.arange(3))) <= 1
    features = rng.normal(size=(430, 2, 3)).astype("float32")
    features[:100] += 10
    labels = split_locally(peaks, features, neighbours, min_size=50)
    assert sorted(np.bincount(labels + 1)) == [30, 100, 100, 200]
    assert set(labels[400:]) == {-1}
    assert not set(labels[:200]) & set(labels[200:400])


def test_split_locally_clusters_all_channels_at_once_where_all_see_each_other():
    rng = np.random.default_rng(5)
    peaks = np.zeros(200, dtype=[("channel_index", int)])
    peaks["channel_index"] = rng.integers(0, 4, 200)  # one unit, whose largest channel is anyone's guess
    labels = split_locally(peaks, rng.normal(size=(200, 2, 4)), np.ones((4, 4), dtype=bool), min_size=10)
    assert set(labels) == {0}


def test_no_peaks_no_labels():
    none = np.zeros(0, dtype=[("channel_index", int)])
    assert len(split_locally(none, np.zeros((0, 3, 2)), np.eye(2, dtype=bool), min_size=10)) == 0


def test_points_that_occur_twice_do_not_hang():
    rng = np.random.default_rng(6)
    for size in range(10, 40):
        once = rng.normal(size=(size, 1)) * 6
        assert len(isosplit_recursive(np.concatenate([once, once]))) == 2 * size
    assert isosplit_recursive(np.ones((60, 3))).max() == 0
