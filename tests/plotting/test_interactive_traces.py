import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from dlvolt.plotting import interactive_traces

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no network
    "--window-size=1200,900",
    "--virtual-time-budget=20000",
    "--dump-dom",
]
NUM_SAMPLES, RATE = 100_000, 1000.0

# What a page shows in each of some ranges of time, written into the page itself.
LOOK = """
<script>
const errors = [];
window.onerror = (message) => errors.push(message);
window.addEventListener("load", async () => {
  const page = document.querySelector(".js-plotly-plot");
  const look = () => ({
    curves: page.data.map((curve) => [Array.from(curve.x), Array.from(curve.y)]),
    paths: Array.from(page.querySelectorAll(".scatterlayer path.js-line"), (path) => path.getAttribute("d").length),
    range: page.layout.xaxis.range,
    height: page.layout.yaxis.range,
  });
  const seen = [look()];
  for (const range of RANGES) {
    const drawn = new Promise((done) => page.once("plotly_update", done));
    await Plotly.relayout(page, {"xaxis.range": range});
    await drawn;
    seen.push(look());
  }
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify({errors, seen});
  document.body.append(result);
});
</script></body>
"""


def look_at(path, ranges, tmp_path):
    """Open a page in Chromium, zoom into ranges of time, and return what is drawn before and after each."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    probed = tmp_path / "probed.html"
    probed.write_text(path.read_text().replace("</body>", LOOK.replace("RANGES", json.dumps(ranges))))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", probed.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom)
    assert found, "the page did not finish drawing"
    result = json.loads(found[1])
    assert result["errors"] == []
    return result["seen"]


@pytest.fixture(scope="module")
def signals():
    rng = np.random.default_rng(0)
    trace = rng.normal(size=NUM_SAMPLES).astype("float32")
    labels = np.zeros(NUM_SAMPLES, dtype=int)
    spikes = rng.choice(NUM_SAMPLES, 400, replace=False)
    labels[spikes] = 1
    trace[spikes] += 8
    probability = np.clip(0.4 * rng.random(NUM_SAMPLES) + 0.6 * labels, 0, 1)
    return trace, labels, probability.astype("float32")


def test_long_traces_in_chromium(signals, tmp_path):
    trace, labels, probability = signals
    path = interactive_traces(
        *(trace, RATE, labels, probability), threshold=0.7, split=(0.7, 0.15, 0.15), path=tmp_path / "page.html"
    )
    everything, half, close = look_at(path, [[20, 70], [40, 40.5]], tmp_path)
    shown = [trace, labels, probability, probability >= 0.7]

    assert everything["range"] == [0, 100]
    assert len(everything["paths"]) == 7  # four curves, three parts of the split
    assert min(everything["paths"][:4]) > 1000
    for view in (everything, half):
        for (x, y), values in zip(view["curves"], shown, strict=False):
            assert len(x) < 8000  # far fewer than samples, so zooming is quick
            frames = np.round(np.multiply(x, RATE)).astype(int)
            np.testing.assert_array_equal(y, values[frames])
            assert np.all(np.diff(frames) > 0)
    # Every spike of one sample is drawn, even where 80 samples share a pixel.
    x, y = map(np.array, everything["curves"][1])
    drawn = RATE * x[y == 1]
    assert np.abs(np.subtract.outer(np.flatnonzero(labels), drawn)).min(axis=1).max() < 100
    assert max(everything["curves"][0][1]) == trace.max()

    # Close by, every sample is there, and the trace fills its panel.
    for (x, y), values in zip(close["curves"], shown, strict=False):
        frames = np.arange(39_500, 41_000)  # what is in view and as much on either side
        np.testing.assert_allclose(x, frames / RATE)
        np.testing.assert_array_equal(y, values[frames])
    bottom, top = close["height"]
    in_view = trace[40_000:40_500]
    assert bottom < in_view.min() < in_view.max() < top
    assert np.ptp(in_view) > 0.85 * (top - bottom)


def test_a_trace_alone(tmp_path):
    path = interactive_traces(np.zeros(3), 10.0, title="A trace", path=tmp_path / "page.html")
    (view,) = look_at(path, [], tmp_path)
    assert view["curves"] == [[[0, 0.1, 0.2], [0, 0, 0]]]
    assert view["height"] == [-1, 1]


def test_one_file_without_network(signals, tmp_path):
    trace, labels, probability = signals
    path = tmp_path / "page.html"
    path.write_text("an earlier page")
    assert interactive_traces(trace, RATE, labels, probability, path=path) == path
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    page = path.read_text()
    assert not re.search(r"<(script|link|img|iframe)\b[^>]*\b(src|href)=", page)
    assert "sendChartToCloud" not in page[page.index("Plotly.newPlot") :]
    assert path.stat().st_size < 7e6


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"trace": np.zeros((5, 2))}, r"trace: must be one value per sample of one trace, shape \(T,\), not \(5, 2\)"),
        ({"trace": []}, "trace: must be one value per sample"),
        ({"trace": [0, np.nan, 0]}, "trace: some samples are NaN"),
        ({"labels": [0, 1]}, "labels: has 2 samples, the trace 3"),
        ({"labels": [0, 1, 2]}, "labels: must be 0 or 1"),
        ({"probability": [0, 1, 1.1]}, "probability: must lie between 0 and 1"),
        ({"sampling_frequency": 0}, "sampling_frequency: must be positive, not 0"),
        ({"split": (0.7, 0.3)}, "split: must be three parts of 1"),
        ({"split": (0.7, 0.2, 0.2)}, "split: must be three parts of 1"),
    ],
)
def test_bad_input(tmp_path, changed, error):
    arguments = {"trace": [0, 1, 0], "sampling_frequency": 10.0, "path": tmp_path / "page.html"} | changed
    with pytest.raises(ValueError, match=error):
        interactive_traces(**arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: there is no folder .*nowhere to put page.html in"):
        interactive_traces([0, 1], 10.0, path=tmp_path / "nowhere" / "page.html")
