"""Mean waveforms of few spikes are freed of noise, by what the other units of the recording look like."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .units import on_support

KNOWN = 12.0  # noise standard deviations: waveforms of a larger norm are known well enough to show what spikes are like
UNLIKE = 0.1  # share of a waveform that is unlike those, a priori
NUM_SEEING = 3  # channels among which a waveform is divided, a priori
LEAST_NORM = 4.0  # noise standard deviations: no unit is smaller


class TemporalPrior(NamedTuple):
    """What time courses spikes have: on each channel, w ~ N(0, A² Σ / 3) for a waveform of norm A.

    The mean of few spikes is mostly noise, on many channels and at all frequencies. A unit learnt from it is larger
    than its neuron, finds only the spikes that resemble this noise, and so never becomes better.
    """

    variances: (
        Tensor  # D; eigenvalues of Σ, the covariance of time courses of large waveforms of norm 1; their sum is 1
    )
    directions: Tensor  # D×D; its eigenvectors, as columns

    @classmethod
    def of(cls, waveforms: Tensor) -> TemporalPrior | None:
        """Return the prior that the large ones of the waveforms, shape (K, N, D), show, or None if there are none."""
        norms, num_samples = waveforms.flatten(1).norm(dim=1), waveforms.shape[2]
        known = waveforms[norms > KNOWN] / norms[norms > KNOWN, None, None]
        if len(known) == 0:
            return None
        covariance = (1 - UNLIKE) / len(known) * known.flatten(0, 1).T @ known.flatten(0, 1)
        return cls(*torch.linalg.eigh(covariance + UNLIKE / num_samples * torch.eye(num_samples)))

    def shrunk(self, mean: Tensor, num_spikes: int) -> Tensor:
        """Return the posterior mean of a waveform, given the mean of n spikes in all M places, shape (M, C, D).

        It is A² Σ / 3 (A² Σ / 3 + M / n)⁻¹ applied to each channel, with A² the energy of the mean less that of noise.
        """
        noise = len(mean) / num_spikes
        energy = (mean[0].numel() * -noise + mean.square().sum() / len(mean)).clamp(min=LEAST_NORM**2)
        variances = energy * self.variances / NUM_SEEING
        return mean @ self.directions * (variances / (variances + noise)) @ self.directions.T


def denoised(waveform: Tensor, num_spikes: int, rank: int, prior: TemporalPrior | None = None) -> Tensor:
    """Return a mean waveform, shape (M, C, D), of so many spikes, without what may as well be noise.

    The mean of n spikes holds white noise of variance 1/n. First, the prior of time courses, if there is one, says what
    of it is likely. Then, at most `rank` components are kept: singular values below the largest of such noise (the edge
    of the Marchenko-Pastur law) are set to zero, and then the channels that hardly see the rest.
    """
    if prior is not None:
        waveform = prior.shrunk(waveform, num_spikes)
    num_places, _, num_samples = waveform.shape
    used = waveform.any(dim=2).any(dim=0)
    spatial, singular_values, temporal = torch.linalg.svd(waveform[:, used].flatten(0, 1), full_matrices=False)
    noise = (num_spikes / num_places) ** -0.5
    edge = max(1.0, noise * (len(spatial) ** 0.5 + num_samples**0.5))
    num_kept = int((singular_values[:rank] > edge).sum().clamp(min=1))
    cleaned = torch.zeros_like(waveform)
    kept = (spatial[:, :num_kept] * singular_values[:num_kept]) @ temporal[:num_kept]
    cleaned[:, used] = kept.unflatten(0, (num_places, -1))
    return on_support(cleaned)
