"""Update the units from the events of a sample, and drop those that are none."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.threads import map_in_threads

from .sample import MIN_EVENTS, CleanSample
from .units import Units, interpolated, on_support

MIN_SPREAD = 0.05
ECHO = 0.5  # a unit with so many of its events in the shadow of another is an echo of it
STIFFNESS = 5e4  # by the squared amplitude of a unit: spikes that it takes to see how interpolation in space errs
MIN_EXCESS = 1.0  # units are dropped whose amplitude does not exceed the threshold by so many noise standard deviations
MIN_ON_CHANNEL = 3.0  # norm on the channel that sees a unit best, likewise: less, and it is what many have in common


def update(
    units: Units, sample: CleanSample, rank: int, kernels: Tensor, num_samples: int, num_workers: int = 1
) -> Units:
    """Return the units updated from their events in a sample of so many samples; those with few stay as they are."""
    counts = torch.bincount(sample.units, minlength=len(units.moved))
    moved, spreads, norms = torch.zeros_like(units.moved), units.spreads.clone(), units.moved.flatten(2).norm(dim=2)

    def update_unit(k: int) -> None:
        if counts[k] < MIN_EVENTS:
            moved[k] = units.moved[k]
            return
        own, channels = sample.best_events(k), sample.channels[k]
        amplitudes, places = sample.amplitudes[own], sample.places[own]
        scale = norms[k, places]
        measured = amplitudes + (amplitudes - 1) / (units.spreads[k] * scale) ** 2  # before the prior had its say
        typical = _medians(measured, places, units.moved.shape[1])
        measured, scale = measured / typical[places], scale * typical[places]
        variance = ((measured - 1).abs().median() / GAUSSIAN_MAD) ** 2 - scale.square().reciprocal().mean()
        spreads[k] = variance.clamp(min=0).sqrt().clamp(min=MIN_SPREAD)
        kriged = interpolated(units.waveforms[k, channels], kernels[:, channels[:, None], channels])
        mean = moving_mean(typical[:, None, None] * sample.sums[k], sample.squares[k], kriged)
        moved[k][:, channels] = denoised(mean, len(amplitudes), rank)

    map_in_threads(update_unit, range(len(units.moved)), num_workers)
    rates = (counts + 1) / num_samples
    false = sample.evidence.false_discovery_rates
    return Units(moved, spreads, rates, deviations=sample.deviations, false_discovery_rates=false)


def plausible(
    units: Units, sample: CleanSample, amplitude_range: tuple[float, float], min_events: float, sweep: int
) -> Tensor:
    """Return which units, updated, fire enough, exceed the threshold and are no echo of another, shape (K,), bool."""
    counts = torch.bincount(sample.units, minlength=len(units.moved))
    kept = counts >= max(3, min_events)
    if sweep > 0:  # at first, only what cannot be found again is dropped
        cost, amplitudes = units.amplitude_prior(amplitude_range).event_cost, units.waveforms.flatten(1).norm(dim=1)
        kept &= amplitudes - (amplitudes / 2 + cost / amplitudes) > (MIN_EXCESS if sweep > 1 else 0)
        kept &= units.waveforms.norm(dim=2).amax(dim=1) > MIN_ON_CHANNEL
    if sweep > 1:  # till then large units may leave echoes, as their waveforms are not known well yet
        kept &= ~(sample.shadows > ECHO * counts[:, None]).any(dim=1)
    return kept


def denoised(waveform: Tensor, num_spikes: int, rank: int) -> Tensor:
    """Return a mean waveform, shape (M, C, D), less what may as well be noise.

    The mean of n spikes holds white noise of variance 1/n. Singular values below the largest that noise has (the edge
    of the Marchenko-Pastur law) are set to zero, then the channels that hardly see what is left.
    """
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


def _medians(values: Tensor, places: Tensor, num_places: int) -> Tensor:
    """Return the median of values in each place, shape (M,), drawn to that of all where there are few."""
    medians = values.median().repeat(num_places)
    for place in places.unique():
        here = values[places == place]
        medians[place] = (len(here) * here.median() + MIN_EVENTS * medians[place]) / (len(here) + MIN_EVENTS)
    return medians


def moving_mean(sums: Tensor, squares: Tensor, kriged: Tensor) -> Tensor:
    """Return the waveform W of a unit in each of the M places, shape (M, C, D), from its spikes in all of them.

    It minimises Σ_e ‖R_e − a_e W_m(e)‖² + λ Σ_m ‖(W_{m+1} − W_m) − (V_{m+1} − V_m)‖²: how the waveform changes from
    place to place is taken from interpolation in space, V, as far as spikes do not show it. V errs by a part of the
    waveform, so λ falls with its squared norm.
    """
    steps = torch.eye(len(squares)).diff(dim=0)  # (M-1)×M
    penalty = STIFFNESS / kriged.square().sum(dim=(1, 2)).mean() * steps.T @ steps
    known = sums.flatten(1) + penalty @ kriged.flatten(1)
    return torch.linalg.solve(squares.clamp(min=1e-6).diag() + penalty, known).view_as(sums)
