"""The probability of a spike at every sample, as a recording."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment
from spikeinterface.preprocessing.resample import get_polyphase_resampled_traces

from dlvolt.threads import map_in_threads

from .finite import POLARITIES, check_polarity, drop_units, finite_segments
from .models import load_classifier, load_model, locate_model, rate_ratio
from .random_chunks import draw_pieces
from .resampling import resampling_filter

IMPORTED_IN = os.getpid()
ENOUGH = 64  # channels whose polarity, if they agree, is taken for that of all
DECISIVE = 20.0  # excess of the log odds of one polarity over twice those of the other that decides
CERTAIN = 1e-6  # probabilities closer to 0 or 1 are rounding errors


class SpikeProbabilityRecording(BasePreprocessor):
    """Turn traces into the probability of a spike at every sample, as a network sees it.

    Traces are turned so that spikes point the way the weights expect, and resampled to the sampling frequency of the
    weights. The probabilities are brought back to the recording's own samples: by linear interpolation where the
    recording is faster, as the largest around a sample where it is slower. The network normalises traces itself.

    Parameters
    ----------
    recording : BaseRecording
        Fluorescence or voltage, one ROI or electrode per channel.
    model : str or path, default: "voltage"
        Weights that come with dlvolt (`dlvolt.networks.available`), or the folder of a saved model.
    polarity : str or list of str, default: "auto"
        Which way spikes go, of all channels or of each: "positive" or "negative". "auto" infers it with the network,
        see `infer_polarity`. It is kept as the channel property "polarity". Where a model takes traces as they are
        ("any") nothing is turned, and "auto" becomes "any".
    device : str, default: "auto"
        Torch device; "auto" takes CUDA where there is one.
    seed : int, default: 0
        Draws the sample from which polarity is inferred.
    inferred_polarity : list of str, optional
        What "auto" found, if it is known already.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If the model cannot serve the sampling frequency, or a parameter is out of range; on reading, if traces are
        NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> import dlvolt
    >>> traces = np.random.default_rng(0).normal(size=(2000, 1))
    >>> traces[500::500] += 20  # three spikes
    >>> recording = dlvolt.traces_to_recording(traces, sampling_frequency=500.0)
    >>> probability = dlvolt.preprocessing.spike_probability(recording, polarity="positive").get_traces()
    >>> np.flatnonzero(probability[:, 0] > 0.9).tolist()
    [500, 1000, 1500]
    """

    _precomputable_kwarg_names: Sequence[str] = ["inferred_polarity"]

    def __init__(
        self,
        recording: BaseRecording,
        model: str | Path = "voltage",
        polarity: str | Sequence[str] = "auto",
        device: str = "auto",
        seed: int = 0,
        inferred_polarity: Sequence[str] | None = None,
    ) -> None:
        model = locate_model(model)
        network = load_classifier(model, device)
        ratio = rate_ratio(recording.sampling_frequency, network)
        num_channels = recording.get_num_channels()
        if polarity != "auto":
            each = check_polarity(polarity, num_channels)
            polarity = polarity if isinstance(polarity, str) else each
        elif network.spike_polarity == "any":
            each = ["any"] * num_channels
        else:
            if inferred_polarity is None:
                inferred_polarity = infer_polarity(recording, model, device, seed)
            each = inferred_polarity = check_polarity(inferred_polarity, num_channels)
        turn = network.spike_polarity != "any"
        signs = np.array([-1 if turn and one != network.spike_polarity else 1 for one in each], dtype="float32")

        BasePreprocessor.__init__(self, recording, dtype="float32")
        drop_units(self)
        self.set_property("polarity", np.array(each))
        self.annotate(value="spike_probability", model_name=network.name, model_version=network.version)
        self._preferred_mp_context = "spawn"  # torch may wait for ever in a process that was forked

        for segment in finite_segments(recording, "spike_probability"):
            self.add_recording_segment(SpikeProbabilitySegment(segment, ratio, signs, model, device))
        self._kwargs = dict(recording=recording, model=model, polarity=polarity, device=device, seed=seed)
        self._kwargs |= dict(inferred_polarity=inferred_polarity)


class SpikeProbabilitySegment(BasePreprocessorSegment):
    """One segment of a `SpikeProbabilityRecording`."""

    answer = "trace_probability"  # the function of dlvolt.networks that is called

    def __init__(
        self, parent: BaseRecordingSegment, ratio: Fraction, signs: np.ndarray, model: str, device: str
    ) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.up, self.down = ratio.numerator, ratio.denominator
        self.taps, self.margin = resampling_filter(self.up, self.down)
        self.signs, self.model, self.device = signs, model, device

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return what the network says, shape (T, N)."""
        channels = slice(None) if channel_indices is None else channel_indices
        if end_frame <= start_frame:
            return np.zeros((0, len(self.signs[channels])), dtype="float32")
        return self._at_own_rate(start_frame, end_frame, channels)

    def _at_own_rate(self, start: int, end: int, channels: Sequence[int] | slice) -> np.ndarray:
        """Return probabilities at the recording's samples, shape (end - start, N)."""
        up, down = self.up, self.down
        if up > down:  # sample t has the model's samples from (t - 1/2) up / down on, rounded up
            edges = -(-(2 * np.arange(start, end + 1) - 1) * up // (2 * down))
            edges = np.maximum(edges, 0)
            probability = self._answer_of(self.model, edges[0], edges[-1], channels)
            return np.maximum.reduceat(probability, edges[:-1] - edges[0], axis=0)
        before, remainder = np.divmod(np.arange(start, end) * up, down)
        after = np.minimum(before + (remainder > 0), self._num_samples_at_model_rate() - 1)
        probability = self._answer_of(self.model, before[0], after[-1] + 1, channels)
        weight = (remainder / down)[:, None].astype("float32")
        return (1 - weight) * probability[before - before[0]] + weight * probability[after - before[0]]

    def _num_samples_at_model_rate(self) -> int:
        return -(-int(self.get_num_samples()) * self.up // self.down)

    def _answer_of(self, model: str, start: int, end: int, channels: Sequence[int] | slice) -> np.ndarray:
        """Return what a network says of a stretch of the resampled traces, shape (end - start, N)."""
        from dlvolt import networks  # here, because SpikeInterface imports this module with its own

        if os.getpid() != IMPORTED_IN:
            import torch

            torch.set_num_threads(1)  # other OpenMP threads do not survive a fork, and it would wait for them
        answer, network = getattr(networks, self.answer), load_model(model, self.device)
        read = partial(self._resampled, channels=channels)
        return answer(network, read, self._num_samples_at_model_rate(), int(start), int(end))

    def _resampled(self, start: int, end: int, channels: Sequence[int] | slice) -> np.ndarray:
        """Return a stretch of the traces at the model's rate, shape (end - start, N), float64."""
        parent = self.parent_recording_segment
        traces = get_polyphase_resampled_traces(
            parent, start, end, channels, self.up, self.down, self.margin, "float64", self.taps
        )
        return traces * self.signs[channels]


spike_probability = define_function_handling_dict_from_class(
    source_class=SpikeProbabilityRecording, name="spike_probability"
)


def infer_polarity(
    recording: BaseRecording, model: str | Path = "voltage", device: str = "auto", seed: int = 0, num_workers: int = 1
) -> list[str]:
    """Infer which way the spikes of each channel go: the way in which a network sees more of them.

    The network reads a sample of the recording, up to 24 s in pieces of 8 s, as it is and upside down; a channel is
    left alone as soon as its polarity is sure. Of more than 64 channels the network reads 64 first, and if they agree,
    the others are taken to be like them: a recording has one indicator, as a rule.

    Parameters
    ----------
    recording, model, device
        As for `spike_probability`; the model is one that has a preferred polarity.
    seed : int, default: 0
        Draws the channels and the pieces.
    num_workers : int, default: 1
        Threads that read the pieces.

    Returns
    -------
    list of str
        "positive" or "negative" for each of the N channels: the way with the larger sum of the log odds of detections,
        in which one sure spike outweighs the two doubtful ones that its undershoots make upside down.
    """
    num_channels = recording.get_num_channels()
    if num_channels > ENOUGH:
        drawn = np.random.default_rng(seed).choice(num_channels, ENOUGH, replace=False)
        some = recording.select_channels(recording.channel_ids[np.sort(drawn)])
        if len(found := set(infer_polarity(some, model, device, seed, num_workers))) == 1:
            return list(found) * num_channels
    threshold = load_classifier(locate_model(model), device).threshold
    both = [SpikeProbabilityRecording(recording, model, polarity, device) for polarity in POLARITIES]
    ids, undecided = recording.channel_ids, np.arange(num_channels)
    total = np.zeros((2, num_channels))

    def evidence(way_and_piece: tuple[BaseRecording, tuple[int, int, int]]) -> np.ndarray:
        way, piece = way_and_piece
        return confidence(way.get_traces(*piece, channel_ids=ids[undecided]), threshold)

    for piece in draw_pieces(recording, seed):
        total[:, undecided] += map_in_threads(evidence, [(way, piece) for way in both], num_workers)
        undecided = np.flatnonzero(total.max(axis=0) < 2 * total.min(axis=0) + DECISIVE)
        if not len(undecided):
            break
    positive, negative = total
    return np.where(positive >= negative, *POLARITIES).tolist()


def confidence(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Return how sure a network is that there are spikes, from its probabilities (T, N), shape (N,).

    That is the sum of the log odds of all peaks over those of the threshold, plus those of the highest sample.
    """
    from scipy.special import logit

    log_odds = logit(np.clip(probability, CERTAIN, 1 - CERTAIN)) - logit(threshold)  # T×N
    return np.sum(log_odds * peak_mask(probability, threshold), axis=0) + log_odds.max(axis=0)


def peak_mask(probability: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Return where a probability (T, N) reaches a threshold and has a local maximum, or the first sample of one."""
    around = np.pad(probability, ((1, 1), (0, 0)), constant_values=-np.inf)
    return (probability > around[:-2]) & (probability >= around[2:]) & (probability >= threshold)
