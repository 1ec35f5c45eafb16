"""Spikes of a whole recording, proposed by a network and decided by a model of each trace."""

from __future__ import annotations

from itertools import chain

import numpy as np
from spikeinterface.core import BaseRecording

from dlvolt.detection.expected_f1 import CANDIDATE, LOWEST, best_expected_f1
from dlvolt.networks.inference import mirror
from dlvolt.preprocessing.random_chunks import draw_pieces
from dlvolt.threads import map_in_threads

from .refinement import Found, Models, TraceModel, find_spikes, learn, local_maxima, margin

BLOCK_S = 8.0  # blocks are searched as a whole, so that spikes do not depend on the chunks of the recording
SAMPLE_S = 40.0  # length of the sample from which models are learnt, in whole blocks
BATCH = 32  # traces that are learnt and searched together
SIGNS = {"positive": 1.0, "negative": -1.0}
# A model has gone astray if it finds less than FEWER times the network's spikes while the network is unsure of all, or
# more than MORE times as many while the network is sure of nearly all. Its expected F1 tells which it is.
UNSURE, SURE = 0.65, 0.87
FEWER, MORE = 0.65, 1.1
KEPT = 32  # blocks whose spikes are remembered, for chunks that are shorter than a block

Spikes = tuple[np.ndarray, np.ndarray, np.ndarray]  # frames, channels and probabilities


class DecidedSpikes:
    """Models of the traces of a recording, which decide on the spikes that a network proposes.

    Parameters
    ----------
    traces : BaseRecording
        N channels of fluorescence or ΔF/F.
    probability : BaseRecording
        Spike probability of each sample, from `dlvolt.preprocessing.spike_probability`.
    separation : int
        Spikes lie more than so many samples apart, that is, at least one more.
    seed : int, default: 0
        Seed of the sample from which models are learnt.
    num_workers : int, default: 1
        Number of threads that read the sample and learn.

    Attributes
    ----------
    channels : np.ndarray, shape (M,)
        Channels that have a model. Of the others, too few or too small spikes are known, or the model has gone astray.
    thresholds : np.ndarray, shape (M,)
        Threshold on the probability of the spikes of each of these channels: half of the expected F1, but at least 0.3
        and at most 0.5; see `dlvolt.detection.expected_f1_thresholds`.
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
        self.block = round(BLOCK_S * traces.sampling_frequency)

        # the sample: traces in some blocks, and the probabilities of the network
        sampled = [(segment, start // self.block) for segment, start, _ in draw_pieces(traces, seed, SAMPLE_S, BLOCK_S)]
        read = map_in_threads(lambda run: self._probabilities(*run), consecutive(sampled), num_workers)
        self.known = {place: chances for of_run in read for place, chances in of_run.items()}
        chances = np.concatenate([self.known[place] for place in sampled])  # T×N
        sample = np.concatenate([traces.get_traces(segment, *self._ends(segment, n)) for segment, n in sampled])

        # the sign of each trace with which its spikes go up
        polarity = probability.get_property("polarity")
        signs = np.array(
            [
                SIGNS[one] if one in SIGNS else direction(trace, chance, self.separation)
                for one, trace, chance in zip(polarity, sample.T, chances.T, strict=True)
            ]
        )

        def of_some(channels: np.ndarray) -> tuple[list[TraceModel | None], list[Found]]:
            some = signs[channels] * sample[:, channels]
            return learn(some, chances[:, channels], traces.sampling_frequency, self.separation, self.block)

        # the model of each trace, and those to search with, in groups
        batches = np.split(np.arange(len(signs)), range(BATCH, len(signs), BATCH))
        learnt = map_in_threads(of_some, batches, num_workers)
        models, found = (list(chain(*parts)) for parts in zip(*learnt, strict=True))
        for n, chance in enumerate(chances.T):
            if gone_astray(found[n].probability, chance, self.separation):
                models[n] = None
        self.channels = np.flatnonzero([model is not None for model in models])
        self.groups = [
            (some, signs[some], Models.of([models[n] for n in some]))
            for some in np.split(self.channels, range(BATCH, len(self.channels), BATCH))
            if len(some)
        ]
        best = [best_expected_f1(found[n].probability) for n in self.channels]
        self.thresholds = np.maximum(np.array(best) / 2, LOWEST)
        self.blocks: dict[tuple[int, int], Spikes] = {}

    def find(self, segment: int, start: int, end: int) -> Spikes:
        """Return the events from start to end, samples of a segment, that may be spikes.

        They are frames, channels and probabilities, by block, and by channel and frame in each block.
        """
        places = [(segment, block) for block in range(start // self.block, -(-end // self.block))]
        spikes = {place: self.blocks[place] for place in places if place in self.blocks}
        missing = [place for place in places if place not in spikes]
        chances = {place: self.known[place] for place in missing if place in self.known}
        for run in consecutive([place for place in missing if place not in chances]):
            chances |= self._probabilities(*run)
        for run in consecutive(missing):
            spikes |= self._spikes(*run, chances)
        for place in places[-KEPT:]:
            self.blocks[place] = spikes[place]
        for oldest in list(self.blocks)[:-KEPT]:
            self.blocks.pop(oldest, None)  # another thread may have dropped it already
        frames, channels, probability = (
            np.concatenate(part) for part in zip(*(spikes[place] for place in places), strict=True)
        )
        inside = (frames >= start) & (frames < end)
        return frames[inside], channels[inside], probability[inside]

    def _ends(self, segment: int, block: int) -> tuple[int, int]:
        """Return the first sample of a block of a segment, and the one after its last."""
        return block * self.block, min((block + 1) * self.block, self.traces.get_num_samples(segment))

    def _probabilities(self, segment: int, first: int, last: int) -> dict[tuple[int, int], np.ndarray]:
        """Return the network's probabilities in consecutive blocks, by segment and block."""
        start, end = self._ends(segment, first)[0], self._ends(segment, last)[1]
        parts = np.split(self.probability.get_traces(segment, start, end), range(self.block, end - start, self.block))
        return {(segment, first + n): part for n, part in enumerate(parts)}

    def _spikes(
        self, segment: int, first: int, last: int, chances: dict[tuple[int, int], np.ndarray]
    ) -> dict[tuple[int, int], Spikes]:
        """Return the events that may be spikes in consecutive blocks, by segment and block."""
        sides, ids = margin(self.traces.sampling_frequency), self.traces.channel_ids
        start, end = self._ends(segment, first)[0] - sides, self._ends(segment, last)[1] + sides
        samples = mirror(np.arange(start, end), self.traces.get_num_samples(segment))
        low = samples.min()
        traces = self.traces.get_traces(segment, low, samples.max() + 1, ids[self.channels])[samples - low].T
        found = {}
        for block in range(first, last + 1):
            begin, stop = self._ends(segment, block)
            of_block = traces[:, begin - sides - start : stop + sides - start]  # M×T
            of_groups, row = [], 0
            for some, signs, models in self.groups:
                upright = (of_block[row : row + len(some)] * signs[:, None]).T
                row += len(some)
                frames, rows, probability = find_spikes(
                    upright, chances[segment, block][:, some], models, self.separation
                )
                kept = probability > CANDIDATE
                of_groups.append((begin + frames[kept], some[rows[kept]], probability[kept]))
            frames, rows, probability = (np.concatenate(part) for part in zip(*of_groups, strict=True))
            found[segment, block] = frames, rows, probability
        return found


