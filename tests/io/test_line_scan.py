from itertools import pairwise

import numpy as np
import pytest
import spikeinterface as si
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dlvolt.io import read_line_scan

RATE = 3328.0  # Hz
T, X, UM = 120, 20, 0.5
LINES = np.random.default_rng(0).integers(0, 60_000, (T, X)).astype("uint16")  # a line of 10 µm
SEGMENTS = [(0.0, 2.5), (3.0, 4.0), (6.0, 10.0)]  # pixels 0 to 4, 6 to 7, 12 to 19
MEANS = np.stack([LINES[:, a:b].mean(axis=1) for a, b in [(0, 5), (6, 8), (12, 20)]], axis=1).astype("float32")


PAGES = LINES.reshape(5, 24, X)
WRITERS = {  # and the time_axis to give
    "rows.tif": (lambda path: tifffile.imwrite(path, LINES), None),
    "columns.tif": (lambda path: tifffile.imwrite(path, LINES.T), None),
    "compressed.tif": (lambda path: tifffile.imwrite(path, LINES, compression="zlib"), None),
    "pages.tif": (lambda path: tifffile.imwrite(path, PAGES), 0),
    "compressed pages.tif": (lambda path: tifffile.imwrite(path, PAGES.swapaxes(1, 2), compression="zlib"), 1),
    "pages of a line.tif": (lambda path: tifffile.imwrite(path, LINES[:, None], photometric="minisblack"), None),
    "rows.npy": (lambda path: np.save(path, LINES), None),
    "columns.npy": (lambda path: np.save(path, np.asfortranarray(LINES.T)), None),
    "pages.npy": (lambda path: np.save(path, PAGES), 0),
}


@pytest.mark.parametrize("name", WRITERS)
def test_files(tmp_path, name):
    write, time_axis = WRITERS[name]
    write(tmp_path / name)
    recording = read_line_scan(tmp_path / name, RATE, UM, SEGMENTS, time_axis=time_axis)
    assert (recording.get_num_samples(), recording.sampling_frequency, recording.get_dtype()) == (T, RATE, "float32")
    np.testing.assert_array_equal(recording.get_traces(), MEANS)
    for start, end in [(0, 1), (20, 65), (23, 24), (24, 24), (T - 1, T)]:  # within and across pages
        chunk = recording.get_traces(start_frame=start, end_frame=end, channel_ids=[2, 0])
        np.testing.assert_array_equal(chunk, MEANS[start:end, [2, 0]])

    recording.dump_to_json(tmp_path / "recording.json")
    loaded = si.load(tmp_path / "recording.json")
    np.testing.assert_array_equal(loaded.get_traces(), MEANS)
    np.testing.assert_array_equal(loaded.get_channel_locations(), recording.get_channel_locations())


@pytest.mark.parametrize("time_axis", [0, 1])
def test_arrays(time_axis):
    image = LINES if time_axis == 0 else LINES.T
    for given_axis in (None, time_axis):
        recording = read_line_scan(image, RATE, UM, SEGMENTS, time_axis=given_axis)
        np.testing.assert_array_equal(recording.get_traces(), MEANS)


def test_what_is_known_of_the_segments(tmp_path):
    np.save(tmp_path / "lines.npy", LINES)
    settings = dict(roi_ids=["soma", "trunk", "tuft"], indicator="ASAP5", value="fluorescence", t_start=1.5)
    for source in (LINES, tmp_path / "lines.npy"):
        recording = read_line_scan(source, RATE, UM, SEGMENTS, **settings)
        assert recording.channel_ids.tolist() == ["soma", "trunk", "tuft"]
        assert recording.get_property("num_pixels").tolist() == [5, 2, 8]
        assert recording.get_property("centroid").tolist() == [[1.25, 0], [3.5, 0], [8, 0]]
        assert recording.get_property("centroid_unit").tolist() == ["um"] * 3
        np.testing.assert_array_equal(recording.get_channel_locations(), recording.get_property("centroid"))
        annotations = dict(modality="optical", imaging_rate_hz=RATE, indicator="ASAP5", value="fluorescence")
        for name, expected in (annotations | dict(pixel_size_um=UM)).items():
            assert recording.get_annotation(name) == expected
        assert recording.get_start_time() == 1.5


@pytest.mark.parametrize(
    ("segment_um", "num_pixels"), [(10.0, [20]), (100.0, [20]), (5.0, [10, 10]), (3.0, [7, 6, 7]), (0.5, [1] * 20)]
)
def test_equal_segments(segment_um, num_pixels):
    recording = read_line_scan(LINES, RATE, UM, segment_um=segment_um)
    assert recording.get_property("num_pixels").tolist() == num_pixels
    weighted = recording.get_traces() @ np.array(num_pixels) / X
    np.testing.assert_allclose(weighted, LINES.mean(axis=1), rtol=1e-6)
    assert np.all(np.diff(recording.get_channel_locations()[:, 0]) > 0)


