"""Peak detector: ``detect_peaks(method="dlvolt")``: a network proposes spikes, the model of each trace decides."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from spikeinterface.core import BaseRecording
from spikeinterface.core.node_pipeline import PeakDetector

from dlvolt.preprocessing.spike_probability import load_classifier, spike_probability
from dlvolt.rois.decided import DecidedSpikes
from dlvolt.rois.refinement import reach

from .expected_f1 import expected_f1_thresholds
from .shadowing import shadow_chunk

ELECTRODES_HZ = 6000.0  # from here on traces are those of electrodes, whose spikes are another matter
MARGIN = 8  # shadows, read beside a chunk where its borders are not sure; more if that is not enough


class ShadowingPeakDetector(PeakDetector):
    """Detect where scores peak, whoever gives them: strongest first, and each suppresses those in its shadow.

    A subclass sets ``scores``, a recording like the one that is searched, ``threshold``, of all channels or of each,
    and ``shadow_samples``. Peaks do not depend on how the recording is cut into chunks.
    """

    def get_margin(self) -> int:
        """Return 0: margins are read from the scores, not from the traces."""
        return 0

    def compute(
        self, traces: np.ndarray, start_frame: int, end_frame: int, segment_index: int, max_margin: int
    ) -> tuple[np.ndarray, ...]:
        """Return the peaks of a chunk, whose traces (T, N) give them their amplitude, and, on request, their scores."""
        frames, channels, scores = self.detect(segment_index, start_frame, end_frame)
        peaks = np.zeros(len(frames), dtype=self.get_dtype())
        peaks["sample_index"] = frames - start_frame
        peaks["channel_index"] = channels
        peaks["amplitude"] = traces[frames - start_frame, channels]
        peaks["segment_index"] = segment_index
        return (peaks, scores) if isinstance(self.return_output, tuple) else (peaks,)

    def detect(self, segment_index: int, start_frame: int, end_frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the frames, channels and scores of the detections of a chunk, by frame."""
        return self.shadowed(segment_index, start_frame, end_frame, np.arange(self.scores.get_num_channels()))

    def shadowed(
        self, segment_index: int, start_frame: int, end_frame: int, undecided: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the frames, channels and scores of the detections of a chunk, in some channels, at least one.

        Whether a detection stays may depend on a stronger one beside it, and that on the next. So, of channels whose
        detections at the borders of the chunk are not sure, more is read, until all are.
        """
        segment = self.scores.segments[segment_index]
        num_samples = segment.get_num_samples()
        margin = 0
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        thresholds = np.broadcast_to(self.threshold, self.scores.get_num_channels())
        while len(undecided) or not found:
            low, high = max(0, start_frame - margin), min(num_samples, end_frame + margin)
            scores = segment.get_traces(low, high, undecided)
            frames, rows, sure = shadow_chunk(
                scores, thresholds[undecided], self.shadow_samples, low > 0, high < num_samples
            )
            inside = (frames >= start_frame - low) & (frames < end_frame - low)
            unsure = np.isin(np.arange(len(undecided)), rows[inside & ~sure])
            frames, rows = frames[inside & ~unsure[rows]], rows[inside & ~unsure[rows]]
            found.append((low + frames, undecided[rows], scores[frames, rows]))
            undecided, margin = undecided[unsure], max(2 * margin, MARGIN * self.shadow_samples + 1)
        frames, channels, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        by_time = np.lexsort((channels, frames))
        return frames[by_time], channels[by_time], scores[by_time]


class NetworkPeakDetector(ShadowingPeakDetector):
    """Detect spikes: a network proposes them, and the trace itself decides.

    From what the network sees, a model of each trace is learnt: what its spikes look like, how high they are, how often
    they come, and what its noise is like (`dlvolt.rois.refinement`). It gives each spike a probability. Where a trace
    has too few spikes to learn from, and with ``refine=False``, the network alone decides: spikes are where its
    probability peaks, and stronger ones suppress weaker ones within the shadow, strongest first (see
    `dlvolt.detection.shadow`).
    Which way spikes go is inferred per channel unless given, and recorded: as `polarity` here, and as the channel
    property "polarity" of the recording. Peaks do not depend on how the recording is cut into chunks.

    Parameters
    ----------
    recording : BaseRecording
        Fluorescence or voltage, one ROI or electrode per channel.
    model : str or path, default: "voltage"
        Weights that come with dlvolt (`dlvolt.networks.available`), or the folder of a saved model.
    threshold : float or "auto", optional
        Least probability of a detection. "auto" chooses it for each channel, see `expected_f1_thresholds`. By default
        the network's own where it decides alone, else "auto".
    shadow_ms : float, optional
        By default the model's own.
    polarity : str or list of str, default: "auto"
        As for `dlvolt.preprocessing.spike_probability`.
    device : str, default: "auto"
        Torch device; "auto" takes CUDA where there is one.
    seed : int, default: 0
        Of the samples from which polarity, models and thresholds are inferred.
    num_workers : int, default: 1
        Threads that read the sample for models and thresholds.
    refine : bool, default: True
        Let the model of each trace decide. Traces of 6 kHz or more, as of electrodes, are left to the network, and so
        are all if the shadow is as long as the template of a spike, 60 ms.
    return_output : bool or (bool, bool), default: True
        Whether the pipeline returns the peaks; of two, the second is for the probability at each of them.

    Attributes
    ----------
    polarity : list of str
        "positive", "negative" or, for a model that does not care, "any", of each channel.
    scores : BaseRecording
        What the network says at every sample.
    decided_by : np.ndarray, shape (N,)
        "model" or "network", for each channel.
    threshold : float or np.ndarray, shape (N,)
        Of all channels, or of each.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If a parameter is out of range, or the model cannot serve the recording's sampling frequency.
    """

    name = "dlvolt"
    preferred_mp_context = "spawn" if torch.cuda.is_available() else None  # a forked process cannot use CUDA
    need_noise_levels = False
    params_doc = """
    model : str or path, default: "voltage"
        Weights that come with dlvolt, or the folder of a saved model.
    threshold : float, "auto" or None, default: None
        Least probability of a detection; "auto" chooses it for each channel; None takes the network's own where it
        decides alone, else "auto".
    shadow_ms : float or None, default: None
        A detection suppresses less confident ones so close; None takes the model's own.
    polarity : "auto" | "positive" | "negative" | list, default: "auto"
        Which way spikes go, of all channels or of each; "auto" infers it. The recording's channel property "polarity"
        tells what was found.
    device : str, default: "auto"
        Torch device; "auto" takes CUDA where there is one.
    seed : int, default: 0
        Of the samples from which polarity, models and thresholds are inferred.
    num_workers : int, default: 1
        Threads that read the sample for models and thresholds.
    """

    def __init__(
        self,
        recording: BaseRecording,
        model: str | Path = "voltage",
        threshold: float | Literal["auto"] | None = None,
        shadow_ms: float | None = None,
        polarity: str | Sequence[str] = "auto",
        device: str = "auto",
        seed: int = 0,
        num_workers: int = 1,
        refine: bool = True,
        return_output: bool | tuple[bool, bool] = True,
    ) -> None:
        super().__init__(recording, return_output=return_output)
        if threshold not in (None, "auto") and not (isinstance(threshold, float | Real) and 0 < threshold <= 1):
            raise ValueError(f"threshold must be a probability above 0, or 'auto', not {threshold!r}")
        if shadow_ms is not None and not shadow_ms >= 0:
            raise ValueError(f"shadow_ms must be a duration, not {shadow_ms}")
        self.scores = spike_probability(recording, model, polarity, device, seed)
        network = load_classifier(self.scores._kwargs["model"], device)
        shadow_ms = network.shadow_ms if shadow_ms is None else shadow_ms
        self.shadow_samples = round(shadow_ms / 1000 * recording.sampling_frequency)
        num_channels = recording.get_num_channels()
        self.decided_by, self.decided = np.full(num_channels, "network"), None
        reach_samples = sum(reach(recording.sampling_frequency))
        if refine and recording.sampling_frequency < ELECTRODES_HZ and self.shadow_samples < reach_samples:
            self.decided = DecidedSpikes(recording, self.scores, self.shadow_samples, seed, num_workers)
            self.decided_by[self.decided.channels] = "model"
        alone = np.flatnonzero(self.decided_by == "network")
        if threshold is None:
            threshold = network.threshold if network.detection_threshold is None else network.detection_threshold
            given = False
        else:
            given = threshold != "auto"
        thresholds = np.full(num_channels, np.nan if threshold == "auto" else threshold)
        if threshold == "auto" and len(alone):
            some = self.scores.select_channels(self.scores.channel_ids[alone])
            thresholds[alone] = expected_f1_thresholds(some, self.shadow_samples, seed, num_workers)
        if self.decided is not None and not given:
            thresholds[self.decided.channels] = self.decided.thresholds
        self.threshold = thresholds
        self.polarity = self.scores.get_property("polarity").tolist()
        recording.set_property("polarity", self.polarity)

    def detect(self, segment_index: int, start_frame: int, end_frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the frames, channels and probabilities of the spikes of a chunk, by frame."""
        parts = []
        if len(alone := np.flatnonzero(self.decided_by == "network")):
            parts.append(self.shadowed(segment_index, start_frame, end_frame, alone))
        if self.decided is not None and len(alone) < len(self.decided_by):
            frames, channels, probability = self.decided.find(segment_index, start_frame, end_frame)
            spikes = probability >= self.threshold[channels]
            parts.append((frames[spikes], channels[spikes], probability[spikes]))
        frames, channels, probability = (np.concatenate(part) for part in zip(*parts, strict=True))
        by_time = np.lexsort((channels, frames))
        return frames[by_time], channels[by_time], probability[by_time]
