"""Flag spikes that belong to a neighbouring ROI, whose light leaks in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import convolve1d
from scipy.spatial import cKDTree
from scipy.stats import binom
from spikeinterface.core import BaseRecording, BaseSorting

from dlvolt.preprocessing.finite import check_polarity
from dlvolt.preprocessing.random_chunks import random_chunks
from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.sortings import count_pairs

from .event_labels import AtSpikes, as_peaks, at_spikes, typical

COINCIDENT_MS = 1.0  # spikes at most so far apart coincide
FLANK_MS = (5.0, 50.0)  # lags at which chance coincidences are counted
HEIGHT_MS = (3.0, 10.0)  # the baseline of a spike is so far before and after it
CHANCE = 1e-3  # significance level of the tests for a leak
MANY = 5  # fewest spikes from which anything is concluded
CLEAR = 2.0  # noise standard deviations by which one of two coincident spikes is clearly the higher one
RARE = 0.05  # an ROI leaks into a stronger one only if it is clearly higher in at least this share of coincidences
UNKNOWN_HEIGHT = 6.0  # noise standard deviations; twice the height of the faintest spikes that a network finds
ROUNDS = 5  # iterations of the estimate of a leak
NUM_CHUNKS, CHUNK_S = 20, 0.5  # number and length of the chunks from which noise is estimated


class Crosstalk(NamedTuple):
    """Spikes that are cross-talk, and the leaks they come from.

    Attributes
    ----------
    is_crosstalk : np.ndarray, shape (E,), bool
        Whether each spike is a neighbour's.
    source : np.ndarray, shape (E,), int
        Channel index of that neighbour; -1 for spikes that are not flagged.
    pairs : np.ndarray, shape (P, 2), int
        Channel indices of (ROI, source): each pair of neighbours both ways.
    leak : np.ndarray, shape (P,)
        Share of the source's spike height that appears in the ROI; 0 where no leak was found.
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
    """Find spikes that are those of a neighbouring ROI, because masks overlap or light scatters.

    If a share c of the light of ROI b reaches ROI a, then a rises at every spike of b, whether or not a spike of a was
    detected, by c times the rise of b. If instead the two are synchronous, a rises by its own spike height, and only at
    some of b's spikes. With x a trace turned so that spikes point up, the height of a spike is ::

        H(t) = x(t) - mean{x(t + k): 3 ms ≤ |k| ≤ 10 ms}

    It is measured in a, in b, and in ROIs without a spike at that time, in units of the noise of each ROI.

    1. Spikes of a and b coincide if they are at most 1 ms, or one frame, apart. The ROI that is clearly the higher one
       (by 2 noise standard deviations) in more coincidences is the stronger. Light leaks from it to the weaker one, and
       coincident spikes are assigned to it. Only if most coincidences are clear, and some of them the other way, light
       may leak both ways, and each coincidence is assigned to the ROI that is higher there.
    2. h_a, a's own spike height, is the median H_a of its spikes that step 1 does not assign to another ROI; if there
       are fewer than 5, it is taken to be 6 noise standard deviations.
    3. c is the median of H_a over that of H_b, at the spikes of b without those at which a spikes itself, which have
       H_a - c H_b > h_a / 2. It is found by iteration from the lowest decile of H_a. There is a leak if H_a is positive
       at these spikes (sign test), and if a and b coincide more often than at lags of 5 to 50 ms (conditional test of
       two Poisson rates: Przyborowski and Wilenski, Biometrika 31, 1940), both with p < 0.001.
    4. A spike of a that coincides with one of b and was assigned to b is cross-talk if there is a leak and H_a is
       nearer to c H_b than to c H_b + h_a.

    If a is in synchrony with nine in ten of b's spikes or more, this cannot be told from a leak.

    Parameters
    ----------
    recording : BaseRecording
        Fluorescence or ΔF/F, one ROI per channel.
    spikes : np.ndarray, shape (E,), or BaseSorting
        As for `label_events`.
    polarity : str or list of str, default: "positive"
        Polarity of spikes, of all channels or of each: "positive" or "negative".
    pairs : np.ndarray, shape (P, 2), int, optional
        Channel indices of ROIs that may leak into each other; by default `neighbouring_pairs(recording, scatter_um)`,
        so nothing is flagged where positions are unknown.
    scatter_um : float, default: 20.0
        How far light scatters, in µm.
    job_kwargs : dict, optional
        SpikeInterface's job_kwargs, for reading in chunks and in parallel.

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
    offsets = np.cumsum([0, *lengths[:-1]]) + 2 * flank * np.arange(len(lengths))
    times = peaks["sample_index"] + offsets[peaks["segment_index"]]  # in which segments are far from each other
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
    """The spikes of ROI a that may be those of ROI b, as indices of spikes."""

    lost: np.ndarray  # K spikes of a that are assigned to b
    by: np.ndarray  # the K spikes of b with which they coincide
    causes: np.ndarray  # the spikes of b that may leak into a
    leaking: bool  # whether a and b coincide more often than by chance


def contest(
    times: np.ndarray, own: np.ndarray, a: np.ndarray, b: np.ndarray, recording: BaseRecording, wins_ties: bool
) -> Contest:
    """Find the spikes of ROI a that may be those of ROI b; step 1 of `flag_crosstalk`.

    Given are the frames of all E spikes, their heights in noise standard deviations, and the indices of the spikes of
    each ROI, ascending in time. If `wins_ties`, b is the stronger of two equal ROIs, as an ROI and its copy are.
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
    lower, higher = np.count_nonzero(excess < -CLEAR), np.count_nonzero(excess > CLEAR)  # so b clearly is
    mutual = lower + higher > len(lost) / 2 and min(lower, higher) >= max(MANY, RARE * len(lost))
    if mutual:
        mine = by[excess < 0]
        lost, by = lost[excess >= 0], by[excess >= 0]
    elif (higher, excess.sum(), wins_ties) >= (lower, 0, True):
        mine = nobody
    else:
        return Contest(nobody, nobody, nobody, False)
    return Contest(lost, by, np.setdiff1d(b, mine), bool(leaking))


