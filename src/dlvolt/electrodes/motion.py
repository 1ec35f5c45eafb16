"""Drift: how far the tissue moves along the probe, whether that matters, and how it changes waveforms.

Peaks (P,), features (P, B, C) and neighbours (N, N) are as `dlvolt.electrodes.clustering.detect_and_project` returns
them.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist
from spikeinterface.core import BaseRecording
from spikeinterface.core.motion import Motion
from spikeinterface.preprocessing.preprocessing_tools import get_spatial_interpolation_kernel

MIN_CHANNELS = 32
MIN_SPAN_UM = 300.0  # least extent of the contacts: on a shorter probe, units that change may look like motion
MAX_GAP_UM = 40.0  # largest gap between contacts in depth, as spikes in wider ones are lost
MIN_DURATION_S = 30.0
MIN_PEAKS_HZ = 20.0  # fewer peaks do not show motion
BIN_S, BIN_UM = 2.0, 2.0  # bins in time and depth of the histograms of spikes that are compared
MAX_DISPLACEMENT_UM = 100.0  # largest displacement between two bins
HARMLESS_UM = 5.0  # range of motion that does not impair matching with fixed templates
WINDOW_UM = 200.0  # length of the windows along the probe in which motion is estimated separately
FEWEST_WINDOWS = 3  # windows that show whether motion depends on depth
LEAST_ERROR_UM = 0.5  # least error of the motion in a window that is assumed
SPIKE_NORM = 4.0  # norm of the noise of a snippet on a channel, in noise standard deviations
SMOOTH_UM = 25.0  # standard deviation of the averages in which snippets at different displacements are compared
STEP_UM = 4.0  # largest distance between two places
JUMP_UM = 10.0  # the tissue has jumped if two successive estimates of where it is differ by more
INSTANT_S = 1e-3  # half the duration of a jump
PIECE_S = 0.2  # duration for which the tissue is taken to stand still


class Drift(NamedTuple):
    """Where the tissue is, relative to the probe, in the course of a recording of one segment.

    The range of its displacements is divided into M places, each with its own templates. If the tissue moves farther
    at one end of the probe than at the other, displacements are those of the mean depth, and the displacement at each
    channel is proportional to them.
    """

    motion: Motion | None  # SpikeInterface's rigid motion; None if nothing moves
    displacements: np.ndarray  # M, of the places, evenly spaced, in µm; M is odd, and the middle place is the reference
    remark: str = ""  # what the user is told about the motion
    gains: np.ndarray | float = 1.0  # N, displacement at each channel relative to that of the mean depth

    @classmethod
    def none(cls, why: str = "nothing moves") -> Drift:
        """Return a drift without motion, and with a remark that says why."""
        return cls(None, np.zeros(1), f"no motion correction, as {why}")

    @classmethod
    def of(cls, motion: Motion, gains: np.ndarray | float = 1.0) -> Drift:
        """Return the drift of a rigid motion, with places over the whole of its range, at most `STEP_UM` apart."""
        low, high = motion.get_boundaries()
        least, most = (high - low) * np.min(gains), (high - low) * np.max(gains)
        num_places = 2 * int(np.ceil(most / STEP_UM) // 2) + 1
        edges = np.linspace(low, high, num_places + 1)
        how_far = f"{most:.0f} µm" if least == most else f"{least:.0f} to {most:.0f} µm, by depth"
        remark = f"the tissue moves by {how_far}, and templates with it"
        return cls(motion, (edges[:-1] + edges[1:]) / 2, remark, gains)

    @property
    def from_reference(self) -> np.ndarray:
        """Displacement of each place from the reference, in µm, shape (M,)."""
        return self.displacements - self.displacements[len(self.displacements) // 2]

    def places(self, recording: BaseRecording, frames: np.ndarray) -> np.ndarray:
        """Return the place of the tissue at some frames, shape (frames,), as indices below M.

        Between two estimates the tissue moves steadily, unless it jumps: then it is where the nearer of the two says.
        """
        if self.motion is None:
            return np.zeros(len(frames), dtype=int)
        times = recording.sample_index_to_time(frames, segment_index=0)
        estimated, displacement = self.motion.temporal_bins_s[0], self.motion.displacement[0][:, 0]
        after = np.searchsorted(estimated, times).clip(1, len(estimated) - 1)
        share = ((times - estimated[after - 1]) / (estimated[after] - estimated[after - 1])).clip(0, 1)
        steps = displacement[after] - displacement[after - 1]
        share = np.where(np.abs(steps) > JUMP_UM, share.round(), share)
        moved = displacement[after - 1] + share * steps
        return np.searchsorted((self.displacements[:-1] + self.displacements[1:]) / 2, moved)

    def pieces(self, recording: BaseRecording, start: int, end: int) -> list[tuple[int, int, int]]:
        """Return pieces of a stretch of the recording, (start, end, place), cut where the place changes.

        The place is looked up every `PIECE_S` on a grid over the whole recording, so the same frame is always in the
        same place.
        """
        if self.motion is None:
            return [(start, end, 0)]
        width = round(PIECE_S * recording.sampling_frequency)
        bins = np.arange(start // width, (end - 1) // width + 1)
        places = self.places(recording, bins * width + width // 2)
        changes = np.flatnonzero(np.diff(places)) + 1
        edges = [start, *(bins[changes] * width).tolist(), end]
        return list(zip(edges[:-1], edges[1:], places[[0, *changes]].tolist(), strict=True))


def why_not(recording: BaseRecording) -> str | None:
    """Return the reason why motion cannot be estimated in a recording, or None if it can."""
    locations = recording.get_channel_locations()
    depths = np.sort(locations[:, long_axis(recording)])
    if recording.get_num_segments() > 1:
        return "it has several segments"
    if len(depths) < MIN_CHANNELS:
        return f"it has fewer than {MIN_CHANNELS} channels"
    if depths[-1] - depths[0] < MIN_SPAN_UM:
        return f"the probe is shorter than {MIN_SPAN_UM:g} µm"
    if np.diff(depths).max() > MAX_GAP_UM:
        return f"the probe has gaps of more than {MAX_GAP_UM:g} µm"
    if recording.get_total_duration() < MIN_DURATION_S:
        return f"it lasts less than {MIN_DURATION_S:g} s"
    return None


def long_axis(recording: BaseRecording) -> int:
    """Return the axis along which the probe is longest, 0 for x, 1 for y."""
    return int(np.ptp(recording.get_channel_locations(), axis=0).argmax())


def estimate_drift(
    recording: BaseRecording,
    peaks: np.ndarray,
    features: np.ndarray,
    neighbours: np.ndarray,
    observed_s: float,
    harmless_um: float = HARMLESS_UM,
) -> Drift:
    """Estimate the motion of a recording of one segment from its peaks, with DREDge (Windolf et al., Nat Methods 2025).

    The motion is rigid, unless estimates in windows along the probe show that the tissue moves farther at one end than
    at the other, see `in_proportion`. There is none if there are too few peaks in the `observed_s` that were searched,
    evenly spread over the recording, or if its range is below `harmless_um`.
    """
    from spikeinterface.sortingcomponents.motion import estimate_motion

    if len(peaks) < MIN_PEAKS_HZ * observed_s:
        return Drift.none("there are too few peaks to see it")
    direction, locations = "xy"[long_axis(recording)], locate(recording, peaks, features, neighbours)
    seconds = recording.sample_index_to_time(peaks["sample_index"], segment_index=0)
    estimate = partial(
        estimate_motion,
        recording,
        peaks,
        locations,
        direction=direction,
        method="dredge_ap",
        win_step_um=WINDOW_UM,
        win_scale_um=WINDOW_UM,
        bin_s=BIN_S * recording.get_total_duration() / observed_s,
        bin_um=BIN_UM,
        max_disp_um=MAX_DISPLACEMENT_UM,
        device="cpu",
    )
    rigid, by_depth = estimate(rigid=True), estimate(rigid=False)
    if len(by_depth.spatial_bins_um) >= FEWEST_WINDOWS:
        depths = recording.get_channel_locations()[:, long_axis(recording)]
        displacement, gains = in_proportion(by_depth.displacement[0], by_depth.spatial_bins_um, depths)
        if _usual_range(displacement) * np.abs(gains - 1).max() > HARMLESS_UM:
            where = rigid.spatial_bins_um
            motion = Motion([displacement[:, None]], by_depth.temporal_bins_s, where, direction)
            return Drift.of(with_sharp_jumps(motion, seconds, locations[direction]), gains)
    if (moved := _usual_range(rigid.displacement[0])) < harmless_um:
        return Drift.none(f"the tissue moves by {moved:.1f} µm only")
    return Drift.of(with_sharp_jumps(rigid, seconds, locations[direction]))


def in_proportion(
    displacement: np.ndarray, window_depths: np.ndarray, depths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return one motion s(t), and gains g, such that the tissue at each depth moves by g s(t).

    Alternating least squares fit d_w(t) ≈ g_w s(t) to the motion in windows, shape (T, W), with gains g that are a
    straight line over depth and 1 on average over the channels. Windows that fit badly, mostly for lack of spikes,
    count less. The motion s, shape (T,), is that of the mean depth, and g, shape (N,), that of each channel.
    """
    displacement = displacement - np.median(displacement, axis=0)
    common, gains = np.median(displacement, axis=1), np.ones(len(depths))
    for _ in range(10):
        if not common.any():
            break
        slopes = common @ displacement / (common @ common)
        errors = np.std(displacement - np.outer(common, slopes), axis=0).clip(min=LEAST_ERROR_UM)
        line = np.polynomial.Polynomial.fit(window_depths, slopes, 1, w=1 / errors)
        mean = line(depths).mean()
        gains, of_windows = line(depths) / mean, line(window_depths) / mean
        common = displacement @ (of_windows / errors**2) / (of_windows**2 / errors**2).sum()
    return common, gains


