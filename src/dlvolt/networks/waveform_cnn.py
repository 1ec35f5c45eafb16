"""Two convolutions that tell from the snippet of a threshold crossing whether it is a spike.

References
----------
github.com/henryxcham/spike_detection_classification (settings, and macro-F1 0.868 on a channel of a zebra finch that
was not trained on).
"""

from __future__ import annotations

import torch
from torch import nn

UV = 100.0  # typical of extracellular spikes; the network works in such units


class WaveformCNN(nn.Module):
    """Convolutions with max-pooling, layer norm, and two dense layers.

    Parameters
    ----------
    window_samples : int
        D, samples of a snippet.
    channels : sequence of int
        Of each convolution.
    kernel_size : int
        Of each convolution.
    hidden_size : int
        Of the dense layer.
    dropout : float
        After each convolution and the dense layer.
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
        for num_in, num_out in zip([1, *channels], channels, strict=False):
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
        """Return the log odds (B,) of spikes, of snippets (B, D) in µV."""
        background, spike = self.head(self.body(x[:, None] / UV)).unbind(1)  # B each
        return spike - background
