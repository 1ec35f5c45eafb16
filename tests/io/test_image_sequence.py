from datetime import datetime

import neo
import numpy as np
import pytest
import quantities as pq
import spikeinterface as si
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from dlvolt.io import read_image_sequence
from dlvolt.io.roi_masks import as_runs, find_pixels, from_runs

T, H, W = 20, 12, 16
MOVIE = np.random.default_rng(0).integers(0, 60_000, (T, H, W)).astype("uint16")
LABELS = np.zeros((H, W), dtype="int16")
LABELS[1:4, 2:6] = 3  # centre x 3.5, y 2
LABELS[6:9, 8:] = 7  # centre x 11.5, y 7
MEANS = np.stack([MOVIE[:, LABELS == 3].mean(axis=1), MOVIE[:, LABELS == 7].mean(axis=1)], axis=1)
CENTROIDS = np.array([[3.5, 2.0], [11.5, 7.0]])


def sequence(images=MOVIE, rate=500.0, **settings):
    return neo.ImageSequence(
        images, **dict(units="V", sampling_rate=rate * pq.Hz, spatial_scale=0.5 * pq.um) | settings
    )


# --- TIFF ---


def write_page_by_page(path):
    with tifffile.TiffWriter(path) as tif:
        for frame in MOVIE:
            tif.write(frame)


def write_with_pillow(path):
    first, *others = [Image.fromarray(frame) for frame in MOVIE]
    first.save(path, save_all=True, append_images=others)


def write_folder(path):
    path.mkdir()
    for index, frame in enumerate(MOVIE):
        tifffile.imwrite(path / f"frame_{index}.tif", frame)  # frame_10 has to follow frame_9
    (path / "notes.txt").write_text("a movie")


def write_truncated_imagej(path):
    """Write as ImageJ does beyond 4 GB: one page, its description tells the others, which follow without headers."""
    description = f"ImageJ=1.11a\nimages={T}\nframes={T}\n"
    tifffile.imwrite(path, MOVIE[0], description=description, metadata=None, byteorder=">")
    with path.open("ab") as file:
        file.write(MOVIE[1:].astype(">u2").tobytes())


WRITERS = {
    "contiguous.tif": lambda path: tifffile.imwrite(path, MOVIE),
    "no metadata.tif": lambda path: tifffile.imwrite(path, MOVIE, metadata=None),
    "big-endian.tif": lambda path: tifffile.imwrite(path, MOVIE, byteorder=">"),
    "bigtiff.btf": lambda path: tifffile.imwrite(path, MOVIE, bigtiff=True),
    "compressed.TIFF": lambda path: tifffile.imwrite(path, MOVIE, compression="zlib", predictor=True),
    "tiled.tif": lambda path: tifffile.imwrite(path, MOVIE, tile=(16, 16)),
    "page by page.tif": write_page_by_page,
    "pillow.tif": write_with_pillow,
    "imagej beyond 4 GB.tif": write_truncated_imagej,
    "folder": write_folder,
    "movie.npy": lambda path: np.save(path, MOVIE),
}


@pytest.mark.parametrize("name", WRITERS)
def test_tiff_movies(tmp_path, name):
    WRITERS[name](tmp_path / name)
    recording = read_image_sequence(tmp_path / name, LABELS, sampling_frequency=500.0, roi_ids=["soma", "dendrite"])
    assert (recording.get_num_samples(), recording.sampling_frequency, recording.get_dtype()) == (T, 500.0, "float32")
    assert recording.channel_ids.tolist() == ["soma", "dendrite"]
    np.testing.assert_array_equal(recording.get_traces(), MEANS.astype("float32"))
    np.testing.assert_array_equal(  # whatever is asked for
        recording.get_traces(start_frame=7, end_frame=12, channel_ids=["dendrite"]), MEANS[7:12, 1:].astype("float32")
    )
    assert recording.get_traces(start_frame=5, end_frame=5).shape == (0, 2)

    recording.dump_to_json(tmp_path / "recording.json")
    loaded = si.load(tmp_path / "recording.json")
    np.testing.assert_array_equal(loaded.get_traces(), recording.get_traces())
    np.testing.assert_array_equal(loaded.get_property("centroid"), CENTROIDS)


