"""Units are updated from the events of a sample, and those that are no neurons are found."""

from __future__ import annotations

import torch
from torch import Tensor

from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.threads import map_in_threads

from .denoise import TemporalPrior, denoised
from .sample import MIN_EVENTS, CleanSample
from .units import Units, interpolated

MIN_SPREAD = 0.05  # least relative standard deviation of amplitudes
ECHO = 0.5  # a unit with a larger share of its events in the shadow of another is an echo of that one
STIFFNESS = 5e4  # divided by the squared norm of a unit: number of spikes that outweigh interpolation in space
MIN_EXCESS = 1.0  # units are dropped if typical spikes exceed the threshold by fewer noise standard deviations,
MIN_ON_CHANNEL = 3.0  # or if the norm on their best channel is smaller: then they are noise common to many channels


def update(
    units: Units, sample: CleanSample, rank: int, kernels: Tensor, num_samples: int, num_workers: int = 1
) -> Units:
    """Return the units, updated from their events in a sample; waveforms of units with few events stay as they are.

    The rank of waveforms is at most `rank`, and `num_samples` is the length of the sample.
    """
    counts, prior = torch.bincount(sample.units, minlength=len(units.moved)), TemporalPrior.of(units.waveforms)
    moved, spreads, norms = torch.zeros_like(units.moved), units.spreads.clone(), units.moved.flatten(2).norm(dim=2)

    def update_unit(k: int) -> None:
        """Set the waveforms and the spread of a unit."""
        if counts[k] < MIN_EVENTS:
            moved[k] = units.moved[k]
            return
        own, channels = sample.best_events(k), sample.channels[k]
        amplitudes, places = sample.amplitudes[own], sample.places[own]
        scale = norms[k, places]
        measured = amplitudes + (amplitudes - 1) / (units.spreads[k] * scale) ** 2  # without the pull of the prior
        typical = _medians(measured, places, units.moved.shape[1])
        measured, scale = measured / typical[places], scale * typical[places]
        # Noise adds 1 / scale² to the variance of relative amplitudes.
        variance = ((measured - 1).abs().median() / GAUSSIAN_MAD) ** 2 - scale.square().reciprocal().mean()
        spreads[k] = variance.clamp(min=0).sqrt().clamp(min=MIN_SPREAD)
        kriged = interpolated(units.waveforms[k, channels], kernels[:, channels[:, None], channels])
        mean = moving_mean(typical[:, None, None] * sample.sums[k], sample.squares[k], kriged)
        moved[k][:, channels] = denoised(mean, len(amplitudes), rank, prior)

    map_in_threads(update_unit, range(len(units.moved)), num_workers)
    rates = (counts + 1) / num_samples
    false = sample.evidence.false_discovery_rates
    return Units(moved, spreads, rates, deviations=sample.deviations, false_discovery_rates=false)


def plausible(
    units: Units, sample: CleanSample, amplitude_range: tuple[float, float], min_events: float, sweep: int
) -> Tensor:
    """Return which units fire enough, exceed the threshold and are no echo of another, shape (K,), bool.

    The threshold counts from sweep 1 on, and with a margin from sweep 2 on, as echoes do.
    """
    counts = torch.bincount(sample.units, minlength=len(units.moved))
    kept = counts >= max(3, min_events)
    if sweep > 0:
        cost, amplitudes = units.amplitude_prior(amplitude_range).event_cost, units.waveforms.flatten(1).norm(dim=1)
        thresholds = amplitudes / 2 + cost / amplitudes  # scores above which an event of this amplitude gains
        kept &= amplitudes - thresholds > (MIN_EXCESS if sweep > 1 else 0)
        kept &= units.waveforms.norm(dim=2).amax(dim=1) > MIN_ON_CHANNEL
    if sweep > 1:  # before, large units leave echoes, as their waveforms are not known well yet
        kept &= ~(sample.shadows > ECHO * counts[:, None]).any(dim=1)
    return kept


def _medians(values: Tensor, places: Tensor, num_places: int) -> Tensor:
    """Return the median of values in each place, shape (M,), averaged with that of all values if there are few."""
    medians = values.median().repeat(num_places)
    for place in places.unique():
        here = values[places == place]
        medians[place] = (len(here) * here.median() + MIN_EVENTS * medians[place]) / (len(here) + MIN_EVENTS)
    return medians


def moving_mean(sums: Tensor, squares: Tensor, kriged: Tensor) -> Tensor:
    """Return the waveform W of a unit in each of the M places, shape (M, C, D), from its spikes in all of them.

    W minimises Σ_e ‖R_e − a_e W_m(e)‖² + λ Σ_m ‖(W_{m+1} − W_m) − (V_{m+1} − V_m)‖²: the change of the waveform from
    place to place is taken from interpolation in space, V, as far as spikes do not show it. The error of V is
    proportional to the waveform, so λ is inversely proportional to its squared norm. Given are Σ a R over the spikes in
    each place, shape (M, C, D), Σ a² over the same spikes, shape (M,), and V, shape (M, C, D).
    """
    steps = torch.eye(len(squares)).diff(dim=0)  # (M-1)×M
    penalty = STIFFNESS / kriged.square().sum(dim=(1, 2)).mean() * steps.T @ steps
    known = sums.flatten(1) + penalty @ kriged.flatten(1)
    return torch.linalg.solve(squares.clamp(min=1e-6).diag() + penalty, known).view_as(sums)