@given(
    image=arrays("int16", st.tuples(st.integers(2, 9), st.integers(2, 9))),
    um_per_pixel=st.sampled_from([0.1, 0.25, 0.3, 1.0, 7.0]),
    edges=st.lists(st.integers(0, 9), min_size=2, max_size=6, unique=True).map(sorted),
)
def test_segments_between_pixels(image, um_per_pixel, edges):
    pairs = [(a, b) for a, b in pairwise(edges) if b <= image.shape[1]]
    if not pairs:
        return
    segments = np.array(pairs) * um_per_pixel
    traces = read_line_scan(image, RATE, um_per_pixel, segments, time_axis=0).get_traces()
    expected = np.stack([image[:, a:b].astype(float).mean(axis=1) for a, b in pairs], axis=1)
    np.testing.assert_array_equal(traces, expected.astype("float32"))


def test_worker_processes(tmp_path):
    tifffile.imwrite(tmp_path / "pages.tif", PAGES, compression="zlib")
    recording = read_line_scan(tmp_path / "pages.tif", RATE, UM, SEGMENTS, time_axis=0)
    recording.get_traces(end_frame=5)  # the file is open when the processes fork
    settings = dict(n_jobs=2, chunk_size=16, mp_context="fork", verbose=False)
    np.testing.assert_array_equal(recording.save(folder=tmp_path / "saved", **settings).get_traces(), MEANS)


@pytest.mark.parametrize(
    ("shape", "listed"),
    [
        ((20, 20), "20 rows × 20 columns"),
        ((30, 20), "30 rows × 20 columns"),
        ((20, 39), "20 rows × 39 columns"),
        ((100, 1), "100 rows × 1 columns"),
        ((4, 30, 2), "4 pages of 30 rows × 2 columns"),
    ],
)
def test_ambiguous_axis(shape, listed):
    with pytest.raises(
        ValueError, match=f"time_axis: the array has {listed}, which does not tell the axis of time; give 0"
    ):
        read_line_scan(np.zeros(shape), RATE, 1.0)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"source": "nowhere.tif"}, "source: .*nowhere.tif does not exist"),
        ({"source": "notes.txt"}, "source: .*notes.txt is neither a TIFF file, nor a folder"),
        ({"source": "notes.tif"}, "source: .*notes.tif cannot be read as .tif"),
        ({"source": "rgb.tif"}, "source: .*rgb.tif has colours"),
        ({"source": np.zeros(5)}, "source: must be a path, or an array of numbers of shape"),
        ({"source": [[1, 2], [3, 4]]}, "source: must be a path, or an array of numbers of shape"),
        ({"source": np.array([["a"] * 2] * 9)}, "source: must be a path, or an array of numbers of shape"),
        ({"line_rate_hz": None}, "line_rate_hz: must be positive, in Hz, not None"),
        ({"line_rate_hz": 0.0}, "line_rate_hz: must be positive, in Hz, not 0.0"),
        ({"um_per_pixel": None}, "um_per_pixel: must be positive, the length of a pixel along the line, not None"),
        ({"um_per_pixel": -1.0}, "um_per_pixel: must be positive"),
        ({"um_per_pixel": [1.0, 1.0]}, "um_per_pixel: must be positive"),
        ({"time_axis": 2}, "time_axis: must be 0 if each row is a line, 1 if each column is, not 2"),
        ({"value": "volts"}, "value: must be"),
        ({"roi_ids": ["a"]}, "roi_ids: must be a different name for each of the 3 ROIs"),
        ({"segments": []}, "segments: must be where each segment starts and ends"),
        ({"segments": [1.0, 2.0]}, "segments: must be where each segment starts and ends"),
        ({"segments": [(0.0, np.nan)]}, "segments: must be where each segment starts and ends"),
        ({"segments": [(0.0, 10.1)]}, "segments: segment 0, 0 to 10.1 µm, reaches beyond the line, 0 to 10 µm"),
        ({"segments": [(-1.0, 5.0)]}, "segments: segment 0, -1 to 5 µm, reaches beyond the line"),
        ({"segments": [(5.0, 5.0)]}, "segments: segment 0, 5 to 5 µm, has no pixel"),
        ({"segments": [(5.0, 3.0)]}, "segments: segment 0, 5 to 3 µm, has no pixel"),
        ({"segments": [(0.0, 3.0), (3.3, 3.7)]}, "segments: segment 1, 3.3 to 3.7 µm, has no pixel"),
        ({"segments": [(0.0, 3.0), (2.0, 5.0)]}, "segments: segment 1, 2 to 5 µm, starts before the end of"),
        ({"segments": [(5.0, 9.0), (0.0, 3.0)]}, "segments: segment 1, 0 to 3 µm, starts before the end of"),
        ({"segments": None, "segment_um": 0.1}, "segment_um: must be at least a pixel, 0.5 µm, not 0.1"),
    ],
)
def test_bad_input(folder, settings, error):
    settings = dict(source="rows.tif", line_rate_hz=RATE, um_per_pixel=UM, segments=SEGMENTS) | settings
    if isinstance(settings["source"], str):
        settings["source"] = folder / settings["source"]
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        read_line_scan(**settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    tifffile.imwrite(folder / "rows.tif", LINES)
    tifffile.imwrite(folder / "rgb.tif", np.zeros((T, X, 3), "uint8"), photometric="rgb")
    (folder / "notes.txt").write_text("notes")
    (folder / "notes.tif").write_text("notes")
    return folder
