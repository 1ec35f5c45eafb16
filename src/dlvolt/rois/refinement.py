"""The model of one trace of voltage: a network proposes the spikes, and the trace itself decides.

It is the model of `dlvolt.deconvolution` with one channel and one unit. A trace x in which spikes go up is ::

    x(t) = Σ_k a_k h(t - t_k) + n(t),    a_k ~ N(A, V)/A,    t_k at rate λ,    n ~ noise of spectrum S and level s(t)

Dividing the trace by √S in frequency and by s in time makes it z, in which noise is white and of unit variance, and h
becomes the template g. The events that a network proposes are the first guess of the spikes. From then on everything is
estimated from the trace, by four rounds of coordinate ascent:

1. *Template.* Given the spikes, g maximises ::

       -‖z - Σ_k w_k g(· - t_k)‖² / 2 + log prior(g),    prior: g ~ N(α m, α² K)

   where w_k is the probability of a spike times its relative amplitude. The sum tells spikes apart that overlap. The
   mean m and covariance K are those of `expected_waveforms`, whitened like the trace, and the height α is fitted. With
   many spikes g is their mean, and with few it is what spikes look like in other traces.
2. *Noise.* S is the spectrum of what the spikes leave, and s(t) a running median of |z|.
3. *Spikes.* They are the events that `dlvolt.deconvolution.pursue` finds. The score u of an event is its correlation
   with g/‖g‖ while all other events are held. It tells a spike from a maximum of noise: ::

       u ~ N(A, 1 + V) at a spike,    density of maxima of height u in noise: √(-ρ''(0)) / 2π · u exp(-u²/2)

   with ρ the autocorrelation of g (S. O. Rice, "Mathematical analysis of random noise", Bell System Technical Journal
   24, 1945). The ratio of λ N(u; A, 1 + V) to this density is the odds of a spike, by the trace alone.
4. *Amplitudes and rate.* A is ‖g‖; V and λ are those of the events, weighted by their probabilities. In all rounds but
   the last, spikes of which the network is sure count, too, if the model has lost them. Otherwise the template of a
   cell that fires doublets would become one of two spikes.

The network has seen more kinds of traces than the model allows for; the model has seen more of this one. Their log odds
are pooled, see `POOL` (C. Genest, J. V. Zidek, "Combining probability distributions", Statistical Science 1, 1986).
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
from dlvolt.deconvolution.traces import noise_spectrum, without_trend
from dlvolt.robust import GAUSSIAN_MAD

from .waveforms import expected_waveforms

BEFORE_MS, AFTER_MS = 20.0, 40.0  # extent of the template before and after the peak of a spike
HIGHPASS_HZ = 2.0  # lower frequencies of the trace are taken out
SEGMENT_S = 1.0  # length of the segments of which the noise spectrum is the mean
LEVEL_S, NUM_LEVELS = 0.5, 9  # noise levels are medians over such times, smoothed by a mean over so many of them
MARGIN_S = 0.5  # how far beside a stretch its trace is looked at
ROUNDS = 4  # of coordinate ascent
PROPOSED = 0.05  # least probability, by the network, of the spikes that make the first template
FEWEST = 5.0  # fewest spikes from which a model is learnt
APART = 4  # least samples between two spikes for the network to be sure that they are two
PLAIN = 0.8  # least probability, by the network, of the spikes that are recalled if the model has lost them
LEAST_HEIGHT = 2.0  # smallest A, in standard deviations of the score in noise
CONSIDERED = 0.02  # least probability, by the trace alone, of an event that is explained away
SMALLEST, WIDEST = 0.3, 0.1  # smallest amplitude of a spike, and least standard deviation of amplitudes, relative to A
FIRST_SPREAD = 0.2  # standard deviation of amplitudes, relative to A, before it is learnt
MISFIT = 0.02  # variance of white noise that is added to the prior of the template, relative to the prior's variance
NETWORK_REACH_MS = 2.0  # a probability of the network may belong to an event so far away
NETWORK_RANGE = 0.001  # probabilities of the network are limited to between this and one minus this
SUREST = 1 - 1e-6  # largest probability of a spike
POOL = (0.35, 0.8, -2.5)  # weights of the log odds by the trace and by the network, and the bias


class TraceModel(NamedTuple):
    """What is learnt from a trace.

    Attributes
    ----------
    sampling_frequency : float
        Sampling frequency, Hz.
    brightness : float
        Typical brightness of a trace that is never dark, of which relative changes are looked at; 0 for a trace that
        is looked at as it is.
    response : np.ndarray, shape (F,)
        1/√S at the F frequencies of a segment of `SEGMENT_S`.
    template : np.ndarray, shape (D,)
        g/A, of unit norm.
    height, variance : float
        A and V, in standard deviations and variances of the score in noise.
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
        """-ρ''(0), the curvature of the template's autocorrelation, per sample squared."""
        lagged = self.template[1:] @ self.template[:-1]
        return max(2 * (1 - lagged), 1e-3)

    @property
    def cost(self) -> float:
        """Cost of an event in nats, for events to be taken that are spikes with probability `CONSIDERED` or more.

        It is what the best amplitude gains at the score of such an event, without the cost.
        """
        levels = np.linspace(SMALLEST * self.height, self.height, 200)
        least = levels[np.argmax(self.log_odds(levels) > logit(CONSIDERED))]
        return least**2 / 2 - (least - self.height) ** 2 / (2 * (1 + self.variance))

    def log_odds(self, score: np.ndarray) -> np.ndarray:
        """Return the log odds of a spike at each score, by the trace alone; beyond A they do not fall again."""
        score = np.maximum(score, 0.5)  # Rice's formula holds for high levels only
        at_most = np.minimum(score, self.height)
        spike = norm.logpdf(score, self.height, np.sqrt(1 + self.variance))
        noise = np.log(np.sqrt(self.curvature) / (2 * np.pi) * score) - score**2 / 2
        typical = norm.logpdf(at_most, self.height, np.sqrt(1 + self.variance))
        least = typical - np.log(np.sqrt(self.curvature) / (2 * np.pi) * at_most) + at_most**2 / 2
        return np.log(self.rate) + np.maximum(spike - noise, least)


