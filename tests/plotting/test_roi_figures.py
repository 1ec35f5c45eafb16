import numpy as np
import pytest
import spikeinterface as si
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from probeinterface import Probe

from dlvolt.plotting import plot_roi_map, plot_roi_traces, plot_spike_triggered_average, spike_triggered
from dlvolt.plotting.canvas import BLUE, DARK, ORANGE, RED
from dlvolt.preprocessing import delta_f_over_f

FS = 500.0
SPIKES = {"a": [100, 400, 404, 900], "b": [250, 1250], "c": [], "d": []}  # of 2,000 samples


def make_rois(ids="abcd", sign=1.0, t_start=None):
    """Traces of 100 with noise of 0.1; a spike is 10 high and three samples wide; d is dead."""
    traces = 100 + np.random.default_rng(0).normal(0, 0.1, (2000, len(ids)))
    for n, roi in enumerate(ids):
        for frame in SPIKES[roi]:
            traces[frame - 1 : frame + 2, n] += sign * np.array([5, 10, 5])
        if roi == "d":
            traces[:, n] = np.nan
    recording = si.NumpyRecording([traces.astype("float32")], FS, t_starts=t_start, channel_ids=list(ids))
    sorting = si.NumpySorting.from_unit_dict({roi: np.array(SPIKES[roi], dtype=int) for roi in ids}, FS)
    sorting.register_recording(recording)
    sorting.set_property("flag", ["dead" if roi == "d" else "" for roi in ids])
    return recording, sorting


def arrays(values):
    """One array of values for each unit."""
    each = np.empty(len(values), dtype=object)
    each[:] = [np.array(value) for value in values]
    return each


def draw(plot, *args, **kwargs):
    figure = plot(*args, figure=Figure(figsize=(9, 5), layout="constrained", dpi=50), **kwargs)
    FigureCanvasAgg(figure).draw()
    return figure


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


# The map


def test_map_has_rois_in_their_places_coloured_by_rate():
    recording, sorting = make_rois()
    centroids = np.array([[0, 0], [30, 5], [10, 40], [50, 50.0]])
    recording.set_property("centroid", centroids)
    recording.set_property("centroid_unit", ["um"] * 4)
    recording.set_property("num_pixels", [100, 50, 100, 200])
    figure = draw(plot_roi_map, sorting, recording)
    axes = figure.axes[0]
    firing, silent, dead = axes.collections
    np.testing.assert_allclose(firing.get_offsets(), centroids[:2])
    np.testing.assert_allclose(silent.get_offsets(), centroids[2:3])
    np.testing.assert_allclose(dead.get_offsets(), centroids[3:])
    assert firing.get_sizes()[0] == 2 * firing.get_sizes()[1]
    assert axes.get_xlabel() == "x (µm)"
    assert axes.yaxis_inverted()  # as in the movie
    bar = figure.axes[1]
    assert (bar.get_ylabel(), bar.get_ylim()) == ("firing rate (Hz)", (0, 1.0))  # 4 spikes in 4 s
    scale = bar._colorbar.mappable
    np.testing.assert_allclose(firing.get_facecolors(), scale.to_rgba([1.0, 0.5]))
    assert legend(figure) == ["no spikes", "dead"]
    assert [text.get_text() for text in axes.texts] == ["a", "b", "c", "d"]


def test_map_has_an_arrow_from_the_roi_whose_light_leaks():
    recording, sorting = make_rois("ab")
    recording.set_property("centroid", [[0, 0], [3, 4.0]])
    sorting.set_property("crosstalk_from", ["", "a"])
    sorting.set_property("crosstalk_fraction", [0.0, 0.5])
    figure = draw(plot_roi_map, sorting, recording)
    (arrow,) = [text for text in figure.axes[0].texts if text.arrow_patch is not None]
    assert (list(arrow.xyann), list(arrow.xy)) == ([0, 0], [3, 4])
    assert legend(figure) == ["cross-talk, from → to"]
    alone = draw(plot_roi_map, sorting.select_units(["b"]), recording)  # a is not drawn
    assert legend(alone) == []


