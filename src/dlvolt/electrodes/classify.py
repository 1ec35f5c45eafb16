"""Peaks of electrodes are classified as spikes or noise by a network that sees the snippet of each."""

from __future__ import annotations

from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from spikeinterface.core import BaseRecording, get_noise_levels
from spikeinterface.core.node_pipeline import PeakRetriever, PipelineNode, run_node_pipeline

from dlvolt.networks.snippets import SnippetNetwork, outlines
from dlvolt.preprocessing.models import load_model, locate_model, rate_ratio

SUPPORT = 4  # samples on either side of a snippet from which it is interpolated, too


class SpikeProbabilityOfPeaks(PipelineNode):
    """Node of SpikeInterface's pipelines, after a source of peaks: the probability that each of them is a spike.

    The snippet of a peak on its channel is resampled to the sampling frequency of the network by a cubic spline, turned
    so that the peak goes down, and scaled from the noise level of the channel to that of the channels the network was
    trained on. So the unit of the traces does not matter.

    Parameters
    ----------
    recording : BaseRecording
        N channels, band-pass filtered, 300 to 8000 Hz for the weights in the package.
    peaks : PeakDetector or PeakRetriever
        The node that detects or replays the peaks.
    noise_levels : np.ndarray, shape (N,)
        Standard deviation of the noise, in the unit of the traces.
    model : str or path, default: "waveform_cnn"
        Weights that come with dlvolt, or the folder of a saved model of snippets.
    device : str, default: "auto"
        Torch device; "auto" takes CUDA where there is one.
    return_output : bool or (bool, bool), default: True
        Whether the pipeline returns the probabilities. A second value tells the same of the outlines of the snippets
        (`dlvolt.networks.snippets.outlines`), which are then computed, too.
    """

    def __init__(
        self,
        recording: BaseRecording,
        peaks: PipelineNode,
        noise_levels: np.ndarray,
        model: str | Path = "waveform_cnn",
        device: str = "auto",
        return_output: bool | tuple[bool, bool] = True,
    ) -> None:
        super().__init__(recording, return_output=return_output, parents=[peaks])
        self.network = check_peak_model(recording, model, device)
        step = recording.sampling_frequency / self.network.sampling_frequency
        wanted = step * (np.arange(self.network.window_samples) - self.network.num_before)  # D, in own samples
        self.window = np.arange(np.floor(wanted[0]) - SUPPORT, np.ceil(wanted[-1]) + SUPPORT + 1).astype(int)
        self.resample = CubicSpline(self.window, np.eye(len(self.window)))(wanted).T.astype("float32")  # own×D
        with np.errstate(divide="ignore"):
            self.scale = np.where(noise_levels > 0, self.network.noise_uv / noise_levels, 0).astype("float32")

    def get_margin(self) -> int:
        """Return the samples on either side of a chunk that belong to snippets of peaks in it."""
        return int(np.abs(self.window).max()) + 1

    def get_dtype(self) -> np.dtype:
        """Return the dtype of the probabilities."""
        return np.dtype("float32")

    def compute(self, traces: np.ndarray, peaks: np.ndarray) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return the probability of each peak in a chunk, shape (P,), float32, and the outlines if they are wanted."""
        samples, channels = peaks["sample_index"][:, None] + self.window, peaks["channel_index"]
        downward = np.where(peaks["amplitude"] > 0, -self.scale[channels], self.scale[channels])
        snippets = traces[samples, channels[:, None]].astype("float32") @ self.resample  # P×D
        if not np.isfinite(snippets).all():
            raise ValueError("recording: traces around a peak are NaN or infinite; put fill_nan(recording) before this")
        snippets *= downward[:, None]
        probability = self.network.predict_proba(snippets)
        return (probability, outlines(snippets)) if isinstance(self.return_output, tuple) else probability


def classify_peaks(
    recording: BaseRecording,
    peaks: np.ndarray,
    *,
    model: str | Path = "waveform_cnn",
    threshold: float | str = "noise",
    device: str = "auto",
    seed: int = 0,
    job_kwargs: dict[str, Any] | None = None,
) -> np.ndarray:
    """Return which peaks are spikes; ``peaks[labels == 1]`` drops the noise.

    Peaks are scored chunk by chunk, so no more snippets are in memory than those of a chunk, or, with
    ``threshold="predict"``, a third of all.

    Parameters
    ----------
    recording : BaseRecording
        N channels, band-pass filtered, 300 to 8000 Hz for the weights in the package.
    peaks : np.ndarray, shape (P,), SpikeInterface's peak dtype
        The peaks, in any order.
    model : str or path
        "waveform_cnn" or "waveform_gru", or the folder of a saved model of snippets.
    threshold : float, "noise" or "predict"
        Probability from which on a peak is a spike. "noise" takes what one in a hundred peaks of noise reaches
        (`SnippetNetwork.noise_threshold`), so small and distant neurons stay. "predict" labels the peaks of each
        channel as the model's `predict` does: those in the package keep the cluster that stands apart, as labels drawn
        by hand did.
    device : str
        Torch device; "auto" takes CUDA where there is one.
    seed : int
        Seed of the random chunks of the recording in which noise levels are estimated.
    job_kwargs : dict, optional
        SpikeInterface's.

    Returns
    -------
    np.ndarray, shape (P,), int
        Labels: 1 for spikes, 0 for noise.

    Raises
    ------
    ValueError
        If `threshold` is neither a probability nor a name, if peaks are on channels that the recording lacks, if
        traces around a peak are not finite, or if the model is for traces or cannot serve the sampling frequency.
    """
    if threshold not in ("noise", "predict") and not (isinstance(threshold, float | Real) and 0 <= threshold <= 1):
        raise ValueError(f"threshold must be a probability, 'noise' or 'predict', not {threshold!r}")
    network = check_peak_model(recording, model, device)
    num_channels = recording.get_num_channels()
    if len(peaks) and not 0 <= peaks["channel_index"].min() <= peaks["channel_index"].max() < num_channels:
        raise ValueError(f"peaks: some lie on channels that are not among the {num_channels} of the recording")
    labels = np.zeros(len(peaks), dtype=int)
    if len(peaks) == 0:
        return labels
    noise_levels = get_noise_levels(
        recording,
        return_in_uV=False,
        force_recompute=True,
        random_slices_kwargs=dict(seed=seed),
        n_jobs=1,
        progress_bar=False,
    )
    by_time = np.lexsort((peaks["sample_index"], peaks["segment_index"]))
    source = PeakRetriever(recording, peaks[by_time])
    wanted = (True, True) if threshold == "predict" else True
    score = SpikeProbabilityOfPeaks(recording, source, noise_levels, model, device, wanted)
    scored = run_node_pipeline(recording, [source, score], job_kwargs or {}, job_name="dlvolt: classify peaks")
    if threshold != "predict":
        labels[by_time] = scored >= (network.noise_threshold() if threshold == "noise" else threshold)
        return labels
    probability, shapes = scored
    for channel in np.unique(peaks["channel_index"]):
        members = peaks["channel_index"][by_time] == channel
        labels[by_time[members]] = network.label(probability[members], shapes[members])
    return labels


def check_peak_model(recording: BaseRecording, model: str | Path, device: str = "auto") -> SnippetNetwork:
    """Return the network that is to classify the peaks of a recording; arguments as for `classify_peaks`.

    Raises
    ------
    ValueError
        If the network is for traces or cannot serve the recording's sampling frequency.
    """
    network = load_model(locate_model(model), device)
    if not isinstance(network, SnippetNetwork):
        raise ValueError(
            f"model: {network.name!r} is for traces, not for snippets; take 'waveform_cnn' or 'waveform_gru'"
        )
    rate_ratio(recording.sampling_frequency, network)
    return network
