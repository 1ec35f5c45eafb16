"""The stages of the optical mode of the sorter, in the order in which `dlvolt.rois.recipe` takes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from spikeinterface.core import BaseRecording, NumpySorting
from spikeinterface.core.base import base_peak_dtype
from spikeinterface.core.node_pipeline import run_node_pipeline
from spikeinterface.preprocessing import scale

from dlvolt.detection import NetworkPeakDetector
from dlvolt.parameters import SorterParameters
from dlvolt.preprocessing import delta_f_over_f, fill_nan
from dlvolt.preprocessing.finite import check_polarity, drop_units
from dlvolt.preprocessing.models import load_classifier, load_model, locate_model
from dlvolt.preprocessing.random_chunks import draw_pieces
from dlvolt.preprocessing.spike_probability import infer_polarity
from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.rois.crosstalk import flag_crosstalk
from dlvolt.rois.decided import BLOCK_S
from dlvolt.rois.event_labels import EVENT_DTYPE, label_events, typical
from dlvolt.rois.survey import Survey
from dlvolt.sortings import as_sorting
from dlvolt.threads import job_kwargs_for_threads

BRIDGED_MS = 50.0  # missing samples are interpolated over gaps up to this long
BESIDE_GAP_MS = 5.0  # detections so close to missing samples are dropped
SAMPLES_PER_CHUNK = 15_000_000  # of all ROIs together; bounds the memory
MOST_BLOCKS = 16  # largest number of blocks per chunk; in longer chunks fewer windows are computed twice


class Found(NamedTuple):
    """What is found in the M ROIs that have a signal: E spikes, and how each ROI was searched."""

    polarity: list[str]  # M
    threshold: np.ndarray  # (M,), least probability of a spike
    decided_by: np.ndarray  # (M,), what decided on the spikes: "model" or "network"
    spikes: np.ndarray  # (E,), SpikeInterface's peaks, by segment and sample, with their probability as amplitude
    leaked_from: np.ndarray  # (E,), the ROI that each spike has leaked in from, -1 for a spike of its own
    events: np.ndarray  # (E,), EVENT_DTYPE: the burst or complex spike of each spike
    noise: np.ndarray  # (M,), standard deviation

    @property
    def upward(self) -> list[str]:
        """Polarities with "any" as "positive": such traces are not turned."""
        return ["positive" if one == "any" else one for one in self.polarity]


NO_SPIKES = Found(
    [],
    np.zeros(0),
    np.zeros(0, "U7"),
    np.zeros(0, base_peak_dtype),
    np.zeros(0, "int64"),
    np.zeros(0, EVENT_DTYPE),
    np.zeros(0),
)


def job_kwargs_for_rois(recording: BaseRecording, p: SorterParameters, verbose: bool) -> dict[str, Any]:
    """Return SpikeInterface's job_kwargs for threads, with long chunks unless the user says how long."""

    def long_chunks(num_workers: int) -> dict[str, Any]:
        of_each_worker = recording.get_total_duration() / num_workers
        in_memory = SAMPLES_PER_CHUNK / recording.get_num_channels() / recording.sampling_frequency
        blocks = int(min(MOST_BLOCKS, of_each_worker / BLOCK_S, in_memory / BLOCK_S))
        return dict(chunk_size=max(1, blocks) * round(BLOCK_S * recording.sampling_frequency))

    return job_kwargs_for_threads(p.job_kwargs, verbose, long_chunks)


def scaled(recording: BaseRecording) -> BaseRecording:
    """Return a recording with its gains and offsets applied, if it has any."""
    if not recording.has_scaleable_traces():
        return recording
    scaled = scale(recording, recording.get_channel_gains(), recording.get_channel_offsets(), dtype="float32")
    drop_units(scaled)
    return scaled


def prepare(
    recording: BaseRecording, seen: Survey, p: SorterParameters, num_workers: int = 1
) -> tuple[BaseRecording, list[str]]:
    """Return ΔF/F of the ROIs that have a signal, with gaps filled, and the polarities of these ROIs.

    Traces that are ΔF/F already, or that have no baseline because they reach zero or below, are returned as they are.
    """
    live, traces = ~seen.dead, without_gaps(recording, seen, p)
    if p.polarity != "auto":
        each = check_polarity(p.polarity, recording.get_num_channels())
        polarity = [one for one, lives in zip(each, live, strict=True) if lives]
    elif load_classifier(locate_model(p.model), p.device).spike_polarity == "any":
        polarity = ["any"] * traces.get_num_channels()
    else:
        polarity = infer_polarity(traces, p.model, p.device, p.seed, num_workers)
    if recording.get_annotation("value") != "delta_f_over_f" and _has_baseline(seen)[live].all():
        traces = delta_f_over_f(
            traces, window_s=p.baseline_window_s, polarity=["positive" if one == "any" else one for one in polarity]
        )
    return traces, polarity


