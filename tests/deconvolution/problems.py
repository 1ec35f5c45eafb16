"""Small random problems for the tests of the generative model."""

import numpy as np
import torch

from dlvolt.deconvolution import Events, LowRankTemplates, low_rank


def tensor(values, dtype=torch.float64):
    return torch.as_tensor(np.asarray(values), dtype=dtype)


def random_templates(rng, num_units, num_channels, width, rank=2, positive=False) -> LowRankTemplates:
    matrices = rng.normal(size=(num_units, num_channels, width))
    return low_rank(tensor(np.abs(matrices) if positive else matrices), rank)


def local_templates(rng, num_units, num_channels, width, rank=2) -> LowRankTemplates:
    """Templates that one to four neighbouring channels see, each unit other ones."""
    matrices = rng.normal(size=(num_units, num_channels, width))
    first, last = np.sort(rng.integers(num_channels, size=(2, num_units)), axis=0)[:, :, None]
    channels = np.arange(num_channels)
    return low_rank(
        tensor(matrices * ((channels >= first) & (channels <= last) & (channels < first + 4))[..., None]), rank
    )


def random_events(rng, num_units, num_times, separation, largest=5.0) -> Events:
    """Events of every unit, sorted by unit then time, at least so many samples apart."""
    times, units = [], []
    for unit in range(num_units):
        time = rng.integers(0, separation)
        while time < num_times:
            times.append(time)
            units.append(unit)
            time += separation + rng.integers(0, 2 * separation)
    amplitudes = rng.uniform(0.1, largest, size=len(times))
    return Events(torch.tensor(times, dtype=torch.long), torch.tensor(units, dtype=torch.long), tensor(amplitudes))


def wavelets(num_samples, dtype=torch.float64):
    """Three band-limited pulses as functions of a (possibly fractional) time, and their samples 0 … D-1."""
    centre = (num_samples - 1) / 2

    def pulses(time):
        gaussian = torch.exp(-(((time - centre) / 5) ** 2))
        phase = 2 * torch.pi * 0.06 * (time - centre)
        return torch.stack([gaussian, gaussian * torch.cos(phase), gaussian * torch.sin(phase)])

    return pulses, pulses(torch.arange(num_samples, dtype=dtype))
