"""Whiten the noise of a recording, in space and in time, and leave the spikes out of the estimate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment, get_channel_distances, get_chunk_with_margin
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from dlvolt.robust import GAUSSIAN_MAD
from dlvolt.threads import map_in_threads

from .highpass_reference import row_medians
from .random_chunks import random_chunks
from .zero_phase import ZeroPhaseFilter

GROUP = 16  # channels that are decorrelated at once, from those around them
SLAB = 512  # samples that are decorrelated at once, so that they stay in the cache
NUM_CHUNKS, CHUNK_S = 20, 0.5  # the sample of the recording from which noise is estimated
QUIET = 4.0  # standard deviations of the noise, beyond which excursions are spikes
DEAD = 1e-3  # channels with less noise than this part of the noisiest channel's are dead, and become zero
BLOCK = 32  # samples whose root mean square is taken
COARSE = 0.7  # ratio of the noise by the median absolute value to that by blocks, below which digits are coarse
SPIKE_MS = 0.5  # what lies this close to a spike is not noise either
COARSELY = 4  # the first estimate of the filter in time takes one in four chunks
NUM_SCORES = 12_000  # scores from which the filter in space is estimated
CORE, NUM_ROUNDS = 0.95, 5  # share of the scores that is noise for sure, and rounds until they are found
RELATIVE_FLOOR = 1e-3  # in parts of the largest noise eigenvalue: directions without noise are not blown up
SPECTRAL_FLOOR = 1e-2  # in parts of the largest noise power: nor are frequencies that a filter has taken away

EachInThreads = Callable[..., list]  # `map_in_threads` with its number of workers


class WhitenNoiseRecording(BasePreprocessor):
    """Make the noise white: independent across channels and samples, of variance 1.

    The usual whitening decorrelates the data, spikes and all, and on a tetrode, where every spike is seen by every
    channel, it whitens the spikes away. Here the covariance is estimated between spikes, so that the noise becomes
    what the generative model of `dlvolt.deconvolution` takes it for, ε ~ N(0, 1). The filter is separable: a
    symmetric (ZCA) matrix over the channels within `radius_um`, then one symmetric (zero phase) filter in time. Noise
    is not separable, so the matrix whitens it where it matters: the scores of a typical spike have variance 1 and are
    independent across channels.

    Parameters
    ----------
    recording : BaseRecording
        High-pass filtered traces.
    radius_um : float, default: 100.0
        Channels are decorrelated from those within this distance.
    temporal_ms : float, default: 0.67
        Half length of the temporal filter; with 0 there is none.
    seed : int, default: 0
        Draws the chunks from which noise is estimated.
    spatial, temporal : array, shapes (N, N) and (2 L + 1,), optional
        The two filters, if they are known already.
    """

    _precomputable_kwarg_names: Sequence[str] = ["spatial", "temporal"]

    def __init__(
        self,
        recording: BaseRecording,
        radius_um: float = 100.0,
        temporal_ms: float = 0.67,
        seed: int = 0,
        spatial: np.ndarray | list | None = None,
        temporal: np.ndarray | list | None = None,
    ) -> None:
        if spatial is None or temporal is None:
            spatial, temporal = estimate_whitening_filters(recording, radius_um, temporal_ms, seed)
        spatial, temporal = (np.asarray(part, dtype="float32") for part in (spatial, temporal))
        order = along_probe(recording) if recording.has_probe() else np.arange(recording.get_num_channels())
        BasePreprocessor.__init__(self, recording, dtype="float32")
        self._preferred_mp_context = "spawn"  # torch may wait for ever in a process that was forked
        for segment in recording.segments:
            self.add_recording_segment(WhitenNoiseSegment(segment, spatial, temporal, order))
        self._kwargs = dict(recording=recording, radius_um=radius_um, temporal_ms=temporal_ms, seed=seed)
        self._kwargs |= dict(spatial=spatial.tolist(), temporal=temporal.tolist())


class WhitenNoiseSegment(BasePreprocessorSegment):
    """One segment of a `WhitenNoiseRecording`."""

    def __init__(
        self, parent: BaseRecordingSegment, spatial: np.ndarray, temporal: np.ndarray, order: np.ndarray
    ) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.zero_phase = ZeroPhaseFilter(temporal, near=len(temporal) // 2) if len(temporal) > 1 else None
        spatial = spatial if self.zero_phase else temporal * spatial
        self.spatial = spatial[np.ix_(order, order)]
        self.blocks = local_blocks(self.spatial != 0)
        self.order = order

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the whitened traces, shape (T, N)."""
        import torch  # slow, and SpikeInterface imports this module with its own

        parent = self.parent_recording_segment
        if self.zero_phase is None:
            traces = parent.get_traces(start_frame, end_frame, slice(None)).astype("float32", copy=False)
        else:
            margin = self.zero_phase.margin
            traces = self.zero_phase(
                get_chunk_with_margin(parent, start_frame, end_frame, None, margin, add_zeros=True)[0]
            )
        white = np.empty(traces.shape[::-1], dtype="float32")  # N×T, as whatever filters in time wants it
        for start in range(0, len(traces), SLAB):
            slab = slice(start, start + SLAB)
            transposed = torch.from_numpy(traces[slab]).T.contiguous()  # three times as fast as numpy
            in_order = transposed.numpy()[self.order]
            for channels, seen in self.blocks:
                white[self.order[channels], slab] = self.spatial[channels, seen] @ in_order[seen]
        white = white.T
        return white if channel_indices is None else white[:, channel_indices]