class Models(NamedTuple):
    """The models of N traces as `pursue` takes them: N channels with a unit on each.

    Footprints have N × N values, so N should be some tens; many traces can be searched in groups.
    """

    each: list[TraceModel]
    templates: LowRankTemplates
    prior: AmplitudePrior
    prepared: PreparedTemplates

    @classmethod
    def of(cls, each: list[TraceModel]) -> Models:
        """Prepare models of the same sampling frequency for pursuits."""
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
    """E events of a trace: the sample and shift of each, its amplitude relative to A, and its probability."""

    frames: np.ndarray
    shifts: np.ndarray
    amplitudes: np.ndarray
    probability: np.ndarray

    def select(self, which: np.ndarray | slice) -> Found:
        """Return some of the events."""
        return Found(*(each[which] for each in self))


def reach(sampling_frequency: float) -> tuple[int, int]:
    """Return how many samples a template has before the peak of its spike, and how many from the peak on."""
    before, after = (max(6, round(ms / 1000 * sampling_frequency)) for ms in (BEFORE_MS, AFTER_MS))
    return before, after


def margin(sampling_frequency: float) -> int:
    """Return how many samples on either side of a stretch `find_spikes` looks at."""
    return round(MARGIN_S * sampling_frequency)


def learn(
    traces: np.ndarray,
    probability: np.ndarray,
    sampling_frequency: float,
    separation: int,
    piece_samples: int | None = None,
) -> tuple[list[TraceModel | None], list[Found]]:
    """Return the models that are learnt from N traces and the probabilities of a network, and the spikes they find.

    Parameters
    ----------
    traces : np.ndarray, shape (T, N)
        Fluorescence or ΔF/F in which spikes go up: brightness that falls when a neuron fires must be negated.
    probability : np.ndarray, shape (T, N)
        Probability of a spike at each sample, by a network.
    sampling_frequency : float
        Sampling frequency, Hz.
    separation : int
        Spikes lie at least so many samples apart.
    piece_samples : int, optional
        Length of the pieces, if the traces are pieces of longer ones put together; the last piece may be shorter.

    Returns
    -------
    models : list of TraceModel or None
        The model of each trace; None if it has too few spikes to learn from, or they are too small.
    found : list of Found
        The spikes that the model finds in each trace; none without a model.
    """
    lessons = [
        Lesson(trace, chances, sampling_frequency, separation, piece_samples or len(traces))
        for trace, chances in zip(traces.T, probability.T, strict=True)
    ]
    for rounds_left in reversed(range(ROUNDS)):
        active = [lesson for lesson in lessons if lesson.learn_model()]
        if not active:
            break
        models = Models.of([lesson.model for lesson in active if lesson.model])
        found, channels, scores = events(np.array([lesson.z for lesson in active]), models, separation)
        for n, lesson in enumerate(active):
            lesson.learn_spikes(found.select(channels == n), scores[channels == n])
            if rounds_left:
                lesson.recall_spikes()
    return [lesson.model for lesson in lessons], [lesson.found for lesson in lessons]


