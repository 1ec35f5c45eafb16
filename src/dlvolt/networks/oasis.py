"""OASIS, a widely used deconvolution of calcium imaging, with the face of a network; it needs the package oasis-deconv.

References
----------
J. Friedrich, P. Zhou, L. Paninski, "Fast online deconvolution of calcium imaging data", PLoS Computational Biology,
2017.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, percentile_filter

from .estimator import check_windows

BIN = 4  # samples per bin; slow recordings are smooth at 100 Hz, so their noise and decay would be misjudged
BASELINE_S, PERCENTILE = 30.0, 20.0  # window and rank of the running percentile that is the baseline
SMOOTHED_S = 0.1  # standard deviation of the Gaussian that smooths the spikes of single bins to a rate


class Oasis:
    """Sparse non-negative deconvolution of each window by an autoregressive model of order 1, which OASIS estimates.

    It runs on 25 bins per second after the baseline is subtracted, and its result is smoothed to a rate, as is common.
    The result is in units of the window's noise, not in spikes per second.

    Raises
    ------
    ImportError
        If the package ``oasis-deconv`` (GPL-3, not part of dlvolt) is not installed.
    """

    name = architecture = "oasis"
    version = ""
    sampling_frequency = 100.0
    rate_range_hz = None
    window_samples, overlap_samples, prune_samples = 32768, 4096, 1024  # long: each window's decay is estimated

    def __init__(self) -> None:
        try:
            from oasis.functions import GetSn, deconvolve
        except ImportError as error:
            raise ImportError("model: 'oasis' needs the package oasis-deconv; pip install 'dlvolt[oasis]'") from error
        self.noise, self.deconvolve = GetSn, deconvolve

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the deconvolved windows (B, T), not negative, float32; 0 for a constant window."""
        X = check_windows(X)
        num_samples, rate = X.shape[1], self.sampling_frequency / BIN
        padded = np.pad(X.astype("float64"), ((0, 0), (0, -num_samples % BIN)), mode="edge")
        answer = np.zeros_like(X)
        for window, trace in enumerate(padded.reshape(len(X), -1, BIN).mean(axis=2)):
            trace = trace - percentile_filter(trace, PERCENTILE, round(BASELINE_S * rate), mode="nearest")
            if np.ptp(trace) > 0 and (noise := self.noise(trace)) > 0:
                spikes = self.deconvolve(trace / noise, penalty=1)[1].clip(min=0)
                answer[window] = np.repeat(gaussian_filter1d(spikes, SMOOTHED_S * rate), BIN)[:num_samples]
        return answer
