"""Spikes of a recording, proposed by a network and decided by the model of each trace."""

from __future__ import annotations

import numpy as np
from scipy.signal import find_peaks
from spikeinterface.core import BaseRecording

from dlvolt.detection.expected_f1 import CANDIDATE, LOWEST, best_expected_f1
from dlvolt.networks.inference import mirror
from dlvolt.preprocessing.spike_probability import draw_pieces
from dlvolt.threads import map_in_threads

from .refinement import Models, find_spikes, learn, margin

SAMPLE_S, PIECE_S = 40.0, 10.0  # of the recording, and in pieces of this length, that models are learnt from
BLOCK_S = 8.0  # stretches that are searched as one, so that spikes do not depend on how the recording is cut
KEPT = 32  # blocks whose spikes are remembered, for chunks that are shorter


class DecidedSpikes:
    """The models of the traces of a recording, and what they find.

    Parameters
    ----------
    traces : BaseRecording
        N channels: fluorescence or ΔF/F.
    probability : BaseRecording
        Of a spike at each sample, from `dlvolt.preprocessing.spike_probability`.
    separation : int
        Spikes lie more than so many samples apart.
    seed : int, default: 0
        Of the sample that the models are learnt from.
    num_workers : int, default: 1
        Threads that read it and learn.

    Attributes
    ----------
    channels : np.ndarray, shape (M,)
        Those that a model decides; in the others there is too little to learn from.
    thresholds : np.ndarray, shape (M,)
        Half of the F1 to be expected of them, within 0.3 and 0.5, see `dlvolt.detection.expected_f1_thresholds`.
    """

    def __init__(
        self,
        traces: BaseRecording,
        probability: BaseRecording,
        separation: int,
        seed: int = 0,
        num_workers: int = 1,
    ) -> None:
        self.traces, self.probability, self.separation = traces, probability, separation + 1
        pieces = draw_pieces(traces, seed, SAMPLE_S, PIECE_S)
        read = map_in_threads(
            lambda piece: (traces.get_traces(*piece), probability.get_traces(*piece)), pieces, num_workers
        )
        sample, chances = (np.concatenate(part) for part in zip(*read, strict=True))  # T×N
        polarity = probability.get_property("polarity")

        def of_one(channel: int) -> tuple:
            sign = {"positive": 1.0, "negative": -1.0}.get(polarity[channel])
            trace, chance = sample[:, channel].astype("float64"), chances[:, channel]
            sign = points(trace, chance, self.separation) if sign is None else sign
            return sign, *learn(sign * trace, chance, traces.sampling_frequency, self.separation)

        learnt = map_in_threads(of_one, range(traces.get_num_channels()), num_workers)
        self.channels = np.array([n for n, (_, model, _) in enumerate(learnt) if model is not None], dtype="int64")
        self.signs = np.array([learnt[n][0] for n in self.channels])
        self.models = Models.of([learnt[n][1] for n in self.channels]) if len(self.channels) else None
        best = [best_expected_f1(learnt[n][2].probability) for n in self.channels]
        self.thresholds = np.maximum(np.array(best) / 2, LOWEST)
        self.block = round(BLOCK_S * traces.sampling_frequency)
        self.blocks: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def find(self, segment: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the events from one sample to another that may be spikes: frames, channels and probabilities."""
        blocks = [self._of_block(segment, block) for block in range(start // self.block, -(-end // self.block))]
        frames, channels, chances = (np.concatenate(part) for part in zip(*blocks, strict=True))
        inside = (frames >= start) & (frames < end)
        return frames[inside], channels[inside], chances[inside]

    def _of_block(self, segment: int, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if (segment, block) in self.blocks:
            return self.blocks[segment, block]
        num_samples = self.traces.get_num_samples(segment)
        start, end = block * self.block, min((block + 1) * self.block, num_samples)
        sides = margin(self.traces.sampling_frequency)
        samples = mirror(np.arange(start - sides, end + sides), num_samples)
        low = samples.min()
        ids = self.traces.channel_ids[self.channels]
        traces = self.traces.get_traces(segment, low, samples.max() + 1, ids)[samples - low] * self.signs
        chances = self.probability.get_traces(segment, start, end, ids)
        frames, rows, probability = find_spikes(traces, chances, self.models, self.separation)
        kept = probability > CANDIDATE
        found = start + frames[kept], self.channels[rows[kept]], probability[kept]
        for oldest in list(self.blocks)[: len(self.blocks) + 1 - KEPT]:
            self.blocks.pop(oldest, None)  # another thread may have been faster
        self.blocks[segment, block] = found
        return found


def points(trace: np.ndarray, probability: np.ndarray, separation: int) -> float:
    """Return which way a trace goes where a network sees spikes: 1 for up, -1 for down."""
    peaks, _ = find_peaks(np.pad(probability, 1), distance=max(1, separation))
    peaks -= 1
    reach = 2 * separation
    around = np.pad(trace, reach, mode="symmetric")[peaks[:, None] + np.arange(2 * reach + 1)]  # peaks×samples
    excursion = around[:, reach - 1 : reach + 2] - np.median(around, axis=1)[:, None]
    return 1.0 if (probability[peaks, None] * excursion).sum() >= 0 else -1.0