def with_sharp_jumps(motion: Motion, seconds: np.ndarray, depths: np.ndarray) -> Motion:
    """Return a motion in which each jump is at the moment at which spikes leave the old depths for the new ones.

    Motion is estimated in bins, so the moment of a jump is known to within a bin. It is found more exactly by maximum
    likelihood: relative to the tissue, the density of spikes over depth is the same before and after the jump, so each
    spike near the jump is more or less likely to come after it than before, and the moment is chosen at which the
    product over all spikes is largest. The motion is rigid, and the spikes are given by times, ascending, and depths.
    """
    times, moved = motion.temporal_bins_s[0], motion.displacement[0][:, 0]
    jumping = np.abs(np.diff(moved, prepend=moved[:1], append=moved[-1:])) > JUMP_UM
    if not jumping.any():
        return motion
    nearest = np.searchsorted((times[:-1] + times[1:]) / 2, seconds)
    in_tissue = depths - moved[nearest]
    edges = np.arange(in_tissue.min(), in_tissue.max() + 2 * BIN_UM, BIN_UM)
    density = np.log(gaussian_filter1d(np.histogram(in_tissue, edges)[0].astype("float64"), 1.0) + 1.0)

    def log_density(depths: np.ndarray) -> np.ndarray:
        """Return the log density of spikes at depths relative to the tissue, up to a constant."""
        return density[((depths - edges[0]) / BIN_UM).astype(int).clip(0, len(density) - 1)]

    points, half = list(zip(times.tolist(), moved.tolist(), strict=True)), np.diff(times).max() / 2
    # Steps in a row are one jump, as the bin in which the tissue jumps may be estimated to lie in the middle.
    for start, end in np.flatnonzero(np.diff(jumping, prepend=False, append=False)).reshape(-1, 2):
        old, new = start - 1, end - 1  # bins before and after the jump
        if abs(moved[new] - moved[old]) <= JUMP_UM:
            continue
        first_s, last_s = times[old] - half, times[new] + half
        near = (seconds > first_s) & (seconds < last_s)
        gains = log_density(depths[near] - moved[new]) - log_density(depths[near] - moved[old])
        moments = np.concatenate([[first_s], seconds[near], [last_s]])
        first = np.concatenate([[0.0], np.cumsum(gains)]).argmin()  # index of the first spike after the jump
        moment = float(moments[first : first + 2].mean())
        points = [(t, m) for t, m in points if (t <= times[old] and t < moment) or (t >= times[new] and t >= moment)]
        points += [(moment - INSTANT_S, float(moved[old])), (moment + INSTANT_S, float(moved[new]))]
    points.sort()
    sharp_times, sharp = np.array(points).T
    return Motion([sharp[:, None]], [sharp_times], motion.spatial_bins_um, motion.direction)


