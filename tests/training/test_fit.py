import numpy as np
import pytest
from sklearn.metrics import f1_score

from dlvolt import training
from dlvolt.networks import create, load, save, trace_probability
from dlvolt.training.fit import best_detection_threshold, best_threshold, event_times, scores

FS = 1000.0
WINDOWS = dict(window_samples=50, overlap_samples=10, prune_samples=0)
TINY = {
    "mel_svm": {},
    "tcn": dict(channels=(8, 8), lr=0.01, max_epochs=10, batch_size=8),
    "transformer": dict(d_model=16, num_layers=1, feedforward=32, dropout=0.0, lr=0.01, max_epochs=25, batch_size=8),
    "bilstm": dict(hidden_size=16, lr=0.03, max_epochs=15, batch_size=8),
    "fcn": dict(channels=(8, 8), lr=0.02, max_epochs=10, batch_size=8),
    "unet": dict(base_channels=8, depth=2, lr=0.02, max_epochs=10, batch_size=8),
}


def tiny(architecture="fcn", **settings):
    return create(architecture, **WINDOWS, **{**TINY[architecture], **settings})


@pytest.mark.parametrize("architecture", TINY)
def test_every_network_finds_obvious_spikes(architecture, labelled, tmp_path):
    trace, spikes = labelled()
    model = tiny(architecture)
    assert training.fit(model, trace, spikes, sampling_frequency=FS) is model
    assert model.test_scores_["f1"] > 0.9
    assert model.test_scores_["num_spike_samples"] == spikes[2550:].sum() > 5

    new, true = labelled(seed=1)
    model = load(save(model, tmp_path))
    probability = trace_probability(model, lambda start, end: new[start:end, None], len(new))[:, 0]
    assert f1_score(true, probability >= model.threshold) > 0.9


def test_labels_of_all_kinds_and_traces_of_all_shapes_train_the_same(labelled):
    (first, spikes), (second, others) = labelled(2000), labelled(2000, seed=1)
    table, table_labels = np.stack([first, second], axis=1), np.stack([spikes, others], axis=1)
    seconds = [np.flatnonzero(each) / FS for each in (spikes, others)]
    frames = [np.flatnonzero(each) for each in (spikes, others)]
    answers = [
        training.fit(tiny(max_epochs=2), traces, labels, sampling_frequency=FS).predict_proba(first[None])
        for traces, labels in [
            (table, table_labels),
            (table.astype("float32"), seconds),
            ([first, second], frames),
            ([first, second], [spikes, seconds[1]]),
        ]
    ]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_traces_of_different_lengths_and_hardly_longer_than_a_window(labelled):
    (long, spikes), (short, others) = labelled(2000), labelled(60, seed=3)
    model = training.fit(tiny(max_epochs=1), [long, short], [spikes, others], sampling_frequency=FS)
    assert model.test_scores_["num_spike_samples"] == spikes[1700:].sum() + others[51:].sum()


def test_same_seed_same_result(labelled):
    trace, spikes = labelled(1000)

    def answer(seed):
        model = training.fit(tiny(max_epochs=2), trace, spikes, sampling_frequency=FS, seed=seed)
        return model.threshold, model.predict_proba(trace[None]).tolist()

    assert answer(0) == answer(0)
    assert answer(0) != answer(1)


def test_the_model_learns_its_sampling_frequency_and_keeps_it(labelled):
    trace, spikes = labelled(1000)
    model = training.fit(tiny("tcn", max_epochs=1), trace, spikes, sampling_frequency=FS)
    assert model.sampling_frequency == FS
    with pytest.raises(
        ValueError, match="sampling_frequency: the model works at 1000 Hz but the traces come at 500 Hz"
    ):
        training.fit(model, trace, spikes, sampling_frequency=500.0)


def test_silent_unless_verbose(labelled, capfd):
    trace, spikes = labelled(1000)
    training.fit(tiny(max_epochs=2), trace, spikes, sampling_frequency=FS)
    assert capfd.readouterr() == ("", "")


def test_the_threshold_lies_between_what_it_separates():
    truth = np.array([0, 0, 1, 0, 1, 1])
    probability = np.array([0.1, 0.2, 0.8, 0.1, 0.9, 0.95], dtype="float32")
    assert best_threshold(truth, probability) == pytest.approx(0.5)  # half way from 0.2 to 0.8 in log odds
    assert best_threshold(truth, probability.clip(0.1, 0.2)) == pytest.approx(1 / 7)  # odds 1:9 and 1:4
    assert best_threshold(np.zeros(6), probability) == 0.5
    assert best_threshold(truth, truth.astype("float32")) == pytest.approx(0.5)


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    truth = (rng.random(200) < 0.1).astype(int)
    probability = (0.3 * truth + 0.6 * rng.random(200)).astype("float32")
    best = max(f1_score(truth, probability >= threshold) for threshold in probability)
    assert f1_score(truth, probability >= best_threshold(truth, probability)) == best


