"""The stages of the sorter of electrodes, one function each, in the order of `recipe`.

What they take by the same name is the same: ``recording`` is the whitened recording, of N channels, unless stated
otherwise; ``p`` the parameters of the sorter; ``artefacts`` what is set aside; ``sample`` chunks of the recording, of
shape (T, N); ``shape`` what spikes look like; ``found`` the peaks; ``drift`` the motion of the tissue; ``units`` the
units, K; ``job_kwargs`` SpikeInterface's.
"""

from __future__ import annotations

from functools import partial
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import torch
from spikeinterface.core import BaseRecording, NumpySorting, Templates, get_channel_distances
from spikeinterface.preprocessing import bandpass_filter, silence_periods, unsigned_to_signed
from spikeinterface.sortingcomponents.matching import find_spikes_from_templates
from spikeinterface.sortingcomponents.matching.base import _base_matching_dtype
from torch import Tensor

from dlvolt.electrodes import Artefacts, bridge_periods, find_artefacts, find_hum
from dlvolt.electrodes.classify import classify_peaks
from dlvolt.electrodes.clustering import detect_and_project, fit_temporal_basis, split_locally
from dlvolt.electrodes.hum import without_echoes
from dlvolt.electrodes.learning import (
    MAX_FALSE_DISCOVERY_RATE,
    SINGLE,
    LearningSettings,
    Matchers,
    Units,
    learn_units,
)
from dlvolt.electrodes.left_over import LeftOverRecording
from dlvolt.electrodes.matched_filter import MatchedFilterPeakDetector, find_prototype, find_snippets
from dlvolt.electrodes.motion import HARMLESS_UM, Drift, at_reference, estimate_drift, kernels, why_not
from dlvolt.electrodes.refractory import contamination, same_neuron, without_doubles
from dlvolt.electrodes.slices import Slice, adjacent, join, read_slices, seconds_left, spread_slices
from dlvolt.memory import release_memory
from dlvolt.parameters import SorterParameters
from dlvolt.preprocessing.fill_nan import fill_nan
from dlvolt.preprocessing.highpass_reference import highpass_reference
from dlvolt.preprocessing.notch_comb import notch_comb
from dlvolt.preprocessing.steady_noise import steady_noise, usual_levels
from dlvolt.preprocessing.whiten_noise import along_probe, estimate_whitening_filters, whiten_noise
from dlvolt.sortings import as_sorting

MIN_CHANNELS_FOR_REFERENCE = 64  # the median over fewer channels contains spikes
MIN_SPIKES = 10  # units with fewer spikes are dropped, as their waveform is not known
SPIKE_BAND_HZ = (300.0, 8000.0)  # band of the snippets that the networks for `peak_model` were trained on
FEW_CHUNKS = 5  # the first sweeps of learning take a part of the sample each, which has at least so many chunks,
MOST_PARTS = 3  # and there are at most so many parts
FOOTPRINT = 1.5  # reach of templates around their main channel, in radii of the snippets that are clustered


class Finite(NamedTuple):
    """A recording without missing samples, its artefacts, and its mains hum as `find_hum` returns it."""

    recording: BaseRecording
    artefacts: Artefacts
    hum: dict[str, Any] | None


def set_aside(recording: BaseRecording, p: SorterParameters, job_kwargs: dict[str, Any]) -> Finite:
    """Return the raw recording with signed samples and missing ones filled, and its artefacts and mains hum."""
    if recording.get_dtype().kind == "u":  # SpikeInterface's filters refuse unsigned samples
        recording = unsigned_to_signed(recording)
    if recording.get_dtype().kind == "f":
        recording = fill_nan(recording.astype("float32"))
    hum = find_hum(recording, p.freq_min) if p.apply_preprocessing else None
    period = round(recording.sampling_frequency / hum["freq"]) if hum else 0
    return Finite(recording, find_artefacts(recording, job_kwargs, period), hum)


