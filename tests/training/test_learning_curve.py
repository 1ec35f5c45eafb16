import numpy as np
import pytest

from dlvolt.networks import create
from dlvolt.training import fit, learning_curve

FS = 1000.0
TINY = dict(
    channels=(8, 8), window_samples=50, overlap_samples=10, prune_samples=0, lr=0.02, max_epochs=6, batch_size=8
)


def test_more_data_never_less_windows_and_all_of_them_are_what_fit_uses(labelled):
    trace, spikes = labelled()
    model = create("fcn", **TINY)
    curve = learning_curve(model, trace, spikes, sampling_frequency=FS, fractions=(0.1, 0.5, 1.0))
    assert list(curve["fraction"]) == [0.1, 0.5, 1.0]
    assert list(curve["num_windows"]) == [5, 26, 53]  # of the 52 that begin at 0, 40 … 2040, and one at the end
    assert curve["f1"].between(0, 1).all()
    assert curve["f1"].iloc[-1] > 0.9
    assert (curve["num_spike_samples"] == spikes[2550:].sum()).all()
    assert not hasattr(model, "classes_")
    again = learning_curve(model, trace, spikes, sampling_frequency=FS, fractions=(0.5,))
    assert again.iloc[0].equals(curve.iloc[1])


def test_the_svm_has_a_learning_curve_too(labelled):
    trace, spikes = labelled()
    model = create("mel_svm", window_samples=50, overlap_samples=0)
    curve = learning_curve(model, trace, spikes, sampling_frequency=FS, fractions=(0.2, 1.0))
    whole = fit(model, trace, spikes, sampling_frequency=FS).test_scores_["f1"]
    assert curve["f1"].iloc[-1] == pytest.approx(whole, abs=0.1)


def test_fractions_are_checked_before_training(labelled):
    trace, spikes = labelled()
    for bad in (0.0, 1.1):
        with pytest.raises(ValueError, match="fractions must lie above 0 and not above 1"):
            learning_curve(create("fcn", **TINY), trace, spikes, sampling_frequency=FS, fractions=(bad,))
    rare = np.zeros_like(spikes)
    rare[100] = 1
    with pytest.raises(ValueError, match=r"fractions: 0.05 of the training windows hold no spike; start higher"):
        learning_curve(create("fcn", **TINY), trace, rare, sampling_frequency=FS, fractions=(1.0, 0.05))