whiten_noise = define_function_handling_dict_from_class(source_class=WhitenNoiseRecording, name="whiten_noise")


def estimate_whitening_filters(
    recording: BaseRecording, radius_um: float = 100.0, temporal_ms: float = 0.67, seed: int = 0, num_workers: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the two filters of `WhitenNoiseRecording` from the quiet samples of a recording.

    Parameters
    ----------
    recording, radius_um, temporal_ms, seed
        As for `WhitenNoiseRecording`.
    num_workers : int
        Threads that read the recording and work on it.

    Returns
    -------
    spatial : np.ndarray, shape (N, N)
        Rows c of P^(-1/2) V^(-1/2), over the channels within `radius_um` of channel c. V are the squared noise levels
        and P is the covariance, in their units, of the scores of a typical spike on single channels; so a loud channel
        does not drown the others.
    temporal : np.ndarray, shape (2 L + 1,)
        Zero-phase filter whose power response is one over the noise spectrum.

    Raises
    ------
    ValueError
        If traces are NaN or infinite.
    """
    each = partial(map_in_threads, num_workers=num_workers)
    sampling_frequency = recording.sampling_frequency
    chunks = random_chunks(recording, NUM_CHUNKS, CHUNK_S, seed, num_workers)
    if not all(np.isfinite(chunk).all() for chunk in chunks):
        raise ValueError("recording: some samples are NaN or infinite; put fill_nan(recording) before whiten_noise")
    order = along_probe(recording)
    chunks = each(lambda chunk: np.ascontiguousarray(chunk.T[order], dtype="float32"), chunks)  # N×T
    silenced = [np.logical_not(chunk.any(axis=0)) for chunk in chunks]  # T
    chunks = each(lambda chunk: chunk - row_medians(chunk)[:, None], chunks)
    left = [chunk[:, ~absent] for chunk, absent in zip(chunks, silenced, strict=True)]
    levels = np.array(each(lambda pieces: _noise_scale(np.concatenate(pieces)), zip(*left, strict=True)))
    largest = max(np.abs(chunk).max() for chunk in chunks)
    levels[levels <= max(DEAD * levels.max(), np.finfo("float32").eps * largest)] = 0  # dead, or rounding errors
    noise, quiet = _quiet_noise(chunks, silenced, levels, max(1, round(SPIKE_MS / 1000 * sampling_frequency)), each)
    num_lags = round(temporal_ms / 1000 * sampling_frequency)  # L
    spike = _typical_spike(chunks, levels, num_lags, each)
    neighbours = get_channel_distances(recording)[np.ix_(order, order)] <= radius_um
    neighbours &= (levels > 0) & (levels[:, None] > 0)

    spatial = np.diag(1 / np.where(levels > 0, levels, np.inf))
    for every in (COARSELY, 1):  # each filter is estimated behind the other, and a first estimate needs few chunks
        autocorrelation = _autocorrelation(noise[::every], quiet[::every], spatial, 2 * num_lags + 1, each)
        temporal = _inverse_root_filter(autocorrelation, num_lags)
        scores = _scores(chunks, silenced, spike, temporal, each)
        if scores.shape[1]:  # none if all chunks are shorter than a spike
            spatial = _local_zca(scores, neighbours, each)
    rank = np.argsort(order)
    return spatial[np.ix_(rank, rank)], temporal


def along_probe(recording: BaseRecording) -> np.ndarray:
    """Return the indices of the channels in the order in which they lie along the longest side of the probe, (N,)."""
    locations = recording.get_channel_locations()
    return np.argsort(locations[:, np.ptp(locations, axis=0).argmax()], kind="stable")


def local_blocks(related: np.ndarray) -> list[tuple[slice, slice]]:
    """Return pairs of slices, channels and those related to them, that cover a relation between channels, (N, N)."""
    blocks = []
    for start in range(0, len(related), GROUP):
        channels = slice(start, start + GROUP)
        seen = np.flatnonzero(related[channels].any(axis=0))
        blocks.append((channels, slice(seen[0], seen[-1] + 1) if len(seen) else slice(0)))
    return blocks


def _quiet_noise(
    chunks: list[np.ndarray], silenced: list[np.ndarray], levels: np.ndarray, reach: int, each: EachInThreads
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return centred chunks (N, T) with zeros near spikes, and which samples are not zeroed."""
    alive = levels[:, None] > 0
    near_spikes = each(lambda chunk: _near(np.abs(chunk) > QUIET * levels[:, None], reach), chunks)
    quiet = [alive & ~near & ~absent for near, absent in zip(near_spikes, silenced, strict=True)]
    return [chunk * mask for chunk, mask in zip(chunks, quiet, strict=True)], quiet


def _typical_spike(chunks: list[np.ndarray], levels: np.ndarray, reach: int, each: EachInThreads) -> np.ndarray:
    """Return the mean of all spikes on single channels, each of norm 1 and turned to the same side.

    It has `reach` samples on either side of its peak, and is an impulse if there are no spikes.
    """
    from scipy.signal import find_peaks

    around = np.arange(-reach, reach + 1)

    def of_chunk(chunk: np.ndarray) -> np.ndarray:
        found = [np.zeros((0, len(around)))]
        for trace, level in zip(chunk, levels, strict=True):
            peaks, _ = find_peaks(np.abs(trace), height=QUIET * level, distance=len(around))
            peaks = peaks[(peaks >= reach) & (peaks < len(trace) - reach)] if level > 0 else peaks[:0]
            snippets = trace[peaks[:, None] + around].astype("float64") * np.sign(trace[peaks, None])
            found.append(snippets / np.linalg.norm(snippets, axis=1, keepdims=True))
        return np.concatenate(found)

    spikes = np.concatenate(each(of_chunk, chunks))
    return spikes.mean(axis=0) * np.hanning(len(around) + 2)[1:-1] if len(spikes) else (around == 0) * 1.0


def _scores(
    chunks: list[np.ndarray], silenced: list[np.ndarray], spike: np.ndarray, temporal: np.ndarray, each: EachInThreads
) -> np.ndarray:
    """Return scores of the typical spike on each channel, of norm 1 after the temporal filter, shape (N, T').

    They are taken from all over the chunks, but not where a part of the samples that they are made of is silenced.
    """
    from scipy.signal import upfirdn

    template = np.convolve(spike, temporal)
    kernel = np.convolve(template[::-1] / np.linalg.norm(template), temporal).astype("float32")
    step = max(1, sum(chunk.shape[1] for chunk in chunks) // NUM_SCORES)

    def of_chunk(chunk: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        x, absent = chunk
        whole = np.convolve(absent, np.ones(len(kernel)))[::step] == 0
        whole[: -(-(len(kernel) - 1) // step)] = False  # the ends, where the kernel reaches over the chunk
        whole[-(-x.shape[1] // step) :] = False
        return upfirdn(kernel, x, down=step, axis=1)[:, whole]

    return np.concatenate(each(of_chunk, zip(chunks, silenced, strict=True)), axis=1)


def _noise_scale(trace: np.ndarray) -> float:
    """Return the noise standard deviation of a trace with spikes, shape (T,).

    It is estimated from the median absolute value. Where digits are coarser than the noise, most samples are the same,
    and it is estimated from the median root mean square of short blocks instead.
    """
    if len(trace) < BLOCK:
        return 0.0
    by_samples = float(row_medians(np.abs(trace)[None])[0]) / GAUSSIAN_MAD
    by_blocks = float(typical_block(trace[:, None], BLOCK)[0])
    return by_blocks if by_samples < COARSE * by_blocks else by_samples


def typical_block(traces: np.ndarray, block: int) -> np.ndarray:
    """Return the median root mean square of blocks of `block` samples of traces (T, N), shape (N,).

    Spikes are in too few blocks to change it.
    """
    whole = traces[: len(traces) // block * block].reshape(-1, block, traces.shape[1])
    return np.median(np.sqrt(np.square(whole).mean(axis=1)), axis=0)


def _near(events: np.ndarray, reach: int) -> np.ndarray:
    """Return which samples, shape (N, T), are at most `reach` samples from an event of their channel."""
    counts = np.pad(events, ((0, 0), (reach + 1, reach))).cumsum(axis=1, dtype="int32")
    return counts[:, 2 * reach + 1 :] > counts[:, : -2 * reach - 1]


def _autocorrelation(
    noise: list[np.ndarray], quiet: list[np.ndarray], spatial: np.ndarray, num_lags: int, each: EachInThreads
) -> np.ndarray:
    """Return the autocorrelation, at lags from 0 on, of the decorrelated noise between spikes, of all channels."""
    blocks = local_blocks(spatial != 0)
    spatial = spatial.astype("float32")

    def of_chunk(chunk: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        x, mask = chunk
        white = np.concatenate([spatial[channels, seen] @ x[seen] for channels, seen in blocks])
        return _lagged_products(white * mask, num_lags), _lagged_products(mask.astype("float32"), num_lags)

    products, pairs = (sum(parts) for parts in zip(*each(of_chunk, zip(noise, quiet, strict=True)), strict=True))
    return products / np.maximum(pairs, 1)


def _lagged_products(x: np.ndarray, num_lags: int) -> np.ndarray:
    """Return Σ x[n, t] x[n, t + lag] for lags from 0 on."""
    from scipy.fft import irfft, next_fast_len, rfft  # slow, and SpikeInterface imports this module with its own

    num_frequencies = next_fast_len(x.shape[1] + num_lags, real=True)
    power = np.sum(np.abs(rfft(x, num_frequencies)) ** 2, axis=0, dtype="float64")
    return irfft(power, num_frequencies)[:num_lags]


def _local_zca(scores: np.ndarray, neighbours: np.ndarray, each: EachInThreads) -> np.ndarray:
    """Return a matrix whose row c is that of the inverse square root of the covariance around channel c, (N, N).

    `scores`, shape (N, T'), are of the noise, with spikes in it; `neighbours`, (N, N), tells what is around a channel.
    """
    channels = np.flatnonzero(neighbours.diagonal())  # all but the dead ones
    levels = np.ones(len(scores))
    levels[channels] = np.array(each(lambda c: row_medians(np.abs(scores[c : c + 1]))[0], channels)) / GAUSSIAN_MAD
    levels[levels == 0] = 1
    scaled = scores / levels[:, None]  # so a loud channel does not drown the others

    def row(channel: int) -> np.ndarray:
        local = np.flatnonzero(neighbours[channel])
        variances, directions = np.linalg.eigh(_robust_covariance(scaled[local]))
        variances = np.maximum(variances, RELATIVE_FLOOR * variances[-1])
        whitening = np.zeros(len(scores))
        own = directions[np.searchsorted(local, channel)]
        whitening[local] = (own / np.sqrt(variances)) @ directions.T / levels[local]
        return whitening

    whitening = np.zeros(neighbours.shape)
    for channel, of_channel in zip(channels, each(row, channels), strict=True):
        whitening[channel] = of_channel
    return whitening


def _robust_covariance(points: np.ndarray) -> np.ndarray:
    """Return the covariance of the normal distribution that most points, shape (C, P), come from, shape (C, C).

    It is the covariance of the points that are closest to the centre in its own metric, reweighted until it hardly
    changes, and scaled to that of a normal distribution of which this share is taken (P. Rousseeuw & K. van Driessen,
    Technometrics 41, 212, 1999). Points with spikes are far out, on whatever channels these are seen.
    """
    from scipy.stats import chi2

    num_channels = len(points)
    farthest = chi2.ppf(CORE, num_channels)
    covariance = np.eye(num_channels)
    for _ in range(NUM_ROUNDS):
        variances, directions = np.linalg.eigh(covariance)
        to_white = directions / np.sqrt(np.maximum(variances, RELATIVE_FLOOR * variances[-1]))
        squared = np.square(to_white.T.astype(points.dtype) @ points).sum(axis=0)
        core = points[:, squared * chi2.median(num_channels) <= farthest * np.median(squared)]
        covariance = core @ core.T / core.shape[1] * CORE / chi2.cdf(farthest, num_channels + 2)
    return covariance


def _inverse_root_filter(autocorrelation: np.ndarray, num_lags: int) -> np.ndarray:
    """Return a symmetric filter of 2 L + 1 taps that whitens noise of this autocorrelation (2 L + 1 lags)."""
    from scipy.linalg import toeplitz

    if autocorrelation[0] == 0:  # all channels are dead
        return np.eye(1, 2 * num_lags + 1, num_lags)[0]
    num_frequencies = 1024
    taper = np.cos(np.linspace(0, np.pi / 2, len(autocorrelation), endpoint=False)) ** 2
    tapered = np.zeros(num_frequencies)
    tapered[: len(autocorrelation)] = autocorrelation * taper
    tapered[num_frequencies - len(autocorrelation) + 1 :] = (autocorrelation * taper)[:0:-1]
    power = np.abs(np.fft.rfft(tapered))
    response = 1 / np.sqrt(power + SPECTRAL_FLOOR * power.max())
    impulse = np.fft.fftshift(np.fft.irfft(response))
    centre = num_frequencies // 2
    taps = impulse[centre - num_lags : centre + num_lags + 1] * np.hanning(2 * num_lags + 3)[1:-1]
    variance = taps @ toeplitz(autocorrelation) @ taps  # of the filtered noise
    return taps / np.sqrt(variance)