def remarks(finite: Finite) -> list[str]:
    """Return a line on the hum and one on the artefacts that were found, if there are any."""
    found, hum, reasons = [], finite.hum, finite.artefacts.reasons
    if hum:
        found.append(f"mains hum at {hum['freq']:.2f} Hz and {len(hum['harmonics'])} harmonics is taken out")
    if reasons:
        seconds = finite.artefacts.seconds(finite.recording.sampling_frequency)
        kinds = ", ".join(f"{reasons.count(kind)} {kind}" for kind in sorted(set(reasons)))
        found.append(f"set aside as artefacts: {seconds:.2f} s in {len(reasons)} places ({kinds})")
    return found


def filter_and_reference(finite: Finite, p: SorterParameters, temporal: np.ndarray | None = None) -> BaseRecording:
    """Return the recording high-pass filtered, referenced to the median of the channels, and zero in artefacts.

    A symmetric filter `temporal` is applied in the same pass over the recording.
    """
    recording = finite.recording.astype("float32")
    if p.apply_preprocessing:
        recording = bridge_periods(finite.recording, finite.artefacts.periods)
        if finite.hum:
            recording = notch_comb(recording, **finite.hum)
        reference = p.common_reference and recording.get_num_channels() >= MIN_CHANNELS_FOR_REFERENCE
        recording = highpass_reference(recording, freq_min=p.freq_min, reference=reference, temporal=temporal)
        if finite.hum:
            recording = without_echoes(recording, finite.hum, p.seed)
    if len(finite.artefacts.periods):
        recording = silence_periods(recording, finite.artefacts.periods)
    return recording


def preprocess(finite: Finite, p: SorterParameters, num_workers: int = 1) -> BaseRecording:
    """Return the recording filtered, referenced and whitened.

    While the noise of a channel is louder than usual, the channel is scaled to its usual level.
    """
    filtered = filter_and_reference(finite, p)
    if not p.apply_preprocessing:
        return filtered
    spatial, temporal = estimate_whitening_filters(
        filtered, radius_um=p.whitening_radius_um, seed=p.seed, num_workers=num_workers
    )
    filtered = filter_and_reference(finite, p, temporal)  # high-pass and whitening in time in one pass
    levels, is_steady = usual_levels(filtered, p.seed, num_workers)
    if not is_steady:
        filtered = steady_noise(filtered, levels)
    release_memory()  # that the samples of noise held
    return whiten_noise(filtered, radius_um=p.whitening_radius_um, temporal_ms=0.0, spatial=spatial, temporal=[1.0])


def take_sample(
    recording: BaseRecording, artefacts: Artefacts, duration_s: float, job_kwargs: dict[str, Any]
) -> list[np.ndarray]:
    """Return a sample of the recording, see `spread_slices` and `read_slices`."""
    return read_slices(recording, spread_slices(recording, artefacts, duration_s), job_kwargs["n_jobs"])


def template_extent(recording: BaseRecording, p: SorterParameters) -> tuple[int, int]:
    """Return the samples of a template before its peak, and those from it on."""
    per_ms = recording.sampling_frequency / 1000
    return round(p.ms_before * per_ms), round(p.ms_after * per_ms)


class SpikeShape(NamedTuple):
    """Spikes on a single channel: the typical one, shape (D,), and a temporal basis of all, shape (B, D)."""

    prototype: np.ndarray
    basis: np.ndarray


def find_shape(recording: BaseRecording, sample: list[np.ndarray], p: SorterParameters) -> SpikeShape | None:
    """Return what spikes look like, from the threshold crossings in a sample, or None if there are none."""
    extent = template_extent(recording, p)
    snippets = find_snippets(sample, p.detect_threshold, p.peak_sign, *extent, max_snippets=5000)
    if len(snippets) == 0:
        return None
    return SpikeShape(find_prototype(snippets, extent[0]), fit_temporal_basis(snippets, p.num_temporal_components))


