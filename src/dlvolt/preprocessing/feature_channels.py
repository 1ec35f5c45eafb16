"""The five views of a trace that networks look at, as a recording."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.core_tools import define_function_handling_dict_from_class

from .spread import SpreadRecording


class FeatureChannelsRecording(SpreadRecording):
    """Turn each channel into five by the filters of `dlvolt.networks.feature_channels`.

    Parameters
    ----------
    recording : BaseRecording
        N channels. The new ones are called ``"{channel}:raw"``, ``"{channel}:smoothed"``, …

    Raises
    ------
    ValueError
        On reading, if traces are NaN or infinite.
    """

    def __init__(self, recording: BaseRecording) -> None:
        import torch  # here, because SpikeInterface imports this module with its own preprocessors

        from dlvolt.networks import FEATURES, feature_channels, feature_margin

        sampling_frequency = recording.sampling_frequency

        def spread(traces: np.ndarray) -> np.ndarray:
            return feature_channels(torch.from_numpy(traces), sampling_frequency, FEATURES).numpy()

        SpreadRecording.__init__(
            self, recording, FEATURES, spread, feature_margin(sampling_frequency), "feature_channels"
        )
        self._kwargs = dict(recording=recording)


feature_channels = define_function_handling_dict_from_class(
    source_class=FeatureChannelsRecording, name="feature_channels"
)
