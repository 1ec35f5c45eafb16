"""Snippets as points in three dimensions, by principal components or an autoencoder."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import PCA
from skorch import NeuralNetRegressor
from torch.optim import Adam

from dlvolt.networks import Autoencoder
from dlvolt.networks.estimator import seeded

EPOCHS, BATCH_SIZE, LEARNING_RATE = 40, 256, 3e-3
LEAST = 1e-3  # least standard deviation by which a unit of the middle layer is divided, as some hardly vary
MAX_TRAINING = 20_000  # snippets that an embedding is learnt from


def embed(snippets: np.ndarray, embedding: str = "pca", num_components: int = 3, seed: int = 0) -> np.ndarray:
    """Return snippets as points in a few dimensions.

    Parameters
    ----------
    snippets : np.ndarray, shape (P, F)
        Samples of all channels of a snippet, one channel after the other.
    embedding : {"pca", "autoencoder"}
        Principal components; or the middle layer of an autoencoder that is trained on the snippets, scaled so that each
        of its units has variance 1.
    num_components : int
        Dimensions of the points, B.
    seed : int
        Same seed, same result.

    Returns
    -------
    np.ndarray, shape (P, B), float32
        The points.

    Raises
    ------
    ValueError
        If snippets are not finite, not of shape (P, F), if P or F is below B, or if the embedding is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from dlvolt.electrodes.clustering import embed
    >>> embed(np.random.default_rng(0).normal(size=(100, 42))).shape
    (100, 3)
    """
    snippets = np.asarray(snippets, dtype="float32")
    if embedding not in EMBEDDINGS:
        raise ValueError(f"embedding must be {' or '.join(map(repr, EMBEDDINGS))}, not {embedding!r}")
    if snippets.ndim != 2 or min(snippets.shape) < num_components:
        raise ValueError(
            f"snippets must be of shape (P, F), both at least the {num_components} components, not {snippets.shape}"
        )
    if not np.isfinite(snippets).all():
        raise ValueError("snippets: some samples are NaN or infinite; fill them (dlvolt.preprocessing.fill_nan)")
    some = snippets
    if len(snippets) > MAX_TRAINING:
        some = np.random.default_rng(seed).choice(snippets, MAX_TRAINING, replace=False)
    return EMBEDDINGS[embedding](some, snippets, num_components, seed).astype("float32")


def by_pca(some: np.ndarray, snippets: np.ndarray, num_components: int, seed: int) -> np.ndarray:
    """Return the scores on the principal components of some snippets, shape (P, B)."""
    with np.errstate(invalid="ignore"):  # PCA divides by the variance, which is 0 if all snippets are equal
        return PCA(num_components, svd_solver="covariance_eigh").fit(some).transform(snippets)


def by_autoencoder(some: np.ndarray, snippets: np.ndarray, num_components: int, seed: int) -> np.ndarray:
    """Return the middle layer of an autoencoder trained on some snippets, shape (P, B)."""
    scale = float(some.std()) or 1.0
    network = NeuralNetRegressor(
        Autoencoder,
        module__num_features=snippets.shape[1],
        module__num_components=num_components,
        optimizer=Adam,
        lr=LEARNING_RATE,
        max_epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    with seeded(seed):
        network.fit(some / scale, some / scale)
    with torch.inference_mode():
        points = network.module_.eval().encoder(torch.from_numpy(snippets / scale)).numpy()
    centred = points - points.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), LEAST)


EMBEDDINGS = {"pca": by_pca, "autoencoder": by_autoencoder}
