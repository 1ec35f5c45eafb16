"""Motion of the tissue along the probe: how far, whether it matters, and where it takes a spike's snippet."""

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
MIN_SPAN_UM = 300.0  # of the contacts: a few units beside each other do not tell motion from change
MAX_GAP_UM = 40.0  # between the contacts in depth: else spikes are lost in between
MIN_DURATION_S = 30.0
MIN_PEAKS_HZ = 20.0  # fewer do not show motion
BIN_S, BIN_UM = 2.0, 2.0  # of the histograms of spikes that are compared
MAX_DISPLACEMENT_UM = 100.0  # between two bins
HARMLESS_UM = 5.0  # range of motion that the templates bear
WINDOW_UM = 200.0  # of the probe, in which motion is estimated by itself, to see whether it is the same throughout
FEWEST_WINDOWS = 3
LEAST_ERROR_UM = 0.5  # of the motion in a window
SPIKE_NORM = 4.0  # of a snippet on a channel, in noise standard deviations: less is noise
SMOOTH_UM = 25.0  # standard deviation of the averages in which snippets at different displacements are compared
STEP_UM = 4.0  # displacements that differ less have the same templates
JUMP_UM = 10.0  # between two estimates of where the tissue is: it has jumped
INSTANT_S = 1e-3  # before and after a jump
PIECE_S = 0.2  # for so long the tissue is taken to stand still


