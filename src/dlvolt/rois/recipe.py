"""The optical mode of the sorter: ``run_sorter("dlvolt", recording)`` where channels are ROIs, one unit for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from spikeinterface.core import BaseRecording, BaseSorting, NumpySorting
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.core.node_pipeline import run_node_pipeline
from spikeinterface.preprocessing import scale
from threadpoolctl import threadpool_limits

from dlvolt.detection import NetworkPeakDetector
from dlvolt.networks import RateNetwork
from dlvolt.parameters import ROI_TRACES, SorterParameters
from dlvolt.preprocessing import delta_f_over_f, fill_nan, spike_probability, subthreshold
from dlvolt.preprocessing.finite import check_polarity, drop_units
from dlvolt.preprocessing.spike_probability import (
    draw_pieces,
    infer_polarity,
    load_classifier,
    load_model,
    locate_model,
    locate_models,
    rate_ratio,
)
from dlvolt.preprocessing.spike_rate import MODEL as CALCIUM_MODEL
from dlvolt.preprocessing.spike_rate import spike_rate
from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.rois.calcium import sort_calcium
from dlvolt.rois.crosstalk import flag_crosstalk
from dlvolt.rois.decided import BLOCK_S
from dlvolt.rois.event_labels import EVENT_DTYPE, label_events, typical
from dlvolt.rois.survey import Survey, survey
from dlvolt.sortings import as_sorting
from dlvolt.threads import job_kwargs_for_threads

BRIDGED_MS = 50.0  # missing samples are interpolated over gaps up to this long
BESIDE_GAP_MS = 5.0  # detections so close to missing samples are dropped
SAMPLES_PER_CHUNK = 15_000_000  # of all ROIs together; bounds the memory
MOST_BLOCKS = 16  # largest number of blocks per chunk; in longer chunks fewer windows are computed twice


def check(recording: BaseRecording, p: SorterParameters) -> None:
    """Check, before any work, that the ROIs of a recording can be sorted with these parameters.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such model, if it is not for traces or does not support the sampling frequency, or if there are
        not as many polarities as ROIs.
    """
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
    job_kwargs = _job_kwargs(recording, p, verbose)
    p = for_indicator(recording, p)

    recording = _scaled(recording)
    seen = survey(recording, job_kwargs)
    say(f"dlvolt: {np.count_nonzero(~seen.dead)} ROIs, and {np.count_nonzero(seen.dead)} without a signal")
    if isinstance(load_model(locate_models(p.model)[0], p.device), RateNetwork):
        return sort_calcium(recording, _without_gaps(recording, seen, p), seen, p, job_kwargs["n_jobs"])
    if seen.dead.all():
        spikes, events, none = (np.zeros(0, dtype) for dtype in (base_peak_dtype, EVENT_DTYPE, "int64"))
        return _collect(recording, seen, [], none, none.astype("U7"), none, spikes, none, events, p)
    traces, polarity = _prepare(recording, seen, p, job_kwargs["n_jobs"])
    spikes, detector = _detect(traces, polarity, seen, p, job_kwargs)
    say(f"dlvolt: {len(spikes)} spikes")
    upward = _upward(polarity)
    leaked = np.full(len(spikes), -1)  # the ROI that each spike has leaked in from, -1 for a spike of its own
    if p.crosstalk != "ignore":
        leaked = flag_crosstalk(traces, spikes, upward, scatter_um=p.scatter_um, job_kwargs=job_kwargs).source
    if p.crosstalk == "remove":
        spikes, leaked = spikes[leaked < 0], leaked[leaked < 0]
    events = label_events(traces, spikes, upward, burst_interval_ms=p.burst_interval_ms, job_kwargs=job_kwargs)
    noise = noise_levels(traces, p.seed)
    return _collect(
        recording, seen, polarity, detector.threshold, detector.decided_by, noise, spikes, leaked, events, p
    )


def _job_kwargs(recording: BaseRecording, p: SorterParameters, verbose: bool) -> dict[str, Any]:
    """Return SpikeInterface's job_kwargs for threads, with long chunks unless the user says how long."""

    def long_chunks(num_workers: int) -> dict[str, Any]:
        of_each_worker = recording.get_total_duration() / num_workers
        in_memory = SAMPLES_PER_CHUNK / recording.get_num_channels() / recording.sampling_frequency
        blocks = int(min(MOST_BLOCKS, of_each_worker / BLOCK_S, in_memory / BLOCK_S))
        return dict(chunk_size=max(1, blocks) * round(BLOCK_S * recording.sampling_frequency))

    return job_kwargs_for_threads(p.job_kwargs, verbose, long_chunks)


