import numpy as np
import pytest
from spikeinterface.core import NumpyRecording
from spikeinterface.core.generate import generate_ground_truth_recording
from spikeinterface.preprocessing import bandpass_filter
from spikeinterface.sortingcomponents.peak_detection import detect_peaks

from dlvolt.simulation.extracellular import near_channels, peak_scores


@pytest.mark.parametrize("rate", [30_000.0, 20_000.0])
def test_the_packaged_weights_find_more_than_a_threshold_at_five_times_the_noise(rate):
    recording, sorting = generate_ground_truth_recording(
        [4.0],
        rate,
        num_channels=8,
        num_units=8,
        generate_sorting_kwargs=dict(firing_rates=(2.0, 15.0), refractory_period_ms=2.0),
        noise_kwargs=dict(noise_levels=15.0, strategy="on_the_fly"),
        seed=2024,
    )
    recording = bandpass_filter(recording, 300.0, 6000.0)
    near = near_channels(recording, sorting)
    settings = {"dlvolt": dict(model="extracellular"), "by_channel": dict(detect_threshold=5.0)}
    scores = {
        method: peak_scores(detect_peaks(recording, method=method, method_kwargs=kwargs), sorting, near)
        for method, kwargs in settings.items()
    }
    assert scores["dlvolt"]["f1"] > scores["by_channel"]["f1"] + 0.01, scores
    assert scores["dlvolt"]["precision"] > 0.97, scores


def test_recordings_that_are_too_slow_are_refused():
    recording = NumpyRecording(np.zeros((1000, 2), dtype="float32"), 10_000.0)
    with pytest.raises(ValueError, match="serves sampling frequencies from 20000 to 50000 Hz, not 10000 Hz"):
        detect_peaks(recording, method="dlvolt", method_kwargs=dict(model="extracellular"))
