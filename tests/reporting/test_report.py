import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import spikeinterface as si

import dlvolt
from dlvolt.analysis import analyze
from dlvolt.parameters import SorterParameters

NASTY = "</script><script>alert('x')</script><b>"


class Scripts(HTMLParser):
    """Collects scripts, and what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.scripts, self.fetched, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


def parse(path):
    page = Scripts()
    page.feed(path.read_text(encoding="utf-8"))
    return page, json.loads(page.scripts[0])


def shown_by_chromium(path):
    """The page's elements once its scripts have run, or skip."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if browser is None:
        pytest.skip("there is no Chromium here")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    command = [browser, *flags, path.absolute().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def analyzer():
    recording, sorting = si.generate_ground_truth_recording(durations=[3.0, 2.0], num_channels=8, num_units=4, seed=0)
    sorting = sorting.rename_units(np.array(["a", "b", NASTY, "d"]))
    sorting.register_recording(recording)
    sorting.set_property("fdr", np.array([0.0, 0.01, 0.2, np.nan]))
    sorting.set_property("label", np.array(["good", "good", "mua", "mua"]))
    sorting.annotate(set_aside=[[1, 0.5, 0.75, NASTY]])
    return analyze(sorting, recording, SorterParameters(), job_kwargs=dict(n_jobs=1, progress_bar=False))


@pytest.fixture(scope="module")
def page_of_units(analyzer, tmp_path_factory):
    run = {"source": f"C:/{NASTY}", "parameters": {"seed": 5}, "versions": {"dlvolt": "0"}, "seconds": 3.5}
    return dlvolt.report(analyzer, tmp_path_factory.mktemp("report") / "new", run=run, warnings=[NASTY])


def test_units(analyzer, page_of_units):
    page, content = parse(page_of_units)
    assert page.fetched == []
    assert page.tags.count("script") == 3  # the data, plotly and ours: none from a name
    assert "b" not in page.tags
    by_name = {column["name"]: [row[n] for row in content["rows"]] for n, column in enumerate(content["columns"])}
    assert by_name["unit"] == ["a", "b", NASTY, "d"]
    assert by_name["fdr"] == [0.0, 0.01, 0.2, None]
    assert by_name["label"] == ["good", "good", "mua", "mua"]
    counts = analyzer.sorting.count_num_spikes_per_unit(outputs="array")
    assert by_name["num_spikes"] == counts.tolist()
    assert content["set_aside"] == [[1, 0.5, 0.75, NASTY]]
    assert content["segment_starts"] == [0.0, 3.0]
    assert len(content["drift"]["seconds"]) == counts.sum()
    late = analyzer.sorting.get_unit_spike_train("a", segment_index=1) / analyzer.sampling_frequency + 3.0
    np.testing.assert_allclose(content["units"][0]["seconds"][-len(late) :], late, atol=1e-3)
    for unit in content["units"]:
        assert len(unit["autocorrelogram"]) == 100
        middle = np.array(unit["autocorrelogram"])
        np.testing.assert_array_equal(middle[49:51], 0)  # no spikes within 1 ms of each other
        assert np.shape(unit["waveforms"]) == (len(unit["channels"]), len(unit["ms"]))
        assert unit["ms"][np.argmin(np.min(unit["waveforms"], axis=0))] == pytest.approx(0, abs=0.1)


def test_units_in_a_browser(page_of_units):
    shown = shown_by_chromium(page_of_units)
    assert re.search(r'<body[^>]*data-ready="yes"', shown)
    for name in ("probe", "drift", "waveforms", "correlogram", "amplitudes"):
        assert re.search(rf'id="{name}" class="plot js-plotly-plot"', shown), name
    assert shown.count('<tr data-row="') == 4
    assert "&lt;/script&gt;&lt;script&gt;alert" in shown


def test_no_units_and_bad_input(tmp_path, analyzer):
    recording = si.generate_recording(num_channels=4, durations=[1.0], seed=0)
    empty = si.NumpySorting.from_unit_dict([{}], recording.sampling_frequency)
    empty.register_recording(recording)
    quiet = dict(n_jobs=1, progress_bar=False)
    path = dlvolt.report(analyze(empty, recording, SorterParameters(), job_kwargs=quiet), tmp_path)
    assert parse(path)[1]["rows"] == []
    assert 'data-ready="yes"' in shown_by_chromium(path)
    with pytest.raises(FileExistsError, match=r"report: .*report.html exists; give another folder, or overwrite=True"):
        dlvolt.report(analyzer, tmp_path)
    with pytest.raises(ValueError, match=r"analyzer: has no templates; call"):
        dlvolt.report(si.create_sorting_analyzer(empty, recording), tmp_path / "other")
    with pytest.raises(TypeError, match=r"analyzer_or_sorting: must be a SortingAnalyzer or a sorting, not a str"):
        dlvolt.report("sorting", tmp_path / "other")
    with pytest.raises(ValueError, match=r"analyzer_or_sorting: has no recording; call sorting.register_recording"):
        dlvolt.report(si.NumpySorting.from_unit_dict([{}], 500.0), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def page_of_rois(tmp_path_factory):
    rng = np.random.default_rng(0)
    traces = rng.normal(size=(5000, 3)).astype("float32")
    recording = si.NumpyRecording([traces], 500.0)
    recording = recording.rename_channels(["1", NASTY, "3"])
    recording.set_property("centroid", np.array([[1.0, 2.0], [10.0, 20.0], [30.0, 5.0]]))
    recording.set_property("centroid_unit", np.array(["um"] * 3))
    trains = {"1": np.arange(10, 4000, 100), NASTY: np.array([4500, 4600]), "3": np.array([], dtype=int)}
    sorting = si.NumpySorting.from_unit_dict([trains], 500.0)
    sorting.set_property("polarity", np.array(["positive", "negative", ""]))
    sorting.set_property("expected_precision", np.array([0.9, 0.5, np.nan]))
    sorting.register_recording(recording)
    return dlvolt.report(sorting, tmp_path_factory.mktemp("rois")), traces


def test_rois(page_of_rois):
    path, traces = page_of_rois
    page, content = parse(path)
    assert page.fetched == []
    titles = [column["title"] for column in content["columns"]]
    assert titles == ["ROI", "polarity", "spikes", "rate (Hz)", "expected precision"]
    assert content["rows"][1] == [NASTY, "negative", 2, 0.2, 0.5]
    assert content["rows"][2][-1] is None
    assert content["positions"] == [[1.0, 2.0], [10.0, 20.0], [30.0, 5.0]]
    shown = content["units"][1]
    np.testing.assert_allclose(shown["spike_seconds"], [9.0, 9.2])
    np.testing.assert_allclose(shown["trace"], traces[:, 1], rtol=1e-5)
    assert (shown["start"], shown["step"], shown["told"]) == (0.0, 0.002, "all of it")


def test_rois_in_a_browser(page_of_rois):
    shown = shown_by_chromium(page_of_rois[0])
    for name in ("map", "raster", "trace"):
        assert re.search(rf'id="{name}" class="plot js-plotly-plot"', shown), name
    assert re.search(r'<body[^>]*data-ready="yes"', shown)