def test_map_has_a_panel_for_each_plane():
    recording, sorting = make_rois()
    recording.set_property("centroid", np.eye(4)[:, :2])
    recording.set_property("centroid_unit", ["pixels"] * 4)
    recording.set_property("plane", ["deep", "deep", "high", "high"])
    deep, high, _ = draw(plot_roi_map, sorting, recording).axes
    assert [axes.get_title() for axes in (deep, high)] == ["deep", "high"]
    assert [len(marks.get_offsets()) for marks in deep.collections] == [2, 0, 0]
    assert [len(marks.get_offsets()) for marks in high.collections] == [0, 1, 1]
    assert deep.get_xlabel() == "x (pixels)"
    assert deep.get_xlim() == high.get_xlim()


@pytest.mark.parametrize("ids", ["a", "c", "abcd"])
def test_map_without_positions_is_a_grid(ids):
    recording, sorting = make_rois(ids)
    axes = draw(plot_roi_map, sorting, recording).axes[0]
    places = np.concatenate([marks.get_offsets() for marks in axes.collections])
    side = np.ceil(np.sqrt(len(ids)))
    assert len(np.unique(places, axis=0)) == len(ids)
    assert places.min() == 0
    assert places.max() == side - 1
    assert axes.get_xlabel() == "positions unknown"


def test_map_takes_the_probe_and_channels_in_their_own_order():
    recording, sorting = make_rois()
    probe = Probe(ndim=2)
    probe.set_contacts(positions=[[0, 0], [7, 20], [0, 40], [0, 60]], shape_params={"radius": 1})
    probe.set_device_channel_indices(range(4))
    recording.set_probe(probe)
    axes = draw(plot_roi_map, sorting.select_units(["b"]), recording).axes[0]
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[7, 20]])


def test_an_roi_without_a_centroid_is_left_out():
    recording, sorting = make_rois("ab")
    recording.set_property("centroid", [[5, 6], [np.nan, np.nan]])
    axes = draw(plot_roi_map, sorting, recording).axes[0]
    assert axes.get_xlim()[0] < 5 < axes.get_xlim()[1]


def test_units_without_a_centroid_stand_in_rows():
    recording, sorting = make_rois("abcd")
    recording.set_property("centroid", [[5, 6], [np.nan, np.nan], [np.nan, np.nan], [7, 8]])
    axes = draw(plot_roi_map, sorting.select_units(["b", "c"]), recording).axes[0]
    np.testing.assert_allclose(np.concatenate([marks.get_offsets() for marks in axes.collections]), [[0, 0], [1, 0]])
    assert axes.get_xlabel() == "positions unknown"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("num_pixels", "ratio"), [([0, 0, 0], 1), ([0, 0, 5], 5)])
def test_masks_without_pixels(num_pixels, ratio):
    recording, sorting = make_rois("abc")
    recording.set_property("num_pixels", num_pixels)
    firing, silent, _ = draw(plot_roi_map, sorting, recording).axes[0].collections
    np.testing.assert_allclose(silent.get_sizes() / firing.get_sizes(), ratio)


# Traces


def test_traces_stand_above_each_other_with_their_spikes():
    recording, sorting = make_rois(t_start=[5.0])
    figure = draw(plot_roi_traces, recording, sorting, window_s=(5.0, 7.0))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c", "d"]
    curves = [line for line in axes.lines if line.get_color() == DARK and len(line.get_xdata()) == 1000]
    for n, (bottom, curve) in enumerate(zip((4.5, 3.0, 1.5), curves, strict=True)):
        trace = recording.get_traces()[:1000, n]
        np.testing.assert_allclose(curve.get_ydata(), bottom + (trace - trace.min()) / np.ptp(trace), rtol=1e-4)
        np.testing.assert_allclose(curve.get_xdata(), 5 + np.arange(1000) / FS)
    assert [text.get_text() for text in axes.texts if "signal" in text.get_text()] == [" no signal"]
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(marks[0].get_xdata(), 5 + np.array([100, 400, 404, 900]) / FS)
    np.testing.assert_allclose(marks[1].get_xdata(), [5.5])  # the other one of b is later
    assert legend(figure) == ["spike"]
    assert axes.get_title() == "fluorescence"