def without_gaps(recording: BaseRecording, seen: Survey, p: SorterParameters) -> BaseRecording:
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


def detect(
    traces: BaseRecording, polarity: list[str], seen: Survey, p: SorterParameters, job_kwargs: dict[str, Any]
) -> Found:
    """Return the spikes of the ROIs that have a signal, before it is known which leaked in and which are bursts."""
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
    spikes = spikes[~seen.beside_gap(spikes, reach)]
    return Found(
        polarity,
        threshold=detector.threshold.astype("float64"),
        decided_by=detector.decided_by,
        spikes=spikes,
        leaked_from=np.full(len(spikes), -1),
        events=np.zeros(len(spikes), dtype=EVENT_DTYPE),
        noise=noise_levels(traces, p.seed),
    )


def find_crosstalk(traces: BaseRecording, found: Found, p: SorterParameters, job_kwargs: dict[str, Any]) -> Found:
    """Return what is found, with the source of spikes that have leaked in; or without these spikes."""
    if p.crosstalk == "ignore":
        return found
    source = flag_crosstalk(traces, found.spikes, found.upward, scatter_um=p.scatter_um, job_kwargs=job_kwargs).source
    if p.crosstalk == "flag":
        return found._replace(leaked_from=source)
    own = source < 0
    return found._replace(spikes=found.spikes[own], leaked_from=source[own], events=found.events[own])


def find_bursts(traces: BaseRecording, found: Found, p: SorterParameters, job_kwargs: dict[str, Any]) -> Found:
    """Return what is found, with the bursts and complex spikes to which the spikes belong."""
    events = label_events(
        traces, found.spikes, found.upward, burst_interval_ms=p.burst_interval_ms, job_kwargs=job_kwargs
    )
    return found._replace(events=events)


def noise_levels(recording: BaseRecording, seed: int) -> np.ndarray:
    """Estimate the standard deviation of each channel's noise from its steps from frame to frame, shape (N,).

    Steps that are zero, and steps from or to missing samples, are left out; a channel without others has no noise.
    """
    pieces = [recording.get_traces(*piece).astype("float64") for piece in draw_pieces(recording, seed)]
    steps = np.concatenate([np.abs(np.diff(piece, axis=0)) for piece in pieces])
    steps = np.ma.masked_where(~np.isfinite(steps) | (steps == 0), steps)
    return np.ma.median(steps, axis=0).filled(0.0) / (GAUSSIAN_MAD * np.sqrt(2))


def collect(recording: BaseRecording, seen: Survey, found: Found, p: SorterParameters) -> NumpySorting:
    """Return the sorting: a unit for each ROI, with the properties of the ROI and of each of its spikes."""
    live, num_rois = np.flatnonzero(~seen.dead), recording.get_num_channels()
    spikes, events = found.spikes, found.events
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

    probability, source = of_each(spikes["amplitude"].astype("float32")), of_each(found.leaked_from)
    network = load_model(locate_model(p.model), p.device)
    properties = {
        "polarity": of_live(np.array(found.polarity, dtype="U8"), ""),
        "model_name": np.full(num_rois, network.name),
        "model_version": np.full(num_rois, network.version),
        "decided_by": of_live(found.decided_by, ""),
        "threshold": of_live(found.threshold, np.nan),
        "flag": seen.flag,
        "firing_rate": np.bincount(roi, minlength=num_rois) / seen.observed_s(recording),
        "snr": typical(events["height"], roi, num_rois)
        / of_live(np.where(found.noise > 0, found.noise, np.nan), np.nan),
        "expected_precision": _means(probability),
        "crosstalk_fraction": _means([one >= 0 for one in source]),
        "crosstalk_from": np.array([_most_frequent(recording.channel_ids[live], one) for one in source]),
        "spike_probability": probability,
        "spike_label": of_each(events["label"]),
        "spike_crosstalk": of_each(found.leaked_from >= 0),
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


def _has_baseline(seen: Survey) -> np.ndarray:
    """Return whether each ROI is always brighter than zero, shape (N,)."""
    return seen.lowest > 0


def check_baseline(recording: BaseRecording, seen: Survey) -> None:
    """Raise if there is an ROI whose ΔF/F is not defined, as it is not always brighter than zero."""
    without = recording.channel_ids[~_has_baseline(seen) & ~seen.dead]
    if recording.get_annotation("value") != "delta_f_over_f" and len(without):
        raise ValueError(
            f"names: there is no ΔF/F, as the trace of ROI {without[0]} reaches zero or below and has no baseline; "
            "leave the ROI out with sorting.select_units(…), or 'delta_f_over_f'"
        )
