"""A U-Net in one dimension, on five feature channels of the trace.

References
----------
O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI, 2015.
V. Mangipudi, E. Song, C. Zhang, "Robust machine learning-enabled spike inference in neuronal voltage imaging data",
MIT PRIMES October Conference, 2025.
Y. Wu, K. He, "Group normalization", ECCV, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .features import FEATURES, feature_channels, normalise

GROUP = 8  # channels that are normalised together


class Convolution(nn.Conv1d):
    """Convolution of samples whose channels lie side by side in memory, as CPUs have it faster; B×C×1×T."""

    bias: nn.Parameter

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # B×C×1×T -> B×C'×1×T
        """Return the convolution, of the same length."""
        return F.conv2d(x, self.weight[:, :, None], self.bias, padding=(0, self.kernel_size[0] // 2))


class Block(nn.Sequential):
    """Two convolutions; each is normalised over the window, which tells a sample what its surroundings are like."""

    def __init__(self, num_in: int, num_out: int, kernel_size: int) -> None:
        layers = []
        for channels in (num_in, num_out):
            layers += [
                Convolution(channels, num_out, kernel_size),
                nn.GroupNorm(num_out // GROUP, num_out),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Context(nn.Module):
    """Tell every sample what the window as a whole is like: whether there are spikes, how many, how high."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # B×C×1×T
        """Add to each channel what the means and maxima over the window say."""
        return x + self.mix(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))[..., None, None]


def levels(
    num_in: int, widths: Sequence[int], kernel_size: int, context: bool
) -> tuple[nn.ModuleList, nn.Module, nn.ModuleList]:
    """Return encoder, context and decoder of a U-Net whose levels have so many channels, finest first."""
    encoder = (Block(above, width, kernel_size) for above, width in zip([num_in, *widths], widths, strict=False))
    pairs = reversed(list(zip(widths[1:], widths, strict=False)))
    decoder = (Block(below + width, width, kernel_size) for below, width in pairs)
    return nn.ModuleList(encoder), Context(widths[-1]) if context else nn.Identity(), nn.ModuleList(decoder)


def through_levels(
    x: torch.Tensor, encoder: nn.ModuleList, context: nn.Module, decoder: nn.ModuleList
) -> torch.Tensor:  # B×C×1×T -> B×C'×1×T
    """Go down and up again; T is a multiple of 2 for each level but the lowest."""
    skips = []
    for block in encoder[:-1]:
        skips.append(block(x))  # B×C'×1×T'
        x = F.max_pool2d(skips[-1], (1, 2))  # B×C'×1×T'/2
    x = context(encoder[-1](x))
    for block in decoder:
        x = F.interpolate(x, scale_factor=(1.0, 2.0))  # nearest
        x = block(torch.cat([x, skips.pop()], dim=1))
    return x


class UNet(nn.Module):
    """Encoder, decoder, and skip connections between levels of the same resolution.

    Parameters
    ----------
    sampling_frequency : float
        Of the windows, in Hz.
    base_channels : int
        Channels of the uppermost level, a multiple of 8; level ``i`` has ``base_channels * growth**i``, rounded to
        such a multiple.
    depth : int
        How many times the resolution is halved.
    kernel_size : int
        Of each convolution, odd.
    growth : float
        Of the number of channels from level to level.
    features : sequence of str
        Input channels; see `feature_channels`.
    context : bool
        Whether the lowest level also sees the whole window, for windows that are long enough to have one.

    Raises
    ------
    ValueError
        If `base_channels` is not a multiple of 8, or `kernel_size` is even.
    """

    architecture = "unet"

    def __init__(
        self,
        sampling_frequency: float,
        base_channels: int = 16,
        depth: int = 3,
        kernel_size: int = 7,
        growth: float = 1.5,
        features: Sequence[str] = FEATURES,
        context: bool = False,
    ) -> None:
        super().__init__()
        if base_channels < GROUP or base_channels % GROUP:
            raise ValueError(f"base_channels must be a multiple of {GROUP}, not {base_channels}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {kernel_size}")
        self.sampling_frequency, self.features, self.depth = sampling_frequency, tuple(features), depth
        widths = [GROUP * round(base_channels * growth**level / GROUP) for level in range(depth + 1)]
        self.encoder, self.context, self.decoder = levels(len(features), widths, kernel_size, context)
        self.head = Convolution(widths[0], 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, T) of windows (B, T) of any length."""
        num_samples = x.shape[-1]
        x = feature_channels(normalise(x), self.sampling_frequency, self.features)  # B×C×T
        x = F.pad(x, (0, -num_samples % 2**self.depth), mode="replicate")  # to whole samples at every level
        x = x[:, :, None].contiguous(memory_format=torch.channels_last)  # B×C×1×T
        x = through_levels(x, self.encoder, self.context, self.decoder)
        return self.head(x)[:, 0, 0, :num_samples]
