"""Snippets of peaks, projected on a temporal basis in the pass over the recording that detects the peaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from spikeinterface.core import BaseRecording, get_channel_distances
from spikeinterface.core.node_pipeline import PeakDetector, PipelineNode, run_node_pipeline

from dlvolt.deconvolution import event_slices, local_columns, shift_bank


class ProjectSnippets(PipelineNode):
    """Project snippets on a temporal basis, which is delayed for each peak by the peak's sub-sample shift.

    The arguments are those of `detect_and_project`, and which channels (columns) belong to the snippets of peaks on a
    channel (row), shape (N, N).
    """

    def __init__(
        self,
        recording: BaseRecording,
        detector: PeakDetector,
        basis: np.ndarray,
        num_before: int,
        num_after: int,
        neighbours: np.ndarray,
    ) -> None:
        super().__init__(recording, parents=[detector])
        self.bank = shift_bank(torch.from_numpy(basis))  # J×B×D
        self.num_before, self.num_after = num_before, num_after
        self.channels, self.is_near = local_columns(torch.from_numpy(neighbours))  # N×C

    def get_margin(self) -> int:
        """Return the samples on either side of a chunk that belong to snippets of peaks in it."""
        return max(self.num_before, self.num_after)

    def compute(self, traces: np.ndarray, peaks: np.ndarray) -> np.ndarray:
        """Return the features of the snippets around the peaks, shape (P, B, C)."""
        chunk = torch.from_numpy(np.require(traces, requirements="W")).T  # torch warns of read-only arrays
        start, channel, shift = (torch.from_numpy(peaks[x]) for x in ("sample_index", "channel_index", "shift"))
        start = start - self.num_before
        snippets = event_slices(chunk, start, self.num_before + self.num_after, self.channels[channel])  # P×C×D
        features = self.bank[shift] @ snippets.mT
        return (features * self.is_near[channel][:, None]).numpy()


def fit_temporal_basis(snippets: np.ndarray, num_components: int) -> np.ndarray:
    """Return the leading right singular vectors of snippets, shape (B, D), float32.

    Parameters
    ----------
    snippets : np.ndarray, shape (snippets, D)
        Snippets on single channels.
    num_components : int
        B.
    """
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
    """Detect peaks and project the snippets around them on a temporal basis, in one pass over the recording.

    Parameters
    ----------
    recording : BaseRecording
        Whitened traces.
    detector : PeakDetector
        Detects the peaks, with their ``shift``: the index of the sub-sample shift.
    basis : np.ndarray, shape (B, D)
        Temporal basis.
    num_before, num_after : int
        Samples of a snippet before the peak, and from it on; D in all.
    radius_um : float
        Largest distance of the channels of a snippet from the channel of the peak, in µm.
    job_kwargs : dict
        SpikeInterface's.
    slices : list of (segment, start, end), optional
        The parts of the recording that are searched; all of it if None.

    Returns
    -------
    peaks : np.ndarray, shape (P,), SpikeInterface's peak dtype with ``shift``
        The peaks.
    features : np.ndarray, shape (P, B, C)
        Projections on the channels that are marked in the row of `neighbours` of the peak's channel, in order; the rest
        is zero.
    neighbours : np.ndarray, shape (N, N), bool
        Which channels are within the radius of each other.
    """
    neighbours = get_channel_distances(recording) <= radius_um
    project = ProjectSnippets(recording, detector, basis, num_before, num_after, neighbours)
    peaks, features = run_node_pipeline(
        recording, [detector, project], job_kwargs, job_name="dlvolt: detect peaks", slices=slices
    )
    return peaks, features, neighbours