def _scaled(recording: BaseRecording) -> BaseRecording:
    """Return a recording with its gains and offsets applied, if it has any."""
    if not recording.has_scaleable_traces():
        return recording
    scaled = scale(recording, recording.get_channel_gains(), recording.get_channel_offsets(), dtype="float32")
    drop_units(scaled)
    return scaled


def _prepare(
    recording: BaseRecording, seen: Survey, p: SorterParameters, num_workers: int = 1
) -> tuple[BaseRecording, list[str]]:
    """Return ΔF/F of the ROIs that have a signal, with gaps filled, and the polarities of these ROIs.

    Traces that are ΔF/F already, or that have no baseline because they reach zero or below, are returned as they are.
    """
    live, traces = ~seen.dead, _without_gaps(recording, seen, p)
    if p.polarity != "auto":
        each = check_polarity(p.polarity, recording.get_num_channels())
        polarity = [one for one, lives in zip(each, live, strict=True) if lives]
    elif load_classifier(locate_model(p.model), p.device).spike_polarity == "any":
        polarity = ["any"] * traces.get_num_channels()
    else:
        polarity = infer_polarity(traces, p.model, p.device, p.seed, num_workers)
    if recording.get_annotation("value") != "delta_f_over_f" and _has_baseline(seen)[live].all():
        traces = delta_f_over_f(traces, window_s=p.baseline_window_s, polarity=_upward(polarity))
    return traces, polarity


def _without_gaps(recording: BaseRecording, seen: Survey, p: SorterParameters) -> BaseRecording:
    """Return the ROIs that have a signal, with gaps filled."""
    live = ~seen.dead
    traces = recording.select_channels(recording.channel_ids[live])
    if seen.has_gaps[live].any():
        signal = _like_signal(traces, seen.lowest[live], seen.highest[live], p.seed)
        traces = fill_nan(traces, bridge_ms=BRIDGED_MS, seed=p.seed, **signal)
    return traces


