"""Density clustering of peaks: ``find_clusters_from_peaks(method="dlvolt-dbscan")``.

References
----------
M. Ester, H.-P. Kriegel, J. Sander, X. Xu, "A density-based algorithm for discovering clusters in large spatial
databases with noise", KDD, 1996 (section 4.2: eps from the sorted k-distances).
V. Satopää, J. Albrecht, D. Irwin, B. Raghavan, "Finding a 'kneedle' in a haystack", ICDCS Workshops, 2011.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.neighbors import NearestNeighbors
from spikeinterface.core import BaseRecording, get_channel_distances
from spikeinterface.core.node_pipeline import ExtractSparseWaveforms, PeakRetriever, run_node_pipeline

from .embedding import embed

MAX_POINTS = 20_000  # points of a group that are clustered; further points join the cluster of the nearest of these


class DbscanClustering:
    """Cluster peaks by the density of their snippets in three dimensions.

    The peaks of each channel are clustered by themselves, or those of all channels together if every channel is within
    the radius of every other. A snippet has all channels within the radius of the channel of the peak.
    """

    name = "dlvolt-dbscan"
    need_noise_levels = False
    _default_params: ClassVar = dict(
        embedding="pca",
        num_components=3,
        min_samples=10,
        radius_um=75.0,
        ms_before=0.45,
        ms_after=0.95,
        seed=0,
        verbose=False,
    )
    params_doc = """
    embedding : "pca" | "autoencoder", default: "pca"
        How snippets are made points, see `embed`.
    num_components : int, default: 3
        Dimensions of the points.
    min_samples : int, default: 10
        A point with so many points within eps, itself included, is in a cluster; eps is read off the points.
    radius_um : float, default: 75.0
        Largest distance of the channels of a snippet from the channel of the peak, in µm.
    ms_before, ms_after : float, default: 0.45, 0.95
        Extent of a snippet before and after the peak, in ms.
    seed : int, default: 0
        Same seed, same result.
    """

    @classmethod
    def main_function(
        cls,
        recording: BaseRecording,
        peaks: np.ndarray,
        params: dict[str, Any],
        job_kwargs: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Return the labels of clusters, the label of each peak (-1 for none), and more: the points and their eps.

        ``points``, shape (P, num_components), are NaN where a channel has too few peaks; ``eps`` is a dict from the
        index of a channel, or 0 for all of them, to the eps of its points.
        """
        if unknown := set(params) - set(cls._default_params):
            raise ValueError(f"method_kwargs: there is no {', '.join(sorted(unknown))}")
        min_samples, num_components = params["min_samples"], params["num_components"]
        for name in ("min_samples", "num_components"):
            if not params[name] >= 1:
                raise ValueError(f"{name} must be at least 1, not {params[name]!r}")
        labels = np.full(len(peaks), -1)
        points = np.full((len(peaks), num_components), np.nan, dtype="float32")
        eps: dict[int, float] = {}
        if len(peaks) == 0:
            return np.arange(0), labels, dict(points=points, eps=eps)
        by_time = np.lexsort((peaks["sample_index"], peaks["segment_index"]))
        source = PeakRetriever(recording, peaks[by_time])
        neighbours = get_channel_distances(recording) <= params["radius_um"]
        extent = dict(ms_before=params["ms_before"], ms_after=params["ms_after"], sparsity_mask=neighbours)
        cut = ExtractSparseWaveforms(recording, parents=[source], return_output=True, **extent)
        snippets = run_node_pipeline(recording, [source, cut], job_kwargs or {}, job_name="dlvolt: cut snippets")
        groups = np.zeros(len(peaks), dtype=int) if neighbours.all() else peaks["channel_index"][by_time]
        for group in np.unique(groups):
            members = np.flatnonzero(groups == group)
            if len(members) < max(min_samples, num_components) + 1:
                continue
            local = snippets[members][:, :, : neighbours[group].sum()].reshape(len(members), -1)
            members = by_time[members]
            points[members] = embed(local, params["embedding"], num_components, params["seed"])
            eps[int(group)], found = density_clusters(points[members], min_samples, params["seed"])
            labels[members] = np.where(found >= 0, found + labels.max() + 1, -1)
        return np.arange(labels.max() + 1), labels, dict(points=points, eps=eps)


def density_clusters(points: np.ndarray, min_samples: int, seed: int = 0) -> tuple[float, np.ndarray]:
    """Cluster points by DBSCAN with an eps that is read off the points.

    Parameters
    ----------
    points : np.ndarray, shape (P, B)
        More than `min_samples`.
    min_samples : int
        Parameter of DBSCAN.
    seed : int
        Seed of the draw of points if there are more than `MAX_POINTS`. The others join the cluster of the nearest core
        point if that is within eps.

    Returns
    -------
    eps : float
        The knee of the sorted distances to the `min_samples`-th neighbour.
    labels : np.ndarray, shape (P,), int
        0, 1, …, and -1 for noise.
    """
    some = points
    if len(points) > MAX_POINTS:
        some = np.random.default_rng(seed).choice(points, MAX_POINTS, replace=False)
    distances, _ = NearestNeighbors(n_neighbors=min_samples).fit(some).kneighbors()
    eps = knee(np.sort(distances[:, -1]))
    if eps == 0:  # so many points are equal; DBSCAN wants a positive eps
        eps = float(np.finfo("float32").eps * max(1.0, np.abs(some).max()))
    machine = DBSCAN(eps=eps, min_samples=min_samples).fit(some)
    if some is points or len(machine.components_) == 0:
        return eps, np.resize(machine.labels_, len(points))
    distance, nearest = NearestNeighbors(n_neighbors=1).fit(machine.components_).kneighbors(points)
    labels = machine.labels_[machine.core_sample_indices_][nearest[:, 0]]
    return eps, np.where(distance[:, 0] <= eps, labels, -1)


def knee(ascending: np.ndarray) -> float:
    """Return the value where an ascending curve is farthest below the chord from its first to its last point."""
    chord = np.linspace(ascending[0], ascending[-1], len(ascending))
    return float(ascending[np.argmax(chord - ascending)])
