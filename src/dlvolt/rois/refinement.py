"""The model of one trace: a network proposes its spikes, the trace itself decides.

It is the model of `dlvolt.deconvolution` with one channel and one unit. A trace x, turned so that spikes go up, is ::

    x(t) = Σ_k a_k h(t - t_k) + n(t),    a_k ~ N(A, V)/A,    t_k at rate λ,    n ~ noise of spectrum S and level s(t)

In z, the trace divided by √S (in frequency) and by s (in time), noise is white and of unit variance, and a spike is the
template g, h likewise divided. A network's probabilities give the first guess of the spikes; from then on everything is
estimated from the trace, by coordinate ascent:

1. *Template.* Given the spikes, g is the maximum of ::

       -‖z - Σ_k w_k g(· - t_k)‖² / 2 + log prior(g),    prior: g ~ N(α m, α² K)

   with w_k a spike's probability times its relative amplitude, so that spikes that overlap are told apart. Mean m and
   covariance K are those of waveforms at large (`expected_waveforms`), divided as the trace is; the height α is fitted.
   With many spikes g is their mean, with few it is what spikes look like elsewhere.
2. *Noise.* S is the spectrum of what the spikes leave; s(t) the running median of |z|.
3. *Spikes.* `dlvolt.deconvolution.pursue` finds and explains away the events whose score u, their correlation with
   g/‖g‖, all others held, tells for a spike: ::

       u ~ N(A, 1 + V) at a spike,    density of maxima of height u in noise: √(-ρ''(0)) / 2π · u exp(-u²/2)

   with ρ the autocorrelation of g (S. O. Rice, "Mathematical analysis of random noise", Bell System Technical Journal
   24, 1945). The ratio of λ N(u; A, 1 + V) to this density is the posterior odds of a spike, by the trace alone.
4. *Amplitudes and rate.* A = ‖g‖, V and λ are those of the events, weighted by their probabilities. But for the last
   round, spikes that the network is sure of and the model has lost count, too: so the template of a cell that fires
   doublets does not become one of two spikes.

The network has seen more kinds of traces than the model allows for, the model has seen more of this trace. Their log
odds are pooled, `POOL` (C. Genest, J. V. Zidek, "Combining probability distributions", Statistical Science 1, 1986).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import solve, toeplitz
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from scipy.signal import find_peaks
from scipy.special import expit, logit
from scipy.stats import norm

from dlvolt.deconvolution import NUM_SHIFTS, AmplitudePrior, LowRankTemplates, PreparedTemplates, pursue
from dlvolt.deconvolution.shifts import HALF_WIDTH, interpolation_kernels
from dlvolt.robust import GAUSSIAN_MAD

from .waveforms import expected_waveforms

BEFORE_MS, AFTER_MS = 20.0, 40.0  # reach of the template
HIGHPASS_HZ = 2.0  # nothing below is known of noise
SEGMENT_S = 1.0  # of the spectrum
LEVEL_S, NUM_LEVELS = 0.5, 9  # the noise level is a median over the one, and a mean over so many of these
MARGIN_S = 0.5  # beside a stretch, that is looked at too
ROUNDS = 4
PROPOSED = 0.05  # least probability of a spike that the first template is made of
FEWEST = 5.0  # spikes, to learn from
APART = 4  # samples between spikes, of which the network can say for sure that they are two
PLAIN = 0.8  # probability by the network of spikes that are learnt from even if the model has lost them
LEAST_HEIGHT = 2.0  # of a spike, in standard deviations of its score in noise
CONSIDERED = 0.02  # least probability, by the trace alone, of an event that is explained away
SMALLEST, WIDEST = 0.3, 0.1  # amplitude of a spike, and least standard deviation of amplitudes, relative to A
FIRST_SPREAD = 0.2  # that standard deviation, before it is learnt
MISFIT = 0.02  # share of the prior's variance that is any waveform's
NETWORK_REACH_MS = 2.0  # the network may mean a spike that it has so far away
NETWORK_RANGE = 0.001  # its probabilities are taken to lie within this and one minus this
SUREST = 1 - 1e-6  # nothing is certain
HEIGHTS = ("height", "variance")
POOL = (0.35, 0.8, -2.5)  # weights of the log odds by the trace and by the network, and what is added


class TraceModel(NamedTuple):
    """What a trace has taught.

    Attributes
    ----------
    sampling_frequency : float
        In Hz.
    brightness : float
        Of a trace that is never dark, whose relative changes count; 0 for one that is taken as it is.
    response : np.ndarray, shape (F,)
        1/√S, at the F frequencies of a segment of `SEGMENT_S`.
    template : np.ndarray, shape (D,)
        g/A, of unit norm.
    height, variance : float
        A and V, in units of the score's variance in noise.
    rate : float
        λ, spikes per sample.
    """

    sampling_frequency: float
    brightness: float
    response: np.ndarray
    template: np.ndarray
    height: float
    variance: float
    rate: float

    @property
    def curvature(self) -> float:
        """-ρ''(0), of the template's autocorrelation."""
        lagged = self.template[1:] @ self.template[:-1]
        return max(2 * (1 - lagged), 1e-3)

    @property
    def cost(self) -> float:
        """Nats that an event costs, so that those are taken that may be spikes."""
        levels = np.linspace(SMALLEST * self.height, self.height, 200)
        least = levels[np.argmax(self.log_odds(levels) > logit(CONSIDERED))]
        return least**2 / 2 - (least - self.height) ** 2 / (2 * (1 + self.variance))

    def log_odds(self, score: np.ndarray) -> np.ndarray:
        """Return the log posterior odds of spikes against maxima of noise; beyond A they do not fall again."""
        score = np.maximum(score, 0.5)  # Rice's formula is one for high levels
        at_most = np.minimum(score, self.height)
        spike = norm.logpdf(score, self.height, np.sqrt(1 + self.variance))
        noise = np.log(np.sqrt(self.curvature) / (2 * np.pi) * score) - score**2 / 2
        typical = norm.logpdf(at_most, self.height, np.sqrt(1 + self.variance))
        least = typical - np.log(np.sqrt(self.curvature) / (2 * np.pi) * at_most) + at_most**2 / 2
        return np.log(self.rate) + np.maximum(spike - noise, least)