def gone_astray(decided: np.ndarray, probability: np.ndarray, separation: int) -> bool:
    """Return whether a model finds implausibly few or many spikes, compared with the network.

    Given are the probabilities of the model's events (E,), and the network's of each sample (T,). In strong noise the
    network is unsure of all spikes. There a few similar maxima can become the template, and the other spikes are lost.
    If the network is sure of nearly all spikes, many more events are no spikes but, for example, spikelets.
    """
    proposed = probability[local_maxima(probability, separation, CANDIDATE)]
    found, certainty = decided.sum() / max(proposed.sum(), 1e-9), best_expected_f1(proposed)
    return bool((certainty < UNSURE and found < FEWER) or (certainty > SURE and found > MORE))


def consecutive(places: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return runs of consecutive blocks as (segment, first, last), given ascending blocks as (segment, block)."""
    runs: list[tuple[int, int, int]] = []
    for segment, block in places:
        if runs and runs[-1][0] == segment and runs[-1][2] == block - 1:
            runs[-1] = (segment, runs[-1][1], block)
        else:
            runs.append((segment, block, block))
    return runs


def direction(trace: np.ndarray, probability: np.ndarray, separation: int) -> float:
    """Return the direction of a trace (T,) at the spikes that a network finds: 1 for up, -1 for down."""
    peaks = local_maxima(probability, separation)
    reach = 2 * separation
    around = np.pad(trace, reach, mode="symmetric")[peaks[:, None] + np.arange(2 * reach + 1)]  # peaks×samples
    excursion = around[:, reach - 1 : reach + 2] - np.median(around, axis=1)[:, None]
    return 1.0 if (probability[peaks, None] * excursion).sum() >= 0 else -1.0
