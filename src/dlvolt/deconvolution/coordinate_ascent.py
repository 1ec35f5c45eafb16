"""Cyclic coordinate ascent: the amplitudes of each unit, then its template, while all else is held."""

from __future__ import annotations

import torch
from torch import Tensor

from .amplitudes import AmplitudePrior, map_amplitudes, map_gain, separated_maxima
from .events import Events
from .model import residual, synthesize
from .scores import scores
from .templates import LowRankTemplates, update_templates


def sweep(
    recording: Tensor, events: Events, templates: LowRankTemplates, prior: AmplitudePrior
) -> tuple[Events, LowRankTemplates]:
    """Return events and templates after one visit to every unit: a_k, then W_k maximises the log joint.

    The new times of a unit's events are local maxima of its gain at least D samples apart, the highest chosen first. If
    the old times gain more, with amplitudes fitted anew, they stay. So the log joint never falls if the events of each
    unit lie at least D samples apart when the sweep begins.

    Parameters
    ----------
    recording : Tensor, shape (N, T)
        Whitened traces X.
    events : Events
        Where to start; may be empty.
    templates : LowRankTemplates
        K templates of rank R and D samples.
    prior : AmplitudePrior
        Prior and noise.

    Returns
    -------
    events : Events
        Sorted by unit, then time.
    templates : LowRankTemplates
        A unit without events keeps its template.
    """
    templates = LowRankTemplates(*(part.clone() for part in templates))
    num_units, rank, num_template_samples = templates.temporal.shape
    left_over = residual(recording, events, templates)
    swept = []
    for k in range(num_units):
        unit = torch.tensor([k], device=recording.device)
        old, template = events.select(events.units == k), templates.select(unit)
        own = left_over + synthesize(old._replace(units=0 * old.units), template, recording.shape[1])

        mu = scores(own, template)[0]  # T-D+1
        prior_of_unit = prior.select(unit)
        amplitudes = map_amplitudes(mu, prior_of_unit)
        gain = map_gain(mu, amplitudes, prior_of_unit)
        times = separated_maxima(gain, num_template_samples)
        kept = old.times[gain[old.times] > 0]
        if gain[kept].sum() > gain[times].sum():
            times = kept
        new = Events(times, torch.full_like(times, k), amplitudes[times])

        if len(times):
            for part, updated in zip(templates, update_templates(own, new, rank, num_template_samples), strict=True):
                part[k] = updated[0]
        template = templates.select(unit)
        left_over = own - synthesize(new._replace(units=0 * new.units), template, recording.shape[1])
        swept.append(new)
    return Events(*(torch.cat(parts) for parts in zip(*(new[:3] for new in swept), strict=True))), templates
