"""An ensemble of U-Nets for calcium fluorescence, trained separately and averaged.

References
----------
O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI, 2015.
P. Berens et al., "Community-based benchmarking improves spike rate inference from two-photon calcium imaging data",
PLoS Computational Biology, 2018 (the score that is trained on).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .features import in_noise, standardise
from .s2s import mean_correlation
from .unet import Convolution, Levels

BIN = 4  # samples per bin; at 100 Hz, bins have the 25 Hz of the spikefinder challenge
LEAST = 1e-4  # spikes per bin that are added before the logarithm is taken
TYPICAL = 0.15  # Poisson loss of a typical bin; divided by it, both parts of the loss weigh alike
RARE = -3.0  # initial bias of the output, before the softplus


class Calcium(nn.Module):
    """The mean of several U-Nets, each of which reads bins of four samples.

    The loss is the negative correlation with the spike counts of the bins, which weighs all cells alike, plus the
    negative logarithm of their Poisson probability, which gives the estimate the scale of a count.

    Parameters
    ----------
    num_members : int
        Number of U-Nets. They are averaged; train each separately, as `dlvolt.training.calcium` does.
    base_channels, depth, kernel_size, growth
        As for `UNet`, of each U-Net.
    """

    architecture = "calcium"

    def __init__(
        self, num_members: int = 1, base_channels: int = 24, depth: int = 4, kernel_size: int = 5, growth: float = 1.25
    ) -> None:
        super().__init__()
        self.depth = depth
        self.members = nn.ModuleList(BinnedUNet(base_channels, depth, kernel_size, growth) for _ in range(num_members))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the estimated spikes per sample (B, T) of windows (B, T)."""
        num_samples = x.shape[-1]
        x = torch.stack([standardise(x), torch.asinh(in_noise(x))], dim=1)  # B×2×T
        x = F.pad(x, (0, -num_samples % (BIN * 2**self.depth)), mode="replicate")
        x = x.unflatten(-1, (-1, BIN)).movedim(-1, 2).flatten(1, 2)[:, :, None]  # B×8×1×T/4
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.stack([member(x) for member in self.members]).mean(dim=0)[:, :num_samples]

    def loss(self, estimate: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return the loss of an estimate (B, T), given the spikes per sample (B, T)."""
        estimate, counts = (F.avg_pool1d(trace[:, None], BIN)[:, 0] * BIN for trace in (estimate, counts))  # B×T/4
        poisson = F.poisson_nll_loss(estimate, counts, log_input=False, eps=LEAST)
        return poisson / TYPICAL - mean_correlation(estimate, counts)


class BinnedUNet(Levels):
    """A U-Net from the eight channels of each bin to the spikes of its four samples."""

    def __init__(self, base_channels: int, depth: int, kernel_size: int, growth: float) -> None:
        super().__init__(2 * BIN, base_channels, depth, kernel_size, growth, context=True)
        self.head = Convolution(self.num_out, BIN, 1)
        nn.init.constant_(self.head.bias, RARE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # B×8×1×T/4 -> B×T
        """Return the estimated spikes per sample."""
        return F.softplus(self.head(self.through_levels(x)))[:, :, 0].transpose(1, 2).flatten(1)