class Peaks(NamedTuple):
    """Peaks, features and neighbours as `detect_and_project` returns them, and the duration that was searched, in s."""

    peaks: np.ndarray
    features: np.ndarray
    neighbours: np.ndarray
    seconds: float


def detect(
    recording: BaseRecording,
    artefacts: Artefacts,
    shape: SpikeShape,
    p: SorterParameters,
    job_kwargs: dict[str, Any],
    slices: list[Slice] | None = None,
) -> Peaks:
    """Return the peaks in slices of the recording, by default in those from which peaks are clustered."""
    slices = slices or spread_slices(recording, artefacts, p.clustering_duration_s)
    runs = [(run[0][0], run[0][1], run[-1][2]) for run in adjacent(recording, slices)]
    num_before, num_after = template_extent(recording, p)
    detector = MatchedFilterPeakDetector(
        recording,
        shape.prototype,
        num_before,
        peak_sign=p.peak_sign,
        detect_threshold=p.detect_threshold,
        radius_um=p.detection_radius_um,
    )
    found = detect_and_project(
        recording, detector, shape.basis, num_before, num_after, p.radius_um, job_kwargs, slices=runs
    )
    return Peaks(*found, seconds_left(recording, artefacts, slices))


def drop_noise(recording: BaseRecording, found: Peaks, p: SorterParameters, job_kwargs: dict[str, Any]) -> Peaks:
    """Return the peaks that the network `p.peak_model` takes for spikes, or all if there is none.

    `recording` is the raw one, without missing samples. The network sees it band-pass filtered.
    """
    if p.peak_model == "none":
        return found
    if p.apply_preprocessing:
        recording = bandpass_filter(recording, *SPIKE_BAND_HZ, dtype="float32")
    labels = classify_peaks(
        recording, found.peaks, model=p.peak_model, device=p.device, seed=p.seed, job_kwargs=job_kwargs
    )
    return found._replace(peaks=found.peaks[labels == 1], features=found.features[labels == 1])


def find_drift(recording: BaseRecording, found: Peaks, p: SorterParameters) -> Drift:
    """Return how the tissue moves, or a drift without motion if that is not wanted or cannot be estimated."""
    if p.motion_correction is False:
        return Drift.none("asked for")
    if reason := why_not(recording):
        return Drift.none(reason)
    return estimate_drift(recording, *found, harmless_um=0.0 if p.motion_correction is True else HARMLESS_UM)


def cluster(
    recording: BaseRecording,
    found: Peaks,
    shape: SpikeShape,
    drift: Drift,
    p: SorterParameters,
    places: np.ndarray | None = None,
) -> Tensor:
    """Return the median waveform of each cluster of peaks, in the reference place, shape (K, N, D).

    `places`, shape (P,), tells where the tissue is at each peak; if it is None, it is looked up in `drift`.
    """
    neighbours = found.neighbours
    if places is None:
        places = drift.places(recording, found.peaks["sample_index"])
    peaks, features, smooth = at_reference(recording, drift, places, found.peaks, found.features, neighbours)
    labels = split_locally(peaks, smooth, neighbours, min_size=max(10, round(p.min_firing_rate * found.seconds)))
    waveforms = np.zeros((labels.max(initial=-1) + 1, len(neighbours), shape.basis.shape[1]), dtype="float32")
    for label in range(len(waveforms)):
        members = labels == label
        channels = np.flatnonzero(neighbours[peaks["channel_index"][members][0]])
        waveforms[label, channels] = np.median(features[members][:, :, : len(channels)], axis=0).T @ shape.basis
    return torch.from_numpy(waveforms)


