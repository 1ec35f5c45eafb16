"""Symmetric filters in time, which shift no phase, as products of matrices."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

BLOCK = 64  # B: samples that are filtered at once
NUM_BLOCKS = 32  # blocks that are finished before the next ones are begun, so that they stay in the cache
TOLERANCE = 1e-7  # part of the response to an impulse that is left out, which a float32 cannot tell anyway


class ZeroPhaseFilter:
    """Convolve traces with symmetric taps: y[t] = Σ_n h[n] x[t - n], h[-n] = h[n].

    The output comes in blocks of B samples. What lies within L samples of a block enters through a Toeplitz matrix,
    h[i - j]. What lies farther enters as blocks too, through the Hankel matrices H_k[i, j] = h[L + 1 + k B + i + j].
    There the taps of a high-pass filter are a sum of a few damped exponentials, so all these matrices share a column
    space Q of few dimensions, H_k = Q C_k Qᵀ: each block is summed up once, in its moments Qᵀ x (the multipole
    method). So a thousand taps cost little more than the nearest 2 L + B, and two thirds of a convolution by FFT.

    The taps are h, shape (2 M + 1,), and `near` is L, from which on they are smooth. The result is the same whatever L
    is; the cost is not.
    """

    def __init__(self, taps: np.ndarray, near: int) -> None:
        if len(taps) % 2 == 0 or not np.allclose(taps, taps[::-1]):
            raise ValueError("temporal must be symmetric, with as many taps before the middle one as after it")
        half = taps[len(taps) // 2 :]
        self.num_far = num_far = max(0, -(-(len(half) - 1 - near) // BLOCK))  # K blocks on either side
        self.window = BLOCK + 2 * near
        self.margin = num_far * BLOCK + near
        half = np.pad(half, (0, self.margin + self.window))
        i, j, k = np.arange(BLOCK)[:, None], np.arange(BLOCK), np.arange(num_far)
        toeplitz = half[np.abs(i - np.arange(-near, BLOCK + near))]  # B×(B+2L)
        hankel = half[near + 1 + BLOCK * k[:, None, None] + i + j]  # K×B×B

        space, sizes, _ = np.linalg.svd(hankel.swapaxes(0, 1).reshape(BLOCK, -1), full_matrices=False)
        space = space[:, sizes > TOLERANCE * np.abs(taps).sum()]  # Q, B×R
        rank = space.shape[1]
        moments = np.zeros((2 * rank, self.window))
        moments[:rank, :BLOCK] = space[::-1].T  # of the beginning of a window, for the blocks after it
        moments[rank:, -BLOCK:] = space.T  # of its end, for those before
        reduced = (space.T @ hankel @ space).swapaxes(0, 1)  # R×K×R, all C_k
        couplings = np.zeros((2 * rank, 2 * num_far + 1, 2 * rank))  # of a block, in the middle, to those around it
        couplings[:rank, :num_far, :rank] = reduced[:, ::-1]
        couplings[rank:, num_far + 1 :, rank:] = reduced

        self.toeplitz = toeplitz.astype("float32")
        self.moments = moments.astype("float32")
        self.couplings = couplings.reshape(2 * rank, (2 * num_far + 1) * 2 * rank).astype("float32")
        self.space = np.concatenate([space, space[::-1]], axis=1).astype("float32")  # B×2R

    def __call__(self, traces: np.ndarray, offset: np.ndarray | float = 0.0) -> np.ndarray:
        """Return the filtered traces (T, N), float32, of traces (T + 2 margin, N) minus an offset (N,)."""
        num_samples = len(traces) - 2 * self.margin
        num_blocks = -(-num_samples // BLOCK)
        padded = np.empty((num_blocks * BLOCK + 2 * self.margin, traces.shape[1]), dtype="float32")
        padded[len(traces) :] = 0
        np.subtract(traces, offset, out=padded[: len(traces)], dtype="float32", casting="same_kind")

        windows = sliding_window_view(padded, self.window, axis=0)[::BLOCK].swapaxes(1, 2)  # blocks×(B+2L)×N
        moments = (self.moments @ windows).reshape(-1, traces.shape[1])  # blocks·2R×N
        if len(moments):
            around = sliding_window_view(moments, self.couplings.shape[1], axis=0)[:: len(self.couplings)]
            far = self.couplings @ around.swapaxes(1, 2)  # blocks×2R×N
        windows = windows[self.num_far : self.num_far + num_blocks]
        filtered = np.empty((num_blocks, BLOCK, traces.shape[1]), dtype="float32")
        for start in range(0, num_blocks, NUM_BLOCKS):
            some = slice(start, start + NUM_BLOCKS)
            np.matmul(self.toeplitz, windows[some], out=filtered[some])
            if len(moments):
                filtered[some] += self.space @ far[some]
        return filtered.reshape(-1, traces.shape[1])[:num_samples]


def highpass_taps(freq_min: float, sampling_frequency: float) -> np.ndarray:
    """Return the taps (2 M + 1,) of a Butterworth high-pass filter of order 3, forward and backward.

    At its corner half of the amplitude is left. The taps end where the response has died away, at 17 ms for 300 Hz.
    """
    from scipy.signal import butter  # slow, and SpikeInterface imports this module with its own

    _, poles, _ = butter(3, freq_min, "highpass", fs=sampling_frequency, output="zpk")
    reach = int(np.ceil(np.log(TOLERANCE) / np.log(np.abs(poles).max())))
    return zero_phase_taps(butter(3, freq_min, "highpass", fs=sampling_frequency, output="sos"), reach)


def zero_phase_taps(sections: np.ndarray, reach: int) -> np.ndarray:
    """Return the response to an impulse of second-order sections, forward and backward, shape (2 reach + 1,)."""
    from scipy.signal import sosfiltfilt, unit_impulse

    return sosfiltfilt(sections, unit_impulse(4 * reach + 1, "mid"), padlen=0)[reach : 3 * reach + 1]
