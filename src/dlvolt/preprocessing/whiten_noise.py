"""Whiten the noise of a recording, in space and in time, and leave the spikes out of the estimate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import (
    BaseRecording,
    BaseRecordingSegment,
    get_channel_distances,
    get_chunk_with_margin,
    get_random_data_chunks,
)
from spikeinterface.core.core_tools import define_function_handling_dict_from_class
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

NUM_CHUNKS, CHUNK_S = 20, 0.5  # of the recording, from which noise is estimated
QUIET = 4.0  # noise standard deviations; larger excursions are spikes
DEAD = 1e-3  # of the noisiest channel's noise; channels with less are dead, and become zero
SPIKE_MS = 0.5  # what lies this close to a spike is not noise either
RELATIVE_FLOOR = 1e-3  # of the largest noise eigenvalue: directions without noise are not blown up
SPECTRAL_FLOOR = 1e-2  # of the largest noise power: nor are frequencies which the filter took away


class WhitenNoiseRecording(BasePreprocessor):
    """Make the noise white: independent across channels and samples, of variance 1.

    The usual whitening decorrelates the data, spikes and all, and on a tetrode, where every spike is seen by every
    channel, it whitens the spikes away. Here the covariance is estimated between spikes, so that the noise becomes
    what the generative model of `dlvolt.deconvolution` takes it for, ε ~ N(0, 1). The filter is separable: a
    symmetric (ZCA) matrix over the channels within `radius_um`, then one symmetric (zero phase) filter in time.

    Parameters
    ----------
    recording : BaseRecording
        High-pass filtered traces.
    radius_um : float, default: 100.0
        Channels are decorrelated from those at most so far away.
    temporal_ms : float, default: 0.67
        Half length of the temporal filter; 0 leaves time as it is.
    seed : int, default: 0
        Of the random chunks from which noise is estimated.
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
        BasePreprocessor.__init__(self, recording, dtype="float32")
        for segment in recording.segments:
            self.add_recording_segment(WhitenNoiseSegment(segment, spatial, temporal))
        self._kwargs = dict(
            recording=recording,
            radius_um=radius_um,
            temporal_ms=temporal_ms,
            seed=seed,
            spatial=spatial.tolist(),
            temporal=temporal.tolist(),
        )


class WhitenNoiseSegment(BasePreprocessorSegment):
    """One segment of a `WhitenNoiseRecording`."""

    def __init__(self, parent: BaseRecordingSegment, spatial: np.ndarray, temporal: np.ndarray) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.spatial, self.temporal = spatial, temporal

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the whitened traces, shape (T, N)."""
        import torch  # here, because SpikeInterface imports this module with its own preprocessors

        margin = len(self.temporal) // 2
        traces, _, _ = get_chunk_with_margin(
            self.parent_recording_segment,
            start_frame,
            end_frame,
            None,
            margin,
            add_zeros=True,
            dtype="float32",
        )
        rows = self.spatial[slice(None) if channel_indices is None else channel_indices]
        decorrelated = torch.from_numpy(rows @ traces.T)  # N×(T+2L)
        kernels = torch.from_numpy(self.temporal).expand(len(rows), 1, -1)  # depthwise is many times faster
        return torch.conv1d(decorrelated[None], kernels, groups=len(rows))[0].T.numpy()


whiten_noise = define_function_handling_dict_from_class(source_class=WhitenNoiseRecording, name="whiten_noise")


def estimate_whitening_filters(
    recording: BaseRecording, radius_um: float = 100.0, temporal_ms: float = 0.67, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the two filters of `WhitenNoiseRecording` from the quiet samples of a recording.

    Parameters
    ----------
    recording : BaseRecording
        High-pass filtered traces.
    radius_um, temporal_ms, seed
        As for `WhitenNoiseRecording`.

    Returns
    -------
    spatial : np.ndarray, shape (N, N)
        Rows c of P^(-1/2) V^(-1/2), P the correlations and V the variances of the noise, over the channels within
        `radius_um` of channel c; so a loud channel does not drown the others.
    temporal : np.ndarray, shape (2 L + 1,)
        Zero-phase filter whose power response is one over the noise spectrum.

    Raises
    ------
    ValueError
        If traces are NaN or infinite.
    """
    from scipy.ndimage import maximum_filter1d  # slow, and SpikeInterface imports this module with its own

    sampling_frequency = recording.sampling_frequency
    segments = range(recording.get_num_segments())
    chunks = get_random_data_chunks(
        recording,
        num_chunks_per_segment=max(1, NUM_CHUNKS // len(segments)),
        chunk_size=min([round(CHUNK_S * sampling_frequency), *map(recording.get_num_samples, segments)]),
        concatenated=False,
        return_in_uV=False,
        seed=seed,
    )
    if not all(np.isfinite(chunk).all() for chunk in chunks):
        raise ValueError("recording: some samples are NaN or infinite; put fill_nan(recording) before whiten_noise")
    spike_samples = max(1, round(SPIKE_MS / 1000 * sampling_frequency))
    chunks = [chunk.astype("float64") - np.median(chunk, axis=0) for chunk in chunks]
    scale = np.median(np.abs(np.concatenate(chunks)), axis=0) / 0.6745
    alive = scale > DEAD * scale.max()
    quiet = [
        (maximum_filter1d(np.abs(chunk) > QUIET * scale, 2 * spike_samples + 1, axis=0) == 0) & alive
        for chunk in chunks
    ]
    noise = [np.where(mask, chunk, 0.0) for chunk, mask in zip(chunks, quiet, strict=True)]

    counts = sum(mask.T.astype(float) @ mask for mask in quiet)  # N×N samples where both channels are quiet
    covariance = sum(x.T @ x for x in noise) / np.maximum(counts, 1)
    neighbours = (get_channel_distances(recording) <= radius_um) & alive & alive[:, None]
    deviations = np.sqrt(np.where(alive, covariance.diagonal(), 1))
    spatial = _local_zca(covariance / np.outer(deviations, deviations), neighbours) / deviations

    num_lags = round(temporal_ms / 1000 * sampling_frequency)  # L
    autocorrelation = np.zeros(2 * num_lags + 1)
    for lag in range(len(autocorrelation)):
        products = pairs = 0.0
        for x, mask in zip(noise, quiet, strict=True):
            white = x @ spatial.T
            end = max(len(white) - lag, 0)
            products += np.sum(white[:end] * white[lag:] * mask[:end] * mask[lag:])
            pairs += np.sum(mask[:end] & mask[lag:])
        autocorrelation[lag] = products / max(pairs, 1)
    return spatial, _inverse_root_filter(autocorrelation, num_lags)


def _local_zca(correlation: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return a matrix whose row c is that of the inverse square root of the correlations around channel c."""
    whitening = np.zeros_like(correlation)
    for channel in np.flatnonzero(neighbours.diagonal()):  # all but the dead ones
        local = np.flatnonzero(neighbours[channel])
        variances, directions = np.linalg.eigh(correlation[np.ix_(local, local)])
        variances = np.maximum(variances, RELATIVE_FLOOR * variances[-1])
        row = directions[list(local).index(channel)]
        whitening[channel, local] = (row / np.sqrt(variances)) @ directions.T
    return whitening


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
