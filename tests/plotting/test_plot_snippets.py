import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from dlvolt.plotting import plot_confusion, plot_embedding, plot_snippets
from dlvolt.plotting.canvas import COLOURS, GREY

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_the_median_of_each_class_lies_on_its_snippets():
    snippets, labels = RNG.normal(size=(1000, 42)), np.arange(1000) % 10 == 0
    axes = plot_snippets(snippets, labels, sampling_frequency=21_000.0)
    assert len(axes.lines) == 300 + 1 + 100 + 1  # at most 300 of a class
    thick = {line.get_label(): line for line in axes.lines if line.get_linewidth() == 2}
    assert list(thick) == ["noise (900)", "spike (100)"]
    np.testing.assert_allclose(thick["spike (100)"].get_ydata(), np.median(snippets[::10], axis=0))
    np.testing.assert_allclose(thick["spike (100)"].get_xdata()[[0, 21]], [0, 1])  # ms


def test_a_class_that_is_not_there_is_not_drawn():
    assert [text.get_text() for text in plot_snippets(np.ones((5, 42)), np.zeros(5)).get_legend().texts] == [
        "noise (5)"
    ]


def test_each_cluster_has_its_colour():
    points, labels = RNG.normal(size=(60, 3)), np.repeat([-1, 0, 4], 20)
    axes = plot_embedding(points, labels)
    for label, colour, drawn in zip((-1, 0, 4), (GREY, *COLOURS), axes.collections, strict=False):
        assert to_hex(drawn.get_facecolor()[0]).upper() == colour.upper()
        np.testing.assert_allclose(np.transpose(drawn._offsets3d), points[labels == label])
    assert [text.get_text() for text in axes.get_legend().texts] == ["in none (20)", "cluster 0 (20)", "cluster 4 (20)"]


def test_the_table_counts():
    axes = plot_confusion([0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 0, 1, 1, 1])
    assert [text.get_text() for text in axes.texts] == ["2", "1", "1", "3"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("classified as", "labelled as")


def test_all_draw_where_they_are_told_to():
    _, (left, right) = plt.subplots(1, 2)
    assert plot_snippets(np.zeros((3, 42)), [0, 1, 1], axes=left) is left
    assert plot_confusion([0, 1], [0, 1], axes=right) is right
    assert len(plt.get_fignums()) == 1


def test_bad_input():
    with pytest.raises(ValueError, match=r"labels: \(2,\) do not fit snippets \(3, 42\); give one for each"):
        plot_snippets(np.zeros((3, 42)), [0, 1])
    with pytest.raises(ValueError, match=r"points: \(5, 2\) and labels \(5,\) must be of shapes \(P, 3\) and \(P,\)"):
        plot_embedding(np.zeros((5, 2)), np.zeros(5))
