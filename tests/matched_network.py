"""A network whose weights are written down instead of learnt: a matched filter for bumps, turned into a probability."""

import numpy as np
import torch

from dlvolt.networks import create, save

RATE = 1000.0  # of the network, in Hz
WIDTH_S = 0.0015  # standard deviation of a bump


def bumps(times_s, num_samples, rate=RATE):
    """Return a trace with a Gaussian bump of height 1 at each time."""
    time = np.arange(num_samples) / rate
    return sum((np.exp(-0.5 * ((time - centre) / WIDTH_S) ** 2) for centre in times_s), np.zeros(num_samples))


def matched_network(spike_polarity="positive", **settings):
    """Return a network whose probability is one half where the filter's output is six noise standard deviations."""
    model = create(
        "fcn",
        channels=(1,),
        kernel_size=9,
        features=("highpass",),
        spike_polarity=spike_polarity,
        **{"sampling_frequency": RATE, "name": "matched", "version": "1", **settings},
    ).initialize()
    template = bumps([4 / RATE], 9)
    with torch.no_grad():
        convolution = model.module_.body[0]
        convolution.weight[0, 0] = torch.from_numpy(template / np.linalg.norm(template))
        convolution.bias[:] = 0
        model.module_.head.weight[:] = 1
        model.module_.head.bias[:] = -6
    return model


def save_matched_network(folder, **settings):
    """Save one and return its folder as a string."""
    return str(save(matched_network(**settings), folder))
