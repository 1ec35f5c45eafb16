"""The rate of spikes at every sample, as a recording: what fluorescence of calcium tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor

from .finite import drop_units, finite_segments
from .models import load_model, locate_models, rate_ratio
from .spike_probability import SpikeProbabilitySegment

MODEL = "calcium+s2s"  # both together are better on cells of an indicator or a laboratory that they do not know
BLOCK_S, MARGIN_S = 300.0, 10.0  # length of the stretches that are refined as one, and how much is read beside them


class SpikeRateRecording(BasePreprocessor):
    """Turn traces into estimated spikes per second at every sample, whose integral is the expected spike count.

    Traces are resampled to the sampling frequency of the weights. What the network says of a sample there holds until
    the next one, and each sample of the recording has the mean from itself to the next: so no spike is lost, whatever
    the frame rate. The network normalises traces itself: raw fluorescence and ΔF/F are the same to it.

    Then the rate is refined: the kinetics of each trace are learnt, in stretches of about five minutes, and the rate
    that explains the trace best with them is pooled with what the networks say (`dlvolt.deconvolution.fluorescence`).

    Parameters
    ----------
    recording : BaseRecording
        Fluorescence or ΔF/F of an indicator that brightens with calcium, one ROI per channel.
    model : str or path, default: "calcium+s2s"
        Weights that come with dlvolt ("calcium" or "s2s"), or the folder of a saved network of rates, or several of
        these joined by "+", of which the mean is taken, and the first has a say of its own. For comparison there is
        "oasis", see `dlvolt.networks.Oasis`, whose answer has no unit and is not refined.
    device : str, default: "auto"
        Torch device; "auto" takes CUDA where there is one.
    refine : bool, default: True
        Whether the rate is refined; if not, it is the mean of what the networks say.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If a model cannot serve the sampling frequency, or estimates no rates; on reading, if traces are NaN or
        infinite.
    """

    def __init__(
        self, recording: BaseRecording, model: str | Path = MODEL, device: str = "auto", refine: bool = True
    ) -> None:
        from dlvolt.networks import Oasis, RateNetwork

        models = locate_models(model)
        networks = [load_model(one, device) for one in models]
        for network in networks:
            if not isinstance(network, RateNetwork | Oasis):
                raise ValueError(
                    f"model: {network.name!r} gives probabilities, not rates; take spike_probability for it"
                )
        if len({network.sampling_frequency for network in networks}) > 1:
            raise ValueError(f"model: the networks of {model!r} work at different sampling frequencies; take one")
        (ratio,) = {rate_ratio(recording.sampling_frequency, network) for network in networks}
        refined = bool(refine) and not any(isinstance(network, Oasis) for network in networks)

        BasePreprocessor.__init__(self, recording, dtype="float32")
        drop_units(self)
        self.annotate(
            value="spike_rate",
            model_name="+".join(network.name for network in networks),
            model_version="+".join(network.version for network in networks),
        )
        self._preferred_mp_context = "spawn"  # torch may wait for ever in a process that was forked
        signs = np.ones(recording.get_num_channels(), dtype="float32")
        own_rate = networks[0].sampling_frequency if refined else None
        for segment in finite_segments(recording, "spike_rate"):
            self.add_recording_segment(SpikeRateSegment(segment, ratio, signs, models, device, own_rate))
        self._kwargs = dict(recording=recording, model="+".join(models), device=device, refine=refine)


class SpikeRateSegment(SpikeProbabilitySegment):
    """One segment of a `SpikeRateRecording`.

    The rate is refined if `refined_at` is the sampling frequency of the models, and not if it is None.
    """

    answer = "trace_rate"

    def __init__(
        self,
        parent: BaseRecordingSegment,
        ratio: Fraction,
        signs: np.ndarray,
        models: Sequence[str],
        device: str,
        refined_at: float | None,
    ) -> None:
        SpikeProbabilitySegment.__init__(self, parent, ratio, signs, models[0], device)
        self.models, self.refined_at = models, refined_at
        self.blocks: dict[tuple[int, int], np.ndarray] = {}  # the latest, by number and channel

    def _at_own_rate(self, start: int, end: int, channels: Sequence[int] | slice) -> np.ndarray:
        """Return spikes per second at the recording's samples, shape (end - start, N)."""
        edges, remainder = np.divmod(np.arange(start, end + 1) * self.up, self.down)
        first, last = edges[0], min(edges[-1] + 1, self._num_samples_at_model_rate())
        rate = self._at_model_rate(first, last, channels).astype("float64")
        rate = np.concatenate([rate, np.zeros((1, rate.shape[1]))])  # beyond the end
        until = rate.cumsum(axis=0) - rate  # integral until each of the model's samples
        part = (remainder / self.down)[:, None]
        integral = until[edges - first] + part * rate[edges - first]  # until each of the recording's
        return (np.diff(integral, axis=0) * (self.down / self.up)).astype("float32")

    def _at_model_rate(self, start: int, end: int, channels: Sequence[int] | slice) -> np.ndarray:
        """Return the rate of a stretch of the resampled traces, shape (end - start, N)."""
        if self.refined_at is None:
            return np.mean([self._answer_of(model, start, end, channels) for model in self.models], axis=0)
        num_samples, length = self._num_samples_at_model_rate(), BLOCK_S * self.refined_at
        borders = np.linspace(0, num_samples, max(1, round(num_samples / length)) + 1).round().astype(int)
        first, last = np.searchsorted(borders, [start, end - 1], side="right") - 1
        which = np.arange(len(self.signs))[channels]
        parts = [self._refined(block, borders, which, self.refined_at) for block in range(first, last + 1)]
        return np.concatenate(parts)[start - borders[first] : end - borders[first]]

    def _refined(self, block: int, borders: np.ndarray, channels: np.ndarray, fs: float) -> np.ndarray:
        """Return the refined rate of a block, shape (T, N). It is remembered, as a block holds many chunks."""
        from dlvolt.deconvolution.fluorescence import refined_rate

        start, end = borders[block : block + 2]
        known = {channel: self.blocks.get((block, channel)) for channel in channels.tolist()}
        rates = {channel: rate for channel, rate in known.items() if rate is not None}
        if missing := [channel for channel in known if channel not in rates]:
            beside = round(MARGIN_S * fs)
            low, high = max(0, start - beside), min(self._num_samples_at_model_rate(), end + beside)
            traces = self._resampled(low, high, missing)  # T×N
            answers = np.stack([self._answer_of(model, low, high, missing) for model in self.models])  # models×T×N
            for n, channel in enumerate(missing):
                refined = refined_rate(traces[:, n], answers[..., n], fs)[start - low : end - low]
                rates[channel] = self.blocks[block, channel] = refined
            for oldest in list(self.blocks)[: max(0, len(self.blocks) - 2 * len(self.signs))]:
                self.blocks.pop(oldest, None)  # another thread may have been faster
        return np.stack([rates[channel] for channel in known], axis=1)


spike_rate = define_function_handling_dict_from_class(source_class=SpikeRateRecording, name="spike_rate")
