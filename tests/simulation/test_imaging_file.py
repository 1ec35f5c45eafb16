import h5py
import numpy as np
import pytest
from nwbinspector import Importance, inspect_nwbfile
from pynwb import NWBHDF5IO

from dlvolt.io import read_voltage_imaging
from dlvolt.simulation import simulate_biophysical, write_simulated_imaging

SETTINGS = dict(num_rois=5, duration_s=5.0, sampling_frequency=500.0, snr=8.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("imaging") / "session.nwb"
    return path, write_simulated_imaging(path, **SETTINGS, polarity="negative", crosstalk=0.4, seed=3)


def test_it_is_a_recording_of_rois(written):
    path, truth = written
    recording = read_voltage_imaging(path)
    assert recording.channel_ids.tolist() == truth.sorting.unit_ids.tolist() == [1, 2, 3, 4, 5]
    assert (recording.get_num_samples(), recording.sampling_frequency) == (2500, 500.0)
    assert recording.get_annotation("indicator") == "Voltron2"
    assert recording.get_annotation("imaging_rate_hz") == 500.0
    assert recording.get_annotation("pixel_size_um") == 1.0
    assert recording.get_annotation("value") == "fluorescence"
    assert recording.has_probe()
    assert recording.get_property("num_pixels").min() > 50
    assert truth.polarity == "negative"
    assert truth.path == path


def test_inspector_finds_nothing(written):
    found = list(inspect_nwbfile(nwbfile_path=written[0]))
    assert [message for message in found if message.importance != Importance.BEST_PRACTICE_SUGGESTION] == []


def test_spikes_are_those_of_the_neurons(written):
    _, truth = written
    _, spike_times, _ = simulate_biophysical(5, 5.0, 500.0, 8.0, polarity="negative", seed=3)
    assert truth.sorting.sampling_frequency == 20_000
    for unit_id, times in zip(truth.sorting.unit_ids, spike_times, strict=True):
        np.testing.assert_allclose(truth.sorting.get_unit_spike_train(unit_id) / 20_000, times, atol=0.5 / 20_000)


def test_cross_talk_is_that_of_the_masks(written):
    path, truth = written
    with NWBHDF5IO(str(path), "r") as io:
        table = io.read().processing["ophys"]["ImageSegmentation"]["PlaneSegmentation"]
        masks = [{(x, y): weight for x, y, weight in table["pixel_mask"][row]} for row in range(5)]
    for i, own in enumerate(masks):
        for j, other in enumerate(masks):
            shared = sum(weight * other.get(pixel, 0) for pixel, weight in own.items())
            assert truth.mixing[i, j] == pytest.approx(shared / sum(w**2 for w in own.values()), rel=1e-4)
    assert truth.mixing[0, 1] == pytest.approx(0.4, rel=0.05)
    assert sorted(truth.leaks) == [(1, 2), (2, 1)]


def test_spikes_leak_and_are_as_high_as_asked(written):
    """The mean trace around the spikes of ROI 1, in ROI 1 and in the ROI that takes up its light."""
    path, truth = written
    traces = read_voltage_imaging(path).get_traces()
    frames = (truth.sorting.get_unit_spike_train(1) / 40).astype(int)
    others = truth.sorting.get_unit_spike_train(2) / 40
    alone = [f for f in frames if 20 < f < 2450 and np.abs(others - f).min() > 10]
    baseline = np.mean([np.median(traces[f - 15 : f - 2], axis=0) for f in alone], axis=0)
    heights = np.mean([traces[f - 1 : f + 4].min(axis=0) for f in alone], axis=0) - baseline
    floor = np.mean([traces[f - 9 : f - 4].min(axis=0) for f in alone], axis=0) - baseline  # of noise alone
    assert heights[0] < -12  # a spike has 20 counts
    assert heights[1] - floor[1] < -2
    np.testing.assert_allclose(heights[2:], floor[2:], atol=2)


def content(path):
    """All data and attributes of a file but the random ids of its objects."""
    found = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("specifications"):
            found[name] = item[()]
        found.update({(name, key): str(v) for key, v in item.attrs.items() if key not in ("object_id", "table")})

    with h5py.File(path) as file:
        file.visititems(collect)
    return found


def test_same_seed_same_content(tmp_path):
    settings = dict(num_rois=2, duration_s=1.0, sampling_frequency=400.0)
    first, again, other = (tmp_path / f"{name}.nwb" for name in "abc")
    write_simulated_imaging(first, **settings, seed=1)
    write_simulated_imaging(again, **settings, seed=1)
    write_simulated_imaging(other, **settings, seed=2)
    same, repeated, different = content(first), content(again), content(other)
    assert same.keys() == repeated.keys()
    for name, values in same.items():
        np.testing.assert_array_equal(values, repeated[name], err_msg=str(name))
    data = "processing/ophys/Fluorescence/RoiResponseSeries/data"
    assert not np.array_equal(same[data], different[data])
    assert same["identifier"] != different["identifier"]


@pytest.mark.parametrize("num_rois", [1, 4])
def test_without_cross_talk_no_masks_overlap(tmp_path, num_rois):
    truth = write_simulated_imaging(tmp_path / "a.nwb", num_rois, 1.0, crosstalk=0.0)
    np.testing.assert_array_equal(truth.mixing, np.eye(num_rois))
    assert truth.leaks == []


@pytest.mark.parametrize("crosstalk", [0.05, 0.9])
def test_only_pairs_overlap(crosstalk):
    from dlvolt.simulation.imaging_file import _footprints

    footprints, size = _footprints(200, crosstalk, np.random.default_rng(0))
    overlap = (footprints @ footprints.T).toarray()
    mixing = overlap / overlap.diagonal()[:, None]
    pairs = np.kron(np.eye(50), [[0, 1], [1, 0]])
    np.testing.assert_array_equal(mixing[:100, :100] - np.eye(100) > 0, pairs > 0)
    np.testing.assert_array_equal(mixing[100:, 100:], np.eye(100))
    assert mixing[:100, 100:].max() == 0
    np.testing.assert_allclose(mixing[:100, :100][pairs > 0], crosstalk, rtol=0.25)
    assert footprints.shape[1] == size.prod()


def test_bad_input(tmp_path):
    path = tmp_path / "a.nwb"
    for wrong in (dict(polarity="up"), dict(polarity=None), dict(crosstalk=0.01), dict(crosstalk=1.0), dict(snr=0)):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: must be"):
            write_simulated_imaging(path, 1, 1.0, **wrong)
    with pytest.raises(FileNotFoundError, match=r"^path: there is no folder .*nowhere"):
        write_simulated_imaging(tmp_path / "nowhere" / "a.nwb")
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"^path: .*a.nwb exists; .* overwrite=True"):
        write_simulated_imaging(path)
    write_simulated_imaging(path, 1, 1.0, overwrite=True)
    assert read_voltage_imaging(path).get_num_channels() == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.nwb"]
