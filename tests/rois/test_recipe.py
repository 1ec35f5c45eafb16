"""Recordings of ROIs, from the reader to units: `run_sorter` in optical mode."""

import re

import numpy as np
import pytest
import spikeinterface.full as si

import dlvolt
from dlvolt.evaluation import event_scores
from dlvolt.evaluation.events import match_events
from dlvolt.parameters import SorterParameters
from dlvolt.simulation import simulate_biophysical, write_simulated_imaging

RATE = 500.0


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Six ROIs of a simulated session, four of which leak into one another, and what is known of them."""
    return write_simulated_imaging(tmp_path_factory.mktemp("session") / "session.nwb", 6, 20.0, RATE, 7.0, seed=3)


@pytest.fixture(scope="module")
def recording(session):
    return dlvolt.read_voltage_imaging(session.path)


@pytest.fixture(scope="module")
def folder(recording, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sorted") / "dlvolt"
    si.run_sorter("dlvolt", recording, folder=folder)
    return folder


@pytest.fixture(scope="module")
def sorting(folder):
    return si.read_sorter_folder(folder)


@pytest.fixture(scope="module")
def neurons():
    """Four traces of 10 s, two of them upside down, and their spike times."""
    return simulate_biophysical(4, 10.0, RATE, 8.0, seed=11)


def trains(sorting, segment=0):
    return {unit: sorting.get_unit_spike_train(unit, segment_index=segment) for unit in sorting.unit_ids}


def assert_same_spikes(sorting, other):
    np.testing.assert_array_equal(sorting.unit_ids, other.unit_ids)
    np.testing.assert_array_equal(sorting.to_spike_vector(), other.to_spike_vector())


def run(recording, folder, **parameters):
    return si.run_sorter("dlvolt", recording, folder=folder / "sorted", **parameters)


def test_one_unit_for_each_roi_with_its_spikes(session, recording, sorting):
    assert sorting.unit_ids.tolist() == recording.channel_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert sorting.sampling_frequency == RATE
    assert sorting.get_annotation("modality") == "optical"
    scores = []
    for (unit, train), leaked in zip(trains(sorting).items(), of_each_spike(sorting, "spike_crosstalk"), strict=True):
        true = session.sorting.get_unit_spike_train(unit) / session.sorting.sampling_frequency
        scores.append(event_scores(true, train[~leaked] / RATE).f1)
    assert np.median(scores) > 0.9


def of_each_spike(sorting, name):
    """A property of each spike, for each unit; as many as there are spikes."""
    parts = sorting.get_property(name)
    counts = [len(train) for train in trains(sorting).values()]
    assert [len(part) for part in parts] == counts
    return parts


def test_what_is_known_of_units_and_spikes(session, recording, sorting):
    assert set(sorting.get_property("polarity")) == {session.polarity}
    assert set(sorting.get_property("model_name")) == {"voltage"}
    assert set(sorting.get_property("decided_by")) == {"model"}
    assert set(sorting.get_property("flag")) == {""}
    np.testing.assert_allclose(sorting.get_property("snr"), 7.0, rtol=0.5)
    counts = sorting.count_num_spikes_per_unit(outputs="array")
    np.testing.assert_allclose(sorting.get_property("firing_rate"), counts / 20.0)
    probability, label = of_each_spike(sorting, "spike_probability"), of_each_spike(sorting, "spike_label")
    threshold = sorting.get_property("threshold")
    for unit in range(6):
        assert probability[unit].min() >= threshold[unit]
        assert set(label[unit]) <= {"single", "burst", "complex"}
        assert np.isclose(sorting.get_property("expected_precision")[unit], probability[unit].mean())
        crosstalk = of_each_spike(sorting, "spike_crosstalk")[unit]
        assert np.isclose(sorting.get_property("crosstalk_fraction")[unit], crosstalk.mean())
    precision = [
        event_scores(
            session.sorting.get_unit_spike_train(unit) / session.sorting.sampling_frequency, train / RATE
        ).precision
        for unit, train in trains(sorting).items()
    ]
    assert np.median(np.abs(precision - sorting.get_property("expected_precision"))) < 0.1


def test_probabilities_are_true_and_the_model_finds_more_than_the_network_alone(tmp_path):
    traces, times, _ = simulate_biophysical(5, 12.0, RATE, 4.0, seed=31)
    recording, scores, hits, chances = si.NumpyRecording([traces], RATE), {}, [], []
    for refine in (True, False):
        (tmp_path / str(refine)).mkdir()
        sorting = run(recording, tmp_path / str(refine), refine=refine, crosstalk="ignore")
        found = [train / RATE for train in trains(sorting).values()]
        scores[refine] = np.mean([event_scores(*pair).f1 for pair in zip(times, found, strict=True)])
        assert set(sorting.get_property("decided_by")) == {"model" if refine else "network"}
        if refine:
            chances = np.concatenate(list(sorting.get_property("spike_probability")))
            hits = np.concatenate(
                [np.isin(np.arange(len(b)), match_events(a, b)[:, 1]) for a, b in zip(times, found, strict=True)]
            )
    assert scores[True] > max(0.9, scores[False])
    assert chances.mean() == pytest.approx(hits.mean(), abs=0.05)
    unsure = chances < 0.8
    assert chances[unsure].mean() == pytest.approx(hits[unsure].mean(), abs=0.15)


def test_where_there_is_too_little_to_learn_from_the_network_decides(tmp_path):
    rng = np.random.default_rng(0)
    trace = 100 + rng.normal(size=(5000, 1))
    trace[[1000, 2500, 4000]] += 15.0
    sorting = run(si.NumpyRecording([trace.astype("float32")], RATE), tmp_path, polarity="positive")
    assert sorting.get_property("decided_by").tolist() == ["network"]
    assert set(sorting.get_unit_spike_train(0)) <= {999, 1000, 1001, 2499, 2500, 2501, 3999, 4000, 4001}


def test_crosstalk_is_flagged_where_there_is_a_leak_and_removed_on_request(session, recording, sorting, tmp_path):
    flagged = {
        (int(source), unit)
        for unit, source in zip(sorting.unit_ids.tolist(), sorting.get_property("crosstalk_from"), strict=True)
        if source
    }
    assert flagged
    assert flagged <= set(session.leaks)

    removed = run(recording, tmp_path, crosstalk="remove")
    kept = {
        unit: train[~crosstalk]
        for (unit, train), crosstalk in zip(
            trains(sorting).items(), of_each_spike(sorting, "spike_crosstalk"), strict=True
        )
    }
    for unit, train in trains(removed).items():
        np.testing.assert_array_equal(train, kept[unit])
    assert not np.any(removed.get_property("crosstalk_fraction") > 0)
    assert removed.count_total_num_spikes() < sorting.count_total_num_spikes()


def test_the_folder_loads_without_the_plugin(folder, sorting):
    loaded = si.load(folder / "sorter_output" / "sorting")
    assert not type(loaded).__module__.startswith("dlvolt")
    assert_same_spikes(loaded, sorting)
    assert [part.tolist() for part in loaded.get_property("spike_label")] == [
        part.tolist() for part in sorting.get_property("spike_label")
    ]


@pytest.mark.parametrize("job_kwargs", [dict(n_jobs=2), dict(n_jobs=2, chunk_duration="1.3s")])
def test_same_result_however_the_work_is_cut(recording, sorting, tmp_path, job_kwargs):
    again = run(recording, tmp_path, job_kwargs=job_kwargs)
    assert_same_spikes(again, sorting)
    for name in ("snr", "polarity", "crosstalk_fraction", "num_bursts", "num_complex_spikes"):
        np.testing.assert_array_equal(again.get_property(name), sorting.get_property(name))


def test_traces_between_fluorescence_and_spikes(recording, tmp_path):
    sorting = run(recording, tmp_path, refine=False)
    made = dlvolt.roi_traces(recording, sorting)
    assert list(made) == ["delta_f_over_f", "spike_probability", "subthreshold"]
    for traces in made.values():
        assert traces.channel_ids.tolist() == recording.channel_ids.tolist()
        assert traces.get_num_samples() == recording.get_num_samples()
    train = sorting.get_unit_spike_train(1)
    at_spikes = made["spike_probability"].get_traces(channel_ids=[1])[train, 0]
    np.testing.assert_allclose(at_spikes, sorting.get_property("spike_probability")[0], atol=1e-5)
    change, below = (made[name].get_traces(channel_ids=[1])[:, 0] for name in ("delta_f_over_f", "subthreshold"))
    assert abs(np.median(change)) < 0.1
    assert np.median(change[train] - below[train]) > 3 * np.median(np.abs(change - below))
    assert dlvolt.roi_traces(recording, sorting, []) == {}
    with pytest.raises(ValueError, match="names: there is no 'dff'"):
        dlvolt.roi_traces(recording, sorting, ["dff"])


def test_modality(neurons, tmp_path, capsys):
    traces, _, _ = neurons
    for rate, annotation, given, expected in (
        (500.0, None, "auto", "optical mode, as the recording is sampled at 500 Hz"),
        (500.0, "optical", "auto", "optical mode, as the recording's annotation says"),
        (500.0, "extracellular", "optical", "optical mode, as asked for"),
    ):
        recording = si.NumpyRecording(traces[:1000], rate)
        if annotation is not None:
            recording.annotate(modality=annotation)
        name = f"{annotation} {given}"
        sorting = si.run_sorter("dlvolt", recording, folder=tmp_path / name, modality=given, verbose=True)
        assert expected in capsys.readouterr().out
        assert sorting.get_annotation("modality") == "optical"
        assert len(sorting.unit_ids) == 4


@pytest.mark.parametrize(
    ("rate", "parameters", "message"),
    [
        (500.0, dict(modality="extracellular"), "sampled at 500.0 Hz; extracellular spikes need at least"),
        (20_000.0, dict(modality="optical"), "model 'voltage' serves sampling frequencies from"),
        (20_000.0, dict(), "needs channel locations; .* or modality='optical' if channels are ROIs"),
        (10.0, dict(), "model 'voltage' serves sampling frequencies from"),
        (500.0, dict(modality="light"), "modality must be 'auto', 'extracellular' or 'optical', not 'light'"),
        (500.0, dict(model="nowhere"), "nowhere' is not a folder, nor among the weights"),
        (500.0, dict(model="waveform_cnn"), "'waveform_cnn' is for snippets, not for traces"),
        (500.0, dict(model="voltage+calcium"), "only networks that give rates work together"),
        (500.0, dict(polarity="up"), "polarity must be 'auto', 'positive', 'negative' or a list"),
        (500.0, dict(polarity=["positive"]), "or a list of these for 4 channels"),
        (500.0, dict(probability_threshold=1.5), "probability_threshold must be at most 1"),
        (500.0, dict(probability_threshold="low"), "probability_threshold must be 'auto' or a number"),
        (500.0, dict(shadow_ms=-1.0), "shadow_ms must not be negative"),
        (500.0, dict(crosstalk="yes"), "crosstalk must be 'flag', 'remove' or 'ignore'"),
        (500.0, dict(baseline_window_s=0.0), "baseline_window_s must be positive"),
        (500.0, dict(baseline_window_s=np.inf), "baseline_window_s must be finite"),
        (500.0, dict(shadow_ms=np.inf), "shadow_ms must be finite"),
        (500.0, dict(polarity=[["positive"]]), "polarity must be 'auto'"),
        (500.0, dict(job_kwargs=dict(n_jobs=0)), "job_kwargs: n_jobs must be a number of threads"),
        (500.0, dict(job_kwargs=dict(chunk_duration="abc")), "job_kwargs: .* do not tell how long chunks are"),
        (500.0, dict(device="nonsense"), "device must be 'auto', 'cpu' or 'cuda', not 'nonsense'"),
    ],
)
def test_bad_input_is_one_error_and_nothing_is_lost(neurons, tmp_path, rate, parameters, message):
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "earlier.txt").write_text("a result")
    recording = si.NumpyRecording(neurons[0], rate)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(recording, tmp_path, remove_existing_folder=True, **parameters)
    assert [path.name for path in tmp_path.iterdir()] == ["sorted"]
    assert (tmp_path / "sorted" / "earlier.txt").read_text() == "a result"


def test_what_is_replaced_is_gone_when_all_is_well(neurons, tmp_path):
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "earlier.txt").write_text("a result")
    run(si.NumpyRecording(neurons[0][:500], RATE), tmp_path, remove_existing_folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["sorted"]
    assert not (tmp_path / "sorted" / "earlier.txt").exists()


def test_a_recording_in_the_folder_to_be_removed_is_kept(neurons, tmp_path):
    first = run(si.NumpyRecording(neurons[0][:500], RATE), tmp_path)
    inside = si.read_sorter_folder(tmp_path / "sorted")._recording
    with pytest.raises(ValueError, match=r"folder: the recording lies in .*sorted, which would be removed"):
        run(inside, tmp_path, remove_existing_folder=True)
    assert_same_spikes(si.read_sorter_folder(tmp_path / "sorted"), first)


def test_arrays_in_memory(neurons, tmp_path):
    traces, times, polarities = neurons
    sorting = run(dlvolt.traces_to_recording(traces, RATE, roi_ids=["a", "b", "c", "d"]), tmp_path)
    assert sorting.unit_ids.tolist() == ["a", "b", "c", "d"]
    assert sorting.get_property("polarity").tolist() == polarities
    assert np.mean([event_scores(t, f / RATE).f1 for t, f in zip(times, trains(sorting).values(), strict=True)]) > 0.9
    read_again = si.read_sorter_folder(tmp_path / "sorted")
    np.testing.assert_array_equal(read_again._recording.get_traces(), traces)


def test_dead_rois_and_gaps_are_flagged_and_disturb_no_other(neurons, tmp_path):
    traces = neurons[0]
    damaged = np.concatenate([traces, traces[:, :3]], axis=1)
    damaged[:, 4] = np.nan
    damaged[:, 5] = 7.0
    damaged[1000:1020, 6] = np.nan  # short, bridged
    damaged[3000:3200, 6] = np.inf  # long
    damaged[0, 6] = np.nan
    settings = dict(polarity="positive", probability_threshold=0.5)
    (tmp_path / "whole").mkdir()
    whole = run(si.NumpyRecording(traces, RATE), tmp_path / "whole", **settings)
    sorting = run(si.NumpyRecording(damaged, RATE), tmp_path, **settings)
    assert sorting.get_property("flag").tolist() == ["", "", "", "", "dead", "dead", "gaps"]
    found, undisturbed = trains(sorting), trains(whole)
    for unit in range(4):
        np.testing.assert_array_equal(found[unit], undisturbed[unit])
    assert len(found[4]) == len(found[5]) == 0
    assert np.isnan(sorting.get_property("snr")[4:6]).all()
    assert sorting.get_property("polarity").tolist()[4:6] == ["", ""]

    def beside_gap(train):
        return (train >= 998) & (train < 1022) | (train >= 2998) & (train < 3202)

    assert not beside_gap(found[6]).any()
    assert event_scores(undisturbed[2][~beside_gap(undisturbed[2])] / RATE, found[6] / RATE).f1 > 0.95


def test_a_gap_that_hides_the_sample_and_scaled_integers(tmp_path):
    traces = np.random.default_rng(0).integers(-900, -700, size=(round(40 * RATE), 2)).astype("float32")
    traces[: -round(RATE), 1] = np.nan  # of what the sorter samples, nothing is left
    recording = si.NumpyRecording(traces, RATE)
    recording.set_channel_gains(2.0)
    recording.set_channel_offsets(2000.0)  # fluorescence 200 to 600
    sorting = run(recording, tmp_path)
    assert sorting.get_property("flag").tolist() == ["", "gaps"]
    assert sorting.count_total_num_spikes() < 10


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5, 4.0])
def test_noise_beside_a_gap_is_not_taken_for_spikes(tmp_path, seconds):
    traces = np.random.default_rng(0).normal(1000, 10, size=(round(12 * RATE), 8))
    traces[2000 : 2000 + round(seconds * RATE)] = np.nan
    sorting = run(si.NumpyRecording(traces, RATE), tmp_path, polarity="positive")
    assert np.all(sorting.get_property("firing_rate") < 0.5)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("seconds", [0.02, 0.5, 3.0])
@pytest.mark.parametrize("kind", ["noise", "int16", "uint16", "delta_f_over_f", "zeros", "nan"])
def test_hardly_anything_there(tmp_path, num_channels, seconds, kind):
    traces = np.random.default_rng(0).normal(1000, 10, size=(round(seconds * RATE), num_channels))
    traces = {
        "noise": traces,
        "int16": traces.astype("int16"),
        "uint16": traces.astype("uint16"),
        "delta_f_over_f": traces / 1000 - 1,
        "zeros": np.zeros_like(traces, dtype="float32"),
        "nan": np.full_like(traces, np.nan),
    }[kind]
    sorting = run(si.NumpyRecording(traces, RATE), tmp_path)
    assert len(sorting.unit_ids) == num_channels
    assert sorting.get_num_segments() == 1
    assert sorting.count_total_num_spikes() <= 3 * seconds * num_channels
    assert set(sorting.get_property("flag")) == ({"dead"} if kind in ("zeros", "nan") else {""})


def test_segments(neurons, tmp_path):
    traces = neurons[0]
    pieces = [traces[:2500], traces[2500:2600], traces[2600:]]
    settings = dict(polarity="positive", probability_threshold=0.4, refine=False)  # each learns from all it has
    together = run(si.NumpyRecording(pieces, RATE), tmp_path, **settings)
    assert together.get_num_segments() == 3
    for segment, piece in enumerate(pieces):
        (tmp_path / str(segment)).mkdir()
        alone = run(si.NumpyRecording(piece, RATE), tmp_path / str(segment), **settings)
        for unit, train in trains(alone).items():
            np.testing.assert_array_equal(together.get_unit_spike_train(unit, segment_index=segment), train)


def test_polarity_and_threshold_as_said(neurons, tmp_path):
    traces, _, polarities = neurons
    recording = si.NumpyRecording(traces, RATE)
    said = run(recording, tmp_path, polarity=polarities, probability_threshold=0.9)
    assert said.get_property("polarity").tolist() == polarities
    assert said.get_property("threshold").tolist() == [0.9] * 4
    assert min(part.min() for part in said.get_property("spike_probability")) >= 0.9


def test_silent_unless_verbose(neurons, tmp_path, capfd):
    recording = si.NumpyRecording(neurons[0][:1000], RATE)
    capfd.readouterr()
    si.run_sorter("dlvolt", recording, folder=tmp_path / "silent", job_kwargs=dict(progress_bar=True))
    assert capfd.readouterr() == ("", "")
    si.run_sorter("dlvolt", recording, folder=tmp_path / "loud", verbose=True, job_kwargs=dict(progress_bar=True))
    out, err = capfd.readouterr()
    assert re.search(r"dlvolt: 4 ROIs, and 0 without a signal\ndlvolt: \d+ spikes", out)
    assert "detect spikes" in err


def test_parameters_reach_the_sorter():
    defaults = si.get_default_sorter_params("dlvolt")
    assert defaults["modality"] == defaults["polarity"] == defaults["probability_threshold"] == "auto"
    assert set(si.get_sorter_params_description("dlvolt")) == set(defaults)
    assert SorterParameters(**defaults) == SorterParameters()


@pytest.mark.parametrize("positions", ["none", "probe", "pixels"])
def test_all_rois_dead_wherever_they_are(tmp_path, positions):
    recording = si.NumpyRecording(np.full((1000, 3), 3.0), RATE)
    if positions == "probe":
        recording.set_dummy_probe_from_locations(np.arange(6.0).reshape(3, 2))
    elif positions == "pixels":
        recording.set_property("centroid", np.arange(6.0).reshape(3, 2))
        recording.set_property("centroid_unit", ["pixels"] * 3)
    sorting = run(recording, tmp_path)
    assert sorting.get_property("flag").tolist() == ["dead"] * 3
    assert sorting.count_total_num_spikes() == 0
    with pytest.raises(ValueError, match="none of its ROIs has a signal"):
        dlvolt.roi_traces(recording, sorting)


def test_traces_of_curated_and_reordered_units(neurons, tmp_path):
    recording = si.NumpyRecording(neurons[0], RATE)
    sorting = run(recording, tmp_path, polarity=neurons[2], baseline_window_s=2.0)
    whole = dlvolt.roi_traces(recording, sorting)
    for ids in ([3, 2, 1, 0], [2, 0]):
        some = dlvolt.roi_traces(recording, sorting.select_units(ids))
        for name, traces in some.items():
            assert traces.channel_ids.tolist() == ids
            np.testing.assert_allclose(traces.get_traces(), whole[name].get_traces(channel_ids=ids), atol=1e-5)
    by_hand = dlvolt.roi_traces(recording, sorting, parameters=SorterParameters(baseline_window_s=2.0))
    np.testing.assert_array_equal(*(each["delta_f_over_f"].get_traces() for each in (by_hand, whole)))
    with pytest.raises(ValueError, match="sorting: unit 3 is no ROI of the recording"):
        dlvolt.roi_traces(recording.select_channels([0, 1, 2]), sorting)


def test_no_relative_change_without_a_baseline(neurons, tmp_path):
    traces = neurons[0].copy()
    traces[77, 3] = -1.0
    recording = si.NumpyRecording(traces, RATE)
    sorting = run(recording, tmp_path)
    with pytest.raises(ValueError, match="no ΔF/F, as the trace of ROI 3 reaches zero or below"):
        dlvolt.roi_traces(recording, sorting)
    assert list(dlvolt.roi_traces(recording, sorting, ["spike_probability"])) == ["spike_probability"]
    assert (
        abs(dlvolt.roi_traces(recording, sorting.select_units([0, 1, 2]))["delta_f_over_f"].get_traces().mean()) < 0.5
    )


def test_gains_count(neurons, tmp_path):
    settings = dict(polarity="auto", probability_threshold=0.5)
    (tmp_path / "plain").mkdir()
    traces = neurons[0][:2500]
    plain = run(si.NumpyRecording(traces, RATE), tmp_path / "plain", **settings)
    turned = si.NumpyRecording(5000 - traces, RATE)
    turned.set_channel_gains(-1.0)
    turned.set_channel_offsets(5000.0)
    scaled = run(turned, tmp_path, **settings)
    assert scaled.get_property("polarity").tolist() == plain.get_property("polarity").tolist() == neurons[2]
    for one, other in zip(trains(plain).values(), trains(scaled).values(), strict=True):
        assert event_scores(one / RATE, other / RATE, 0.001).f1 > 0.98


def test_firing_rates_are_those_of_the_time_seen(neurons, tmp_path):
    traces = np.concatenate([neurons[0], neurons[0]])[:, :1]
    traces[2500:] = np.nan
    sorting = run(si.NumpyRecording(traces, RATE), tmp_path)
    np.testing.assert_allclose(sorting.get_property("firing_rate"), sorting.count_total_num_spikes() / 5.0)


def test_electrodes_sampled_slowly_are_not_taken_for_rois(neurons, tmp_path):
    recording = si.NumpyRecording(neurons[0], 2500.0)
    recording.set_dummy_probe_from_locations(np.arange(8.0).reshape(4, 2))
    recording.set_channel_gains(0.195)
    recording.set_channel_offsets(0.0)
    with pytest.raises(ValueError, match=r"sampled at 2500.0 Hz; .* if channels are ROIs, say so: modality='optical'"):
        run(recording, tmp_path)
    recording.annotate(modality="Optical")
    with pytest.raises(ValueError, match="modality='Optical' must be 'optical', 'calcium' or 'extracellular'"):
        run(recording, tmp_path)