def test_what_is_known_of_the_rois(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", MOVIE)
    recording = read_image_sequence(
        tmp_path / "movie.tif", LABELS, sampling_frequency=500, indicator="ASAP3", value="fluorescence"
    )
    assert recording.channel_ids.tolist() == [3, 7]
    assert recording.get_property("num_pixels").tolist() == [12, 24]
    np.testing.assert_array_equal(recording.get_property("centroid"), CENTROIDS)
    assert recording.get_property("centroid_unit").tolist() == ["pixels", "pixels"]
    assert not recording.has_probe()
    annotations = {
        name: recording.get_annotation(name) for name in ("modality", "imaging_rate_hz", "indicator", "value")
    }
    assert annotations == dict(modality="optical", imaging_rate_hz=500.0, indicator="ASAP3", value="fluorescence")
    assert recording.get_annotation("pixel_size_um") is None


@pytest.mark.parametrize(("um_per_pixel", "scale"), [(0.5, [0.5, 0.5]), ((0.5, 2.0), [0.5, 2.0])])
def test_known_pixels_make_a_probe(tmp_path, um_per_pixel, scale):
    tifffile.imwrite(tmp_path / "movie.tif", MOVIE)
    recording = read_image_sequence(tmp_path / "movie.tif", LABELS, sampling_frequency=500.0, um_per_pixel=um_per_pixel)
    recording.dump_to_json(tmp_path / "recording.json")
    for one in (recording, si.load(tmp_path / "recording.json")):
        np.testing.assert_array_equal(one.get_channel_locations(), CENTROIDS * scale)
        assert one.get_property("centroid_unit").tolist() == ["um", "um"]
        assert one.get_annotation("pixel_size_um") == (list(um_per_pixel) if isinstance(um_per_pixel, tuple) else 0.5)


def test_rois_in_one_place_have_no_probe():
    disc_and_ring = np.stack([LABELS == 3, LABELS == 3])
    recording = read_image_sequence(sequence(), disc_and_ring)
    assert recording.get_property("centroid").tolist() == [[1.75, 1.0]] * 2
    assert not recording.has_probe()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_no_overflow_and_no_loss(tmp_path, dtype):
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    movie = np.full((2, H, W), 1 / 3 if limits is None else limits.max, dtype)
    tifffile.imwrite(tmp_path / "movie.tif", movie)
    traces = read_image_sequence(tmp_path / "movie.tif", LABELS, sampling_frequency=1.0).get_traces()
    np.testing.assert_allclose(traces, float(movie[0, 0, 0]), rtol=1e-15)
    assert traces.dtype == ("float64" if dtype in ("int32", "float64") else "float32")


def test_nan_stays_in_its_roi():
    movie = MOVIE.astype("float32")
    movie[4, 1, 2] = np.nan
    traces = read_image_sequence(sequence(movie), LABELS).get_traces()
    assert np.argwhere(np.isnan(traces)).tolist() == [[4, 0]]


def test_worker_processes(tmp_path):
    tifffile.imwrite(tmp_path / "movie.tif", MOVIE, compression="zlib")
    recording = read_image_sequence(tmp_path / "movie.tif", LABELS, sampling_frequency=500.0)
    before = recording.get_traces()  # the file is open when the processes fork
    settings = dict(n_jobs=2, chunk_size=3, mp_context="fork", verbose=False)
    saved = recording.save(folder=tmp_path / "saved", **settings)
    np.testing.assert_array_equal(saved.get_traces(), before)


# --- Neo ---


def test_neo_image_sequence():
    recording = read_image_sequence(sequence(t_start=2000 * pq.ms), LABELS)
    np.testing.assert_allclose(recording.get_traces(), MEANS)
    assert (recording.sampling_frequency, recording.get_start_time()) == (500.0, 2.0)
    np.testing.assert_array_equal(recording.get_channel_locations(), CENTROIDS * 0.5)
    assert recording.get_property("physical_unit").tolist() == ["V", "V"]
    unknown = sequence(spatial_scale=1.0 * pq.dimensionless)
    assert read_image_sequence(unknown, LABELS).get_property("centroid_unit").tolist() == ["pixels", "pixels"]
    assert read_image_sequence(unknown, LABELS, um_per_pixel=2.0).has_probe()


def block(*contents):
    block = neo.Block(rec_datetime=datetime(2024, 5, 31, 14, 30))
    for items in contents:
        segment = neo.Segment()
        for item in items:
            segment.add(item)
        block.segments.append(segment)
    return block


def test_blocks_have_segments():
    recording = read_image_sequence(block([sequence()], [sequence(MOVIE[:5])]), LABELS)
    assert [recording.get_num_samples(segment) for segment in range(2)] == [T, 5]
    np.testing.assert_allclose(recording.get_traces(segment_index=1), MEANS[:5])
    assert recording.get_annotation("session_start_time") == "2024-05-31T14:30:00"


# --- ROIs ---


def mask_of(rois, shape=(H, W)):
    [indices], _ = find_pixels(rois, shape)
    mask = np.zeros(shape, dtype=bool)
    mask.reshape(-1)[indices] = True
    return mask


def mask_of_points(points, shape=(H, W)):
    mask = np.zeros(shape, dtype=bool)
    for x, y in points:
        mask[y, x] = True
    return mask


def test_circle_is_round():
    disc = mask_of([{"circle": [5, 5, 2]}])
    expected = mask_of_points([(3, 5), (7, 5), (5, 3), (5, 7)] + [(x, y) for x in (4, 5, 6) for y in (4, 5, 6)])
    np.testing.assert_array_equal(disc, expected)  # Neo leaves out (7, 5) and (5, 7)


def test_x_is_the_column():
    assert np.argwhere(mask_of([{"rectangle": [9, 2, 2, 1]}])).tolist() == [[2, 8], [2, 9]]


eighths = st.integers(0, 8 * H).map(lambda eighth: eighth / 8)  # so that edges come to lie on pixel centres


@given(x=eighths, y=eighths, radius=eighths)
def test_circles_hold_what_neo_holds(x, y, radius):
    roi = neo.CircularRegionOfInterest(sequence(), x, y, radius)
    around = range(-2 * H, 3 * H)
    check_against_neo(roi, {"circle": [x, y, radius]}, [(i, j) for j in around for i in around if roi.is_inside(i, j)])


@given(x=eighths, y=eighths, width=eighths, height=eighths)
def test_rectangles_hold_what_neo_holds(x, y, width, height):
    roi = neo.RectangularRegionOfInterest(sequence(), x, y, width, height)
    check_against_neo(roi, {"rectangle": [x, y, width, height]}, roi.pixels_in_region())


@given(vertices=st.lists(st.tuples(eighths, eighths), min_size=3, max_size=7))
def test_polygons_hold_what_neo_holds(vertices):
    roi = neo.PolygonRegionOfInterest(sequence(), *vertices)
    check_against_neo(roi, {"polygon": [list(vertex) for vertex in vertices]}, roi.pixels_in_region())


def check_against_neo(roi, plain, points):
    shape = (H, W)
    if any(not (0 <= x < W and 0 <= y < H) for x, y in points):
        for form in (roi, plain):
            with pytest.raises(ValueError, match=r"rois: ROI 0, .* reaches beyond the image of 16 × 12 pixels"):
                find_pixels([form], shape)
    elif not points:
        for form in (roi, plain):
            with pytest.raises(ValueError, match="rois: ROI 0"):
                find_pixels([form], shape)
    else:
        for form in (roi, plain):
            np.testing.assert_array_equal(mask_of([form]), mask_of_points(points))


@given(arrays("int8", (5, 7), elements=st.integers(0, 4)))
def test_forms_of_masks_are_alike(labels):
    ids = [label for label in range(1, 5) if (labels == label).any()]
    if not ids:
        with pytest.raises(ValueError, match="rois: there are none"):
            find_pixels(labels, (5, 7))
        return
    images = np.random.default_rng(0).normal(size=(3, 5, 7))
    expected = np.stack([images[:, labels == label].mean(axis=1) for label in ids], axis=1)
    recording = read_image_sequence(sequence(images), labels)
    assert recording.channel_ids.tolist() == ids
    np.testing.assert_allclose(recording.get_traces(), expected)
    masks = np.stack([labels == label for label in ids])
    for form in (masks, masks.astype("uint8") * 255):
        np.testing.assert_array_equal(read_image_sequence(sequence(images), form).get_traces(), recording.get_traces())


def test_overlapping_masks():
    masks = np.stack([LABELS == 3, LABELS > 0])
    expected = np.stack([MEANS[:, 0], MOVIE[:, LABELS > 0].mean(axis=1)], axis=1)
    np.testing.assert_allclose(read_image_sequence(sequence(), masks).get_traces(), expected)


@given(arrays(bool, st.integers(1, 40)))
def test_runs_are_the_pixels(mask):
    indices = np.flatnonzero(mask)
    if len(indices):
        runs = as_runs(indices)
        assert from_runs(runs).tolist() == indices.tolist()
        assert len(runs) == 2 * (np.diff(np.append(0, mask).astype(int)) == 1).sum()


# --- bad input ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies")
    tifffile.imwrite(folder / "movie.tif", MOVIE)
    tifffile.imwrite(folder / "one.tif", MOVIE[0])
    tifffile.imwrite(folder / "rgb.tif", np.zeros((T, H, W, 3), "uint8"), photometric="rgb")
    tifffile.imwrite(folder / "channels.tif", np.stack([MOVIE, MOVIE], axis=1), imagej=True, metadata={"axes": "TCYX"})
    with tifffile.TiffWriter(folder / "sizes.tif") as tif:
        tif.write(MOVIE[0])
        tif.write(MOVIE[0, :5])
    tifffile.imwrite(folder / "whole.tif", MOVIE, compression="zlib")
    (folder / "cut.tif").write_bytes((folder / "movie.tif").read_bytes()[:3000])
    (folder / "cut compressed.tif").write_bytes((folder / "whole.tif").read_bytes()[:3000])
    (folder / "text.tif").write_text("a movie")
    (folder / "movie.avi").write_text("a movie")
    (folder / "empty").mkdir()
    for name, shapes in {
        "folder": [(H, W), (H, 5)],
        "stacks": [(T, H, W)],
        "one": [(H, W)],
        "colours": [(H, W, 3)],
    }.items():
        (folder / name).mkdir()
        for index, shape in enumerate(shapes):
            tifffile.imwrite(folder / name / f"{index}.tif", np.zeros(shape, "uint8"))
    np.save(folder / "volume.npy", np.zeros((2, 2, 2, 2)))
    return folder


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere.tif", "source: .*nowhere.tif does not exist"),
        ("one.tif", "source: .*one.tif has one image, so it is no movie"),
        ("rgb.tif", r"source: .*rgb.tif has colours \(20 × 12 × 16 × 3\); save the one"),
        ("channels.tif", r"source: .*channels.tif has 4 axes \(TCYX, 20 × 2 × 12 × 16\)"),
        ("sizes.tif", "source: .*sizes.tif has pages of different shape, 5 × 16, 12 × 16"),
        ("cut.tif", "source: .*cut.tif cannot be read as .tif: "),
        ("cut compressed.tif", "source: .*cut compressed.tif cannot be read as .tif: "),
        ("text.tif", "source: .*text.tif cannot be read as .tif: not a TIFF file"),
        ("movie.avi", "source: .*movie.avi is neither a TIFF file, nor .*; give what one of Neo's readers returns"),
        ("empty", "source: .*empty is neither a TIFF file, nor a folder of them"),
        ("folder", r"source: .*1.tif has the shape \(12, 5\), the first \(12, 16\)"),
        ("stacks", "source: .*0.tif has several pages; give such files one at a time"),
        ("one", "source: .*one has one image, so it is no movie"),
        ("colours", "source: .*0.tif has colours"),
        ("volume.npy", "source: .*volume.npy has 4 axes"),
    ],
)
def test_bad_movies(folder, name, error):
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        read_image_sequence(folder / name, LABELS, sampling_frequency=500.0)


