"""Slices of a recording, (segment, first sample, end): which are looked at, how they are read, and joined to chunks."""

from __future__ import annotations

import itertools
from itertools import compress

import numpy as np
import torch
from spikeinterface.core import BaseRecording
from spikeinterface.core.job_tools import divide_time_series_into_chunks
from torch import Tensor

from dlvolt.electrodes.artefacts import Artefacts
from dlvolt.threads import map_in_threads

SLICE_S = 1.0  # length of the slices that a sample is made of
CHUNK_SIZE = 4_000_000  # values that are processed at a time: fewer take more time, more take more memory

Slice = tuple[int, int, int]


def chunk_duration(recording: BaseRecording) -> float:
    """Return the duration of chunks of about `CHUNK_SIZE` values, in s, between 1 and 10."""
    per_second = recording.get_num_channels() * recording.sampling_frequency
    return float(np.clip(CHUNK_SIZE / per_second, 1.0, 10.0))


def spread_slices(recording: BaseRecording, artefacts: Artefacts, duration_s: float) -> list[Slice]:
    """Return one-second slices, evenly spread over the recording, of at most `duration_s` in all.

    Slices of which artefacts leave less than half of what they leave of the best slice are not taken.
    """
    slices = divide_time_series_into_chunks(recording, round(SLICE_S * recording.sampling_frequency))
    if len(artefacts.periods):
        left = np.array([1 - artefacts.num_samples(*each) / (each[2] - each[1]) for each in slices])
        slices = list(compress(slices, left >= left.max() / 2))
    wanted = max(1, round(duration_s / SLICE_S))
    if len(slices) <= wanted:
        return slices
    return [slices[index] for index in np.linspace(0, len(slices) - 1, wanted).round().astype(int)]


def seconds_left(recording: BaseRecording, artefacts: Artefacts, slices: list[Slice]) -> float:
    """Return the duration of some slices, without artefacts, in s."""
    num_samples = sum(end - start - artefacts.num_samples(segment, start, end) for segment, start, end in slices)
    return num_samples / recording.sampling_frequency


def adjacent(recording: BaseRecording, slices: list[Slice]) -> list[list[Slice]]:
    """Return slices grouped into runs that follow each other without a gap, at most as long as a chunk.

    When a run is read as a whole, filters need the samples around it only once.
    """
    longest = chunk_duration(recording) * recording.sampling_frequency
    runs: list[list[Slice]] = []
    for segment, start, end in slices:
        if runs and runs[-1][-1][0] == segment and runs[-1][-1][2] == start and end - runs[-1][0][1] <= longest:
            runs[-1].append((segment, start, end))
        else:
            runs.append([(segment, start, end)])
    return runs


def read_slices(recording: BaseRecording, slices: list[Slice], num_workers: int) -> list[np.ndarray]:
    """Return the traces of slices, shape (T, N) each, as float16, which is precise to a thousandth.

    All of them are views of one array, whose memory goes back to the system as a whole.
    """
    num_channels = recording.get_num_channels()
    ends = np.cumsum([0] + [(end - start) * num_channels for _, start, end in slices])
    values = np.empty(ends[-1], dtype="float16")
    by_channel = [values[first:last].reshape(num_channels, -1) for first, last in itertools.pairwise(ends)]  # N×T
    into = dict(zip(slices, by_channel, strict=True))
    largest = np.finfo("float16").max

    def load(run: list[Slice]) -> None:
        """Read a run of slices."""
        (segment, first, _), (_, _, last) = run[0], run[-1]
        traces = recording.get_traces(segment_index=segment, start_frame=first, end_frame=last).T
        for piece in run:
            own = traces[:, piece[1] - first : piece[2] - first]
            np.clip(own, -largest, largest, out=into[piece], casting="same_kind")

    map_in_threads(load, adjacent(recording, slices), num_workers)
    return [piece.T for piece in by_channel]


def join(pieces: list[np.ndarray], places: np.ndarray, gap: int) -> tuple[list[Tensor], list[int]]:
    """Return chunks of about `CHUNK_SIZE` values, shape (N, T), and where the tissue is in each, in order of places.

    In each chunk the tissue is in one place. It is made of pieces, shape (T, N), with `gap` samples between them that
    are zero. Each piece is dropped from the list when it is copied, so that memory holds it once.
    """
    groups, of_chunks, size = list[list[int]](), list[int](), 0  # indices of the pieces of each chunk, and their places
    for index in np.argsort(places, kind="stable").tolist():
        if not groups or places[index] != of_chunks[-1] or size + pieces[index].size > CHUNK_SIZE:
            groups.append([])
            of_chunks.append(int(places[index]))
            size = 0
        groups[-1].append(index)
        size += pieces[index].size
    chunks, nothing = [], np.zeros((0, 0))
    for group in groups:
        parts = []
        for index in group:
            piece, pieces[index] = pieces[index], nothing
            parts += [piece.T, np.zeros((piece.shape[1], gap), dtype=piece.dtype)]
        chunks.append(torch.from_numpy(np.concatenate(parts[:-1], axis=1) if len(group) > 1 else parts[0]))
    pieces.clear()
    return chunks, of_chunks
