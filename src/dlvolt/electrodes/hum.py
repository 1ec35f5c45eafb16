"""Mains hum: whether it exceeds the noise in the band of spikes, its exact frequency, and the echoes of its notches.

A spike has a little power at each harmonic. Notches take it out and so leave echoes of the spike, of opposite sign and
a period of the hum apart. Those of many large spikes look like small spikes that all channels see.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from spikeinterface.core import BaseRecording, BaseRecordingSegment, get_chunk_with_margin
from spikeinterface.preprocessing.basepreprocessor import BasePreprocessor, BasePreprocessorSegment

from dlvolt.preprocessing.notch_comb import DECAYS, comb_taps, convolved
from dlvolt.preprocessing.random_chunks import random_chunks
from dlvolt.robust import GAUSSIAN_MAD

MAINS_HZ = (50.0, 60.0)
FREQ_MAX = 6000.0  # upper end of the band of spikes, Hz
TOLERANCE = 0.005  # relative deviation from the nominal frequency; mains drift by a few parts in a thousand
CHUNK_S, NUM_CHUNKS, MOST_CHANNELS = 4.0, 3, 8  # parts of the recording, and channels, that are looked at
BESIDE_HZ = (4.0, 20.0)  # distances from a line between which the noise beside it is measured
WIDTH_HZ = 0.5  # of a line, on either side
STANDS_OUT = 10.0  # a line is taken out if its power is so many times that of the noise beside it
STRONGEST = 10  # lines from which the frequency is estimated
FEWEST = 3  # harmonics that make hum; a single line is something else
ECHO_DECAYS = 3  # time constants of a notch after which the echoes of a spike hardly count
LEVEL_S = 2.0  # of a segment tell the noise level of each channel
LARGE = 4.0  # noise standard deviations: larger samples are those of spikes
HARMFUL = 0.05  # hum with less power, relative to the noise in the band, stays, as notches distort spikes a little


def find_hum(recording: BaseRecording, freq_min: float = 300.0) -> dict | None:
    """Return the arguments with which `notch_comb` takes mains hum out of a recording, or None if it has none.

    Parameters
    ----------
    recording : BaseRecording
        Raw traces, finite.
    freq_min : float
        Lower end of the band of spikes, Hz; the upper end is 6000 Hz.

    Returns
    -------
    dict or None
        ``freq``, Hz, and ``harmonics``, those that exceed the noise. None if hum is too weak to do harm, or if the
        recording is shorter than 4 s.
    """
    fs = recording.sampling_frequency
    size = round(CHUNK_S * fs)
    longest = max(range(recording.get_num_segments()), key=recording.get_num_samples)
    num_samples = recording.get_num_samples(longest)
    if num_samples < size:
        return None
    channels = recording.channel_ids[np.linspace(0, len(recording.channel_ids) - 1, MOST_CHANNELS).round().astype(int)]
    channels, window, spectra = list(np.unique(channels)), np.hanning(size)[:, None], []
    for start in np.linspace(0, num_samples - size, NUM_CHUNKS).astype(int):
        traces = recording.get_traces(longest, start, start + size, channel_ids=channels).astype("float64")
        spectra.append(np.abs(np.fft.rfft(window * (traces - traces.mean(axis=0)), axis=0)) ** 2)
    power = np.median(spectra, axis=0)  # F×N; an artefact is in few of the chunks, hum in all of them
    found = [_lines(power, fs / size, mains, freq_min, min(FREQ_MAX, 0.95 * fs / 2)) for mains in MAINS_HZ]
    share, freq, harmonics = max(found, key=lambda each: each[0])
    return {"freq": freq, "harmonics": harmonics} if share > HARMFUL else None


def _lines(
    power: np.ndarray, resolution: float, mains: float, freq_min: float, freq_max: float
) -> tuple[float, float, list[int]]:
    """Return the share, the exact frequency and the harmonics of hum at the nominal frequency of some mains.

    The share is the power of the lines in the band of spikes relative to that of the noise there, and 0 if there are
    too few lines for hum. `power` is the spectrum of each channel, shape (F, N), in bins as wide as `resolution`, Hz.
    """
    floor = np.median(power[round(freq_min / resolution) : round(freq_max / resolution)], axis=0)  # N
    floor = np.where(floor > 0, floor, np.inf)  # dead channels have no hum
    multiples = np.arange(1, int(freq_max / mains))
    candidates = mains * np.linspace(1 - TOLERANCE, 1 + TOLERANCE, 201)
    bins = np.round(np.outer(candidates, multiples) / resolution).astype(int)  # candidates×multiples
    fits = np.array([np.log1p((power[at] / floor).mean(axis=1)).sum() for at in bins])
    freq = float(np.median(candidates[fits == fits.max()]))  # candidates in the same bins fit equally well
    freq = _refined(power.mean(axis=1), resolution, freq, multiples)
    reach = round(WIDTH_HZ / resolution)
    near, far = (round(hz / resolution) for hz in BESIDE_HZ)
    harmonics, share = [], 0.0
    for multiple in multiples:
        at = round(multiple * freq / resolution)
        beside = np.concatenate([power[max(0, at - far) : at - near], power[at + near : at + far]])
        noise = np.median(beside, axis=0)
        line = power[at - reach : at + reach + 1]
        contrast = np.median(line.max(axis=0) / np.where(noise > 0, noise, np.inf))
        if contrast > STANDS_OUT:
            harmonics.append(int(multiple))
            if multiple * freq >= freq_min:
                num_bins = (freq_max - freq_min) / resolution
                share += float(np.median(line.sum(axis=0) / (floor * num_bins)))
    return (share if len(harmonics) >= FEWEST else 0.0), freq, harmonics


def _refined(power: np.ndarray, resolution: float, freq: float, multiples: np.ndarray) -> float:
    """Return the fundamental frequency of the strongest lines, each of them located between bins by a parabola.

    `power`, shape (F,), is the mean spectrum of the channels, and `freq` a first estimate of the frequency, Hz.
    """
    around = np.round(multiples * freq / resolution).astype(int)[:, None] + np.arange(-2, 3)
    peaks = around[np.arange(len(around)), power[around].argmax(axis=1)]
    before, top, after = (np.log(power[peaks + step] + 1e-30) for step in (-1, 0, 1))
    strongest = np.argsort(top)[-STRONGEST:]
    curvature = before - 2 * top + after
    offsets = np.where(curvature < 0, (before - after) / (2 * np.minimum(curvature, -1e-9)), 0.0).clip(-0.5, 0.5)
    lines = (peaks + offsets)[strongest] * resolution
    return float(multiples[strongest] @ lines / (multiples[strongest] @ multiples[strongest]))


class WithoutEchoesRecording(BasePreprocessor):
    """Take out the echoes that `notch_comb` has left of large spikes.

    The notches N are linear, so what they have taken from the large samples s is s − N s, and is added again. A sample
    is large if it exceeds the level of its channel, shape (N,). The recording has been high-pass filtered.
    """

    def __init__(
        self, recording: BaseRecording, levels: np.ndarray, freq: float, harmonics: Sequence[int], q: float = 30.0
    ) -> None:
        BasePreprocessor.__init__(self, recording)
        taps = comb_taps(recording.sampling_frequency, freq, tuple(harmonics), q)
        beyond = len(taps) // 2 - len(taps) // 2 * ECHO_DECAYS // DECAYS
        for segment in recording.segments:
            self.add_recording_segment(WithoutEchoesSegment(segment, levels, taps[beyond : len(taps) - beyond]))
        self._serializability["json"] = False
        self._kwargs = dict(recording=recording, levels=levels, freq=freq, harmonics=harmonics, q=q)


class WithoutEchoesSegment(BasePreprocessorSegment):
    """One segment of a `WithoutEchoesRecording`."""

    def __init__(self, parent: BaseRecordingSegment, levels: np.ndarray, taps: np.ndarray) -> None:
        BasePreprocessorSegment.__init__(self, parent)
        self.levels, self.taps = levels, taps

    def get_traces(self, start_frame: int, end_frame: int, channel_indices: Sequence[int] | slice | None) -> np.ndarray:
        """Return the traces, shape (T, N)."""
        channels, margin = slice(None) if channel_indices is None else channel_indices, len(self.taps) // 2
        traces, _, _ = get_chunk_with_margin(
            self.parent_recording_segment, start_frame, end_frame, channels, margin, add_zeros=True
        )
        large = np.where(np.abs(traces) > self.levels[channels], traces, 0)
        inside = slice(margin, len(traces) - margin)
        return traces[inside] + large[inside] - convolved(large, self.taps)


def without_echoes(recording: BaseRecording, hum: dict, seed: int) -> BaseRecording:
    """Return a recording after `notch_comb` and a high-pass filter without the echoes of spikes."""
    chunks = random_chunks(recording, recording.get_num_segments(), LEVEL_S, seed)  # few, as they have wide margins
    noise = np.median(np.abs(np.concatenate(chunks)), axis=0) / GAUSSIAN_MAD
    return WithoutEchoesRecording(recording, np.where(noise > 0, LARGE * noise, np.inf).astype("float32"), **hum)