def _like_signal(traces: BaseRecording, lowest: np.ndarray, highest: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the arguments of `fill_nan` for N channels: median and noise of each in a sample of the recording.

    For a channel that has no values in the sample, both are guessed from its range.
    """
    sample = np.concatenate([traces.get_traces(*piece) for piece in draw_pieces(traces, seed)])
    medians, noise = np.ma.median(np.ma.masked_invalid(sample), axis=0), noise_levels(traces, seed)
    unknown = np.ma.getmaskarray(medians) | (noise == 0)
    return dict(
        value=np.where(unknown, (lowest + highest) / 2, medians.filled(0.0)),
        noise=np.where(unknown, (highest - lowest) / 4, noise),  # rather too much than too little
    )


def _detect(
    traces: BaseRecording, polarity: list[str], seen: Survey, p: SorterParameters, job_kwargs: dict[str, Any]
) -> tuple[np.ndarray, NetworkPeakDetector]:
    """Return the spikes by segment and sample, with their probability as amplitude, and the detector."""
    threshold = None if isinstance(p.probability_threshold, str) else p.probability_threshold
    shadow_ms = None if isinstance(p.shadow_ms, str) else p.shadow_ms
    given = "auto" if "any" in polarity else polarity
    detector = NetworkPeakDetector(
        traces,
        p.model,
        threshold,
        shadow_ms,
        given,
        p.device,
        p.seed,
        num_workers=job_kwargs["n_jobs"],
        refine=p.refine,
        return_output=(True, True),
    )
    spikes, probability = run_node_pipeline(traces, [detector], job_kwargs, job_name="detect spikes")
    spikes["amplitude"] = probability

    reach = round(BESIDE_GAP_MS / 1000 * traces.sampling_frequency)
    return spikes[~seen.beside_gap(spikes, reach)], detector


def noise_levels(recording: BaseRecording, seed: int) -> np.ndarray:
    """Estimate the standard deviation of each channel's noise from its steps from frame to frame, shape (N,).

    Steps that are zero, and steps from or to missing samples, are left out; a channel without others has no noise.
    """
    pieces = [recording.get_traces(*piece).astype("float64") for piece in draw_pieces(recording, seed)]
    steps = np.concatenate([np.abs(np.diff(piece, axis=0)) for piece in pieces])
    steps = np.ma.masked_where(~np.isfinite(steps) | (steps == 0), steps)
    return np.ma.median(steps, axis=0).filled(0.0) / (GAUSSIAN_MAD * np.sqrt(2))


def _collect(
    recording: BaseRecording,
    seen: Survey,
    polarity: list[str],
    thresholds: np.ndarray,
    decided_by: np.ndarray,
    noise: np.ndarray,
    spikes: np.ndarray,
    leaked: np.ndarray,
    events: np.ndarray,
    p: SorterParameters,
) -> NumpySorting:
    """Return the sorting: a unit for each ROI, with the properties of the ROI and of each of its spikes."""
    live, num_rois = np.flatnonzero(~seen.dead), recording.get_num_channels()
    roi = live[spikes["channel_index"]]
    sorting = as_sorting(spikes, roi, recording, recording.channel_ids)

    order = np.lexsort((spikes["sample_index"], spikes["segment_index"], roi))
    borders = np.cumsum(np.bincount(roi, minlength=num_rois))[:-1]

    def of_each(values: np.ndarray) -> np.ndarray:
        """Return values of all spikes as one array for each ROI."""
        parts = np.empty(num_rois, dtype=object)
        parts[:] = np.split(values[order], borders)
        return parts

    def of_live(values: np.ndarray, missing: Any) -> np.ndarray:
        """Return values of the ROIs that have a signal as values of all ROIs."""
        spread = np.full(num_rois, missing, dtype=values.dtype)
        spread[live] = values
        return spread

    probability, source = of_each(spikes["amplitude"].astype("float32")), of_each(leaked)
    network = load_model(locate_model(p.model), p.device)
    properties = {
        "polarity": of_live(np.array(polarity, dtype="U8"), ""),
        "model_name": np.full(num_rois, network.name),
        "model_version": np.full(num_rois, network.version),
        "decided_by": of_live(decided_by, ""),
        "threshold": of_live(thresholds.astype("float64"), np.nan),
        "flag": seen.flag,
        "firing_rate": np.bincount(roi, minlength=num_rois) / seen.observed_s(recording),
        "snr": typical(events["height"], roi, num_rois) / of_live(np.where(noise > 0, noise, np.nan), np.nan),
        "expected_precision": _means(probability),
        "crosstalk_fraction": _means([one >= 0 for one in source]),
        "crosstalk_from": np.array([_most_frequent(recording.channel_ids[live], one) for one in source]),
        "spike_probability": probability,
        "spike_label": of_each(events["label"]),
        "spike_crosstalk": of_each(leaked >= 0),
    }
    for name, kind in (("num_bursts", "burst"), ("num_complex_spikes", "complex")):
        firsts = np.unique(events["event"][events["label"] == kind], return_index=True)[1]
        properties[name] = np.bincount(roi[events["label"] == kind][firsts], minlength=num_rois)
    for name, values in properties.items():
        sorting.set_property(name, values)
    sorting.annotate(modality="optical")
    return sorting


def _means(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean over the spikes of each ROI, NaN for ROIs without spikes, shape (N,)."""
    return np.array([part.mean() if len(part) else np.nan for part in parts])


def _most_frequent(ids: np.ndarray, source: np.ndarray) -> str:
    """Return the id of the ROI from which most spikes have leaked in, or "" if none have."""
    counts = np.bincount(source[source >= 0])
    return str(ids[counts.argmax()]) if len(counts) else ""


def _upward(polarity: list[str]) -> list[str]:
    """Return polarities with "any" as "positive": such traces are not turned."""
    return ["positive" if one == "any" else one for one in polarity]


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
    recording = _scaled(recording.select_channels(sorting.unit_ids))
    seen = survey(recording, _job_kwargs(recording, p, verbose=False))
    if seen.dead.all():
        raise ValueError("recording: none of its ROIs has a signal")
    if "delta_f_over_f" in names:
        _check_baseline(recording, seen)
    traces, upward = _prepare(recording, seen, p)
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
        recording = _scaled(recording)
        _check_baseline(recording, survey(recording, _job_kwargs(recording, p, verbose=False)))


def _has_baseline(seen: Survey) -> np.ndarray:
    """Return whether each ROI is always brighter than zero, shape (N,)."""
    return seen.lowest > 0


def _check_baseline(recording: BaseRecording, seen: Survey) -> None:
    without = recording.channel_ids[~_has_baseline(seen) & ~seen.dead]
    if recording.get_annotation("value") != "delta_f_over_f" and len(without):
        raise ValueError(
            f"names: there is no ΔF/F, as the trace of ROI {without[0]} reaches zero or below and has no baseline; "
            "leave the ROI out with sorting.select_units(…), or 'delta_f_over_f'"
        )


def _parameters_of(sorting: BaseSorting) -> SorterParameters:
    """Return the parameters that `run_sorter` has kept with a sorting, or the defaults."""
    kept = sorting.sorting_info or {}
    return SorterParameters(**kept.get("params", {}).get("sorter_params", {}))