class Models(NamedTuple):
    """The models of N traces, as `pursue` takes them: N channels, a unit on each.

    Footprints are N×N, so N should be some tens; groups of traces can be searched one after the other.
    """

    each: list[TraceModel]
    templates: LowRankTemplates
    prior: AmplitudePrior
    prepared: PreparedTemplates

    @classmethod
    def of(cls, each: list[TraceModel]) -> Models:
        """Prepare models, of the same sampling frequency."""
        num = len(each)
        temporal = torch.tensor(np.array([model.template for model in each]), dtype=torch.float32)[:, None]
        templates = LowRankTemplates(torch.eye(num)[:, :, None], torch.ones(num, 1), temporal)
        prior = AmplitudePrior(
            event_cost=torch.tensor([model.cost for model in each], dtype=torch.float32),
            typical=torch.tensor([model.height for model in each], dtype=torch.float32),
            precision=torch.tensor([1 / model.variance for model in each], dtype=torch.float32),
        )
        return cls(each, templates, prior, PreparedTemplates.of(templates))


class Found(NamedTuple):
    """Events of a trace: the sample and shift of each, its amplitude (A is typical), and its probability."""

    frames: np.ndarray
    shifts: np.ndarray
    amplitudes: np.ndarray
    probability: np.ndarray


def reach(sampling_frequency: float) -> tuple[int, int]:
    """Return the samples of a template before its spike, and from it on."""
    before, after = (max(6, round(ms / 1000 * sampling_frequency)) for ms in (BEFORE_MS, AFTER_MS))
    return before, after


def margin(sampling_frequency: float) -> int:
    """Return the samples beside a stretch that `find_spikes` looks at."""
    return round(MARGIN_S * sampling_frequency)


def learn(
    traces: np.ndarray,
    probability: np.ndarray,
    sampling_frequency: float,
    separation: int,
    piece_samples: int | None = None,
) -> tuple[list[TraceModel | None], list[Found]]:
    """Learn the models of traces, starting from a network's probabilities.

    Parameters
    ----------
    traces : np.ndarray, shape (T, N)
        Fluorescence or ΔF/F, turned so that spikes go up: brightness that falls when a neuron fires, negated.
    probability : np.ndarray, shape (T, N)
        Of a spike at each sample, by a network.
    sampling_frequency : float
        In Hz.
    separation : int
        Spikes lie at least so many samples apart.
    piece_samples : int, optional
        If the traces are pieces of longer ones, put together, how long these are; the last may be shorter.

    Returns
    -------
    models : list of TraceModel or None
        Of each trace; None if it has too few spikes to learn from, or they are too small.
    found : list of Found
        The spikes in each trace, by its model; without one, none.
    """
    lessons = [
        Lesson(trace, chances, sampling_frequency, separation, piece_samples or len(traces))
        for trace, chances in zip(traces.T, probability.T, strict=True)
    ]
    for left in reversed(range(ROUNDS)):
        active = [lesson for lesson in lessons if lesson.learn_model()]
        if not active:
            break
        models = Models.of([lesson.model for lesson in active if lesson.model])
        found, channels, scores = events(np.array([lesson.z for lesson in active]), models, separation)
        for n, lesson in enumerate(active):
            lesson.learn_spikes(Found(*(part[channels == n] for part in found)), scores[channels == n])
            if left:
                lesson.recall_spikes()
    return [lesson.model for lesson in lessons], [lesson.found for lesson in lessons]


