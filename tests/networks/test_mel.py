import numpy as np
import pytest
import torch

from dlvolt.networks import mel_spectrogram
from dlvolt.networks.mel import OVERSAMPLING, mel_bands

FS, FRAME, BANDS = 3328.0, 12, 7


def test_power_is_that_of_each_frame_by_the_definition():
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrogram = mel_spectrogram(x, FS, FRAME, BANDS).numpy()
    assert spectrogram.shape == (2, BANDS, 50)

    num = OVERSAMPLING * FRAME
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    centres = np.linspace(0, 2595 * np.log10(1 + FS / 2 / 700), BANDS + 2)
    corners = 700 * (10 ** (centres / 2595) - 1)
    padded = np.pad(x.numpy(), ((0, 0), (FRAME // 2, FRAME // 2)), mode="edge")
    for t in (0, 3, 25, 49):
        frame = padded[1, t : t + FRAME] * taper
        for band in range(BANDS):
            power = 0.0
            for k in range(num // 2 + 1):
                frequency = k * FS / num
                weight = np.interp(frequency, corners[band : band + 3], [0, 1, 0])
                power += weight * abs(np.sum(frame * np.exp(-2j * np.pi * k * np.arange(FRAME) / num))) ** 2
            assert spectrogram[1, band, t] == pytest.approx(power, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("band", range(BANDS))
def test_a_tone_is_loudest_in_its_own_band(band):
    highest = 2595 * np.log10(1 + FS / 2 / 700)
    frequency = 700 * (10 ** ((band + 1) / (BANDS + 1) * highest / 2595) - 1)
    tone = torch.sin(2 * torch.pi * frequency * torch.arange(400, dtype=torch.float64) / FS)[None]
    bands = mel_bands(FS, OVERSAMPLING * 32 // 2 + 1, BANDS).sum(dim=0)
    power = mel_spectrogram(tone, FS, frame=32, num_bands=BANDS)[0, :, 100:300].mean(dim=1) / bands
    assert power.argmax() == band


@pytest.mark.parametrize("sampling_frequency", [200.0, 1000.0, 5000.0])
def test_no_band_is_empty(sampling_frequency):
    bands = mel_bands(sampling_frequency, OVERSAMPLING * FRAME // 2 + 1, BANDS)
    assert (bands.sum(dim=0) > 0.5).all()


@pytest.mark.parametrize("frame", [11, 12])
def test_a_click_is_loudest_where_it_is(frame):
    click = torch.zeros(1, 60)
    click[0, 30] = 1.0
    loudness = mel_spectrogram(click, FS, frame)[0].sum(dim=0)
    peak = loudness == loudness.max()
    assert peak.nonzero().tolist() == [[30]]
