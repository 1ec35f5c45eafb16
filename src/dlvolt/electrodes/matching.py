"""Matching engine: ``find_spikes_from_templates(method="dlvolt")``."""

from __future__ import annotations

import numpy as np
import torch
from spikeinterface.core import BaseRecording, Templates, get_noise_levels
from spikeinterface.sortingcomponents.matching.base import BaseTemplateMatching
from torch import Tensor

from dlvolt.electrodes.learning import LearningSettings, Matcher, Matchers, Units
from dlvolt.electrodes.motion import Drift

MARGIN = 16  # margin of a chunk, in lengths of a template; chains of overlapping events are seldom longer


class DlvoltMatching(BaseTemplateMatching):
    """Find spikes by MAP deconvolution with low-rank templates.

    See `dlvolt.deconvolution.pursue`. Results do not depend on how the recording is cut into chunks, as each chunk is
    matched with a margin of sixteen templates.
    """

    name = "dlvolt"
    need_noise_levels = False
    params_doc = """
    rank : int
        Rank of the templates.
    amplitude_spreads : float or array
        Standard deviation of each unit's amplitudes, relative to its template.
    firing_rates : float or array
        Firing rate of each unit, Hz: the lower it is, the clearer a spike has to be.
    score_deviations : float or array
        Standard deviation of each unit's scores where it has no spikes: 1 if the noise is white.
    amplitude_range : tuple
        Smallest and largest amplitude of a spike relative to its template.
    refractory_ms : float
        Least distance of two spikes of one unit, ms.
    noise_levels : array or None
        Noise standard deviation of each channel, in the unit of the traces; None estimates it.
    device : str
        Torch device; "auto" takes CUDA where there is one.
    drift : dlvolt.electrodes.motion.Drift or None
        Place of the tissue in the course of the recording; None if nothing moves.
    moved : Tensor or None
        Templates in each place, units by places by channels by samples; `templates` are those in the middle place.
    """

    def __init__(
        self,
        recording: BaseRecording,
        templates: Templates,
        return_output: bool = True,
        rank: int = 3,
        amplitude_spreads: np.ndarray | float = 0.15,
        firing_rates: np.ndarray | float = 5.0,
        score_deviations: np.ndarray | float = 1.0,
        amplitude_range: tuple[float, float] = (0.5, 1.5),
        refractory_ms: float = 1.0,
        noise_levels: np.ndarray | None = None,
        device: str = "auto",
        drift: Drift | None = None,
        moved: Tensor | None = None,
    ) -> None:
        if len(templates.unit_ids) == 0:
            raise ValueError("templates: there is none, so there is nothing to match")
        super().__init__(recording, templates, return_output=return_output)
        if noise_levels is None:
            noise_levels = get_noise_levels(recording, return_in_uV=False)
        noise_levels = np.where(noise_levels > 0, noise_levels, 1.0)
        self.noise_levels = noise_levels.astype("float32")
        self.num_before = templates.nbefore
        waveforms = (templates.get_dense_templates() / self.noise_levels).transpose(0, 2, 1)  # K×N×D
        waveforms = torch.from_numpy(np.ascontiguousarray(waveforms, dtype="float32"))
        self.width = waveforms.shape[2]
        self.channels = waveforms.norm(dim=2).argmax(dim=1).numpy()
        self.drift = drift or Drift.none()
        moved = waveforms[:, None] if moved is None else moved / torch.from_numpy(self.noise_levels)[:, None]
        spreads, rates, deviations = (
            torch.from_numpy(np.broadcast_to(value, len(waveforms)).astype("float32"))
            for value in (amplitude_spreads, np.asarray(firing_rates) / recording.sampling_frequency, score_deviations)
        )
        self.matchers = Matchers(
            Units(moved, spreads, rates, deviations, torch.zeros(len(moved))),
            LearningSettings(
                rank=rank,
                num_before=self.num_before,
                amplitude_range=(amplitude_range[0], amplitude_range[1]),  # JSON makes a list of it
                separation=round(refractory_ms / 1000 * recording.sampling_frequency),
            ),
            device,
        )

    def get_margin(self) -> int:
        """Return the samples on either side of a chunk that are matched with it."""
        return MARGIN * self.width

    def compute_matching(self, traces: np.ndarray, start_frame: int, end_frame: int, segment_index: int) -> np.ndarray:
        """Return the spikes in traces of shape (T, N); their amplitude is relative to the template."""
        margin = self.get_margin()
        spikes = []
        for start, end, place in self.drift.pieces(self.recording, start_frame, end_frame):
            first, last = start - start_frame, end - start_frame + 2 * margin  # the traces have margins
            of_piece = self._in_piece(traces[first:last], start - margin, self.matchers.at(place))
            of_piece["sample_index"] += first
            inside = (of_piece["sample_index"] >= first + margin) & (of_piece["sample_index"] < last - margin)
            spikes.append(of_piece[inside])
        return np.concatenate(spikes)

    def _in_piece(self, traces: np.ndarray, start: int, matcher: Matcher) -> np.ndarray:
        """Return the spikes in traces from a frame `start` on, with samples relative to it, in order of time.

        Zeros are put before the traces so that the bins of the pursuit are on one grid over the whole recording.
        """
        offset = start % self.width
        chunk = np.zeros((traces.shape[1], offset + len(traces)), dtype="float32")
        np.divide(traces.T, self.noise_levels[:, None], out=chunk[:, offset:])
        times, units, amplitudes, _ = (field.numpy() for field in matcher.pursue(torch.from_numpy(chunk)))
        spikes = np.zeros(len(times), dtype=self.get_dtype())
        spikes["sample_index"] = times - offset + self.num_before
        spikes["channel_index"] = self.channels[units]
        spikes["cluster_index"] = units
        spikes["amplitude"] = amplitudes / torch.as_tensor(matcher.prior.typical, device="cpu").numpy()[units]
        return spikes[np.argsort(spikes["sample_index"], kind="stable")]
