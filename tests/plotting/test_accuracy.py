import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dlvolt.plotting import plot_accuracy_against_time


def figure():
    return Figure(layout="constrained")


def legend(drawn):
    (box,) = drawn.legends
    return {text.get_text(): line for text, line in zip(box.texts, box.legend_handles, strict=True)}


def test_a_panel_per_recording_and_a_mark_per_sorter():
    names, recordings = ("dlvolt", "lupin", "simple"), ("tetrode", "probe32", "drift", "noise")
    rows = [
        dict(
            dataset=dataset, sorter=name, seconds=10.0 * (i + 1), accuracy=0.9 - 0.1 * k, realtime=240 / (10 * (i + 1))
        )
        for k, dataset in enumerate(recordings)
        for i, name in enumerate(names)
    ]
    rows[4] = dict(dataset="probe32", sorter="lupin", error="it crashed")
    drawn = plot_accuracy_against_time(rows, figure())
    drawn.draw_without_rendering()
    assert [axes.get_title() for axes in drawn.axes] == list(recordings)
    marks = legend(drawn)
    assert set(marks) == {*names, "as long as recorded"}
    assert len({(line.get_marker(), line.get_color()) for line in marks.values()}) == 4
    for k, axes in enumerate(drawn.axes):
        *points, line = sorted(axes.lines, key=lambda drawn: drawn.get_linestyle() == "--")
        np.testing.assert_allclose(line.get_xdata(), 240)
        there = [i for i in range(3) if (k, i) != (1, 1)]
        for i, point in zip(there, points, strict=True):
            np.testing.assert_allclose(point.get_xydata(), [[10.0 * (i + 1), 0.9 - 0.1 * k]])
            assert point.get_color() == marks[names[i]].get_color()
        assert axes.get_xscale() == "log"
        assert axes.get_xlim() == drawn.axes[0].get_xlim()
    assert drawn.get_supxlabel() == "time of the whole call (s)"


def test_one_recording_without_its_duration():
    table = pd.DataFrame({"sorter": ["dlvolt", "simple"], "accuracy": [0.9, 0.5], "seconds": [3.0, 2.0]})
    drawn = plot_accuracy_against_time(table, figure())
    assert list(legend(drawn)) == ["dlvolt", "simple"]
    assert len(drawn.axes) == 1


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="table: has no accuracy, seconds; its columns are"):
        plot_accuracy_against_time([dict(sorter="dlvolt")], figure())
    with pytest.raises(ValueError, match="table: no sorter has both"):
        plot_accuracy_against_time([dict(sorter="dlvolt", accuracy=None, seconds=3.0)], figure())