def estimate_leak(in_a: np.ndarray, in_b: np.ndarray, usual: float) -> float:
    """Return c, the share of b's spike height that appears in a, or 0 if it is not significant; see `flag_crosstalk`.

    Given are the heights in a and in b at the S spikes of b, and the usual height of a's own spikes, all in noise
    standard deviations.
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


class SpikeHeights(AtSpikes):
    """Measure the height of spikes in their own and in neighbouring ROIs, in noise standard deviations.

    `neighbours` (N, 1 + M) has each channel followed by its neighbours; `signs` (N,) is -1 where spikes go down. The
    attribute `noise` (N,) is the standard deviation of heights where there is no spike, in the recording's units.
    """

    def __init__(self, recording: BaseRecording, neighbours: np.ndarray, signs: np.ndarray) -> None:
        close, far = (frames(duration, recording) for duration in HEIGHT_MS)
        super().__init__(recording, far, np.dtype("float64"))
        self.lags = np.arange(-far, far + 1)
        beside = np.abs(self.lags) >= min(close, far)
        self.weights = np.where(self.lags == 0, 1.0, -(beside / beside.sum()))
        self.neighbours, self.signs = neighbours, signs
        self.noise = height_noise(recording, self.weights)

    def measure(
        self, traces: np.ndarray, samples: np.ndarray, channels: np.ndarray, inside: tuple[int, int]
    ) -> np.ndarray:
        """Return the heights at spikes, shape (E, 1 + M)."""
        channels = self.neighbours[channels]  # E×(1 + M)
        heights = np.zeros(channels.shape)
        for lag, weight in zip(self.lags, self.weights, strict=True):
            if weight != 0:
                heights += weight * traces[np.clip(samples + lag, *inside)[:, None], channels]
        return heights * (self.signs / self.noise)[channels]


def height_noise(recording: BaseRecording, weights: np.ndarray) -> np.ndarray:
    """Estimate the standard deviation of weighted sums of samples by medians in random chunks, shape (N,)."""
    chunks = random_chunks(recording, NUM_CHUNKS, CHUNK_S)
    heights = np.concatenate([convolve1d(chunk.astype("float64"), weights, axis=0, mode="nearest") for chunk in chunks])
    noise = np.ma.median(np.abs(np.ma.masked_invalid(heights)), axis=0).filled(0.0) / GAUSSIAN_MAD
    return np.where(noise > 0, noise, np.finfo(float).tiny)


def frames(duration_ms: float, recording: BaseRecording) -> int:
    """Return the number of frames of a duration, at least one."""
    return max(1, round(duration_ms / 1000 * recording.sampling_frequency))


def both_ways(pairs: np.ndarray, num_channels: int) -> np.ndarray:
    """Return each pair of channels in both orders, sorted, shape (P, 2); it is an error if they are no such pairs."""
    pairs = np.asarray(pairs)
    if pairs.size == 0:
        return np.zeros((0, 2), dtype=int)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(f"pairs must be channel indices of shape (P, 2), not {pairs.dtype} of shape {pairs.shape}")
    if pairs.min() < 0 or pairs.max() >= num_channels or np.any(pairs[:, 0] == pairs[:, 1]):
        raise ValueError(f"pairs must be of different channels, counted from 0 to {num_channels - 1}")
    return np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)


def neighbour_table(pairs: np.ndarray, num_channels: int) -> np.ndarray:
    """Return each channel followed by its neighbours, padded with the channel itself, shape (N, 1 + M)."""
    rank = np.arange(len(pairs)) - np.searchsorted(pairs[:, 0], pairs[:, 0])
    table = np.tile(np.arange(num_channels)[:, None], (1, 2 + rank.max()))
    table[pairs[:, 0], 1 + rank] = pairs[:, 1]
    return table


def neighbouring_pairs(recording: BaseRecording, scatter_um: float = 20.0) -> np.ndarray:
    """Find pairs of ROIs whose light may mix, because they are close to each other.

    The condition is ``|x_a - x_b| < r_a + r_b + s`` with centroids x, radii r = sqrt(A / π) of discs with the ROIs'
    areas A, and the distance s over which light scatters. ROIs in different planes are not neighbours. Nor are the ROIs
    of a recording with the annotation ``same_neuron``: they are parts of one neuron, which share their spikes.

    Parameters
    ----------
    recording : BaseRecording
        The channel properties "centroid", "centroid_unit", "num_pixels" and "plane" are used, and the annotation
        "pixel_size_um"; without centroids, the positions of the probe. Radii are 0 if areas are unknown, and the
        scatter is 0 if centroids are in pixels of unknown size.
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
    centroids, unit = recording.get_property("centroid"), recording.get_property("centroid_unit")
    in_pixels = centroids is not None and unit is not None and unit[0] == "pixels"
    if centroids is None and recording.has_probe():
        centroids = recording.get_channel_locations()
    if centroids is None or recording.get_annotation("same_neuron"):
        return np.zeros((0, 2), dtype=int)
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
