"""The optical mode of the sorter: ``run_sorter("dlvolt", recording)`` where channels are ROIs, one unit for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting
from threadpoolctl import threadpool_limits

from dlvolt.networks import RateNetwork
from dlvolt.parameters import ROI_TRACES, SorterParameters
from dlvolt.preprocessing import spike_probability, subthreshold
from dlvolt.preprocessing.finite import check_polarity
from dlvolt.preprocessing.models import load_classifier, load_model, locate_models, rate_ratio
from dlvolt.preprocessing.spike_rate import MODEL as CALCIUM_MODEL
from dlvolt.preprocessing.spike_rate import spike_rate
from dlvolt.rois import stages
from dlvolt.rois.calcium import sort_calcium
from dlvolt.rois.survey import survey


def check(recording: BaseRecording, p: SorterParameters) -> None:
    """Raise, before any work, if the ROIs of a recording cannot be sorted with these parameters."""
    p = for_indicator(recording, p)
    models = locate_models(p.model)
    networks = [load_model(model, p.device) for model in models]
    if all(isinstance(network, RateNetwork) for network in networks):
        spike_rate(recording, p.model, p.device)  # checks that they can work together
    elif len(models) > 1:
        raise ValueError(f"model: only networks that give rates work together, so take one of {p.model!r}")
    else:
        rate_ratio(recording.sampling_frequency, load_classifier(models[0], p.device))
    if p.polarity != "auto":
        check_polarity(p.polarity, recording.get_num_channels())


def for_indicator(recording: BaseRecording, p: SorterParameters) -> SorterParameters:
    """Return parameters, with the network for calcium if the recording is of calcium and the model is the default."""
    calcium = recording.get_annotation("modality") == "calcium"
    return replace(p, model=CALCIUM_MODEL) if calcium and p.model == SorterParameters.model else p


@threadpool_limits.wrap(limits=1)  # parallel parts have their own workers
def sort_rois(recording: BaseRecording, p: SorterParameters, verbose: bool = False) -> NumpySorting:
    """Find the spikes of every ROI.

    Parameters
    ----------
    recording : BaseRecording
        N channels: fluorescence or ΔF/F of ROIs or segments of dendrites. It is of voltage, or of calcium if it is
        annotated so (``modality="calcium"``) or if the model is for calcium.
    p : SorterParameters
        Parameters.
    verbose : bool
        Print progress, and show progress bars.

    Returns
    -------
    NumpySorting
        One unit for each ROI, with the ROI's id, also if it has no spikes.
    """
    say = print if verbose else lambda *_: None
    job_kwargs = stages.job_kwargs_for_rois(recording, p, verbose)
    p = for_indicator(recording, p)

    recording = stages.scaled(recording)
    seen = survey(recording, job_kwargs)
    say(f"dlvolt: {np.count_nonzero(~seen.dead)} ROIs, and {np.count_nonzero(seen.dead)} without a signal")
    if isinstance(load_model(locate_models(p.model)[0], p.device), RateNetwork):
        return sort_calcium(recording, stages.without_gaps(recording, seen, p), seen, p, job_kwargs["n_jobs"])
    if seen.dead.all():
        return stages.collect(recording, seen, stages.NO_SPIKES, p)
    traces, polarity = stages.prepare(recording, seen, p, job_kwargs["n_jobs"])
    found = stages.detect(traces, polarity, seen, p, job_kwargs)
    say(f"dlvolt: {len(found.spikes)} spikes")
    found = stages.find_crosstalk(traces, found, p, job_kwargs)
    found = stages.find_bursts(traces, found, p, job_kwargs)
    return stages.collect(recording, seen, found, p)


def roi_traces(
    recording: BaseRecording,
    sorting: BaseSorting,
    names: Sequence[str] = ROI_TRACES,
    parameters: SorterParameters | None = None,
) -> dict[str, BaseRecording]:
    """Return the traces from which the spikes of ROIs were found, as lazy recordings.

    Parameters
    ----------
    recording : BaseRecording
        The recording that was sorted.
    sorting : BaseSorting
        Its units, from ``run_sorter("dlvolt", recording)``, or some of them.
    names : sequence of str
        Which traces: "delta_f_over_f", "spike_probability", or "subthreshold", the membrane potential without spikes
        (see `dlvolt.preprocessing.subthreshold`).
    parameters : SorterParameters, optional
        The parameters of the sorter. By default, those that `run_sorter` keeps with the sorting, else the defaults.

    Returns
    -------
    dict of str to BaseRecording
        Traces of the units that have a signal, with gaps filled, as the sorter uses them.

    Raises
    ------
    ValueError
        If there is no such trace; if `sorting` has no polarities, or units that are no ROIs of the recording; or if
        ΔF/F is asked for of traces that have no baseline.
    """
    if unknown := set(names) - set(ROI_TRACES):
        raise ValueError(f"names: there is no {sorted(unknown)[0]!r}")
    if (polarity := sorting.get_property("polarity")) is None:
        raise ValueError("sorting: has no property 'polarity'; give the one that dlvolt has made of this recording")
    if unknown := set(sorting.unit_ids.tolist()) - set(recording.channel_ids.tolist()):
        raise ValueError(f"sorting: unit {unknown.pop()!r} is no ROI of the recording; give the one it was made of")
    if not names:
        return {}
    p = parameters or _parameters_of(sorting)
    p = replace(p, polarity=["negative" if one == "negative" else "positive" for one in polarity])
    recording = stages.scaled(recording.select_channels(sorting.unit_ids))
    seen = survey(recording, stages.job_kwargs_for_rois(recording, p, verbose=False))
    if seen.dead.all():
        raise ValueError("recording: none of its ROIs has a signal")
    if "delta_f_over_f" in names:
        stages.check_baseline(recording, seen)
    traces, upward = stages.prepare(recording, seen, p)
    made = {}
    if "delta_f_over_f" in names:
        made["delta_f_over_f"] = traces
    if "spike_probability" in names:
        made["spike_probability"] = spike_probability(traces, p.model, upward, p.device)
    if "subthreshold" in names:
        made["subthreshold"] = subthreshold(traces, sorting.select_units(traces.channel_ids))
    return made


def check_traces(recording: BaseRecording, names: Sequence[str], p: SorterParameters) -> None:
    """Raise the errors of `roi_traces` before a recording is sorted, so that no sorting is lost."""
    if "delta_f_over_f" in names:
        recording = stages.scaled(recording)
        stages.check_baseline(recording, survey(recording, stages.job_kwargs_for_rois(recording, p, verbose=False)))


def _parameters_of(sorting: BaseSorting) -> SorterParameters:
    """Return the parameters that `run_sorter` has kept with a sorting, or the defaults."""
    kept = sorting.sorting_info or {}
    return SorterParameters(**kept.get("params", {}).get("sorter_params", {}))
