"""Peaks and their snippets, projected on a temporal basis in the pass that finds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from spikeinterface.core import BaseRecording, get_channel_distances
from spikeinterface.core.node_pipeline import (
    ExtractSparseWaveforms,
    PeakDetector,
    PipelineNode,
    WaveformsNode,
    run_node_pipeline,
)

from dlvolt.deconvolution import NUM_SHIFTS, shift_bank


class ProjectSnippets(WaveformsNode):
    """Project snippets on a temporal basis that is delayed, per peak, to where the peak lies between samples."""

    def __init__(
        self,
        recording: BaseRecording,
        parents: list[PipelineNode],
        basis: np.ndarray,
        num_before: int,
        num_after: int,
    ) -> None:
        super().__init__(recording, nbefore=num_before, nafter=num_after, parents=parents, return_output=True)
        self.bank = shift_bank(torch.from_numpy(basis)).numpy()  # J×B×D

    def compute(self, traces: np.ndarray, peaks: np.ndarray, snippets: np.ndarray) -> np.ndarray:
        """Return the features, shape (peaks, B, channels), of snippets, shape (peaks, D, channels)."""
        shifts = sub_sample_shifts(traces, peaks["sample_index"], peaks["channel_index"])
        features = np.empty((len(snippets), self.bank.shape[1], snippets.shape[2]), dtype="float32")
        for shift in np.unique(shifts):
            features[shifts == shift] = self.bank[shift] @ snippets[shifts == shift]
        return features


def sub_sample_shifts(traces: np.ndarray, samples: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """Return the index of the sub-sample shift of each peak, from the parabola through its three top samples."""
    before, top, after = (traces[samples + step, channels] for step in (-1, 0, 1))
    curvature = before - 2 * top + after
    delta = np.divide(before - after, 2 * curvature, out=np.zeros(len(samples)), where=curvature != 0)
    return np.clip(np.round(delta * NUM_SHIFTS + (NUM_SHIFTS - 1) / 2), 0, NUM_SHIFTS - 1).astype(int)


def fit_temporal_basis(
    chunks: list[np.ndarray],
    detector: PeakDetector,
    num_before: int,
    num_after: int,
    num_components: int,
    max_snippets: int = 5000,
) -> np.ndarray:
    """Find the temporal profiles that snippets on their main channel are made of.

    Parameters
    ----------
    chunks : list of np.ndarray, shape (T, N)
        Traces.
    detector : PeakDetector
        What finds the peaks.
    num_before, num_after : int
        Samples of a snippet before and from the peak on, D in all.
    num_components : int
        B.
    max_snippets : int
        As many are used.

    Returns
    -------
    np.ndarray, shape (B, D), float32
        Orthonormal rows: the leading right singular vectors. Unit impulses where there are too few snippets.
    """
    width = num_before + num_after
    snippets = [np.eye(num_components, width, num_before - num_components // 2) * 1e-6]
    found = 0
    for traces in chunks:
        (peaks,) = detector.compute(traces, 0, len(traces), 0, 0)
        inside = (peaks["sample_index"] >= num_before) & (peaks["sample_index"] <= len(traces) - num_after)
        samples, channels = peaks["sample_index"][inside], peaks["channel_index"][inside]
        window = samples[:, None] + np.arange(-num_before, num_after)
        snippets.append(traces[window, channels[:, None]])
        found += len(samples)
        if found >= max_snippets:
            break
    return np.linalg.svd(np.concatenate(snippets), full_matrices=False)[2][:num_components].astype("float32")


def detect_and_project(
    recording: BaseRecording,
    detector: PeakDetector,
    basis: np.ndarray,
    num_before: int,
    num_after: int,
    radius_um: float,
    job_kwargs: dict[str, Any],
    slices: list[tuple[int, int, int]] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detect peaks and project the snippets around them, in one pass over the recording.

    Parameters
    ----------
    recording : BaseRecording
        Whitened traces.
    detector : PeakDetector
        What finds the peaks.
    basis : np.ndarray, shape (B, D)
        Temporal basis.
    num_before, num_after : int
        Samples of a snippet before and from the peak on, D in all.
    radius_um : float
        Channels this close to the main channel belong to the snippet.
    job_kwargs : dict
        SpikeInterface's.
    slices : list of (segment, start, end), optional
        The part of the recording to look at.

    Returns
    -------
    peaks : np.ndarray, SpikeInterface's peak dtype
        P peaks.
    features : np.ndarray, shape (P, B, C)
        The channels of a peak are those marked in its main channel's row of `neighbours`, in order; then zeros.
    neighbours : np.ndarray, shape (N, N), bool
        Which channels are within the radius of which.
    """
    neighbours = get_channel_distances(recording) <= radius_um
    snippets = ExtractSparseWaveforms(
        recording,
        nbefore=num_before,
        nafter=num_after,
        parents=[detector],
        return_output=False,
        sparsity_mask=neighbours,
    )
    project = ProjectSnippets(recording, [detector, snippets], basis, num_before, num_after)
    peaks, features = run_node_pipeline(
        recording, [detector, snippets, project], job_kwargs, job_name="dlvolt: detect peaks", slices=slices
    )
    return peaks, features, neighbours
