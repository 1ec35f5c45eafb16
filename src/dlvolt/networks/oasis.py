"""OASIS, the deconvolution that most know, with the face of a network; from a package of its own.

References
----------
J. Friedrich, P. Zhou, L. Paninski, "Fast online deconvolution of calcium imaging data", PLoS Computational Biology,
2017.
"""

from __future__ import annotations

import numpy as np

from .estimator import check_windows


class Oasis:
    """Sparse non-negative deconvolution of each window by an autoregressive model of order 1, which OASIS estimates.

    It knows no spike counts: its answer is in units of the window's noise, not in spikes per second.

    Raises
    ------
    ImportError
        If the package ``oasis-deconv`` (GPL-3, not part of dlvolt) is not installed.
    """

    name = architecture = "oasis"
    version = ""
    sampling_frequency = 100.0
    rate_range_hz = None
    window_samples, overlap_samples, prune_samples = 4096, 1024, 256

    def __init__(self) -> None:
        try:
            from oasis.functions import GetSn, deconvolve
        except ImportError as error:
            raise ImportError("model: 'oasis' needs the package oasis-deconv; pip install 'dlvolt[oasis]'") from error
        self.noise, self.deconvolve = GetSn, deconvolve

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the deconvolved windows (B, T), not negative, float32; 0 for a constant window."""
        X, _ = check_windows(X)
        answer = np.zeros_like(X)
        for window, trace in enumerate(X.astype("float64")):
            if np.ptp(trace) > 0 and (noise := self.noise(trace)) > 0:
                answer[window] = self.deconvolve(trace / noise, penalty=1)[1]
        return answer.clip(min=0)