def test_scores_of_nothing_to_find():
    model = create("fcn", sampling_frequency=FS)
    nothing = scores(model, np.zeros(5, int), np.zeros(5), 0.5, 0.5)
    assert nothing["f1"] == nothing["event_f1"] == 1.0
    something = scores(model, np.zeros(5, int), np.ones(5), 0.5, 0.5)
    assert something["precision"] == something["event_precision"] == 0.0


RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=200)
SPIKES = np.zeros(200, int)
SPIKES[::20] = 1
HOLE = NOISE.copy()
HOLE[7] = np.nan
BAD = {
    "short": (NOISE[:49], SPIKES[:49], {}, r"traces: trace 0 has 49 samples, fewer than a window \(50\); leave it out"),
    "short one": ([NOISE, NOISE[:9]], [SPIKES, SPIKES[:9]], {}, "traces: trace 1 has 9 samples"),
    "constant": (np.ones(200), SPIKES, {}, "traces: trace 0 is constant, .*leave it out"),
    "NaN": (HOLE, SPIKES, {}, "traces: trace 0 has samples that are NaN or infinite; fill them"),
    "cube": (np.zeros((2, 2, 200)), SPIKES, {}, r"traces must have the shape \(T,\) or \(T, N\)"),
    "list of tables": ([np.zeros((200, 2))], [SPIKES], {}, r"traces: trace 0 of the list has the shape \(200, 2\)"),
    "none": ([], [], {}, "traces: there is none"),
    "wrong length": (NOISE, SPIKES[:150], {}, r"labels\[0\] has 150 values 0 and 1, but the trace has 200 samples"),
    "labels of one": ([NOISE, NOISE], [SPIKES], {}, "labels: there are 2 traces, so give a list of 2 arrays"),
    "no spike": (NOISE, 0 * SPIKES, {}, "labels: there is not a single spike in them; label some"),
    "no times": (NOISE, [[]], {}, "labels: there is not a single spike in them; label some"),
    "only late": (NOISE, [[190]], {}, "labels: no spike lies in the first 70 % of any trace"),
    "rate": (NOISE, SPIKES, {"sampling_frequency": 0.0}, "sampling_frequency must be positive, in Hz, not 0.0"),
    "rate word": (
        NOISE,
        SPIKES,
        {"sampling_frequency": "fast"},
        "sampling_frequency must be positive, in Hz, not 'fast'",
    ),
}


@pytest.mark.parametrize("architecture", ["fcn", "mel_svm"])
@pytest.mark.parametrize(("traces", "labels", "settings", "message"), BAD.values(), ids=BAD)
def test_bad_input_gets_one_clear_error_before_training(architecture, traces, labels, settings, message):
    model = tiny(architecture)
    with pytest.raises(ValueError, match=message):
        training.fit(model, traces, labels, **{"sampling_frequency": FS, **settings})
    assert model.sampling_frequency is None
    assert not hasattr(model, "classes_")


def test_events_are_the_middles_of_runs():
    truth = np.array([1, 0, 0, 1, 1, 1, 0, 0, 1, 1], dtype="int8")
    np.testing.assert_allclose(event_times(truth, 10.0), [0.0, 0.4, 0.85])
    assert len(event_times(np.zeros(5, dtype="int8"), 10.0)) == 0


def test_the_detection_threshold_is_that_of_events():
    model = create("fcn", channels=(8,), window_samples=100, detection_threshold=None)
    model.set_params(sampling_frequency=1000.0)
    truth, probability = np.zeros(1000, dtype="int8"), np.zeros(1000)
    truth[100:1000:100] = 1
    probability[102:1000:100] = 0.3  # two samples late: right for events, wrong for samples
    probability[50:1000:250] = 0.1
    threshold = best_detection_threshold(model, truth, probability)
    assert 0.1 < threshold <= 0.3
    found = scores(model, truth, probability, threshold, threshold)
    assert (found["event_f1"], found["f1"]) == (1, 0)
    assert best_detection_threshold(model, 0 * truth, probability) is None
