"""An autoencoder that describes a snippet by few numbers, by default three.

References
----------
G. E. Hinton, R. R. Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006.
github.com/henryxcham/spike_detection_classification (42 → 21 → 3 → 21 → 42).
"""

from __future__ import annotations

import torch
from torch import nn


class Autoencoder(nn.Module):
    """Encoder and decoder with one hidden layer each, of half as many units as there are samples.

    Parameters
    ----------
    num_features : int
        Number F of samples of a snippet, of all its channels.
    num_components : int
        Numbers that describe a snippet.
    """

    def __init__(self, num_features: int, num_components: int = 3) -> None:
        super().__init__()
        half = max(1, num_features // 2)
        self.encoder = nn.Sequential(nn.Linear(num_features, half), nn.ReLU(), nn.Linear(half, num_components))
        self.decoder = nn.Sequential(nn.Linear(num_components, half), nn.ReLU(), nn.Linear(half, num_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return snippets (B, F) as reconstructed from their few numbers, shape (B, F)."""
        return self.decoder(self.encoder(x))
