"""Peak detector: ``detect_peaks(method="dlvolt")``: a network proposes spikes, the model of each trace decides."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Literal

import numpy as np
from spikeinterface.core import BaseRecording

from dlvolt.preprocessing.models import load_classifier
from dlvolt.preprocessing.spike_probability import spike_probability
from dlvolt.rois.decided import DecidedSpikes
from dlvolt.rois.refinement import reach

from .expected_f1 import expected_f1_thresholds
from .shadowing import Detections, ShadowingPeakDetector, by_frame, documented_parameters

ELECTRODES_HZ = 6000.0  # traces of this rate or more are taken for those of electrodes, and left to the network


class NetworkPeakDetector(ShadowingPeakDetector):
    """Detect spikes: a network proposes them, and the trace itself decides.

    From what the network sees, a model of each trace is learnt: what its spikes look like, how high they are, how often
    they come, and what its noise is like (`dlvolt.rois.refinement`). It gives each spike a probability. Where a trace
    has too few spikes to learn from, and with ``refine=False``, the network alone decides: spikes are where its
    probability peaks, and stronger ones suppress weaker ones within the shadow, strongest first (see
    `dlvolt.detection.shadow`). Peaks do not depend on how the recording is cut into chunks.

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
        A detection suppresses less confident ones within this time. By default the model's own.
    polarity : str or list of str, default: "auto"
        Which way spikes go, of all channels or of each: "positive" or "negative". "auto" infers it, see
        `dlvolt.preprocessing.spike_probability`; the recording's channel property "polarity" tells what was found.
    device : str, default: "auto"
        Torch device; "auto" takes CUDA where there is one.
    seed : int, default: 0
        Draws the samples of the recording from which polarity, models and thresholds are inferred.
    num_workers : int, default: 1
        Threads that read the sample for models and thresholds.
    refine : bool, default: True
        Let the model of each trace decide. Traces of 6 kHz or more, as of electrodes, are left to the network, and so
        are all if the shadow is as long as the template of a spike, 60 ms.
    return_output : bool or (bool, bool), default: True
        Whether the pipeline returns the peaks. A second value tells whether it also returns their probabilities.

    Attributes
    ----------
    polarity : list of str
        "positive", "negative" or, for a model that does not care, "any", of each channel.
    scores : BaseRecording
        What the network says at every sample.
    decided_by : np.ndarray, shape (N,)
        "model" or "network", for each channel.
    threshold : np.ndarray, shape (N,)
        Least probability of a detection in each channel.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If a parameter is out of range, or the model cannot serve the recording's sampling frequency.
    """

    name = "dlvolt"
    preferred_mp_context = "spawn"  # torch may wait for ever in a process that was forked
    need_noise_levels = False
    params_doc = documented_parameters(__doc__)

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
        self.decided = None
        self.decided_by = np.full(num_channels, "network")
        reach_samples = sum(reach(recording.sampling_frequency))
        if refine and recording.sampling_frequency < ELECTRODES_HZ and self.shadow_samples < reach_samples:
            self.decided = DecidedSpikes(recording, self.scores, self.shadow_samples, seed, num_workers)
            self.decided_by[self.decided.channels] = "model"
        is_given = threshold not in (None, "auto")
        if threshold is None:
            threshold = network.threshold if network.detection_threshold is None else network.detection_threshold
        self.threshold = np.full(num_channels, np.nan if threshold == "auto" else threshold)
        if threshold == "auto" and len(alone := np.flatnonzero(self.decided_by == "network")):
            some = self.scores.select_channels(self.scores.channel_ids[alone])
            self.threshold[alone] = expected_f1_thresholds(some, self.shadow_samples, seed, num_workers)
        if self.decided is not None and not is_given:
            self.threshold[self.decided.channels] = self.decided.thresholds
        self.polarity = self.scores.get_property("polarity").tolist()
        recording.set_property("polarity", self.polarity)

    def detect(self, segment_index: int, start_frame: int, end_frame: int) -> Detections:
        """Return the frames, channels and probabilities of the spikes of a chunk, by frame."""
        parts = []
        if len(alone := np.flatnonzero(self.decided_by == "network")):
            parts.append(self.shadowed(segment_index, start_frame, end_frame, alone))
        if self.decided is not None and len(alone) < len(self.decided_by):
            frames, channels, probability = self.decided.find(segment_index, start_frame, end_frame)
            spikes = probability >= self.threshold[channels]
            parts.append((frames[spikes], channels[spikes], probability[spikes]))
        return by_frame(parts)
