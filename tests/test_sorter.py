"""From a recording to a sorting, by name."""

import re

import numpy as np
import pytest
import spikeinterface.full as si


@pytest.fixture(scope="module")
def sorted_folder(ground_truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sorted") / "dlvolt"
    si.run_sorter("dlvolt", ground_truth[0], folder=folder)
    return folder


@pytest.fixture(scope="module")
def sorting(sorted_folder):
    return si.read_sorter_folder(sorted_folder)


def spike_trains(sorting):
    return {
        unit: [sorting.get_unit_spike_train(unit, segment_index=i) for i in range(sorting.get_num_segments())]
        for unit in sorting.unit_ids
    }


def mean_accuracy(truth, sorting):
    comparison = si.compare_sorter_to_ground_truth(truth, sorting, exhaustive_gt=True)
    return comparison.get_performance()["accuracy"].mean()


def test_finds_the_true_units(ground_truth, sorting):
    assert mean_accuracy(ground_truth[1], sorting) > 0.9
    assert len(sorting.unit_ids) == 5


def test_spikes_sit_on_the_peaks(ground_truth, sorting):
    comparison = si.compare_sorter_to_ground_truth(ground_truth[1], sorting)
    best = comparison.best_match_12
    for unit in ground_truth[1].unit_ids:
        true, found = (s.get_unit_spike_train(u) for s, u in ((ground_truth[1], unit), (sorting, best[unit])))
        lags = found[:, None] - true
        nearest = lags[np.arange(len(found)), np.abs(lags).argmin(axis=1)]
        assert abs(np.median(nearest)) <= 3  # samples, 0.1 ms


def test_unit_properties(ground_truth, sorting):
    recording, _ = ground_truth
    assert sorting.sampling_frequency == recording.sampling_frequency
    assert {"snr", "amplitude", "main_channel_id"} <= set(sorting.get_property_keys())
    assert np.all(sorting.get_property("amplitude") >= sorting.get_property("snr"))
    assert np.all(sorting.get_property("snr") > 0)
    main_channels = recording.ids_to_indices(sorting.get_property("main_channel_id"))
    depths = recording.get_channel_locations()[main_channels, 1]
    assert np.all(np.diff(depths) >= 0)


def test_main_channels_are_the_true_ones(ground_truth, true_templates, sorting):
    recording, truth = ground_truth
    waveforms = np.abs(true_templates.get_dense_templates()).max(axis=1)  # K×N
    extremum = dict(zip(true_templates.unit_ids, recording.channel_ids[waveforms.argmax(axis=1)], strict=True))
    best = si.compare_sorter_to_ground_truth(truth, sorting).best_match_12
    main = dict(zip(sorting.unit_ids, sorting.get_property("main_channel_id"), strict=True))
    right = [main[best[unit]] == extremum[unit] for unit in truth.unit_ids]
    assert np.mean(right) >= 0.8  # one may lie between two channels


def test_the_folder_loads_without_the_plugin(sorted_folder, sorting):
    loaded = si.load(sorted_folder / "sorter_output" / "sorting")
    assert not type(loaded).__module__.startswith("dlvolt")
    np.testing.assert_array_equal(loaded.to_spike_vector(), sorting.to_spike_vector())
    np.testing.assert_array_equal(si.load(sorted_folder).to_spike_vector(), sorting.to_spike_vector())


def test_same_seed_same_result(ground_truth, sorting, tmp_path):
    again = si.run_sorter("dlvolt", ground_truth[0], folder=tmp_path / "again", job_kwargs=dict(n_jobs=2))
    np.testing.assert_array_equal(again.to_spike_vector(), sorting.to_spike_vector())
    for key in ("snr", "amplitude", "main_channel_id"):
        np.testing.assert_array_equal(again.get_property(key), sorting.get_property(key))


def test_several_segments(ground_truth, sorting, tmp_path):
    recording, truth = ground_truth
    cuts = [(0, 250_000), (250_000, 260_000), (260_000, 600_000)]
    pieces = si.append_recordings([recording.frame_slice(*cut) for cut in cuts])
    found = si.run_sorter("dlvolt", pieces, folder=tmp_path / "sorted")
    assert found.get_num_segments() == 3
    for segment, (start, end) in enumerate(cuts):
        trains = [found.get_unit_spike_train(unit, segment_index=segment) for unit in found.unit_ids]
        assert all(np.all((train >= 0) & (train < end - start)) for train in trains)
    true_pieces = si.append_sortings([truth.frame_slice(*cut) for cut in cuts])
    assert mean_accuracy(true_pieces, found) > 0.85


def test_dict_of_recordings_and_groups(ground_truth, tmp_path):
    recording, _ = ground_truth
    recording = recording.frame_slice(0, 300_000)
    recording.set_property("group", [0] * 4 + [1] * 4)
    recordings = recording.split_by("group")
    sortings = si.run_sorter("dlvolt", recordings, folder=tmp_path / "dict")
    assert list(sortings) == [0, 1]
    assert all(len(sorting.unit_ids) >= 1 for sorting in sortings.values())

    together = si.run_sorter_by_property("dlvolt", recording, "group", folder=tmp_path / "by_property")
    assert together.get_property("group").tolist() == [0] * len(sortings[0].unit_ids) + [1] * len(sortings[1].unit_ids)
    trains = [train for sorting in sortings.values() for train in spike_trains(sorting).values()]
    for (train,), (again,) in zip(trains, spike_trains(together).values(), strict=True):
        np.testing.assert_array_equal(train, again)


def test_silent_unless_verbose(ground_truth, tmp_path, capfd):
    recording = ground_truth[0].frame_slice(0, 150_000)
    capfd.readouterr()
    si.run_sorter("dlvolt", recording, folder=tmp_path / "silent", job_kwargs=dict(progress_bar=True))
    assert capfd.readouterr() == ("", "")

    si.run_sorter("dlvolt", recording, folder=tmp_path / "loud", verbose=True, job_kwargs=dict(progress_bar=True))
    out, err = capfd.readouterr()
    assert "dlvolt" in out
    assert "dlvolt: learn templates" in err  # a progress bar
    assert "100%" in err

    si.run_sorter("dlvolt", recording, folder=tmp_path / "no_bar", verbose=True, job_kwargs=dict(progress_bar=False))
    out, err = capfd.readouterr()
    assert "dlvolt" in out
    assert "%" not in err


def test_preprocessing_may_be_done_before(ground_truth, tmp_path):
    recording = ground_truth[0].frame_slice(0, 300_000)
    whitened = si.zscore(si.bandpass_filter(recording, dtype="float32"), seed=0)
    found = si.run_sorter("dlvolt", whitened, folder=tmp_path / "sorted", apply_preprocessing=False)
    assert mean_accuracy(ground_truth[1].frame_slice(0, 300_000), found) > 0.8


def test_a_network_can_drop_noise_from_the_peaks_that_are_clustered(ground_truth, tmp_path, capsys):
    recording = ground_truth[0].frame_slice(0, 300_000)
    settings = dict(detect_threshold=3.5, clustering_duration_s=10.0, folder=tmp_path / "sorted", verbose=True)
    sorting = si.run_sorter("dlvolt", recording, peak_model="waveform_cnn", remove_existing_folder=True, **settings)
    kept = int(re.search(r"(\d+) peaks", capsys.readouterr().out).group(1))
    si.run_sorter("dlvolt", recording, remove_existing_folder=True, **settings)
    assert kept < 0.8 * int(re.search(r"(\d+) peaks", capsys.readouterr().out).group(1))
    assert mean_accuracy(ground_truth[1].frame_slice(0, 300_000), sorting) > 0.85


def test_a_network_that_cannot_classify_the_peaks_is_refused_before_any_work(ground_truth, tmp_path):
    with pytest.raises(ValueError, match="peak_model: 'voltage' is for traces, not for snippets"):
        si.run_sorter("dlvolt", ground_truth[0], folder=tmp_path / "sorted", peak_model="voltage")
