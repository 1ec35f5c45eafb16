"""The mel spectrogram around each sample, as a recording."""

from __future__ import annotations

import numpy as np
from spikeinterface.core import BaseRecording
from spikeinterface.core.core_tools import define_function_handling_dict_from_class

from .spread import SpreadRecording


class MelSpectrogramRecording(SpreadRecording):
    """Turn each channel into the power in its mel bands around each sample, see `dlvolt.networks.mel_spectrogram`.

    Parameters
    ----------
    recording : BaseRecording
        N channels. The new ones are called ``"{channel}:mel0"``, ``"{channel}:mel1"``, …
    frame : int, default: 12
        Length of a frame, in samples.
    num_bands : int, default: 7
        Mel bands, from 0 to half the sampling frequency.

    Raises
    ------
    ValueError
        If a parameter is out of range; on reading, if traces are NaN or infinite.
    """

    def __init__(self, recording: BaseRecording, frame: int = 12, num_bands: int = 7) -> None:
        import torch  # here, because SpikeInterface imports this module with its own preprocessors

        from dlvolt.networks import mel_spectrogram

        if frame < 2:
            raise ValueError(f"frame must be at least two samples, not {frame}")
        if num_bands < 1:
            raise ValueError(f"num_bands must be at least one, not {num_bands}")
        sampling_frequency = recording.sampling_frequency

        def spread(traces: np.ndarray) -> np.ndarray:
            return mel_spectrogram(torch.from_numpy(traces), sampling_frequency, frame, num_bands).numpy()

        names = [f"mel{band}" for band in range(num_bands)]
        SpreadRecording.__init__(self, recording, names, spread, frame, "mel_spectrogram")
        self._kwargs = dict(recording=recording, frame=frame, num_bands=num_bands)


mel_spectrogram = define_function_handling_dict_from_class(source_class=MelSpectrogramRecording, name="mel_spectrogram")
