"""A sample of a recording: short chunks, or pieces, from all over it."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.recording_tools import get_random_sample_slices

from dlvolt.threads import map_in_threads

SAMPLE_S, PIECE_S = 24.0, 8.0  # how much of a recording of ROIs is drawn by default, and in pieces of which length
# A small recording is read as a whole if chunks cover this part of it, as each comes with the margins of all filters.
COVERED, FEW_VALUES = 0.25, 50_000_000


def random_chunks(
    recording: BaseRecording, num_chunks: int, duration_s: float, seed: int = 0, num_workers: int = 1
) -> list[np.ndarray]:
    """Return chunks (T, N), unscaled, from random places of a recording; each segment has as many as the others.

    Chunks are as short as the shortest segment where `duration_s` is longer. Several threads may read them.
    """
    segments = range(recording.get_num_segments())
    wanted = max(1, round(duration_s * recording.sampling_frequency))
    slices = get_random_sample_slices(
        recording,
        num_chunks_per_segment=max(1, num_chunks // len(segments)),
        chunk_size=min([wanted, *map(recording.get_num_samples, segments)]),
        seed=seed,
    )
    places = [(int(segment), int(start), int(end)) for segment, start, end in slices]
    covered = sum(end - start for _, start, end in places) / len(segments)
    lengths = [recording.get_num_samples(segment) for segment in segments]
    if max(lengths) > covered / COVERED or sum(lengths) * recording.get_num_channels() > FEW_VALUES:
        return map_in_threads(lambda place: recording.get_traces(*place), places, num_workers)
    whole = [recording.get_traces(segment) for segment in segments]
    return [whole[segment][start:end].copy() for segment, start, end in places]


def draw_pieces(
    recording: BaseRecording, seed: int, sample_s: float = SAMPLE_S, piece_s: float = PIECE_S
) -> list[tuple[int, int, int]]:
    """Draw a sample of `sample_s` seconds from a recording, in pieces: a list of (segment, start, end)."""
    length = max(1, round(piece_s * recording.sampling_frequency))
    pieces = []
    for segment in range(recording.get_num_segments()):
        num_samples = recording.get_num_samples(segment)
        starts = range(0, num_samples, length)
        pieces += [(segment, start, min(start + length, num_samples)) for start in starts]
    drawn = np.random.default_rng(seed).permutation(len(pieces))[: round(sample_s / piece_s)]
    return [pieces[index] for index in sorted(drawn)]
