"""The generative model: templates convolved with amplitudes, and the log joint probability."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import loops
from .amplitudes import AmplitudePrior
from .events import Events
from .locality import local_columns
from .shifts import shift_bank
from .templates import LowRankTemplates


def event_waveforms(events: Events, templates: LowRankTemplates, channels: Tensor) -> Tensor:
    """Return what each event adds to some channels.

    Parameters
    ----------
    events : Events
        E events, with their shifts or on whole samples.
    templates : LowRankTemplates
        Template of each unit.
    channels : Tensor, shape (E, C), int64
        Channels of each event.

    Returns
    -------
    Tensor, shape (E, C, D)
        a w[k, n, d − δ].
    """
    profiles, shifts = _shifted_profiles(events, templates)
    of_event = profiles[shifts, events.units]  # E×R×D
    return templates.spatial[events.units[:, None], channels] @ (events.amplitudes[:, None, None] * of_event)


def _shifted_profiles(events: Events, templates: LowRankTemplates) -> tuple[Tensor, Tensor]:
    """Return the temporal components times their singular values at every shift, (J, K, R, D), and each event's shift.

    Where events sit on whole samples, J is 1.
    """
    profiles = templates.singular_values[:, :, None] * templates.temporal
    if events.on_whole_samples:
        return profiles[None], torch.zeros_like(events.times)
    return shift_bank(profiles), events.shifts


def synthesize(events: Events, templates: LowRankTemplates, num_samples: int) -> Tensor:
    """Return the noiseless recording A ⊛ W that events and templates make.

    Parameters
    ----------
    events : Events
        Times must lie in ``[0, T - D]``.
    templates : LowRankTemplates
        Template of each unit, which is added only on the channels that see the unit.
    num_samples : int
        Length T of the recording.

    Returns
    -------
    Tensor, shape (N, T)
        Σ_k Σ_d a[k, t - d] w[k, n, d].
    """
    return _add(templates.spatial.new_zeros(templates.spatial.shape[1], num_samples), events, templates, 1)


def residual(recording: Tensor, events: Events, templates: LowRankTemplates) -> Tensor:
    """Return the residual X − A ⊛ W, what events leave of a recording.

    Parameters
    ----------
    recording : Tensor, shape (N, T)
        Traces X; left as they are.
    events, templates
        As for `synthesize`.

    Returns
    -------
    Tensor, shape (N, T)
        A new tensor; `subtract` overwrites the recording instead.
    """
    return subtract(recording.clone(memory_format=torch.contiguous_format), events, templates)


def subtract(recording: Tensor, events: Events, templates: LowRankTemplates) -> Tensor:
    """Subtract events from a contiguous recording, shape (N, T), in place, and return it; otherwise as `residual`."""
    return _add(recording, events, templates, -1)


def _add(recording: Tensor, events: Events, templates: LowRankTemplates, sign: int) -> Tensor:
    """Add events times a sign to a contiguous recording, in place, on the channels that see them; return it."""
    if loops.runs_in_loops(recording.device):
        profiles, shifts = _shifted_profiles(events, templates)
        of_events = (events.times, events.units, sign * events.amplitudes, shifts)
        arrays = (recording, *of_events, templates.spatial, profiles)
        loops.add_events(*(x.contiguous().numpy() for x in arrays))
        return recording
    channels = local_columns(templates.support)[0][events.units]  # E×C
    waveforms = event_waveforms(events, templates, channels)
    window = torch.arange(waveforms.shape[2], device=recording.device)
    samples = (channels * recording.shape[1] + events.times[:, None])[:, :, None] + window  # in the flattened recording
    recording.view(-1).index_add_(0, samples.flatten(), waveforms.flatten(), alpha=sign)
    return recording


def log_joint(recording: Tensor, events: Events, templates: LowRankTemplates, prior: AmplitudePrior) -> Tensor:
    """Return log p(X, A | W) up to a constant.

    It is the Gaussian log likelihood plus the log prior, in which every event costs ``prior.event_cost`` nats, λ per
    unit of amplitude, and what makes its amplitude atypical of the unit. An event raises it by `map_gain`.

    Parameters
    ----------
    recording : Tensor, shape (N, T)
        Whitened traces X.
    events : Events
        The non-zero entries of A.
    templates : LowRankTemplates
        Template of each unit.
    prior : AmplitudePrior
        Prior and noise.

    Returns
    -------
    Tensor, shape ()
        −‖X − A ⊛ W‖² / 2σ² − Σ (λ a + π (a − A)²/2 + cost), the sum over events, A the typical amplitude of the unit;
        −inf where an amplitude is outside its bounds.
    """
    of_event = prior.select(events.units)
    if torch.any((events.amplitudes < of_event.minimum) | (events.amplitudes > of_event.maximum)):
        return recording.new_tensor(-math.inf)
    error = residual(recording, events, templates).square().sum()
    atypical = of_event.precision * (events.amplitudes - of_event.typical).square() / 2
    cost = (prior.rate * events.amplitudes + atypical + of_event.event_cost).sum()
    return -error / (2 * prior.noise_variance) - cost