class Lesson:
    """What is known of a trace while its model is learnt: the trace in units of its noise, its spikes, the model."""

    def __init__(
        self,
        trace: np.ndarray,
        probability: np.ndarray,
        sampling_frequency: float,
        separation: int,
        piece_samples: int,
    ) -> None:
        self.probability, self.sampling_frequency, self.separation = probability, sampling_frequency, separation
        self.brightness = typical_brightness(trace)
        self.sides = margin(sampling_frequency)
        x = relative(trace, self.brightness)
        pieces = np.split(x, range(piece_samples, len(x), piece_samples))
        self.x = np.pad(np.concatenate([levelled(piece, self.sides) for piece in pieces]), self.sides, mode="symmetric")
        flat = np.ones(round(SEGMENT_S * sampling_frequency) // 2 + 1)
        self.response = whitener(flat, self.x, sampling_frequency)
        self.z = whiten(self.x, self.response, sampling_frequency)
        self.model: TraceModel | None = None
        self.template: np.ndarray | None = None
        self.variance: float | None = None

        peaks = find_peaks(np.pad(probability, 1), height=PROPOSED, distance=separation)[0] - 1
        unshifted, ones = np.full(len(peaks), NUM_SHIFTS // 2), np.ones(len(peaks))
        self.found = self.proposed = Found(peaks, unshifted, ones, probability[peaks].astype("float64"))

    def learn_model(self) -> bool:
        """Learn template and noise from the spikes, and return whether there are enough of them."""
        self.model = None
        if self.found.probability.sum() >= FEWEST:
            train = impulses(self.found, len(self.z), self.sides)
            if self.template is None:
                self.template = map_template(self.z, train, self.response, self.sampling_frequency)
            left = self.z - convolved(train, self.template, reach(self.sampling_frequency)[0])
            self.response = whitener(self.response, left[self.sides : -self.sides], self.sampling_frequency)
            self.z = whiten(self.x, self.response, self.sampling_frequency)
            self.template = map_template(self.z, train, self.response, self.sampling_frequency)
            height = float(np.linalg.norm(self.template))
            if height >= LEAST_HEIGHT:
                self.model = TraceModel(
                    sampling_frequency=self.sampling_frequency,
                    brightness=self.brightness,
                    response=self.response,
                    template=self.template / height,
                    height=height,
                    variance=(FIRST_SPREAD * height) ** 2 if self.variance is None else self.variance,
                    rate=float(self.found.probability.sum()) / len(self.probability),
                )
        if self.model is None:
            self.found = Found(*(part[:0] for part in self.found))
        return self.model is not None

    def learn_spikes(self, found: Found, scores: np.ndarray) -> None:
        """Take new spikes, and learn how their amplitudes vary."""
        assert self.model is not None  # `learn_model` has learnt it
        chances = pooled(self.model, scores, found.frames, self.probability)
        self.found = found._replace(probability=chances)
        if len(scores):
            weights = chances / chances.sum()
            variance = weights @ (scores - weights @ scores) ** 2 - 1  # less that of the noise
            self.variance = max(variance, (WIDEST * self.model.height) ** 2)

    def recall_spikes(self) -> None:
        """Learn also from spikes that the network is sure of and the model has lost.

        In a cell that fires doublets a template of two spikes explains nearly as much as twice one of one, and once it
        is learnt, the second spikes are lost for good.
        """
        explained = np.zeros(len(self.probability), dtype=bool)
        explained[self.found.frames] = True
        near = maximum_filter1d(explained, 2 * max(self.separation, APART) - 1)
        lost = (self.proposed.probability >= PLAIN) & ~near[self.proposed.frames]
        both = zip(self.found, self.proposed, strict=True)
        self.found = Found(*(np.concatenate([found, proposed[lost]]) for found, proposed in both))


def find_spikes(
    traces: np.ndarray, probability: np.ndarray, models: Models, separation: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the spikes of a stretch of some traces.

    Parameters
    ----------
    traces : np.ndarray, shape (T + 2 `margin`, N)
        As for `learn`; the margins lie beside the stretch, mirror images where the recording ends.
    probability : np.ndarray, shape (T, N)
        Of a spike at each sample of the stretch, by a network.
    models : Models
        Of the N traces.
    separation : int
        As for `learn`.

    Returns
    -------
    frames, channels, probability : np.ndarray, shape (E,)
        Of each event that may be a spike, by channel and sample. Frames count from the beginning of the stretch.
    """
    fs = models.each[0].sampling_frequency
    z = [
        whiten(relative(trace, model.brightness), model.response, fs)
        for trace, model in zip(traces.T, models.each, strict=True)
    ]
    found, channels, scores = events(np.array(z), models, separation)
    order = np.argsort(channels, kind="stable")
    frames, channels, scores = found.frames[order], channels[order], scores[order]
    borders = np.searchsorted(channels, np.arange(len(models.each) + 1))
    chances = [
        pooled(model, scores[first:last], frames[first:last], of_network)
        for model, of_network, first, last in zip(models.each, probability.T, borders, borders[1:], strict=False)
    ]
    return frames, channels, np.concatenate(chances)


def typical_brightness(trace: np.ndarray) -> float:
    """Return the median of a trace whose every sample is within half of it or above, else 0."""
    median = float(np.median(np.abs(trace)))
    return median if np.abs(trace).min() > median / 2 and len(np.unique(np.sign(trace))) == 1 else 0.0


def relative(trace: np.ndarray, brightness: float) -> np.ndarray:
    """Return log brightness, in which bleaching does not scale spikes, or the trace as it is, float64."""
    trace = trace.astype("float64")
    if not brightness:
        return trace
    return np.sign(trace) * np.log(np.maximum(np.abs(trace) / brightness, 0.1))


def levelled(x: np.ndarray, num_samples: int) -> np.ndarray:
    """Return a trace less the line between the means of so many samples at either end, shape (T,)."""
    return x - np.linspace(x[:num_samples].mean(), x[-num_samples:].mean(), len(x))


def whitener(response: np.ndarray, left: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return the response that makes what a response has left white, and of unit variance."""
    num_samples = 2 * (len(response) - 1)
    frequencies = np.fft.rfftfreq(num_samples, 1 / sampling_frequency)
    power = spectrum(left, num_samples)
    power[0], power[-1] = power[1], power[-2]
    power = np.maximum(power, 1e-12 * power.max() + 1e-300)
    power /= highpass(frequencies) if np.all(response == 1) else 1
    return response / np.sqrt(power)


def spectrum(x: np.ndarray, num_samples: int) -> np.ndarray:
    """Return the power spectrum of noise by Welch's method, 1 at all frequencies if it is white of unit variance."""
    x = np.pad(x, (0, max(0, num_samples - len(x))), mode="symmetric")
    pieces = np.lib.stride_tricks.sliding_window_view(x, num_samples)[:: num_samples // 2]
    window = np.hanning(num_samples + 1)[:-1]
    windowed = (pieces - pieces.mean(axis=1, keepdims=True)) * window
    return np.mean(np.abs(rfft(windowed)) ** 2, axis=0) / (window @ window)


def highpass(frequencies: np.ndarray) -> np.ndarray:
    """Return the power that is left of each frequency, shape (F,)."""
    squared = (frequencies / HIGHPASS_HZ) ** 4
    return np.maximum(squared / (1 + squared), 1e-6)


def whiten(x: np.ndarray, response: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return z, of a trace with its margins, shape (T + 2 margins,)."""
    length = next_fast_len(len(x), real=True)
    spectrum = rfft(levelled(x, margin(sampling_frequency)), length)
    at = np.linspace(0, len(response) - 1, len(spectrum))
    z = irfft(spectrum * np.interp(at, np.arange(len(response)), response), length)[: len(x)]
    return z / noise_level(z, round(LEVEL_S * sampling_frequency))


def noise_level(z: np.ndarray, length: int) -> np.ndarray:
    """Return the running level of noise: medians of |z| over so many samples, smoothed, shape (T,)."""
    count = max(1, len(z) // length)
    parts = np.abs(z[: len(z) // count * count]).reshape(count, -1)
    middle = parts.shape[1] // 2
    medians = np.partition(parts, middle, axis=1)[:, middle] / GAUSSIAN_MAD
    smooth = uniform_filter1d(medians, min(NUM_LEVELS, 2 * count - 1), mode="nearest")
    return np.maximum(np.interp(np.arange(len(z)), (np.arange(count) + 0.5) * len(z) / count, smooth), 1e-12)


def impulses(found: Found, num_samples: int, sides: int) -> np.ndarray:
    """Return the train Σ w_k δ(t - t_k) of so many samples, w_k a spike's probability times its relative amplitude."""
    train = np.zeros(num_samples)
    kernels = interpolation_kernels(torch.zeros(1, dtype=torch.float64)).numpy()
    weights = (found.probability * found.amplitudes)[:, None]
    np.add.at(
        train, found.frames[:, None] + sides + np.arange(-HALF_WIDTH, HALF_WIDTH + 1), weights * kernels[found.shifts]
    )
    return train


def convolved(train: np.ndarray, template: np.ndarray, before: int) -> np.ndarray:
    """Return Σ_k w_k g(t - t_k), shape (T,)."""
    length = next_fast_len(len(train) + len(template), real=True)
    return irfft(rfft(train, length) * rfft(template, length), length)[before : before + len(train)]


def map_template(z: np.ndarray, train: np.ndarray, response: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return the maximum a posteriori template g, shape (D,).

    Its normal equations are those of a regression of z on the lagged train: (C + (α² K)⁻¹) g = c + (α² K)⁻¹ α m, with C
    the autocorrelation of the train, a Toeplitz matrix, and c its correlation with z.
    """
    before, after = reach(sampling_frequency)
    lags = np.arange(-before, after)
    length = next_fast_len(len(z) + len(lags), real=True)
    spectrum = rfft(train, length)
    information = toeplitz(irfft(np.abs(spectrum) ** 2, length)[: len(lags)])  # C
    seen = irfft(rfft(z, length) * spectrum.conj(), length)[lags]  # c

    expected = expected_waveforms(sampling_frequency)
    num_samples = 2 * (len(response) - 1)
    waveforms = np.concatenate([expected.mean[None], expected.components])[:, :num_samples]
    white = irfft(rfft(waveforms, num_samples) * response, num_samples)[:, (expected.num_before + lags) % num_samples]
    mean, components = white[0], white[1:]
    covariance = components.T @ components
    covariance += MISFIT * np.trace(covariance) / len(lags) * np.eye(len(lags))
    precision = np.linalg.inv(covariance)
    pulled = precision @ mean
    height = mean @ seen / (mean @ information @ mean)
    for _ in range(3):
        height = max(height, 1e-6)
        template = solve(information + precision / height**2, seen + pulled / height, assume_a="pos")
        height = pulled @ template / (pulled @ mean)
    return template


def events(z: np.ndarray, models: Models, separation: int) -> tuple[Found, np.ndarray, np.ndarray]:
    """Return the events of whitened traces (N, T), less their margins, that may be spikes, their channels and scores.

    An event's score is u = a + (a - A) / V if a is its amplitude, the maximiser of the log joint.
    """
    fs = models.each[0].sampling_frequency
    sides, (before, after) = margin(fs), reach(fs)
    inside = z[:, sides - before : z.shape[1] - sides + after].astype("float32")
    of_all = pursue(torch.from_numpy(inside), models.templates, models.prior, separation, prepared=models.prepared)
    of_all = of_all.select(of_all.times < z.shape[1] - 2 * sides)
    frames, channels, amplitudes, shifts = (part.numpy() for part in of_all)
    height, variance = (np.array([getattr(model, name) for model in models.each])[channels] for name in HEIGHTS)
    scores = amplitudes + (amplitudes - height) / variance
    clipped = np.clip(amplitudes / height, SMALLEST, 2.0).astype("float64")
    return Found(frames, shifts, clipped, np.zeros(len(frames))), channels, scores


def pooled(model: TraceModel, scores: np.ndarray, frames: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the probability of events by the trace and the network, shape (E,)."""
    samples = round(NETWORK_REACH_MS / 1000 * model.sampling_frequency)
    near = maximum_filter1d(probability, 2 * samples + 1)[frames] if len(frames) else np.zeros(0)
    chance = model.rate * model.sampling_frequency * 2 * NETWORK_REACH_MS / 1000
    network = logit(np.clip(near, NETWORK_RANGE, 1 - NETWORK_RANGE)) - np.log(chance)
    of_trace, of_network, bias = POOL
    return np.minimum(expit(of_trace * model.log_odds(scores) + of_network * network + bias), SUREST)
