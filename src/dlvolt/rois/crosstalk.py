"""Flag spikes that belong to a neighbouring ROI, whose light leaks in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import convolve1d
from scipy.spatial import cKDTree
from scipy.stats import binom
from spikeinterface.core import BaseRecording, BaseSorting
from spikeinterface.core.node_pipeline import PipelineNode

from dlvolt.preprocessing.finite import check_polarity
from dlvolt.preprocessing.random_chunks import random_chunks
from dlvolt.robust import GAUSSIAN_MAD

from .event_labels import as_peaks, at_spikes, frames_inside, typical

COINCIDENT_MS, FLANK_MS = 1.0, (5.0, 50.0)  # spikes so close coincide; how many do by chance is seen at other lags
HEIGHT_MS = (3.0, 10.0)  # from a spike: what lies in between is its surroundings
CHANCE = 1e-3  # two ROIs leak only if they look so by chance less often
MANY = 5  # spikes; of fewer nothing is said
CLEAR = 2.0  # noise standard deviations: so much higher a spike is clearly the higher one
RARE = 0.05  # of the coincidences; if an ROI is as rarely the clearly higher one, its leak into the other is not shown
UNKNOWN_HEIGHT = 6.0  # noise standard deviations: twice the least that a network sees
ROUNDS = 5  # of telling an ROI's own spikes from the leak, and measuring the leak without them
NUM_CHUNKS, CHUNK_S = 20, 0.5  # of the recording, from which noise is estimated


class Crosstalk(NamedTuple):
    """Spikes that are cross-talk, and the leaks they come from.

    Attributes
    ----------
    is_crosstalk : np.ndarray, shape (E,), bool
        Whether a spike is a neighbour's.
    source : np.ndarray, shape (E,), int
        Channel index of the neighbour; -1 for spikes that are not flagged.
    pairs : np.ndarray, shape (P, 2), int
        Channel indices of (ROI, source): each pair of neighbours both ways.
    leak : np.ndarray, shape (P,)
        Part of the source's spike height that the ROI shows; 0 where no leak was found.
    """

    is_crosstalk: np.ndarray
    source: np.ndarray
    pairs: np.ndarray
    leak: np.ndarray


def flag_crosstalk(
    recording: BaseRecording,
    spikes: np.ndarray | BaseSorting,
    polarity: str | Sequence[str] = "positive",
    *,
    pairs: np.ndarray | None = None,
    scatter_um: float = 20.0,
    job_kwargs: dict[str, Any] | None = None,
) -> Crosstalk:
    """Find the spikes of ROIs that are a neighbour's, because masks overlap or light scatters.

    If a part c of the light of ROI b reaches ROI a, then at every spike of b, also where no spike of a was detected, a
    rises by c times what b rises. Synchrony makes a rise by its own spike height, and at some of b's spikes. With x a
    trace turned so that spikes point up, the height of a spike is ::

        H(t) = x(t) - mean{x(t + k): 3 ms ≤ |k| ≤ 10 ms}

    in a, b or, without a spike, any ROI, and it is compared between ROIs in units of their noise.

    1. Spikes of a and b coincide if they are at most 1 ms, or a frame, apart. The ROI that is clearly the higher one
       (by 2 noise standard deviations) in more coincidences is the stronger. Light leaks from it to the weaker, and
       coincident spikes are its; only if most coincidences are clear, and some the other way, light may leak both ways,
       and each coincidence is of the ROI that is higher there.
    2. h_a, a's own spike height, is the median H_a of its spikes that are not another's by step 1; if there are fewer
       than 5, it is taken to be 6 noise standard deviations.
    3. c is the median of H_a over that of H_b, at the spikes of b, without those at which a spikes itself:
       H_a - c H_b > h_a / 2. It is found by iteration, from the lowest decile of H_a. There is a leak if H_a is
       positive there (sign test), and a and b coincide more often than at lags of 5 to 50 ms (conditional test of two
       Poisson rates: Przyborowski and Wilenski, Biometrika 31, 1940), both with p < 0.001.
    4. A spike of a that coincides with one of b, and by step 1 is b's, is cross-talk if there is a leak and H_a is
       nearer to c H_b than to c H_b + h_a.

    Where a is in synchrony with nine in ten of b's spikes or more, it looks as if b leaked.

    Parameters
    ----------
    recording : BaseRecording
        Fluorescence or ΔF/F, one ROI per channel.
    spikes : np.ndarray, shape (E,), or BaseSorting
        As for `label_events`.
    polarity : str or list of str, default: "positive"
        Which way spikes go, of all channels or of each: "positive" or "negative".
    pairs : np.ndarray, shape (P, 2), int, optional
        Channel indices of ROIs that may leak into each other; by default `neighbouring_pairs(recording, scatter_um)`,
        so where positions are unknown nothing is flagged.
    scatter_um : float, default: 20.0
        How far light scatters, µm.
    job_kwargs : dict, optional
        SpikeInterface's, for reading in chunks and in parallel.

    Returns
    -------
    Crosstalk
        Flags and sources aligned with `spikes`, or with `spikes.to_spike_vector()`, and the leaks.

    Raises
    ------
    ValueError
        If `pairs` are not pairs of channels, or spikes and recording do not belong together.
    """
    num_channels = recording.get_num_channels()
    signs = np.where(np.array(check_polarity(polarity, num_channels)) == "positive", 1.0, -1.0)
    peaks = as_peaks(recording, spikes)
    pairs = neighbouring_pairs(recording, scatter_um) if pairs is None else pairs
    pairs = both_ways(pairs, num_channels)
    source = np.full(len(peaks), -1)
    leak = np.zeros(len(pairs))
    if len(peaks) == 0 or len(pairs) == 0:
        return Crosstalk(source >= 0, source, pairs, leak)

    neighbours = neighbour_table(pairs, num_channels)  # N×(1 + M)
    node = SpikeHeights(recording, neighbours, signs)
    heights = at_spikes(recording, peaks, node, job_kwargs)  # E×(1 + M), noise standard deviations
    lengths = [recording.get_num_samples(segment) for segment in range(recording.get_num_segments())]
    flank = frames(FLANK_MS[1], recording)
    offsets = np.cumsum([0, *lengths[:-1]]) + 2 * flank * np.arange(len(lengths))  # segments out of each other's reach
    times = peaks["sample_index"] + offsets[peaks["segment_index"]]
    order = np.lexsort((times, peaks["channel_index"]))
    borders = np.searchsorted(peaks["channel_index"][order], np.arange(1, num_channels))
    trains = np.split(order, borders)  # the spikes of each ROI
    own = heights[:, 0]

    contested = [contest(times, own, trains[a], trains[b], recording, wins_ties=bool(a > b)) for a, b in pairs]
    taken = np.zeros(len(peaks), dtype=bool)
    for contests in contested:
        taken[contests.lost] = True
    usual = typical(own[~taken], peaks["channel_index"][~taken], num_channels)
    number = np.bincount(peaks["channel_index"][~taken], minlength=num_channels)
    usual = np.where((number >= MANY) & (usual > 0), usual, UNKNOWN_HEIGHT)

    strongest = np.full(len(peaks), -np.inf)
    for index, ((a, b), contests) in enumerate(zip(pairs, contested, strict=True)):
        if not contests.leaking:
            continue
        in_a = heights[contests.causes, np.flatnonzero(neighbours[b] == a)[0]]
        relative = estimate_leak(in_a, own[contests.causes], usual[a])
        explained = relative * own[contests.by]
        better = (own[contests.lost] - explained < usual[a] / 2) & (own[contests.by] > strongest[contests.lost])
        if relative > 0:
            strongest[contests.lost[better]] = own[contests.by[better]]
            source[contests.lost[better]] = b
            leak[index] = relative * node.noise[a] / node.noise[b]
    return Crosstalk(source >= 0, source, pairs, leak)


class Contest(NamedTuple):
    """What the spikes of ROI a may be of ROI b.

    Attributes
    ----------
    lost, by : np.ndarray, shape (K,), int
        Spikes of a that coincide with higher ones of b, and these.
    causes : np.ndarray, shape (S,), int
        Spikes of b that may leak.
    leaking : bool
        Whether a and b coincide more often than by chance.
    """

    lost: np.ndarray
    by: np.ndarray
    causes: np.ndarray
    leaking: bool


def contest(
    times: np.ndarray, own: np.ndarray, a: np.ndarray, b: np.ndarray, recording: BaseRecording, wins_ties: bool
) -> Contest:
    """Find the spikes of ROI a that may be of ROI b: the coincident ones, if b is the stronger, or higher there.

    Parameters
    ----------
    times, own : np.ndarray, shape (E,)
        Frames of all spikes, and their heights in noise standard deviations.
    a, b : np.ndarray, shapes (S,) and (T,), int
        The spikes of either ROI, ascending in time.
    recording : BaseRecording
        Knows how long a frame is.
    wins_ties : bool
        Whether b is the stronger of two that are equal, as an ROI and its copy are.

    Returns
    -------
    Contest
        See there.
    """
    nobody = np.zeros(0, dtype=int)
    if min(len(a), len(b)) < MANY:
        return Contest(nobody, nobody, nobody, False)
    reach, near, far = (frames(duration, recording) for duration in (COINCIDENT_MS, *FLANK_MS))
    after = np.clip(np.searchsorted(times[b], times[a]), 1, len(b) - 1)
    nearest = after - (times[a] - times[b][after - 1] <= times[b][after] - times[a])
    coincident = np.abs(times[a] - times[b][nearest]) <= reach
    lost, by = a[coincident], b[nearest[coincident]]

    num_near, num_far = (count_pairs(times[a], times[b], lag) for lag in (near, far))
    num_coincident = count_pairs(times[a], times[b], reach)
    chance = (2 * reach + 1) / (2 * reach + 1 + 2 * (far - near))
    in_all = num_coincident + num_far - num_near
    leaking = len(lost) >= MANY and binom.sf(num_coincident - 1, in_all, chance) < CHANCE

    excess = own[by] - own[lost]
    lower, higher = np.count_nonzero(excess < -CLEAR), np.count_nonzero(excess > CLEAR)  # b clearly is
    mutual = lower + higher > len(lost) / 2 and min(lower, higher) >= max(MANY, RARE * len(lost))
    if mutual:
        mine = by[excess < 0]
        lost, by = lost[excess >= 0], by[excess >= 0]
    elif (higher, excess.sum(), wins_ties) >= (lower, 0, True):
        mine = nobody
    else:
        return Contest(nobody, nobody, nobody, False)
    return Contest(lost, by, np.setdiff1d(b, mine), bool(leaking))


def count_pairs(one: np.ndarray, other: np.ndarray, lag: int) -> int:
    """Count the pairs of ascending times, one of each, that are at most a lag apart."""
    return int(np.sum(np.searchsorted(other, one + lag, side="right") - np.searchsorted(other, one - lag)))


def estimate_leak(in_a: np.ndarray, in_b: np.ndarray, usual: float) -> float:
    """Return which part of b's spike height a shows, 0 if none for sure.

    Parameters
    ----------
    in_a, in_b : np.ndarray, shape (S,)
        Heights of both at the spikes of b.
    usual : float
        Height of a's own spikes.

    Returns
    -------
    float
        c of `flag_crosstalk`.
    """
    finite = np.isfinite(in_a) & np.isfinite(in_b)
    in_a, in_b = in_a[finite], in_b[finite]
    if len(in_a) < MANY or not np.median(in_b) > 0:
        return 0.0
    leak = np.quantile(in_a, 0.1) / np.median(in_b)
    for _ in range(ROUNDS):
        others = in_a - leak * in_b <= usual / 2
        if np.count_nonzero(others) < MANY:
            return 0.0
        leak = np.median(in_a[others]) / np.median(in_b[others])
    num_positive = np.count_nonzero(in_a[others] > 0)
    sure = binom.sf(num_positive - 1, np.count_nonzero(others), 0.5) < CHANCE
    return float(leak) if sure else 0.0


class SpikeHeights(PipelineNode):
    """Measure the height of spikes in their own and in neighbouring ROIs; for SpikeInterface's pipeline.

    Parameters
    ----------
    recording : BaseRecording
        One ROI per channel.
    neighbours : np.ndarray, shape (N, 1 + M), int
        Of each channel itself and the channels to look at.
    signs : np.ndarray, shape (N,)
        -1 for channels that have to be turned.

    Attributes
    ----------
    noise : np.ndarray, shape (N,)
        Standard deviation of heights where there is no spike, in the recording's units.
    """

    _compute_has_extended_signature = True

    def __init__(self, recording: BaseRecording, neighbours: np.ndarray, signs: np.ndarray) -> None:
        PipelineNode.__init__(self, recording)
        close, far = (frames(duration, recording) for duration in HEIGHT_MS)
        self.lags = np.arange(-far, far + 1)
        beside = np.abs(self.lags) >= min(close, far)
        self.weights = np.where(self.lags == 0, 1.0, -(beside / beside.sum()))
        self.neighbours, self.signs = neighbours, signs
        self.noise = height_noise(recording, self.weights)
        self._kwargs.update(neighbours=neighbours, signs=signs)

    def get_margin(self) -> int:
        """Return how many samples on either side of a chunk are looked at."""
        return int(self.lags[-1])

    def get_dtype(self) -> np.dtype:
        """Return the type of the heights."""
        return np.dtype("float64")

    def compute(
        self,
        traces: np.ndarray,
        start_frame: int,
        end_frame: int,
        segment_index: int,
        max_margin: int,
        peaks: np.ndarray,
    ) -> np.ndarray:
        """Return the heights at the peaks of a chunk in noise standard deviations, shape (E, 1 + M)."""
        inside = frames_inside(self.time_series, start_frame, segment_index, max_margin, len(traces))
        channels = self.neighbours[peaks["channel_index"]]  # E×(1 + M)
        heights = np.zeros(channels.shape)
        for lag, weight in zip(self.lags, self.weights, strict=True):
            if weight != 0:
                heights += weight * traces[np.clip(peaks["sample_index"] + lag, *inside)[:, None], channels]
        return heights * (self.signs / self.noise)[channels]


def height_noise(recording: BaseRecording, weights: np.ndarray) -> np.ndarray:
    """Return the standard deviation of weighted sums of samples, shape (N,), from medians in random chunks."""
    chunks = random_chunks(recording, NUM_CHUNKS, CHUNK_S)
    heights = np.concatenate([convolve1d(chunk.astype("float64"), weights, axis=0, mode="nearest") for chunk in chunks])
    noise = np.ma.median(np.abs(np.ma.masked_invalid(heights)), axis=0).filled(0.0) / GAUSSIAN_MAD
    return np.where(noise > 0, noise, np.finfo(float).tiny)


def frames(duration_ms: float, recording: BaseRecording) -> int:
    """Return the number of frames that a duration lasts, at least one."""
    return max(1, round(duration_ms / 1000 * recording.sampling_frequency))


def both_ways(pairs: np.ndarray, num_channels: int) -> np.ndarray:
    """Return each pair of channels in both orders, sorted, shape (P, 2).

    Raises
    ------
    ValueError
        If they are no pairs of different channels.
    """
    pairs = np.asarray(pairs)
    if pairs.size == 0:
        return np.zeros((0, 2), dtype=int)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"pairs must be channel indices of shape (P, 2), not {pairs.dtype} of shape {pairs.shape}")
    if pairs.min() < 0 or pairs.max() >= num_channels or np.any(pairs[:, 0] == pairs[:, 1]):
        raise ValueError(f"pairs must be of different channels, counted from 0 to {num_channels - 1}")
    return np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)


def neighbour_table(pairs: np.ndarray, num_channels: int) -> np.ndarray:
    """Return each channel and, from pairs both ways, its neighbours, filled up with itself, shape (N, 1 + M)."""
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    table = np.tile(np.arange(num_channels)[:, None], (1, 2 + rank.max()))
    table[pairs[:, 0], 1 + rank] = pairs[:, 1]
    return table


def neighbouring_pairs(recording: BaseRecording, scatter_um: float = 20.0) -> np.ndarray:
    """Find the ROIs whose light may mix: those closer to each other than their radii and scattered light reach.

    That is, ``|x_a - x_b| < r_a + r_b + s`` with centroids x, radii r = sqrt(A / π) of discs with the ROIs' areas A,
    and s, how far light scatters. ROIs in different planes are no neighbours, nor are parts of one neuron, which share
    their spikes: those of a recording with the annotation ``same_neuron``.

    Parameters
    ----------
    recording : BaseRecording
        The channel properties "centroid", "centroid_unit", "num_pixels" and "plane" are used, and the annotation
        "pixel_size_um"; without centroids, the positions of the probe. Where areas are unknown radii are 0, and so is
        the scatter where centroids are in pixels of unknown size.
    scatter_um : float, default: 20.0
        s, in µm.

    Returns
    -------
    np.ndarray, shape (P, 2), int
        Channel indices, the lower first; none where positions are unknown.

    Raises
    ------
    ValueError
        If `scatter_um` is negative.
    """
    if not scatter_um >= 0:
        raise ValueError(f"scatter_um must be a distance, not {scatter_um}")
    if recording.get_annotation("same_neuron") or recording.get_num_channels() < 2:
        return np.zeros((0, 2), dtype=int)
    centroids, unit = recording.get_property("centroid"), recording.get_property("centroid_unit")
    if centroids is None and recording.has_probe():
        centroids, in_pixels = recording.get_channel_locations(), False
    elif centroids is None:
        return np.zeros((0, 2), dtype=int)
    else:
        in_pixels = unit is not None and unit[0] == "pixels"
    pixel_um = recording.get_annotation("pixel_size_um")
    num_pixels = recording.get_property("num_pixels")
    area = np.zeros(len(centroids))
    if num_pixels is not None and (in_pixels or pixel_um is not None):
        pixel_area = 1.0 if in_pixels else np.prod(np.broadcast_to(pixel_um, 2))
        area = np.asarray(num_pixels, dtype=float) * pixel_area
    radii = np.sqrt(area / np.pi)
    scatter = 0.0 if in_pixels else scatter_um

    known = np.flatnonzero(np.isfinite(centroids).all(axis=1))
    if len(known) < 2:
        return np.zeros((0, 2), dtype=int)
    points = np.asarray(centroids, dtype=float)[known]
    pairs = known[cKDTree(points).query_pairs(2 * radii.max() + scatter, output_type="ndarray")].reshape(-1, 2)
    distance = np.linalg.norm(np.subtract(*np.asarray(centroids, dtype=float)[pairs.T]), axis=1)
    close = distance < radii[pairs].sum(axis=1) + scatter
    if (plane := recording.get_property("plane")) is not None:
        close &= plane[pairs[:, 0]] == plane[pairs[:, 1]]
    return np.sort(pairs[close], axis=1)
