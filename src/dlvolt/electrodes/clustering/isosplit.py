"""ISO-SPLIT where it works best: on the peaks near a channel, on a few principal components, and recursively.

References
----------
J. F. Magland, A. H. Barnett, "Unimodal clustering using isotonic regression: ISO-SPLIT", arXiv:1508.04841, 2015.
"""

from __future__ import annotations

import isosplit6
import numpy as np
from scipy.linalg import eigh

NUM_COMPONENTS = 8
MIN_SPLIT_SIZE = 25  # fewer points do not show two modes
MAX_DEPTH = 3
NUM_VALLEYS = 5  # places between two clusters at which a valley is looked for
SIGNIFICANT = 2.5  # standard deviations of counts by which a valley has to be deeper than by chance
NUM_ALONE = 3  # leading components that are clustered one by one if all together show a single mode


def isosplit(points: np.ndarray) -> np.ndarray:
    """Return ISO-SPLIT's labels 0, 1, … of points, shape (P, F).

    ISO-SPLIT may never end if points are equal (as in a recording played twice), so a little noise makes them differ.
    """
    spread = points.std() or 1.0
    noise = np.random.default_rng(0).normal(scale=1e-3 * spread, size=points.shape)
    return isosplit6.isosplit6(points + noise) - 1


def isosplit_recursive(features: np.ndarray, depth: int = MAX_DEPTH) -> np.ndarray:
    """Split points into unimodal clusters, then each cluster on its own principal components again.

    Parameters
    ----------
    features : np.ndarray, shape (P, F)
        Points.
    depth : int
        How many times clusters are split again; 0 for only once.

    Returns
    -------
    np.ndarray, shape (P,), int
        Labels 0, 1, …
    """
    labels = np.zeros(len(features), dtype=int)
    if len(features) < MIN_SPLIT_SIZE:
        return labels
    components = principal_components(features, NUM_COMPONENTS)
    first = isosplit(components)
    for component in components[:, :NUM_ALONE].T:  # shows modes that the noise of the other components hides
        if first.max() > 0:
            break
        first = isosplit(component[:, None])
    if first.max() == 0 or depth == 0:
        return first
    num_labels = 0
    for label in range(first.max() + 1):
        members = first == label
        labels[members] = num_labels + isosplit_recursive(features[members], depth - 1)
        num_labels = labels.max() + 1
    return labels


def split_locally(peaks: np.ndarray, features: np.ndarray, neighbours: np.ndarray, min_size: int) -> np.ndarray:
    """Cluster the peaks of each channel, or of all channels together if all are neighbours of each other.

    Parameters
    ----------
    peaks, features, neighbours
        As `detect_and_project` returns them; of the fields of peaks only ``channel_index`` is used.
    min_size : int
        Clusters with fewer peaks are given up.

    Returns
    -------
    np.ndarray, shape (P,), int
        Labels 0, 1, …, and -1 for peaks in no cluster. A label is never shared by two groups of channels.
    """
    groups = np.zeros(len(peaks), dtype=int) if neighbours.all() else peaks["channel_index"]
    labels = np.full(len(peaks), -1)
    num_labels = 0
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        num_channels = neighbours[group].sum()
        local = isosplit_recursive(features[members][:, :, :num_channels].reshape(len(members), -1))
        for label in range(local.max() + 1):
            cluster = members[local == label]
            if len(cluster) >= min_size:
                labels[cluster] = num_labels
                num_labels += 1
    return labels


def is_unimodal(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two clusters, of two points or more each, look like one along the line through their means.

    Else there is a valley between them. In windows as wide as a third of the distance between the medians, the valley
    holds significantly fewer points than both medians, given that counts of points vary by chance.

    Parameters
    ----------
    a, b : np.ndarray, shapes (P, F) and (Q, F)
        Points of the two clusters.

    Returns
    -------
    bool
        Also True if there are too few points to show a valley.
    """
    on_line = [np.zeros(0), np.zeros(0)]
    # The points of each half are projected on the line of the other half, which their own noise did not shape.
    for known, seen in ((0, 1), (1, 0)):
        means = [points[known::2].mean(axis=0) for points in (a, b)]
        direction = (means[1] - means[0]) / (np.linalg.norm(means[1] - means[0]) or 1.0)
        for index, points in enumerate((a, b)):
            projected = (points[seen::2] - (means[0] + means[1]) / 2) @ direction
            on_line[index] = np.concatenate([on_line[index], projected])
    low, high = sorted(np.median(points) for points in on_line)
    points, width = np.sort(np.concatenate(on_line)), (high - low) / 3

    def count(centre: np.ndarray) -> np.ndarray:
        """Return the number of points in the windows around some centres."""
        return np.searchsorted(points, centre + width / 2) - np.searchsorted(points, centre - width / 2)

    peak = count(np.array([low, high])).min()
    valley = count(np.linspace(low + width, high - width, NUM_VALLEYS)).min()
    return bool(peak - valley < SIGNIFICANT * np.sqrt(peak + valley + 1))


def principal_components(features: np.ndarray, num_components: int) -> np.ndarray:
    """Return points (P, F) on their leading principal components, shape (P, min(F, num_components)), float64."""
    centred = features - features.mean(axis=0)
    num_features = features.shape[1]
    leading = (max(0, num_features - num_components), num_features - 1)
    _, directions = eigh(centred.T.astype("float64") @ centred, subset_by_index=leading)
    return centred @ directions[:, ::-1]
