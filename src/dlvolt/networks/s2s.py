"""The signal-to-signal network: fluorescence is analysed frame by frame, spikes are synthesised by overlap-add.

References
----------
J. Sebastian, M. Sur, H. A. Murthy, M. Magimai-Doss, "Signal-to-signal neural networks for improved spike estimation
from calcium imaging data", PLoS Computational Biology, 2021.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from .features import in_noise


class S2S(nn.Module):
    """A convolution, layers that act on single frames, and a transposed convolution without activation.

    With h hidden layers of 30 and frames of 100 samples there are (100·30 + 30) + h·(30·30 + 30) + 30·100 parameters:
    6,030 and 6,960 for h = 0 and 1, as the paper says, and 8,820 for h = 3, where it prints 8,790.

    Parameters
    ----------
    num_hidden : int
        Hidden layers between analysis and synthesis.
    num_filters : int
        Filters of the analysis, of each hidden layer and of the synthesis.
    frame_samples : int
        Length of a frame; frames begin at every sample.
    target_samples, target_deviation : int and float
        Length, odd, and standard deviation of the Gaussian that smooths the target, in samples; a length of 1 leaves
        spike counts unsmoothed.

    Raises
    ------
    ValueError
        If `target_samples` is even.
    """

    architecture = "s2s"
    gaussian: torch.Tensor

    def __init__(
        self,
        num_hidden: int = 3,
        num_filters: int = 30,
        frame_samples: int = 100,
        target_samples: int = 11,
        target_deviation: float = 5.0,
    ) -> None:
        super().__init__()
        if target_samples % 2 == 0:
            raise ValueError(f"target_samples must be odd, not {target_samples}")
        self.analysis = nn.Conv1d(1, num_filters, frame_samples)
        self.hidden = nn.ModuleList(nn.Conv1d(num_filters, num_filters, 1) for _ in range(num_hidden))
        self.synthesis = nn.ConvTranspose1d(num_filters, 1, frame_samples, bias=False)
        lags = torch.arange(target_samples) - target_samples // 2
        gaussian = torch.exp(-0.5 * (lags / target_deviation) ** 2)
        self.register_buffer("gaussian", gaussian / gaussian.sum(), persistent=False)

    def layers(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the output of each layer: frames (B, C, T') of all but the last, then the estimate (B, T)."""
        beyond = self.analysis.kernel_size[0] - 1  # every sample is in as many frames, those at the ends too
        x = F.pad(torch.asinh(in_noise(x))[:, None], (beyond, beyond), mode="replicate")  # B×1×(T+2·beyond)
        for layer in (self.analysis, *self.hidden):
            x = F.relu(layer(x))  # B×C×(T+beyond)
            yield x
        yield self.synthesis(x)[:, 0, beyond:-beyond]  # B×T

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the estimate (B, T) of windows (B, T)."""
        *_, estimate = self.layers(x)
        return estimate

    def loss(self, estimate: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Return the negative correlation with smoothed spike counts (B, T), averaged over windows with a spike."""
        target = F.conv1d(counts[:, None], self.gaussian[None, None], padding=len(self.gaussian) // 2)[:, 0]
        return -mean_correlation(estimate, target)


def mean_correlation(estimate: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation along time of traces (B, T), averaged over windows whose target varies.

    Where an estimate is constant, the correlation is not defined; it is taken as 0, with a gradient of 0.
    """
    estimate, target = (trace - trace.mean(dim=-1, keepdim=True) for trace in (estimate, target))
    power = estimate.square().sum(dim=-1) * target.square().sum(dim=-1)  # B
    tiny = torch.finfo(power.dtype).eps
    correlation = (estimate * target).sum(dim=-1) / (power + tiny).sqrt()
    known = target.square().sum(dim=-1) > tiny
    return correlation[known].sum() / known.sum().clamp(min=1)