def another_place(recording: BaseRecording, sample: list[np.ndarray]) -> Tensor | None:
    """Return for each channel the one half a probe away, of those that are not dead, shape (N,), see `Decoys`.

    It is None if there are not two such channels.
    """
    order = along_probe(recording)
    order = order[np.any([chunk.any(axis=0) for chunk in sample], axis=0)[order]]
    elsewhere = np.arange(recording.get_num_channels())
    elsewhere[order] = np.roll(order, len(order) // 2)
    return torch.from_numpy(elsewhere) if len(order) > 1 else None


def learn(
    recording: BaseRecording,
    artefacts: Artefacts,
    sample: list[np.ndarray],
    shape: SpikeShape,
    waveforms: Tensor,
    drift: Drift,
    p: SorterParameters,
    job_kwargs: dict[str, Any],
) -> Units:
    """Return the units: waveforms are improved by coordinate ascent on the sample, and missed units are found.

    The first sweeps learn the large units so well that the residual can be searched for others. If the sample is of
    many chunks, each of these sweeps takes a part of it, and the search another part. The list `sample` is emptied on
    the way, which frees its memory.
    """
    num_before, num_after = template_extent(recording, p)
    slices = spread_slices(recording, artefacts, p.learning_duration_s)  # those of the sample
    middles = np.array([(start + end) // 2 for _, start, end in slices])
    long_enough = [len(chunk) >= num_before + num_after for chunk in sample]
    elsewhere = another_place(recording, sample)
    sample[:] = compress(sample, long_enough)
    chunks, places = join(sample, drift.places(recording, middles)[long_enough], num_before + num_after)
    by_kriging = torch.from_numpy(kernels(recording, drift))

    settings = LearningSettings(
        rank=p.rank,
        num_before=num_before,
        amplitude_range=(p.amplitude_min, p.amplitude_max),
        separation=round(p.refractory_ms / 1000 * recording.sampling_frequency),
    )
    improve = partial(
        learn_units,
        settings=settings,
        sampling_frequency=recording.sampling_frequency,
        nearby=torch.from_numpy(get_channel_distances(recording) <= FOOTPRINT * p.radius_um),
        device=p.device,
        num_workers=job_kwargs["n_jobs"],
        progress_bar=job_kwargs["progress_bar"],
        kernels=by_kriging,
        elsewhere=elsewhere,
    )

    every = min(MOST_PARTS, max(1, len(chunks) // FEW_CHUNKS))
    first_part, last_part = slice(0, None, every), slice(every - 1, None, every)
    units = Units.new(waveforms, by_kriging)
    units = improve(chunks[first_part], units, num_sweeps=p.num_sweeps - 1, places=places[first_part])
    matchers = Matchers(units, settings, p.device) if len(units.moved) else None
    residual = LeftOverRecording(recording, chunks[last_part], places[last_part], matchers)
    missed = find_missed(recording, residual, shape, drift, p, job_kwargs)
    del residual, matchers  # which keep what is known of all pairs of units
    units = units.and_also(Units.new(missed, by_kriging))
    return improve(chunks, units, num_sweeps=p.num_sweeps, places=places, first_sweep=1, every=every)


def find_missed(
    recording: BaseRecording,
    residual: LeftOverRecording,
    shape: SpikeShape,
    drift: Drift,
    p: SorterParameters,
    job_kwargs: dict[str, Any],
) -> Tensor:
    """Return the waveforms of clusters in the residual of all known units, in the reference place, shape (K, N, D)."""
    lengths = [segment.get_num_samples() for segment in residual.segments]
    everything = [(index, 0, length) for index, length in enumerate(lengths)]
    found = detect(residual, Artefacts.none(), shape, p, job_kwargs, slices=everything)
    places = np.array([segment.place for segment in residual.segments])
    return cluster(recording, found, shape, drift, p, places[found.peaks["segment_index"]])


def deconvolve(
    recording: BaseRecording, units: Units, drift: Drift, p: SorterParameters, job_kwargs: dict[str, Any]
) -> np.ndarray:
    """Return the spikes of all units in the whole recording, as ``find_spikes_from_templates`` does."""
    waveforms = units.waveforms
    if len(waveforms) == 0:  # SpikeInterface's matching needs a template
        return np.zeros(0, dtype=_base_matching_dtype)
    templates = Templates(
        templates_array=waveforms.numpy().transpose(0, 2, 1),
        sampling_frequency=recording.sampling_frequency,
        nbefore=template_extent(recording, p)[0],
        channel_ids=recording.channel_ids,
        unit_ids=np.arange(len(waveforms)),
        probe=recording.get_probe(),
        is_in_uV=False,
    )
    return find_spikes_from_templates(
        recording,
        templates,
        method="dlvolt",
        method_kwargs=dict(
            rank=p.rank,
            amplitude_spreads=units.spreads.numpy(),
            firing_rates=units.rates.numpy() * recording.sampling_frequency,
            score_deviations=units.deviations.numpy(),
            amplitude_range=(p.amplitude_min, p.amplitude_max),
            refractory_ms=p.refractory_ms,
            noise_levels=np.ones(recording.get_num_channels()),
            device=p.device,
            drift=drift,
            moved=units.moved,
        ),
        job_kwargs=job_kwargs,
    )


def collect(
    recording: BaseRecording, artefacts: Artefacts, units: Units, spikes: np.ndarray, p: SorterParameters
) -> NumpySorting:
    """Return the sorting: units by depth that fire enough and are not noise, with properties, and the artefacts.

    `spikes` are those that `deconvolve` returns.
    """
    waveforms, fdr, fs = units.waveforms, units.false_discovery_rates.numpy(), recording.sampling_frequency
    lengths = [segment.get_num_samples() for segment in recording.segments]
    spikes = spikes[~artefacts.contain(spikes["segment_index"], spikes["sample_index"])]
    spikes["cluster_index"] = same_neuron(waveforms, spikes, fs, lengths)[spikes["cluster_index"]]
    spikes = without_doubles(spikes, round(p.refractory_ms / 1000 * fs))

    counts = np.bincount(spikes["cluster_index"], minlength=len(waveforms))
    contaminated = contamination(spikes, len(waveforms), fs, lengths, p.refractory_ms)
    is_single = (fdr <= SINGLE) & (contaminated <= SINGLE)
    main_channels = waveforms.norm(dim=2).argmax(dim=1).numpy()
    by_depth = np.lexsort(recording.get_channel_locations()[main_channels].T)
    whole = [(segment, 0, length) for segment, length in enumerate(lengths)]
    fewest = max(MIN_SPIKES, p.min_firing_rate * seconds_left(recording, artefacts, whole))
    kept = by_depth[(counts[by_depth] >= fewest) & (fdr[by_depth] <= MAX_FALSE_DISCOVERY_RATE)]

    index_of = np.full(len(waveforms), -1)
    index_of[kept] = np.arange(len(kept))
    unit_indices = index_of[spikes["cluster_index"]]
    of_kept = unit_indices >= 0
    sorting = as_sorting(spikes[of_kept], unit_indices[of_kept], recording, np.arange(len(kept)))
    sorting.set_property("main_channel_id", recording.channel_ids[main_channels[kept]])
    sorting.set_property("snr", waveforms.abs().amax(dim=(1, 2)).numpy()[kept])
    sorting.set_property("amplitude", waveforms.flatten(1).norm(dim=1).numpy()[kept])
    sorting.set_property("fdr", fdr[kept].astype("float32"))
    sorting.set_property("label", np.where(is_single[kept], "good", "mua").astype("<U4"))
    sorting.annotate(modality="extracellular", set_aside=artefacts.in_seconds(fs))
    return sorting


def collect_nothing(recording: BaseRecording, artefacts: Artefacts, p: SorterParameters) -> NumpySorting:
    """Return the sorting of a recording without units."""
    no_units = Units.new(torch.zeros(0, recording.get_num_channels(), sum(template_extent(recording, p))))
    return collect(recording, artefacts, no_units, np.zeros(0, dtype=_base_matching_dtype), p)
