import importlib.util
import sys

import numpy as np
import pytest
import spikeinterface as si

from dlvolt.evaluation import rate_scores
from dlvolt.networks import load
from dlvolt.preprocessing import spike_rate
from dlvolt.simulation import CalciumSettings, simulate_calcium

needs_oasis = pytest.mark.skipif(importlib.util.find_spec("oasis") is None, reason="oasis-deconv is not installed")


@needs_oasis
def test_it_answers_where_the_spikes_are():
    settings = CalciumSettings(snr=(8, 10), firing_rate_hz=(0.5, 1), rise_s=(0.005, 0.006), nonlinearity=(1, 1))
    traces, spike_times = simulate_calcium(3, 60.0, 100.0, settings=settings, seed=0)
    counts = np.transpose([np.bincount((times * 100).astype(int), minlength=6000) for times in spike_times])
    rate = spike_rate(si.NumpyRecording(traces, 100.0), model="oasis").get_traces()
    assert rate.min() >= 0
    assert rate_scores(counts, rate)["auc"].min() > 0.75  # it is smoothed over several bins
    assert not load("oasis").predict(np.full((1, 200), 3.0)).any()


def test_without_the_package_there_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "oasis.functions", None)
    with pytest.raises(
        ImportError, match=r"model: 'oasis' needs the package oasis-deconv; pip install 'dlvolt\[oasis\]'"
    ):
        load("oasis")
