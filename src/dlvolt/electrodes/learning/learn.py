"""Learn templates on a sample of the recording: pursue, update, split, merge, prune."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from tqdm.auto import trange

from .alignment import recentred
from .evidence import Decoys
from .sample import NUM_FEATURES, collect
from .structure import joined, merge, split
from .units import LearningSettings, Matchers, Units
from .update import plausible, update

WEAK = 15.0  # noise standard deviations: noise never makes a unit whose waveform has a larger norm
WEIGHED_S = 10.0  # of the sample are enough to tell units of noise, which fire often,
WEIGHED_LAST_S = 30.0  # and so many to tell how much of a unit is noise
MIN_RATE_HZ = 0.02  # units that fire less in the sample are dropped


def learn_units(
    chunks: list[Tensor],
    units: Units,
    settings: LearningSettings,
    sampling_frequency: float,
    num_sweeps: int,
    nearby: Tensor | None = None,
    device: str = "auto",
    num_workers: int = 1,
    progress_bar: bool = False,
    places: list[int] | None = None,
    kernels: Tensor | None = None,
    first_sweep: int = 0,
    elsewhere: Tensor | None = None,
    every: int = 1,
) -> Units:
    """Improve what is known of the units on a sample of the recording.

    Each sweep but the last takes a part of the sample, each time another one. It finds the events of all
    units (`pursue`), then updates each template from its events in the residual (the MAP estimate of
    `dlvolt.deconvolution.update_templates`). All but the last sweep also look at the clean snippets, from which all
    other units are explained away: a unit with several modes is split, two units that look like one along the line
    between them are merged, and units that hardly fire are dropped. In each sweep but the first, decoys of the weak
    units are pursued in some seconds, and the units that noise may as well have made are dropped (`Decoys`).

    Parameters
    ----------
    chunks : list of Tensor, shape (N, T)
        Whitened sample of the recording; may be halves, which take less memory.
    units : Units
        Where to start.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    sampling_frequency : float
        Hz.
    num_sweeps : int
        How often.
    nearby : Tensor, shape (N, N), bool, optional
        Which channels may see a unit that is largest on a channel; all if None.
    device : str
        Torch device of the pursuit.
    num_workers : int
        Threads.
    progress_bar : bool
        Show one.
    places : list of int, optional
        Where the tissue is in each chunk, best in order; 0 if None.
    kernels : Tensor, shape (M, N, N), optional
        What takes a waveform from the reference to each place, by interpolation in space; needed if M > 1.
    first_sweep : int
        1 where large units are known well already: so much the stricter are units judged (`plausible`).
    elsewhere : Tensor, shape (N,), optional
        The channel that takes the place of each in a decoy that is moved, see `Decoys`.
    every : int
        Each sweep but the last takes every so many-th chunk.

    Returns
    -------
    Units
        Their waveforms have the peak at sample `settings.num_before`; K' may be 0.
    """
    num_channels = units.moved.shape[2]
    nearby = torch.ones(num_channels, num_channels, dtype=torch.bool) if nearby is None else nearby
    kernels = torch.eye(num_channels)[None] if kernels is None else kernels
    places = [0] * len(chunks) if places is None else places
    last_sweep = first_sweep + num_sweeps - 1
    for sweep in trange(first_sweep, last_sweep + 1, desc="dlvolt: learn templates", disable=not progress_bar):
        if len(units.moved) == 0:  # at the start, or none is left
            return units
        is_last = sweep == last_sweep
        taken = slice(None) if is_last else slice(sweep % every, None, every)
        num_samples = sum(chunk.shape[1] for chunk in chunks[taken])
        seconds = num_samples / sampling_frequency
        weak = (units.waveforms.flatten(1).norm(dim=1) < WEAK) & (sweep > first_sweep)  # what starts is not known well
        decoys = Decoys(units, weak, settings, elsewhere, device)
        weighed = in_few_places(places[taken], (WEIGHED_LAST_S if is_last else WEIGHED_S) / seconds)
        matchers = Matchers(units, settings, device)
        num_features = 0 if is_last else NUM_FEATURES  # which are to split and merge
        sample = collect(chunks[taken], places[taken], matchers, nearby, num_workers, decoys, weighed, num_features)
        units = update(units, sample, settings.rank, kernels, num_samples, num_workers)
        enough = plausible(units, sample, settings.amplitude_range, MIN_RATE_HZ * seconds, sweep)
        kept = torch.nonzero(enough & ~sample.evidence.is_noise())[:, 0]
        units = units.select(kept)
        if sweep < last_sweep and len(kept):
            snippets = [sample.snippets(k, moved) for k, moved in zip(kept, units.moved, strict=True)]
            units, snippets = split(units, snippets, sample.basis, kernels, settings.rank)
            units, snippets = merge(units, snippets, sample.basis)
            units = joined(units, snippets)
        units = units._replace(moved=recentred(units.moved, settings.num_before))
    return units


def in_few_places(places: list[int], share: float) -> list[int]:
    """Return the indices of about that share of the chunks, in as few places as hold it: each needs decoys of its own.

    Parameters
    ----------
    places : list of int
        Where the tissue is in each chunk.
    share : float
        All of them if it is 1 or more.

    Returns
    -------
    list of int
        At least one, evenly spread over the chunks in the places where the tissue is most often.
    """
    wanted = max(1, min(1.0, share) * len(places))
    chosen: list[int] = []
    for place, _ in Counter(places).most_common():
        chosen += [index for index, other in enumerate(places) if other == place]
        if len(chosen) >= wanted:
            break
    return sorted(chosen)[:: max(1, round(len(chosen) / wanted))]
