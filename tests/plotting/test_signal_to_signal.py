import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from dlvolt.networks import create
from dlvolt.plotting import plot_filters, plot_layers, plot_rate_scores


@pytest.fixture
def model():
    return create("s2s", num_hidden=2, seed=3).initialize()


def test_layers(model):
    trace = np.random.default_rng(0).normal(size=300).cumsum()
    figure = plot_layers(model, trace, Figure(layout="constrained"))
    panels = figure.axes
    assert [axes.get_title("left") for axes in panels] == [
        "fluorescence", "analysis", "hidden layer 1", "hidden layer 2", "estimate",
    ]  # fmt: skip
    with torch.no_grad():
        analysis, _, _, estimate = model.module_.layers(torch.from_numpy(trace.astype("float32"))[None])
    for axes, expected in ((panels[1], analysis[0].sum(dim=0)[99:]), (panels[4], estimate[0])):
        time, drawn = axes.lines[0].get_data()
        np.testing.assert_allclose(time[[0, -1]], [0, 2.99])
        np.testing.assert_allclose(drawn, expected, rtol=1e-5)
    for bad in (np.zeros((3, 300)), np.full(300, np.nan)):
        with pytest.raises(ValueError, match=r"trace: must have the shape \(T,\) and be finite"):
            plot_layers(model, bad)
    with pytest.raises(ValueError, match="model: must be of the architecture 's2s', not 'calcium'"):
        plot_layers(create("calcium").initialize(), trace)


def test_filters_are_drawn_by_what_they_pass(model):
    time = np.arange(100) / 100
    with torch.no_grad():
        model.module_.analysis.weight[:] = torch.from_numpy(np.sin(2 * np.pi * 20 * time))
        model.module_.synthesis.weight[:] = torch.from_numpy(np.hanning(100))
    lines = plot_filters(model, Figure().subplots()).lines
    for line, frequency in zip(lines, (20, 0), strict=True):
        assert line.get_xdata()[line.get_ydata().argmax()] == pytest.approx(frequency, abs=0.2)
        assert line.get_ydata().max() == 1
    assert lines[0].get_xdata()[-1] == 50


def test_scores_by_a_setting():
    table = pd.DataFrame(
        {"correlation": [0.4, 0.5], "rank": [0.2, 0.3], "auc": [0.8, 0.9]}, index=pd.Index([0, 3], name="hidden layers")
    )
    axes = plot_rate_scores(table, Figure().subplots())
    assert [[bar.get_height() for bar in bars] for bars in axes.containers] == [[0.4, 0.5], [0.2, 0.3], [0.8, 0.9]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "3"]
    assert axes.get_xlabel() == "hidden layers"
    with pytest.raises(ValueError, match="table: has no rank; its columns are correlation, rank, auc"):
        plot_rate_scores(table.drop(columns="rank"))