class Lesson:
    """What is known of a trace while its model is learnt: the trace whitened, its spikes, and the model."""

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
        level = np.concatenate([without_trend(piece, self.sides) for piece in pieces])
        self.x = np.pad(level, self.sides, mode="symmetric")
        flat = np.ones(round(SEGMENT_S * sampling_frequency) // 2 + 1)
        self.response = whitener(flat, self.x, sampling_frequency)
        self.z = whiten(self.x, self.response, sampling_frequency)
        self.model: TraceModel | None = None
        self.template: np.ndarray | None = None
        self.variance: float | None = None

        peaks = local_maxima(probability, separation, PROPOSED)
        unshifted, ones = np.full(len(peaks), NUM_SHIFTS // 2), np.ones(len(peaks))
        self.found = self.proposed = Found(peaks, unshifted, ones, probability[peaks].astype("float64"))

    def learn_model(self) -> bool:
        """Learn the template and the noise from the spikes; return whether these are enough and large enough."""
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
            self.found = self.found.select(slice(0))
        return self.model is not None

    def learn_spikes(self, found: Found, scores: np.ndarray) -> None:
        """Take the spikes of a round, with their scores, and learn how their amplitudes vary."""
        assert self.model is not None  # spikes are found by the model that `learn_model` has learnt
        chances = pooled(self.model, scores, found.frames, self.probability)
        self.found = found._replace(probability=chances)
        if len(scores):
            weights = chances / chances.sum()
            variance = weights @ (scores - weights @ scores) ** 2 - 1  # less the variance of noise
            self.variance = max(variance, (WIDEST * self.model.height) ** 2)

    def recall_spikes(self) -> None:
        """Add the spikes of which the network is sure and which the model has lost, to learn from them, too.

        In a cell that fires doublets, a template of two spikes explains nearly as much as two templates of one. Once it
        is learnt, the second spikes are lost for good.
        """
        explained = np.zeros(len(self.probability), dtype=bool)
        explained[self.found.frames] = True
        near = maximum_filter1d(explained, 2 * max(self.separation, APART) - 1)
        lost = self.proposed.select((self.proposed.probability >= PLAIN) & ~near[self.proposed.frames])
        self.found = Found(*(np.concatenate(both) for both in zip(self.found, lost, strict=True)))


def find_spikes(
    traces: np.ndarray, probability: np.ndarray, models: Models, separation: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the events in a stretch of N traces that may be spikes.

    Parameters
    ----------
    traces : np.ndarray, shape (T + 2 `margin`, N)
        As for `learn`. The margins are the samples beside the stretch, or mirror images where the recording ends.
    probability : np.ndarray, shape (T, N)
        Probability of a spike at each sample of the stretch, by a network.
    models : Models
        Models of the N traces.
    separation : int
        Spikes lie at least so many samples apart.

    Returns
    -------
    frames, channels, probability : np.ndarray, shape (E,)
        Sample in the stretch, trace and probability of each event, sorted by trace, then sample.
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


def local_maxima(probability: np.ndarray, separation: int, least: float | None = None) -> np.ndarray:
    """Return the samples of local maxima of a probability (T,), among them its ends.

    They lie at least `separation` samples apart and, if `least` is given, are at least so high.
    """
    return find_peaks(np.pad(probability, 1), height=least, distance=separation)[0] - 1


def typical_brightness(trace: np.ndarray) -> float:
    """Return the median size of a trace if all of it has one sign and more than half that size, else 0."""
    median = float(np.median(np.abs(trace)))
    return median if np.abs(trace).min() > median / 2 and len(np.unique(np.sign(trace))) == 1 else 0.0


def relative(trace: np.ndarray, brightness: float) -> np.ndarray:
    """Return log brightness, in which bleaching does not scale spikes, or the trace as it is if brightness is 0."""
    trace = trace.astype("float64")
    if not brightness:
        return trace
    return np.sign(trace) * np.log(np.maximum(np.abs(trace) / brightness, 0.1))


def whitener(response: np.ndarray, left: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return a response corrected so that noise it has let through becomes white, with unit variance."""
    num_samples = 2 * (len(response) - 1)
    left = np.pad(left, (0, max(0, num_samples - len(left))), mode="symmetric")
    power = noise_spectrum(left, num_samples, centred=True)
    power[0], power[-1] = power[1], power[-2]
    power = np.maximum(power, 1e-12 * power.max() + 1e-300)
    if np.all(response == 1):  # the first response, which becomes a high-pass filter as well
        rising = (np.fft.rfftfreq(num_samples, 1 / sampling_frequency) / HIGHPASS_HZ) ** 4
        power /= np.maximum(rising / (1 + rising), 1e-6)
    return response / np.sqrt(power)


def whiten(x: np.ndarray, response: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return z of a trace with its margins, shape (T + 2 margins,)."""
    length = next_fast_len(len(x), real=True)
    transform = rfft(without_trend(x, margin(sampling_frequency)), length)
    places = np.linspace(0, len(response) - 1, len(transform))  # of its frequencies among those of the response
    z = irfft(transform * np.interp(places, np.arange(len(response)), response), length)[: len(x)]
    return z / noise_level(z, round(LEVEL_S * sampling_frequency))


def noise_level(z: np.ndarray, length: int) -> np.ndarray:
    """Return the running standard deviation of noise, by medians of |z| over so many samples, smoothed, shape (T,)."""
    count = max(1, len(z) // length)
    parts = np.abs(z[: len(z) // count * count]).reshape(count, -1)
    middle = parts.shape[1] // 2
    medians = np.partition(parts, middle, axis=1)[:, middle] / GAUSSIAN_MAD
    smooth = uniform_filter1d(medians, min(NUM_LEVELS, 2 * count - 1), mode="nearest")
    return np.maximum(np.interp(np.arange(len(z)), (np.arange(count) + 0.5) * len(z) / count, smooth), 1e-12)


def impulses(found: Found, num_samples: int, sides: int) -> np.ndarray:
    """Return the train Σ_k w_k δ(t - t_k), shape (num_samples,), where the stretch of the spikes begins at `sides`."""
    train = np.zeros(num_samples)
    kernels = interpolation_kernels(torch.zeros(1, dtype=torch.float64)).numpy()
    weights = (found.probability * found.amplitudes)[:, None]
    taps = found.frames[:, None] + sides + np.arange(-HALF_WIDTH, HALF_WIDTH + 1)  # E×taps
    np.add.at(train, taps, weights * kernels[found.shifts])
    return train


def convolved(train: np.ndarray, template: np.ndarray, before: int) -> np.ndarray:
    """Return what spikes add to z, Σ_k w_k g(t - t_k), shape (T,), given their train (T,) and g (D,)."""
    length = next_fast_len(len(train) + len(template), real=True)
    return irfft(rfft(train, length) * rfft(template, length), length)[before : before + len(train)]


def map_template(z: np.ndarray, train: np.ndarray, response: np.ndarray, sampling_frequency: float) -> np.ndarray:
    """Return the maximum a posteriori template g, shape (D,).

    Its normal equations are those of a regression of z on the lagged train: (C + (α² K)⁻¹) g = c + (α² K)⁻¹ α m, where
    C is the autocorrelation of the train, a Toeplitz matrix, and c its correlation with z. The height α that fits m to
    the spikes comes first; then g and the height that fits m to g, in turn.
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
    mean, components = white[0], white[1:]  # m, and the components of K
    covariance = components.T @ components
    covariance += MISFIT * np.trace(covariance) / len(lags) * np.eye(len(lags))
    precision = np.linalg.inv(covariance)
    pulled = precision @ mean  # K⁻¹ m
    height = mean @ seen / (mean @ information @ mean)
    for _ in range(3):
        height = max(height, 1e-6)
        template = solve(information + precision / height**2, seen + pulled / height, assume_a="pos")
        height = pulled @ template / (pulled @ mean)
    return template


def events(z: np.ndarray, models: Models, separation: int) -> tuple[Found, np.ndarray, np.ndarray]:
    """Return the events of whitened traces (N, T) that may be spikes, except those in margins.

    Returns the events, their channels and their scores. The score of an event follows from its amplitude a, which
    maximises the log joint: u = a + (a - A) / V. Amplitudes are returned relative to A, within bounds. Probabilities,
    which are not known yet, are zero.
    """
    fs = models.each[0].sampling_frequency
    sides, (before, after) = margin(fs), reach(fs)
    inside = z[:, sides - before : z.shape[1] - sides + after].astype("float32")
    of_all = pursue(torch.from_numpy(inside), models.templates, models.prior, separation, prepared=models.prepared)
    of_all = of_all.select(of_all.times < z.shape[1] - 2 * sides)
    frames, channels, amplitudes, shifts = (part.numpy() for part in of_all)
    height, variance = np.array([(model.height, model.variance) for model in models.each])[channels].T
    scores = amplitudes + (amplitudes - height) / variance
    clipped = np.clip(amplitudes / height, SMALLEST, 2.0).astype("float64")
    return Found(frames, shifts, clipped, np.zeros(len(frames))), channels, scores


def pooled(model: TraceModel, scores: np.ndarray, frames: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the probabilities of events by trace and network, shape (E,), given their scores and frames.

    The network's probability of an event is the largest within `NETWORK_REACH_MS`. Its odds are divided by the number
    of spikes that are expected in this time, as the odds by the trace contain the rate already.
    """
    samples = round(NETWORK_REACH_MS / 1000 * model.sampling_frequency)
    near = maximum_filter1d(probability, 2 * samples + 1)[frames] if len(frames) else np.zeros(0)
    chance = model.rate * model.sampling_frequency * 2 * NETWORK_REACH_MS / 1000
    network = logit(np.clip(near, NETWORK_RANGE, 1 - NETWORK_RANGE)) - np.log(chance)
    of_trace, of_network, bias = POOL
    return np.minimum(expit(of_trace * model.log_odds(scores) + of_network * network + bias), SUREST)
