"""Learn templates on a sample of the recording: pursue, update, split, merge, prune."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from tqdm.auto import trange

from dlvolt.memory import release_memory

from .alignment import recentred
from .evidence import Decoys
from .sample import collect
from .structure import joined, merge, split
from .timing import REFRACTORY_MS, RefractoryPeriod
from .units import LearningSettings, Matchers, Units
from .update import plausible, update

WEAK = 15.0  # noise standard deviations: only units with waveforms of a smaller norm may be noise, and have decoys
WEIGHED_S = 10.0  # seconds in which decoys are counted: enough to find units that are noise, as these fire often,
WEIGHED_LAST_S = 30.0  # and, in the last sweep, to tell which share of a unit's events is noise
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
    """Improve what is known of the units by coordinate ascent on a sample of the recording.

    Each sweep finds the events of all units (`dlvolt.deconvolution.pursue`), then updates each template from its events
    in the residual (the MAP estimate of `dlvolt.deconvolution.update_templates`), and drops units that hardly fire or
    are too small. In each sweep but the first, units whose decoys have as many events are dropped, too (`Decoys`). In
    each sweep but the last, clean snippets, from which all other events are subtracted, show which units there are: a
    unit whose snippets have several modes is split, and two units whose snippets have a single mode together, or whose
    waveforms are equal up to a shift, are merged.

    Parameters
    ----------
    chunks : list of Tensor, shape (N, T)
        Whitened sample of the recording; may be float16, which takes less memory.
    units : Units
        K units to start from.
    settings : LearningSettings
        Rank, amplitude bounds and separation.
    sampling_frequency : float
        Hz.
    num_sweeps : int
        Number of sweeps.
    nearby : Tensor, shape (N, N), bool, optional
        Which channels may see a unit that is largest on a channel; all if None.
    device : str
        Torch device of the pursuit; "auto" is CUDA where there is one, else the CPU.
    num_workers : int
        Number of threads.
    progress_bar : bool
        Whether to show a progress bar.
    places : list of int, optional
        Where the tissue is in each chunk, as indices below M; 0 if None. Chunks in order of place take least work.
    kernels : Tensor, shape (M, N, N), optional
        Matrices that take a waveform from the reference to each place, by interpolation in space; needed if M > 1.
    first_sweep : int
        Number of the first sweep: 0, or 1 if large units are well known, as units are judged more strictly from sweep
        to sweep.
    elsewhere : Tensor, shape (N,), optional
        As for `Decoys`.
    every : int
        Each sweep but the last takes one of so many chunks, each time other ones.

    Returns
    -------
    Units
        The units that are left, possibly none, with the peaks of their waveforms at sample `settings.num_before`.
    """
    num_channels = units.moved.shape[2]
    nearby = torch.ones(num_channels, num_channels, dtype=torch.bool) if nearby is None else nearby
    kernels = torch.eye(num_channels)[None] if kernels is None else kernels
    places = [0] * len(chunks) if places is None else places
    last_sweep = first_sweep + num_sweeps - 1
    refractory_samples = max(settings.separation, round(REFRACTORY_MS / 1000 * sampling_frequency))
    for sweep in trange(first_sweep, last_sweep + 1, desc="dlvolt: learn templates", disable=not progress_bar):
        if len(units.moved) == 0:  # from the start, or all have been dropped
            return units
        release_memory()  # that earlier work held
        is_last = sweep == last_sweep
        taken = slice(None) if is_last else slice(sweep % every, None, every)
        num_samples = sum(chunk.shape[1] for chunk in chunks[taken])
        seconds = num_samples / sampling_frequency

        is_weak = units.waveforms.flatten(1).norm(dim=1) < WEAK
        is_weak &= sweep > first_sweep  # in the first sweep, no unit is known well enough
        decoys = Decoys(units, is_weak, settings, elsewhere, device)
        weighed = in_few_places(places[taken], (WEIGHED_LAST_S if is_last else WEIGHED_S) / seconds)
        matchers = Matchers(units, settings, device)
        sample = collect(chunks[taken], places[taken], matchers, nearby, num_workers, decoys, weighed)

        units = update(units, sample, settings.rank, kernels, num_samples, num_workers)
        enough = plausible(units, sample, settings.amplitude_range, MIN_RATE_HZ * seconds, sweep)
        kept = torch.nonzero(enough & ~sample.evidence.is_noise())[:, 0]
        units = units.select(kept)
        if len(kept):
            snippets = [sample.snippets(k, moved) for k, moved in zip(kept, units.moved, strict=True)]
            refractory = RefractoryPeriod(settings.separation, refractory_samples, num_samples)
            units, snippets = split(
                units, snippets, sample.basis, kernels, settings.rank, refractory, by_shape=not is_last
            )
            if not is_last:
                units, snippets = merge(units, snippets, sample.basis, refractory)
                units = joined(units, snippets)
        units = units._replace(moved=recentred(units.moved, settings.num_before))
    return units


def in_few_places(places: list[int], share: float) -> list[int]:
    """Return the indices of about a share of the chunks, in as few places as possible.

    Each place needs decoys of its own, and so the places where the tissue is most often are taken. The indices, at
    least one, are ascending, and evenly spread over the chunks in these places.
    """
    wanted = max(1, min(1.0, share) * len(places))
    chosen: list[int] = []
    for place, _ in Counter(places).most_common():
        chosen += [index for index, other in enumerate(places) if other == place]
        if len(chosen) >= wanted:
            break
    return sorted(chosen)[:: max(1, round(len(chosen) / wanted))]
