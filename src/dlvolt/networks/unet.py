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
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from .features import FEATURES, feature_channels, normalise

GROUP = 8  # channels that are normalised together


class Convolution(nn.Conv1d):
    """Convolution along time of B×C×1×T, which is fast where channels are last in memory."""

    bias: nn.Parameter

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # B×C×1×T -> B×C'×1×T
        """Return the convolution, of the same length."""
        return F.conv2d(x, self.weight[:, :, None], self.bias, padding=(0, self.kernel_size[0] // 2))


class Block(nn.Sequential):
    """Two convolutions, each followed by group normalisation over the whole window and a rectifier."""

    def __init__(self, num_in: int, num_out: int, kernel_size: int) -> None:
        super().__init__(
            Convolution(num_in, num_out, kernel_size),
            nn.GroupNorm(num_out // GROUP, num_out),
            nn.ReLU(inplace=True),
            Convolution(num_out, num_out, kernel_size),
            nn.GroupNorm(num_out // GROUP, num_out),
            nn.ReLU(inplace=True),
        )


class Context(nn.Module):
    """Add features of the whole window to every sample: whether there are spikes, how many, how high."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(2 * channels, channels), nn.ReLU(), nn.Linear(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # B×C×1×T
        """Return the input plus a function of the channels' means and maxima over the window."""
        return x + self.mix(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1))[..., None, None]


class Levels(nn.Module):
    """Encoder, context and decoder of a U-Net; networks derive from it, and add their input and their head."""

    def __init__(
        self, num_in: int, base_channels: int, depth: int, kernel_size: int, growth: float, context: bool
    ) -> None:
        super().__init__()
        self.depth = depth
        widths = [GROUP * round(base_channels * growth**level / GROUP) for level in range(depth + 1)]
        self.num_out = widths[0]
        self.encoder = nn.ModuleList(Block(*pair, kernel_size) for pair in pairwise([num_in, *widths]))
        self.context = Context(widths[-1]) if context else nn.Identity()
        upward = pairwise(reversed(widths))
        self.decoder = nn.ModuleList(Block(below + width, width, kernel_size) for below, width in upward)

    def through_levels(self, x: torch.Tensor) -> torch.Tensor:  # B×C×1×T -> B×C'×1×T
        """Go down and up again; T is a multiple of ``2**depth``."""
        skips = []
        for block in self.encoder[:-1]:
            skips.append(block(x))  # B×C'×1×T'
            x = F.max_pool2d(skips[-1], (1, 2))  # B×C'×1×T'/2
        x = self.context(self.encoder[-1](x))
        for block in self.decoder:
            x = F.interpolate(x, scale_factor=(1.0, 2.0))  # nearest
            x = block(torch.cat([x, skips.pop()], dim=1))
        return x


class UNet(Levels):
    """Encoder, decoder, and skip connections between levels of the same resolution.

    Parameters
    ----------
    sampling_frequency : float
        Sampling frequency of the windows, in Hz.
    base_channels : int
        Channels of the uppermost level, a multiple of 8; level ``i`` has ``base_channels * growth**i``, rounded to
        such a multiple.
    depth : int
        How many times the resolution is halved.
    kernel_size : int
        Kernel size of each convolution, odd.
    growth : float
        Ratio of the number of channels of a level to that of the level above.
    features : sequence of str
        Input channels; see `feature_channels`.
    context : bool
        Whether the lowest level also sees features of the whole window; for long windows.

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
        if base_channels < GROUP or base_channels % GROUP:
            raise ValueError(f"base_channels must be a multiple of {GROUP}, not {base_channels}")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, not {kernel_size}")
        super().__init__(len(features), base_channels, depth, kernel_size, growth, context)
        self.sampling_frequency, self.features = sampling_frequency, tuple(features)
        self.head = Convolution(self.num_out, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, T) of windows (B, T) of any length."""
        num_samples = x.shape[-1]
        x = feature_channels(normalise(x), self.sampling_frequency, self.features)  # B×C×T
        x = F.pad(x, (0, -num_samples % 2**self.depth), mode="replicate")  # to whole samples at every level
        x = x[:, :, None].contiguous(memory_format=torch.channels_last)  # B×C×1×T
        return self.head(self.through_levels(x))[:, 0, 0, :num_samples]