def test_labels_and_cross_talk_tell_spikes_apart():
    recording, sorting = make_rois()
    labels = [["single", "burst", "burst", "complex"], ["single", "single"], [], []]
    sorting.set_property("spike_label", arrays(labels))
    sorting.set_property("spike_crosstalk", arrays([[False, False, True, False], [False, False], [], []]))
    figure = draw(plot_roi_traces, recording, sorting, window_s=(0.0, 2.0), unit_ids=["a"])
    marks = {
        (line.get_marker(), line.get_color(), line.get_markerfacecolor() == "none"): list(line.get_xdata())
        for line in figure.axes[0].lines
        if line.get_marker() in "o^D" and len(line.get_xdata())
    }
    assert marks == {
        ("o", BLUE, False): [0.2],
        ("^", ORANGE, False): [0.8],
        ("^", ORANGE, True): [0.808],
        ("D", RED, False): [1.8],
    }
    assert legend(figure) == ["single", "burst", "complex", "cross-talk"]


def test_labels_of_other_spikes_are_not_drawn():
    recording, sorting = make_rois()
    sorting.set_property("spike_label", arrays([["single"] * 5, ["burst"] * 2, [], []]))
    assert legend(draw(plot_roi_traces, recording, sorting, window_s=(0.0, 2.0))) == ["spike", "burst"]


def test_negative_indicators_are_turned_over_and_delta_f_is_in_percent():
    recording, sorting = make_rois("abc", sign=-1.0)
    sorting.set_property("polarity", ["negative"] * 3)
    relative = delta_f_over_f(recording, polarity="negative")
    figure = draw(plot_roi_traces, relative, sorting, window_s=(0.0, 2.0), subthreshold=relative)
    (axes,) = figure.axes
    assert axes.get_title() == "ΔF/F"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a (−)", "b (−)", "c (−)"]
    curve, below = (line.get_ydata() for line in axes.lines[:2])
    assert curve.argmax() in SPIKES["a"]
    np.testing.assert_array_equal(below, curve)
    assert axes.texts[0].get_text() == "5 %"  # the largest round number below 0.7 × 10 %
    assert legend(figure) == ["subthreshold", "spike"]


def test_subthreshold_is_drawn_where_it_is_known():
    recording, sorting = make_rois("abc")
    slow = recording.select_channels(["c", "b"])  # in an order of its own, and without a
    (axes,) = draw(plot_roi_traces, recording, sorting, subthreshold=slow, window_s=(0.0, 2.0)).axes
    below = [line.get_ydata() for line in axes.lines if line.get_label() == "subthreshold"]
    curves = [line.get_ydata() for line in axes.lines if line.get_color() == DARK and len(line.get_xdata()) == 1000]
    np.testing.assert_allclose(below, curves[1:])
    figure = draw(plot_roi_traces, recording, sorting, subthreshold=slow, window_s=(0.0, 2.0), unit_ids=["a"])
    assert legend(figure) == ["spike"]


@pytest.mark.parametrize(("t_start", "shift"), [(None, 0.0), ([5.0], 5.0)])
def test_truth_is_drawn_at_its_own_rate(t_start, shift):
    recording, sorting = make_rois(t_start=t_start)
    truth = si.NumpySorting.from_unit_dict({"b": np.array([10_030, 50_000]), "x": np.array([1])}, 20_000.0)
    figure = draw(plot_roi_traces, recording, sorting, truth=truth, window_s=(shift, shift + 2))
    (ticks,) = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    np.testing.assert_allclose(ticks.get_xdata(), [shift + 0.5015])


def test_of_many_rois_the_busiest_are_drawn():
    trains = {n: 10 + 20 * np.arange(n % 20) for n in range(30)}
    sorting = si.NumpySorting.from_unit_dict(trains, FS)
    recording = si.NumpyRecording([np.random.default_rng(0).normal(size=(2000, 30)).astype("float32")], FS)
    (axes,) = draw(plot_roi_traces, recording, sorting).axes
    assert [int(label.get_text()) for label in axes.get_yticklabels()] == [*range(9, 20), 29]


