"""Print how many snippets the networks classify in a second, for docs/snippets.md."""

import time

import numpy as np
import torch

from dlvolt.networks import load

NUM_SNIPPETS = 200_000


def main():
    snippets = np.random.default_rng(0).normal(scale=60, size=(NUM_SNIPPETS, 42)).astype("float32")
    for name in ("waveform_cnn", "waveform_gru"):
        network = load(name, device="cpu")
        network.predict(snippets[:1000])
        for part in (snippets[:4181], snippets):
            start = time.perf_counter()
            network.predict(part)
            seconds = time.perf_counter() - start
            rate = len(part) / seconds
            print(f"{name}: {len(part)} in {seconds:.3f} s, {rate:,.0f} per second, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