class Drift(NamedTuple):
    """Where the tissue is, relative to the probe, in the course of a recording of one segment.

    Its displacement is known as one of M places, each with its own templates. Where the tissue moves farther at one end
    of the probe than at the other, it is that of the mean depth, and each depth moves in proportion to it.

    Attributes
    ----------
    motion : Motion or None
        SpikeInterface's, rigid; None where nothing moves.
    displacements : np.ndarray, shape (M,)
        Of the places, evenly spaced, in µm; M is odd, and the middle one is the reference.
    remark : str
        What there is to say about it.
    gains : np.ndarray, shape (N,), or float
        How far the tissue moves at each channel, relative to the mean depth.
    """

    motion: Motion | None
    displacements: np.ndarray
    remark: str = ""
    gains: np.ndarray | float = 1.0

    @classmethod
    def none(cls, why: str = "nothing moves") -> Drift:
        """Return that of a recording in which nothing moves, or nothing is known to."""
        return cls(None, np.zeros(1), f"no motion correction, as {why}")

    @classmethod
    def of(cls, motion: Motion, gains: np.ndarray | float = 1.0) -> Drift:
        """Return that of an estimated rigid motion, with places over the whole of its range."""
        low, high = motion.get_boundaries()
        least, most = (high - low) * np.min(gains), (high - low) * np.max(gains)
        num_places = 2 * int(np.ceil(most / STEP_UM) // 2) + 1
        edges = np.linspace(low, high, num_places + 1)
        how_far = f"{most:.0f} µm" if least == most else f"{least:.0f} to {most:.0f} µm, by depth"
        remark = f"the tissue moves by {how_far}, and templates with it"
        return cls(motion, (edges[:-1] + edges[1:]) / 2, remark, gains)

    @property
    def from_reference(self) -> np.ndarray:
        """How far each place is from the reference, in µm, shape (M,)."""
        return self.displacements - self.displacements[len(self.displacements) // 2]

    def places(self, recording: BaseRecording, frames: np.ndarray) -> np.ndarray:
        """Return in which place the tissue is at some frames, as indices below M.

        Between two estimates it moves steadily; but tissue that jumps is where the nearer one says, never in between.
        """
        if self.motion is None:
            return np.zeros(len(frames), dtype=int)
        times, estimated = recording.sample_index_to_time(frames, segment_index=0), self.motion.temporal_bins_s[0]
        after = np.searchsorted(estimated, times).clip(1, len(estimated) - 1)
        share = ((times - estimated[after - 1]) / (estimated[after] - estimated[after - 1])).clip(0, 1)
        steps = np.diff(self.motion.displacement[0][:, 0])[after - 1]
        share = np.where(np.abs(steps) > JUMP_UM, share.round(), share)
        moved = self.motion.displacement[0][after - 1, 0] + share * steps
        return np.searchsorted((self.displacements[:-1] + self.displacements[1:]) / 2, moved)

    def pieces(self, recording: BaseRecording, start: int, end: int) -> list[tuple[int, int, int]]:
        """Cut a stretch of the recording where the place changes: (start, end, place)."""
        if self.motion is None:
            return [(start, end, 0)]
        width = round(PIECE_S * recording.sampling_frequency)
        bins = np.arange(start // width, (end - 1) // width + 1)
        places = self.places(recording, bins * width + width // 2)
        changes = np.flatnonzero(np.diff(places)) + 1
        edges = [start, *(bins[changes] * width).tolist(), end]
        return list(zip(edges[:-1], edges[1:], places[[0, *changes]].tolist(), strict=True))


def why_not(recording: BaseRecording) -> str | None:
    """Return what keeps motion from being estimated in a recording, None if nothing does."""
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
    """Estimate the motion of a recording of one segment from its peaks, with DREDge.

    It is rigid, unless motion in windows along the probe shows that one end of it moves farther than the other, see
    `in_proportion`.

    Parameters
    ----------
    recording : BaseRecording
        Of one segment.
    peaks, features, neighbours
        As `dlvolt.electrodes.clustering.detect_and_project` returns them.
    observed_s : float
        So much of the recording was searched for peaks, evenly.
    harmless_um : float
        Range of motion that need not be followed.

    Returns
    -------
    Drift
        `Drift.none` if there are too few peaks, or if the motion is harmless.

    References
    ----------
    C. Windolf et al., "DREDge: robust motion correction for high-density extracellular recordings across species",
    Nature Methods, 2025.
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
    """Return one motion, to which that at each depth is proportional, and in what proportion.

    d_w(t) ≈ g_w s(t), with proportions g that are a straight line over depth and 1 on average, by alternating least
    squares. Windows with few spikes, in which motion is hardly seen, count less.

    Parameters
    ----------
    displacement : np.ndarray, shape (T, W)
        Estimated motion in each window, d.
    window_depths, depths : np.ndarray, shapes (W,) and (N,)
        Of the windows, and of the channels.

    Returns
    -------
    displacement : np.ndarray, shape (T,)
        That of the mean depth, s, whose median is 0.
    gains : np.ndarray, shape (N,)
        g at each channel.
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

    Motion is estimated in bins, and tells when the tissue jumps to within a bin. Where spikes come from, but for the
    motion, is the same throughout. So each spike near a jump tells, by the density of all spikes over depth, how much
    more probable it is after the jump than before; the moment is that which is most probable given them all.

    Parameters
    ----------
    motion : Motion
        Rigid, of one segment.
    seconds, depths : np.ndarray, shape (P,)
        Of the spikes, the former ascending.
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
        return density[((depths - edges[0]) / BIN_UM).astype(int).clip(0, len(density) - 1)]

    points, half = list(zip(times.tolist(), moved.tolist(), strict=True)), np.diff(times).max() / 2
    for start, end in np.flatnonzero(np.diff(jumping, prepend=False, append=False)).reshape(-1, 2):
        old, new = start - 1, end - 1  # bins before and after the jump
        if abs(moved[new] - moved[old]) <= JUMP_UM:
            continue
        first_s, last_s = times[old] - half, times[new] + half
        near = (seconds > first_s) & (seconds < last_s)
        gains = log_density(depths[near] - moved[new]) - log_density(depths[near] - moved[old])
        moments = np.concatenate([[first_s], seconds[near], [last_s]])
        first = np.concatenate([[0.0], np.cumsum(gains)]).argmin()  # of the spikes after the jump
        moment = float(moments[first : first + 2].mean())
        points = [(t, m) for t, m in points if (t <= times[old] and t < moment) or (t >= times[new] and t >= moment)]
        points += [(moment - INSTANT_S, float(moved[old])), (moment + INSTANT_S, float(moved[new]))]
    points.sort()
    sharp_times, sharp = np.array(points).T
    return Motion([sharp[:, None]], [sharp_times], motion.spatial_bins_um, motion.direction)


def _usual_range(displacement: np.ndarray) -> float:
    low, high = np.percentile(displacement, [2.5, 97.5])
    return float(high - low)


def locate(recording: BaseRecording, peaks: np.ndarray, features: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return the centre of mass of what stands out of the noise of each peak, fields ``x`` and ``y``, in µm.

    Parameters
    ----------
    recording : BaseRecording
        N channels with locations.
    peaks, features, neighbours
        As `dlvolt.electrodes.clustering.detect_and_project` returns them.

    Returns
    -------
    np.ndarray, shape (P,)
        Locations; the main channel's where nothing stands out.
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
    """Return the matrix K, shape (N, N), such that x @ K is what channels see of the tissue moved so far (kriging).

    The tissue may move by another distance at each channel, shape (N,).
    """
    locations, moved = _moved(recording, by_um)
    return get_spatial_interpolation_kernel(locations, moved, force_extrapolate=True)


def smoothing(recording: BaseRecording, by_um: np.ndarray | float) -> np.ndarray:
    """Return the same, but as wide averages, in which one neuron looks the same wherever it is, shape (N, N)."""
    squares = cdist(*_moved(recording, by_um), "sqeuclidean")
    weights = np.exp(-squares / (2 * SMOOTH_UM**2))
    return (weights / weights.sum(axis=0)).astype("float32")


def _moved(recording: BaseRecording, by_um: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Return where channels are, and where in the tissue they see what they would see if it moved so far."""
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
    """Return peaks and features as they would be if the tissue were always at the reference.

    Parameters
    ----------
    recording : BaseRecording
        N channels with locations.
    drift : Drift
        Motion of the tissue.
    places : np.ndarray, shape (P,), int
        Where the tissue was at each peak.
    peaks, features, neighbours
        As `dlvolt.electrodes.clustering.detect_and_project` returns them.

    Returns
    -------
    peaks : np.ndarray
        With the channel that most of the energy would then be around.
    interpolated, smooth : np.ndarray, shape (P, B, C)
        Features around it, by kriging and by wide averages.
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
            own = features[members][:, :, : len(near)]
            energy = np.square(own @ averages[np.ix_(near, near)]).sum(axis=1)
            main = near[energy.argmax(axis=1)]
            peaks["channel_index"][members] = main
            for each in np.unique(main):
                around = np.ix_(near, np.flatnonzero(neighbours[each]))
                to = np.ix_(members[main == each], range(features.shape[1]), range(around[1].size))
                interpolated[to] = own[main == each] @ kriging[around]
                smooth[to] = own[main == each] @ averages[around]
    return peaks, interpolated, smooth


def kernels(recording: BaseRecording, drift: Drift) -> np.ndarray:
    """Return what takes a waveform from the reference to each place, shape (M, N, N), see `interpolation`."""
    if drift.motion is None:
        return np.eye(recording.get_num_channels(), dtype="float32")[None]
    return np.stack([interpolation(recording, moved * drift.gains) for moved in drift.from_reference])