# Spike-triggered averages


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_spike_triggered_average_is_the_spike(sign):
    recording, sorting = make_rois(sign=sign)
    sorting.set_property("polarity", ["negative" if sign < 0 else "positive"] * 4)
    figure = draw(plot_spike_triggered_average, recording, sorting, unit_ids=["b", "c", "d"])
    panels = figure.axes
    minus = " (−)" if sign < 0 else ""
    assert [axes.get_title() for axes in panels] == [
        f"b{minus} · 2 spikes",
        f"c{minus} · 0 spikes",
        f"d{minus} · 0 spikes",
    ]
    (mean,) = [line for line in panels[0].lines if len(line.get_xdata()) > 2]
    time, height = mean.get_data()
    np.testing.assert_allclose(time, np.arange(-20, 31, 2))
    np.testing.assert_allclose(height, np.interp(time, [-4, -2, 0, 2, 4], [0, 5, 10, 5, 0]), atol=0.35)
    band = panels[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].max() < 11
    assert len(panels[1].collections) == 0


def test_snippets_beyond_an_end_or_with_gaps_are_left_out():
    recording, _ = make_rois("a")
    traces = recording.get_traces().copy()
    traces[405:407] = np.nan
    frames = np.array([3, 100, 404, 900, 1998])
    sorting = si.NumpySorting.from_unit_dict([{0: frames}, {0: frames}], FS)
    two_segments = si.NumpyRecording([traces, recording.get_traces()], FS)
    (axes,) = draw(plot_spike_triggered_average, two_segments, sorting).axes
    assert axes.get_title() == "0 · 5 spikes"


@pytest.mark.parametrize("max_values", [1, 60, 1000])
def test_averages_do_not_depend_on_the_pieces_read(monkeypatch, max_values):
    recording, sorting = make_rois("ab")
    longest = []
    get_traces = recording.get_traces

    def watched(segment, start, end, *args, **kwargs):
        longest.append(end - start)
        return get_traces(segment, start, end, *args, **kwargs)

    monkeypatch.setattr(recording, "get_traces", watched)
    monkeypatch.setattr(spike_triggered, "MAX_VALUES", 2 * max_values)
    panels = draw(plot_spike_triggered_average, recording, sorting).axes
    assert max(longest) <= max_values + 25  # of which 25 are around the spikes
    for axes, n, roi in zip(panels, (0, 1), "ab", strict=True):
        snippets = get_traces()[np.array(SPIKES[roi])[:, None] + np.arange(-10, 16), n].astype(float)
        snippets -= snippets[:, :8].mean(axis=1, keepdims=True)  # from -20 to -5 ms
        mean, sd = snippets.mean(axis=0), snippets.std(axis=0)
        np.testing.assert_allclose(axes.lines[1].get_ydata(), mean, atol=1e-9)
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((min(mean - sd), max(mean + sd)))


def test_what_will_not_do():
    recording, sorting = make_rois()
    strange = si.NumpySorting.from_unit_dict({"a": np.array([1]), "x": np.array([1])}, FS)
    for plot, args in (
        (plot_roi_map, (strange, recording)),
        (plot_roi_traces, (recording, strange)),
        (plot_spike_triggered_average, (recording, strange)),
    ):
        with pytest.raises(ValueError, match="sorting: has units that are no ROIs of the recording: x; the ROIs are a"):
            plot(*args)
    with pytest.raises(ValueError, match="sorting: has no units"):
        plot_roi_map(sorting.select_units([]), recording)
    with pytest.raises(ValueError, match="unit_ids: z, 3 are no units of the sorting"):
        plot_roi_traces(recording, sorting, unit_ids=["a", "z", 3])
    with pytest.raises(ValueError, match=r"window_s: \(8, 9\) s is not in the recording, which lasts from 0 to"):
        plot_roi_traces(recording, sorting, window_s=(8, 9))
    with pytest.raises(ValueError, match="ms_before: must be more than 5 ms"):
        plot_spike_triggered_average(recording, sorting, ms_before=5)
    with pytest.raises(ValueError, match="ms_after: must be positive"):
        plot_spike_triggered_average(recording, sorting, ms_after=0)