def _usual_range(displacement: np.ndarray) -> float:
    """Return the distance between the 2.5th and the 97.5th percentile."""
    low, high = np.percentile(displacement, [2.5, 97.5])
    return float(high - low)


def locate(recording: BaseRecording, peaks: np.ndarray, features: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return the location (x, y) of each peak: the centre of mass of its norms on channels, less that of noise.

    It is the location of the peak's channel if no norm exceeds that of noise.
    """
    locations = recording.get_channel_locations()[:, :2]
    mass = np.maximum(np.linalg.norm(features, axis=1) - SPIKE_NORM, 0)  # P×C
    centres = np.empty((len(peaks), 2))
    for channel in np.unique(peaks["channel_index"]):
        members = peaks["channel_index"] == channel
        near = locations[neighbours[channel]]
        weights = mass[members, : len(near)]
        total = weights.sum(axis=1, keepdims=True)
        centre = weights @ near / np.where(total > 0, total, 1)
        centres[members] = np.where(total > 0, centre, locations[channel])
    return centres.view([("x", "f8"), ("y", "f8")])[:, 0]


def interpolation(recording: BaseRecording, by_um: np.ndarray | float) -> np.ndarray:
    """Return the matrix K, shape (N, N), that moves the tissue by interpolation between channels (kriging).

    If x are the values that channels see, x @ K are those that they see after the tissue has moved along the probe, by
    so many µm at all channels or at each.
    """
    locations, moved = _moved(recording, by_um)
    return get_spatial_interpolation_kernel(locations, moved, force_extrapolate=True)


def smoothing(recording: BaseRecording, by_um: np.ndarray | float) -> np.ndarray:
    """Return the matrix that moves the tissue as `interpolation` does, but by wide averages, shape (N, N).

    In wide averages a neuron looks the same wherever it is between the channels.
    """
    squares = cdist(*_moved(recording, by_um), "sqeuclidean")
    weights = np.exp(-squares / (2 * SMOOTH_UM**2))
    return (weights / weights.sum(axis=0)).astype("float32")


def _moved(recording: BaseRecording, by_um: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return the locations of channels, and those of the tissue that is at the channels after it has moved."""
    locations = recording.get_channel_locations()[:, :2]
    moved = locations.copy()
    moved[:, long_axis(recording)] -= by_um
    return locations, moved


def at_reference(
    recording: BaseRecording,
    drift: Drift,
    places: np.ndarray,
    peaks: np.ndarray,
    features: np.ndarray,
    neighbours: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return peaks and features as they would be if the tissue were always at the reference, and not in its places.

    Each peak is on the channel where its wide averages have most energy. The features on the neighbours of that channel
    are returned twice, by kriging and by wide averages.
    """
    if drift.motion is None:
        return peaks, features, features
    peaks, interpolated, smooth = peaks.copy(), np.zeros_like(features), np.zeros_like(features)
    for place, moved in enumerate(drift.from_reference):
        kriging, averages = (kernel(recording, -moved * drift.gains) for kernel in (interpolation, smoothing))
        here = np.flatnonzero(places == place)
        before = peaks["channel_index"][here]
        for channel in np.unique(before):
            members = here[before == channel]
            near = np.flatnonzero(neighbours[channel])
            seen = features[members][:, :, : len(near)]  # members×B×near
            energy = np.square(seen @ averages[np.ix_(near, near)]).sum(axis=1)  # at the reference
            main = near[energy.argmax(axis=1)]
            peaks["channel_index"][members] = main
            for each in np.unique(main):
                own, around = main == each, np.flatnonzero(neighbours[each])
                to = np.ix_(members[own], range(features.shape[1]), range(len(around)))
                interpolated[to] = seen[own] @ kriging[np.ix_(near, around)]
                smooth[to] = seen[own] @ averages[np.ix_(near, around)]
    return peaks, interpolated, smooth


def kernels(recording: BaseRecording, drift: Drift) -> np.ndarray:
    """Return the matrices of `interpolation` from the reference to each place, shape (M, N, N)."""
    if drift.motion is None:
        return np.eye(recording.get_num_channels(), dtype="float32")[None]
    return np.stack([interpolation(recording, moved * drift.gains) for moved in drift.from_reference])
