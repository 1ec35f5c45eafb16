import numpy as np
import pytest
import spikeinterface as si
from matplotlib.figure import Figure

from dlvolt.plotting import plot_sorting_summary


@pytest.fixture(scope="module")
def simulated():
    return si.generate_ground_truth_recording(durations=[4.0], num_channels=8, num_units=5, seed=2)


def analyzed(recording, sorting):
    analyzer = si.create_sorting_analyzer(sorting, recording, sparse=False)
    analyzer.compute({"random_spikes": {"seed": 0}, "templates": {}})
    return analyzer


def draw(*args, **kwargs):
    figure = plot_sorting_summary(*args, figure=Figure(figsize=(9, 5), layout="constrained"), **kwargs)
    figure.draw_without_rendering()
    return figure


def row_labels(figure):
    return [label.get_text() for label in figure.axes[1].get_yticklabels()]


@pytest.mark.parametrize("units", [[], ["0"], ["0", "1", "2", "3", "4"]], ids=len)
@pytest.mark.parametrize("with_truth", [False, True])
def test_any_number_of_units(simulated, units, with_truth):
    recording, truth = simulated
    analyzer = analyzed(recording, truth.select_units(units))
    figure = draw(analyzer, truth if with_truth else None)
    assert len(figure.axes) == (3 if with_truth else 2)
    labels = row_labels(figure)
    assert sorted(label for label in labels if not label.startswith("(")) == units
    missed = [unit for unit in truth.unit_ids if unit not in units] if with_truth else []
    assert [label for label in labels if label.startswith("(")] == [f"({unit})" for unit in missed]
    if with_truth:  # who is found here is found fully, who is missed counts 0
        assert figure.axes[2].get_title() == f"Accuracy, mean {len(units) / 5:.2f}"
        assert [bar.get_width() for bar in figure.axes[2].patches if bar.get_width() == 1] == [1.0] * len(units)


def test_raster_holds_the_spikes_of_the_window(simulated):
    recording, truth = simulated
    analyzer = analyzed(recording, truth)
    raster = draw(analyzer, window_s=(1.0, 2.5)).axes[1]
    for unit, ticks in zip(row_labels(raster.figure), raster.collections, strict=True):
        drawn = [segment[0, 0] for segment in ticks.get_segments()]
        seconds = truth.get_unit_spike_train(unit, segment_index=0) / truth.sampling_frequency
        np.testing.assert_allclose(drawn, seconds[(seconds >= 1.0) & (seconds < 2.5)])
    assert raster.get_xlim() == (1.0, 2.5)


def test_units_stand_by_depth_and_bear_the_colour_of_their_templates(simulated):
    recording, truth = simulated
    analyzer = analyzed(recording, truth)
    figure = draw(analyzer)
    depths = dict(zip(truth.unit_ids, recording.get_channel_locations()[analyzer.get_main_channels(), 1], strict=True))
    in_rows = [depths[unit] for unit in row_labels(figure)]
    assert in_rows == sorted(in_rows)
    colours = {tuple(ticks.get_colors()[0][:3]) for ticks in figure.axes[1].collections}
    assert len(colours) == 5


def test_units_that_are_not_in_the_truth_get_a_row_of_their_own(simulated):
    recording, truth = simulated
    figure = draw(analyzed(recording, truth), truth.select_units(["0", "1"]))
    texts = [text.get_text() for text in figure.axes[2].texts]
    assert texts == ["not in the truth"] * 3
    assert figure.axes[2].get_title() == "Accuracy, mean 1.00"


def test_many_units_keep_their_labels_apart():
    recording, truth = si.generate_ground_truth_recording(durations=[2.0], num_channels=8, num_units=90, seed=2)
    figure = draw(analyzed(recording, truth))
    assert 20 <= len(row_labels(figure)) <= 40


def test_templates_are_asked_for(simulated):
    recording, truth = simulated
    with pytest.raises(ValueError, match=r"analyzer: has no templates; call analyzer.compute"):
        plot_sorting_summary(si.create_sorting_analyzer(truth, recording, sparse=False))
