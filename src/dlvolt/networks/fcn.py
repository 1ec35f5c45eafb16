"""A fully convolutional network, whose output is as long as its input.

References
----------
J. Long, E. Shelhamer, T. Darrell, "Fully convolutional networks for semantic segmentation", CVPR, 2015.
V. Mangipudi, E. Song, C. Zhang, "Robust machine learning-enabled spike inference in neuronal voltage imaging data",
MIT PRIMES October Conference, 2025 (there the baseline of the U-Net, on the same five feature channels).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from .features import FEATURES, feature_channels, normalise


class FCN(nn.Module):
    """Convolutions without pooling, then one linear head per sample.

    Parameters
    ----------
    sampling_frequency : float
        Sampling frequency of the windows, in Hz.
    channels : sequence of int
        Output channels of each convolution.
    kernel_size : int
        Kernel size of each convolution, odd.
    features : sequence of str
        Input channels; see `feature_channels`.
    """

    architecture = "fcn"

    def __init__(
        self,
        sampling_frequency: float,
        channels: Sequence[int] = (32, 64, 64, 32),
        kernel_size: int = 7,
        features: Sequence[str] = FEATURES,
    ) -> None:
        super().__init__()
        self.sampling_frequency, self.features = sampling_frequency, tuple(features)
        layers = []
        for num_in, num_out in pairwise([len(features), *channels]):
            layers += [nn.Conv1d(num_in, num_out, kernel_size, padding="same"), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv1d(channels[-1], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, T) of windows (B, T)."""
        x = feature_channels(normalise(x), self.sampling_frequency, self.features)  # B×C×T
        return self.head(self.body(x))[:, 0]  # B×T
