"""A convolutional network that tells whether the snippet of a threshold crossing is a spike.

References
----------
github.com/henryxcham/spike_detection_classification (settings, and macro-F1 0.868 on a channel of a zebra finch that
was not trained on).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

UV = 100.0  # unit of the network's input in µV, typical of extracellular spikes


class WaveformCNN(nn.Module):
    """Convolutions with max-pooling, layer norm, and two dense layers.

    Parameters
    ----------
    window_samples : int
        Length D of a snippet.
    channels : tuple of int
        Output channels of each convolution.
    kernel_size : int
        Kernel size of each convolution.
    hidden_size : int
        Units of the dense layer.
    dropout : float
        Dropout after each convolution and the dense layer.
    """

    architecture = "waveform_cnn"

    def __init__(
        self,
        window_samples: int,
        channels: tuple[int, ...] = (8, 16),
        kernel_size: int = 5,
        hidden_size: int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        layers, length = [], window_samples
        for num_in, num_out in pairwise([1, *channels]):
            layers += [nn.Conv1d(num_in, num_out, kernel_size), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(dropout)]
            length = (length - kernel_size + 1) // 2
        if length < 1:
            raise ValueError(
                f"window_samples: {window_samples} are too few for {len(channels)} convolutions of {kernel_size} "
                "samples; take longer snippets"
            )
        num_features = channels[-1] * length
        self.body = nn.Sequential(
            *layers,
            nn.Flatten(),  # B×(C D')
            nn.LayerNorm(num_features),
            nn.Linear(num_features, hidden_size),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(hidden_size, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log odds (B,) that snippets (B, D), in µV, are spikes."""
        background, spike = self.head(self.body(x[:, None] / UV)).unbind(1)  # B each
        return spike - background