def test_a_page_that_cannot_be_decoded(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, MOVIE, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[9].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(50))
    recording = read_image_sequence(path, LABELS, sampling_frequency=500.0)
    np.testing.assert_allclose(recording.get_traces(end_frame=9), MEANS[:9])
    with pytest.raises(ValueError, match=r"source: .*movie.tif cannot be read as .tif: "):
        recording.get_traces()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"sampling_frequency": None}, "sampling_frequency: .*movie.tif does not tell how many frames"),
        ({"sampling_frequency": -1.0}, "sampling_frequency: must be positive"),
        ({"um_per_pixel": 0.0}, "um_per_pixel: must be a positive size"),
        ({"um_per_pixel": [1.0, 2.0, 3.0]}, "um_per_pixel: must be a positive size"),
        ({"roi_ids": [1]}, r"roi_ids: must be a different name for each of the 2 ROIs, not \[1\]"),
        ({"roi_ids": ["a", "a"]}, "roi_ids: must be a different name"),
        ({"value": "volts"}, "value: must be 'fluorescence', 'delta_f_over_f' or None, not 'volts'"),
        ({"rois": None}, "rois: must be a mask or a list of ROIs, not NoneType"),
        ({"rois": []}, "rois: there are none"),
        ({"rois": np.zeros((H, W), int)}, "rois: there are none"),
        ({"rois": LABELS.T}, r"rois: a mask must be .* \(12, 16\) .*, but is int16 of shape \(16, 12\)"),
        ({"rois": LABELS.astype(float)}, "rois: a mask must be of integers or booleans"),
        ({"rois": -LABELS}, "rois: the ids in a label mask must be positive, not -7"),
        ({"rois": np.stack([LABELS, LABELS])}, "rois: several masks must each be of 0 and 1, but have values up to 7"),
        ({"rois": np.stack([LABELS == 3, LABELS == 4])}, "rois: ROI 1 has no pixel"),
        ({"rois": LABELS[:5]}, r"rois: a mask must be .* shape \(5, 16\)"),
        ({"rois": {"circle": [5, 5, 2]}}, "rois: must be a mask or a list of ROIs, not dict"),
        ({"rois": [{"circle": [5, 5]}]}, "rois: ROI 0 must be one of"),
        ({"rois": [{"ellipse": [5, 5, 2]}]}, "rois: ROI 0 must be one of"),
        ({"rois": [{"polygon": [[1, 1], [2, 2]]}]}, "rois: ROI 0 must be one of"),
        ({"rois": [{"circle": [5, 5, 2]}, {"circle": [5, np.nan, 2]}]}, "rois: ROI 1 must be one of"),
        ({"rois": [{"circle": ["five", 5, 2]}]}, "rois: ROI 0 must be one of"),
        ({"rois": [{"circle": [5.5, 5.5, 0.1]}]}, "rois: ROI 0 has no pixel"),
        ({"rois": [{"circle": [5, 5, -2]}]}, "rois: ROI 0 must be one of"),
        ({"rois": [{"circle": [1, 5, 2]}]}, r"rois: ROI 0, circle \[1.0, 5.0, 2.0\], reaches beyond the image"),
        ({"rois": [{"rectangle": [1e9, 5, 2, 2]}]}, "rois: ROI 0, rectangle .* reaches beyond the image"),
        ({"rois": [{"polygon": [[0, 0], [1e9, 0], [0, 1]]}]}, "rois: ROI 0, polygon .* reaches beyond the image"),
    ],
)
def test_bad_arguments(folder, settings, error):
    settings = dict(rois=LABELS, sampling_frequency=500.0) | settings
    with pytest.raises((ValueError, FileNotFoundError), match=error):
        read_image_sequence(folder / "movie.tif", **settings)


@pytest.mark.parametrize(
    ("source", "rois", "error"),
    [
        (
            MOVIE,
            LABELS,
            "source: must be a path or a Block, .*, not ndarray; an array becomes one by neo.ImageSequence",
        ),
        (neo.Block(), LABELS, "source: the Block holds no ImageSequence"),
        (neo.Segment(), LABELS, "source: the Segment holds no ImageSequence"),
        (block([sequence(), sequence()]), LABELS, "source: its segments hold 2 ImageSequences; give the ImageSequence"),
        (block([sequence()], []), LABELS, "source: its segments hold 1, 0 ImageSequences"),
        (
            block([sequence()], [sequence(MOVIE[:, :5])]),
            LABELS,
            r"source: holds different shapes of images, \[\(12, 16\)",
        ),
        (
            block([sequence()], [sequence(rate=400.0)]),
            LABELS,
            r"source: holds different sampling rates, \[500.0, 400.0\]",
        ),
    ],
)
def test_bad_neo_objects(source, rois, error):
    with pytest.raises(ValueError, match=error):
        read_image_sequence(source, rois)
