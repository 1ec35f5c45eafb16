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

from dlvolt.deconvolution import shift_bank


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
        shifts = peaks["shift"]
        features = np.empty((len(snippets), self.bank.shape[1], snippets.shape[2]), dtype="float32")
        for shift in np.unique(shifts):
            features[shifts == shift] = self.bank[shift] @ snippets[shifts == shift]
        return features


def fit_temporal_basis(snippets: np.ndarray, num_components: int) -> np.ndarray:
    """Return the leading right singular vectors of single-channel snippets, shape (B, D), float32."""
    return np.linalg.svd(snippets, full_matrices=False)[2][:num_components].astype("float32")


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
