"""The rate of spikes at every sample, as a recording: what fluorescence of calcium tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor

from .finite import FiniteRecording, drop_units
from .spike_probability import SpikeProbabilitySegment, load_model, locate_model, rate_ratio


class SpikeRateRecording(BasePreprocessor):
    """Give the estimated spikes per second at every sample, calibrated: their integral is the expected spike count.

    Traces are resampled to the sampling frequency of the weights. What the network says of a sample there holds until
    the next one, and each sample of the recording has the mean from itself to the next: so no spike is lost, whatever
    the frame rate. The network normalises traces itself: raw fluorescence and ΔF/F are the same to it.

    Parameters
    ----------
    recording : BaseRecording
        Fluorescence or ΔF/F of an indicator that brightens with calcium, one ROI per channel.
    model : str or path, default: "calcium"
        Weights that come with dlvolt ("calcium" or "s2s"), or the folder of a saved network of rates. For comparison
        "oasis", see `dlvolt.networks.Oasis`, whose answer is in no unit.
    device : str, default: "auto"
        Torch device; "auto" takes CUDA where there is one.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If the model cannot serve the sampling frequency, or estimates no rates; on reading, if traces are NaN or
        infinite. A constant trace has a rate of zero, and one shorter than the windows of the model goes on as its
        mirror image.
    """

    _precomputable_kwarg_names: Sequence[str] = []

    def __init__(self, recording: BaseRecording, model: str | Path = "calcium", device: str = "auto") -> None:
        from dlvolt.networks import Oasis, RateNetwork
        from dlvolt.networks.estimator import choose_device

        model = locate_model(model)
        network = load_model(model, device)
        if not isinstance(network, RateNetwork | Oasis):
            raise ValueError(f"model: {network.name!r} gives probabilities, not rates; take spike_probability for it")
        ratio = rate_ratio(recording.sampling_frequency, network)

        BasePreprocessor.__init__(self, recording, dtype="float32")
        drop_units(self)
        self.set_annotation("value", "spike_rate", overwrite=True)
        self.annotate(model_name=network.name, model_version=network.version)
        if choose_device(device) != "cpu":
            self._preferred_mp_context = "spawn"  # a forked process cannot use CUDA
        for segment in FiniteRecording(recording, "spike_rate").segments:
            signs = np.ones(recording.get_num_channels(), dtype="float32")
            self.add_recording_segment(SpikeRateSegment(segment, ratio, signs, model, device))
        self._kwargs = dict(recording=recording, model=model, device=device)


class SpikeRateSegment(SpikeProbabilitySegment):
    """One segment of a `SpikeRateRecording`."""

    answer = "trace_rate"

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return spikes per second, shape (T, N)."""
        channels = slice(None) if channel_indices is None else channel_indices
        if end_frame <= start_frame:
            return np.zeros((0, len(self.signs[channels])), dtype="float32")
        edges, remainder = np.divmod(np.arange(start_frame, end_frame + 1) * self.up, self.down)
        first, last = edges[0], min(edges[-1] + 1, self._num_samples_at_model_rate())
        rate = self._at_model_rate(first, last, channels).astype("float64")
        rate = np.concatenate([rate, np.zeros((1, rate.shape[1]))])  # beyond the end
        until = rate.cumsum(axis=0) - rate  # integral until each of the model's samples
        part = (remainder / self.down)[:, None]
        integral = until[edges - first] + part * rate[edges - first]  # until each of the recording's
        return (np.diff(integral, axis=0) * (self.down / self.up)).astype("float32")


spike_rate = define_function_handling_dict_from_class(source_class=SpikeRateRecording, name="spike_rate")
