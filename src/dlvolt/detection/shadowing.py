"""Confidence-based spike shadowing: a strong detection suppresses weaker ones within the refractory time.

Mangipudi, Song and Zhang ("Robust machine learning-enabled spike inference in neuronal voltage imaging data", MIT
PRIMES October Conference, 2025) name the rule. Of two ways to read it, "keep what is the largest within the shadow"
and "strongest first", the second is taken: what is itself suppressed suppresses nothing, so the shoulder between two
spikes of a burst does not take the second one with it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

import numpy as np
from spikeinterface.core.node_pipeline import PeakDetector

from dlvolt.preprocessing.spike_probability import peak_mask

KEPT, SUPPRESSED, UNKNOWN, OPEN = 1, 0, -1, -2
MARGIN = 8  # shadows that are read beside a chunk whose borders are not sure, and more if they are not enough

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # frames, channels, scores


def shadow(
    probability: np.ndarray, threshold: float | np.ndarray, shadow_samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Detect spikes where their probability peaks.

    Parameters
    ----------
    probability : np.ndarray, shape (T, N)
        Probability of a spike at every sample.
    threshold : float or np.ndarray, shape (N,)
        Least probability of a detection, in all channels or in each.
    shadow_samples : int
        A detection suppresses the less confident ones (of equal ones, the later) within this distance.

    Returns
    -------
    frames, channels : np.ndarray, shape (E,), int
        Samples and channels of the detections, sorted by sample. A plateau is detected at its first sample.
    """
    frames, channels, _ = shadow_chunk(probability, threshold, shadow_samples, open_start=False, open_end=False)
    return frames, channels


def shadow_chunk(
    probability: np.ndarray, threshold: float | np.ndarray, shadow_samples: int, open_start: bool, open_end: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Do as `shadow` on a piece of a recording that may go on before and after it.

    Return the samples and channels of the detections, and of the peaks that may be one, sorted by sample; and for each
    whether it is a detection however the recording goes on.
    """
    channels, frames = np.nonzero(peak_mask(probability, threshold).T)  # channel by channel
    from_start, from_end = frames, len(probability) - 1 - frames
    unknown = (open_start & (from_start <= shadow_samples)) | (open_end & (from_end <= shadow_samples))
    one_behind_the_other = frames + channels * (len(probability) + shadow_samples)  # out of each other's reach
    fate = strongest_first(one_behind_the_other, probability[frames, channels], shadow_samples, unknown)
    by_time = np.lexsort((channels, frames))
    by_time = by_time[fate[by_time] != SUPPRESSED]
    return frames[by_time], channels[by_time], fate[by_time] == KEPT


def strongest_first(positions: np.ndarray, confidence: np.ndarray, reach: int, unknown: np.ndarray) -> np.ndarray:
    """Return which detections (E,), at ascending positions, are KEPT, SUPPRESSED or UNKNOWN.

    Each that is kept suppresses the weaker ones within reach; of equal ones the first counts as stronger. The fate of
    those in `unknown` is decided by what is not here, and that of weaker ones beside them may depend on it.
    """
    first = np.searchsorted(positions, positions - reach)
    end = np.searchsorted(positions, positions + reach, side="right")
    fate = np.where(unknown, UNKNOWN, OPEN)
    for event in np.lexsort((positions, -confidence)):
        beside = fate[first[event] : end[event]]  # a view; all stronger ones in it are decided
        if fate[event] == OPEN:
            beside[:] = SUPPRESSED
            fate[event] = KEPT
        elif fate[event] == UNKNOWN:
            beside[beside == OPEN] = UNKNOWN
    return fate


class ShadowingPeakDetector(PeakDetector):
    """Base of detectors of the peaks of a score: the strongest come first, and suppress those in their shadow.

    A subclass sets ``scores``, a recording of the shape of the one that is searched; ``threshold``, the least score of
    a detection, in all channels or in each; and ``shadow_samples``. Peaks do not depend on how the recording is cut
    into chunks.
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

    def detect(self, segment_index: int, start_frame: int, end_frame: int) -> Detections:
        """Return the frames, channels and scores of the detections of a chunk, by frame."""
        return self.shadowed(segment_index, start_frame, end_frame, np.arange(self.scores.get_num_channels()))

    def shadowed(self, segment_index: int, start_frame: int, end_frame: int, undecided: np.ndarray) -> Detections:
        """Return the frames, channels and scores of the detections of a chunk in some channels, at least one.

        Whether a detection stays may depend on a stronger one beside it, and that one on the next. So where detections
        at the borders of the chunk are not sure, more of their channels is read, until all are.
        """
        segment = self.scores.segments[segment_index]
        num_samples = segment.get_num_samples()
        margin = 0
        found: list[Detections] = []
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
        return by_frame(found)


def by_frame(parts: Sequence[Detections]) -> Detections:
    """Join detections, and sort them by frame and then by channel."""
    frames, channels, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((channels, frames))
    return frames[order], channels[order], scores[order]


def documented_parameters(docstring: str | None) -> str:
    """Return the parameters of a detector's docstring that `detect_peaks` takes, as SpikeInterface's ``params_doc``."""
    section = inspect.cleandoc(docstring or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    entries = re.split(r"\n(?=\S)", section)
    return "\n".join(entry for entry in entries if not entry.startswith(("recording", "return_output")))
