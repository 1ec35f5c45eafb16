import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dlvolt.evaluation import threshold_sweep
from dlvolt.plotting import plot_learning_curve, plot_mel_pca, plot_model_comparison, plot_threshold_sweep


@pytest.fixture
def axes():
    return Figure(layout="constrained").subplots()


def lines(axes):
    return {line.get_label(): np.column_stack(line.get_data()) for line in axes.lines}


def test_threshold_sweep(axes):
    probability = np.zeros(100)
    probability[[20, 60]] = 0.8, 0.5
    sweep = threshold_sweep([0.02], probability, 1000.0, [0.2, 0.6, 0.9])
    assert plot_threshold_sweep(sweep, axes) is axes
    drawn = lines(axes)
    np.testing.assert_allclose(drawn["precision"], [[0.2, 0.5], [0.6, 1], [0.9, 1]])
    np.testing.assert_allclose(drawn["recall"], [[0.2, 1], [0.6, 1], [0.9, 0]])
    np.testing.assert_allclose(drawn["F1"], [[0.2, 2 / 3], [0.6, 1], [0.9, 0]])
    assert axes.get_title() == "Best F1 1.000 at 0.6"


def test_learning_curve(axes):
    curve = pd.DataFrame({"fraction": [0.1, 1.0], "precision": [0.5, 0.9], "recall": [0.4, 0.8], "f1": [0.44, 0.85]})
    drawn = lines(plot_learning_curve(curve, axes))
    np.testing.assert_allclose(drawn["F1"], [[10, 0.44], [100, 0.85]])
    assert axes.get_xlabel() == "training data used (%)"


def test_model_comparison(axes):
    table = pd.DataFrame(
        {"f1": [0.9, 0.8], "samples_per_second": [1e4, 1e6], "parameters": [50_000, 200_000]}, index=["bilstm", "tcn"]
    )
    plot_model_comparison(table, axes)
    marks = axes.collections[::2]
    np.testing.assert_allclose([mark.get_offsets()[0] for mark in marks], [[1e4, 0.9], [1e6, 0.8]])
    assert marks[1].get_sizes()[0] == 4 * marks[0].get_sizes()[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["bilstm, 50,000 parameters", "tcn, 200,000 parameters"]
    with pytest.raises(ValueError, match="table: has no f1; its columns are"):
        plot_model_comparison(table.drop(columns="f1"), axes)


def test_mel_pca_sets_chirps_apart(axes):
    rng = np.random.default_rng(0)
    traces, labels = rng.normal(size=(4000, 2)), np.zeros((4000, 2))
    for n, at in ((0, 500), (0, 2000), (1, 3000)):  # a loud tone
        traces[at : at + 40, n] += 30 * np.sin(np.arange(40))
        labels[at : at + 40, n] = 1
    plot_mel_pca(traces, labels, 1000.0, axes=axes)
    rest, spikes = (np.asarray(mark.get_offsets()) for mark in axes.collections)
    assert (len(rest), len(spikes)) == (8000 - 120, 120)
    distance = abs(np.median(spikes[:, 0]) - np.median(rest[:, 0]))
    assert distance > 3 * np.std(rest[:, 0])
    assert axes.get_xlabel().startswith("PC 1 (")


def test_mel_pca_draws_a_sample_of_many(axes, monkeypatch):
    monkeypatch.setattr("dlvolt.plotting.models.MAX_SAMPLES", 500)
    labels = np.arange(3000) % 10 == 0
    plot_mel_pca(np.random.default_rng(0).normal(size=3000), labels, 1000.0, axes=axes)
    rest, spikes = (len(mark.get_offsets()) for mark in axes.collections)
    assert rest + spikes == 500
    assert 30 < spikes < 70
    with pytest.raises(ValueError, match=r"labels: have shape \(3000,\), the traces \(2999,\)"):
        plot_mel_pca(np.zeros(2999), labels, 1000.0)
