import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from dlvolt.electrodes.clustering import embed
from dlvolt.networks import Autoencoder

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 200)
SHAPES = 5 * np.exp(-0.5 * ((np.arange(42) - [[10], [14], [20]]) / [[2], [4], [3]]) ** 2)
SNIPPETS = (-SHAPES[LABELS] + RNG.normal(size=(600, 42))).astype("float32")


def test_pca_is_that_of_scikit_learn():
    np.testing.assert_allclose(embed(SNIPPETS), PCA(3).fit_transform(SNIPPETS), atol=1e-3)


def test_the_autoencoder_keeps_classes_apart_and_is_the_seeds():
    points = embed(SNIPPETS, "autoencoder", seed=1)
    assert points.shape == (600, 3)
    np.testing.assert_allclose(points.std(axis=0), 1, rtol=1e-3)
    assert silhouette_score(points, LABELS) > 0.5
    np.testing.assert_array_equal(embed(SNIPPETS, "autoencoder", seed=1), points)
    np.testing.assert_allclose(embed(1e-6 * SNIPPETS, "autoencoder", seed=1), points, rtol=1e-2, atol=1e-2)


def test_the_autoencoder_is_the_published_one():
    sizes = [tuple(weights.shape) for weights in Autoencoder(42).parameters() if weights.ndim == 2]
    assert sizes == [(21, 42), (3, 21), (21, 3), (42, 21)]


@pytest.mark.parametrize("embedding", ["pca", "autoencoder"])
def test_constant_snippets_are_one_point(embedding):
    points = embed(np.ones((30, 42)), embedding)
    assert np.isfinite(points).all()
    assert np.ptp(points, axis=0).max() < 1e-3


BAD = {
    "kind": (SNIPPETS, dict(embedding="umap"), "embedding must be 'pca' or 'autoencoder', not 'umap'"),
    "few": (SNIPPETS[:2], {}, r"snippets must be of shape \(P, F\), both at least the 3 components, not \(2, 42\)"),
    "shape": (SNIPPETS[0], {}, r"snippets must be of shape \(P, F\).*not \(42,\)"),
    "NaN": (np.where(SNIPPETS > 2, np.nan, SNIPPETS), {}, "snippets: some samples are NaN or infinite"),
}


@pytest.mark.parametrize(("snippets", "kwargs", "message"), BAD.values(), ids=BAD)
def test_bad_input(snippets, kwargs, message):
    with pytest.raises(ValueError, match=message):
        embed(snippets, **kwargs)
