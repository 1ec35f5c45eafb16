"""Spikes are detected by their likeness to a typical waveform, on one channel or on neighbouring ones."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from scipy.signal import find_peaks
from spikeinterface.core import BaseRecording, get_channel_distances
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.core.node_pipeline import PeakDetector

from dlvolt.deconvolution import NUM_SHIFTS
from dlvolt.deconvolution.locality import blocks

SIDE_LOBE = 0.3  # peaks of the score near a spike that are smaller, relative to the spike's, are its side lobes
DECAYS_UM = (20.0, 50.0)  # distances over which a spike that several channels see decays by a factor e
BLOCK = 24  # channels that are filtered together
TILE = 8192  # samples that are filtered together, as so many fit into the cache


class MatchedFilterPeakDetector(PeakDetector):
    """Detect peaks in the correlation of whitened traces with a typical spike.

    Templates of a typical spike are products of a prototype in time and a footprint in space. There are three
    footprints: one channel, and two that decay exponentially with the distance from the main channel. The correlation
    of a template of norm 1 with white noise of variance 1 has variance 1. So weak spikes that many channels see are
    detected although they do not cross the threshold on any of these channels.

    Parameters
    ----------
    recording : BaseRecording
        Whitened traces.
    prototype : np.ndarray, shape (D,)
        A typical spike on its main channel, with the sign of the peaks to find.
    num_before : int
        Samples of the prototype before its peak.
    peak_sign : str
        "neg" or "pos" to find the prototype as it is, "both" to find its negative, too.
    detect_threshold : float
        Least score of a peak, in noise standard deviations.
    exclude_sweep_ms, radius_um : float
        Of peaks that are this close in time and space, in ms and µm, only the largest is kept. Side lobes are dropped.
    """

    name = "dlvolt-matched-filter"
    preferred_mp_context = None
    need_noise_levels = False

    def __init__(
        self,
        recording: BaseRecording,
        prototype: np.ndarray,
        num_before: int,
        peak_sign: str = "neg",
        detect_threshold: float = 5.0,
        exclude_sweep_ms: float = 0.5,
        radius_um: float = 75.0,
    ) -> None:
        super().__init__(recording, return_output=True)
        distances = get_channel_distances(recording)
        weights = np.exp(-distances / np.array(DECAYS_UM)[:, None, None]) * (distances <= radius_um)
        weights /= np.linalg.norm(weights, axis=2, keepdims=True)
        weights = torch.from_numpy(weights.astype("float32"))  # scales×N×N
        self.neighbours, self.wide_neighbours = distances <= radius_um, distances <= 2 * radius_um
        self.blocks = [
            (rows, columns, weights[:, rows[:, None], columns].flatten(0, 1))
            for rows, columns in blocks(torch.from_numpy(self.neighbours), BLOCK)
        ]
        self.prototype = torch.from_numpy((prototype / np.linalg.norm(prototype)).astype("float32"))
        self.num_before = num_before
        self.both_signs = peak_sign == "both"
        self.detect_threshold = detect_threshold
        self.exclude_sweep = max(1, round(exclude_sweep_ms / 1000 * recording.sampling_frequency))

    def get_margin(self) -> int:
        """Return the samples on either side of a chunk that are filtered with it."""
        return 2 * len(self.prototype) + 1

    def get_dtype(self) -> np.dtype:
        """Return SpikeInterface's peak dtype with a field more, the index of the sub-sample shift."""
        return np.dtype([*base_peak_dtype, ("shift", "int64")])

    def compute(
        self, traces: np.ndarray, start_frame: int, end_frame: int, segment_index: int, max_margin: int
    ) -> tuple[np.ndarray]:
        """Return the peaks in traces, shape (T, N), without those in the margins."""
        chunk = torch.from_numpy(np.require(traces, requirements="W"))  # torch warns of read-only arrays
        times, channels, (before, top, after) = self._candidates(chunk.T)
        keep = largest_around(
            times.numpy(),
            channels.numpy(),
            top.numpy(),
            self.neighbours,
            self.wide_neighbours,
            self.exclude_sweep,
            len(self.prototype),
        )
        samples, margin = times + self.num_before, self.get_margin()
        keep = torch.from_numpy(keep) & (samples >= margin) & (samples < len(traces) - margin)
        samples, channels, before, top, after = (x[keep] for x in (samples, channels, before, top, after))
        delta = (before - after) / (2 * (before - 2 * top + after))  # apex of the parabola through the three
        shift = (delta * NUM_SHIFTS + (NUM_SHIFTS - 1) / 2).round().clamp(0, NUM_SHIFTS - 1)

        peaks = np.zeros(len(samples), dtype=self.get_dtype())
        peaks["sample_index"] = samples
        peaks["channel_index"] = channels
        peaks["amplitude"] = traces[peaks["sample_index"], peaks["channel_index"]]
        peaks["segment_index"] = segment_index
        peaks["shift"] = shift
        return (peaks,)

    def _candidates(self, chunk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the maxima in time above the threshold of the score, the best of the three footprints, in a chunk.

        Given traces, shape (N, T), these are the first sample of the prototype and the main channel of each candidate,
        in order of time, and its scores one sample before, at and after the maximum, shape (3, candidates).
        """
        prototypes = self.prototype.expand(len(chunk), 1, -1)
        found = []
        for start in range(0, chunk.shape[1] - len(self.prototype) - 1, TILE):
            tile = chunk[:, start : start + TILE + len(self.prototype) + 1].contiguous()
            in_time = torch.conv1d(tile[None], prototypes, groups=len(tile))[0]  # N×(TILE+2)
            for rows, columns, weights in self.blocks:
                one_channel = in_time.index_select(0, rows)
                score = (weights @ in_time.index_select(0, columns)).view(-1, *one_channel.shape)
                if self.both_signs:
                    one_channel, score = one_channel.abs_(), score.abs_()
                score = torch.maximum(score.amax(dim=0), one_channel)  # rows×(TILE+2)
                above = torch.from_numpy(np.flatnonzero((score > self.detect_threshold).numpy()))  # NumPy is far faster
                row, time = above // score.shape[1], above % score.shape[1]
                has_sides = (time > 0) & (time < score.shape[1] - 1)
                row, time = row[has_sides], time[has_sides]
                around = torch.stack([score[row, time + step] for step in (-1, 0, 1)])
                is_maximum = (around[1] > around[0]) & (around[1] >= around[2])
                found.append((start + time[is_maximum], rows[row[is_maximum]], around[:, is_maximum]))
        times, channels, scores = (torch.cat(parts, dim=-1) for parts in zip(*found, strict=True))
        order = torch.argsort(times * len(chunk) + channels)
        return times[order], channels[order], scores[:, order]


@njit(cache=True, nogil=True)
def largest_around(
    times: np.ndarray,
    channels: np.ndarray,
    scores: np.ndarray,
    neighbours: np.ndarray,
    wide_neighbours: np.ndarray,
    exclude_sweep: int,
    width: int,
) -> np.ndarray:
    """Return which candidates, in order of time, are neither beside a larger one nor a side lobe of it, bool.

    They are beside each other on `neighbours`, shape (N, N), up to `exclude_sweep` samples apart, and may be side lobes
    of each other on `wide_neighbours`, less than `width` samples apart.
    """
    keep = np.ones(len(times), dtype=np.bool_)
    for first in range(len(times)):
        for second in range(first + 1, len(times)):
            apart = times[second] - times[first]
            if apart >= width:
                break
            if not wide_neighbours[channels[first], channels[second]]:
                continue
            beside = apart <= exclude_sweep and neighbours[channels[first], channels[second]]
            ratio = scores[second] / scores[first]
            if (beside and ratio > 1) or ratio * SIDE_LOBE > 1:
                keep[first] = False
            if (beside and ratio <= 1) or ratio < SIDE_LOBE:
                keep[second] = False
    return keep


def find_snippets(
    chunks: list[np.ndarray], threshold: float, peak_sign: str, num_before: int, num_after: int, max_snippets: int
) -> np.ndarray:
    """Return the snippets around threshold crossings on single channels.

    Parameters
    ----------
    chunks : list of np.ndarray, shape (T, N)
        Whitened traces.
    threshold : float
        Least height of a peak, in noise standard deviations.
    peak_sign : str
        Sign of the peaks that are looked for: "neg", "pos" or "both".
    num_before, num_after : int
        Samples of a snippet before the peak, and from it on; D in all.
    max_snippets : int
        No further chunk is searched when there are so many.

    Returns
    -------
    np.ndarray, shape (snippets, D)
        The snippets, possibly none.
    """
    window = np.arange(-num_before, num_after)
    snippets = [np.zeros((0, len(window)), dtype="float32")]
    found = 0
    for traces in chunks:
        for trace in traces.T.astype("float32", copy=False):
            upright = {"neg": -trace, "pos": trace, "both": np.abs(trace)}[peak_sign]
            samples, _ = find_peaks(upright, height=threshold, distance=num_before)
            samples = samples[(samples >= num_before) & (samples + num_after <= len(trace))]
            snippets.append(trace[samples[:, None] + window])
            found += len(samples)
        if found >= max_snippets:
            break
    return np.concatenate(snippets)


def find_prototype(snippets: np.ndarray, num_before: int) -> np.ndarray:
    """Return a typical spike, shape (D,): the median of snippets scaled to a peak of 1, with the sign of most peaks.

    Parameters
    ----------
    snippets : np.ndarray, shape (snippets, D)
        Snippets on single channels.
    num_before : int
        Samples before the peak.
    """
    sign = -1.0 if np.median(snippets[:, num_before]) < 0 else 1.0
    scaled = snippets / snippets[:, num_before, None]
    return sign * np.median(scaled, axis=0)
