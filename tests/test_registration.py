"""dlvolt is known to SpikeInterface by name, in every process, and costs next to nothing until it is used."""

import os
import subprocess
import sys
import textwrap
from pkgutil import resolve_name

import numpy as np
import pytest
import spikeinterface.full as si
from matched_network import bumps, save_matched_network
from spikeinterface.core import BaseRecording
from spikeinterface.preprocessing.pipeline import (
    PreprocessingPipeline,
    apply_preprocessing_pipeline,
    get_preprocessing_list_from_file,
)
from spikeinterface.sortingcomponents.matching import find_spikes_from_templates

import _dlvolt_autoload
from dlvolt.preprocessing import (
    FillNanRecording,
    WhitenNoiseRecording,
    delta_f_over_f,
    fill_nan,
    notch_comb,
    spike_probability,
    whiten_noise,
)
from dlvolt.registration import ENTRIES
from dlvolt.sorter import DlvoltSorter


def in_fresh_interpreter(script, **environment):
    """Run a script; return what it printed, and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_the_autoload_file_names_the_registry_modules():
    assert {entry.module for entry in ENTRIES} == _dlvolt_autoload.REGISTRY_MODULES


def test_the_checkout_and_the_interpreter_have_the_same_autoload_file(request):
    source = request.config.rootpath / "src" / "_dlvolt_autoload.py"
    if not source.is_file():
        pytest.skip("not in a checkout")
    with open(_dlvolt_autoload.__file__, encoding="utf8") as installed:
        assert installed.read() == source.read_text(encoding="utf8"), "install again: pip install -e ."


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.registry}-{entry.key.split(':')[-1]}")
def test_entries_are_made(entry):
    registry = getattr(resolve_name(entry.module), entry.registry)
    ours = resolve_name(entry.ours)
    if isinstance(registry, dict):
        assert registry[resolve_name(entry.key) if ":" in entry.key else entry.key] is ours
    else:
        assert registry.count(ours) == 1


KNOWN = """
from spikeinterface.sorters import sorter_dict
from spikeinterface.preprocessing.preprocessing_classes import _all_preprocesser_dict, preprocessor_dict
from spikeinterface.preprocessing.pipeline import pp_names_to_functions
from spikeinterface.sortingcomponents.matching.method_list import matching_methods
from spikeinterface.sortingcomponents.peak_detection.method_list import detect_peak_methods
from spikeinterface.sortingcomponents.clustering.method_list import clustering_methods
print("dlvolt" in sorter_dict, "dlvolt" in matching_methods, "dlvolt" in detect_peak_methods,
      "dlvolt-dbscan" in clustering_methods,
      {"whiten_noise", "spike_probability"} <= set(pp_names_to_functions),
      "FillNanRecording" in preprocessor_dict, "FillNanRecording" in {c.__name__ for c in _all_preprocesser_dict})
"""
ALL_KNOWN = " ".join(["True"] * 7)
NONE_KNOWN = " ".join(["False"] * 7)


@pytest.mark.parametrize(
    "first",
    [
        "spikeinterface.full",
        # modules of ours that import SpikeInterface's registries while they are imported themselves
        "dlvolt.sorter",
        "dlvolt.electrodes.matching",
        "dlvolt.preprocessing.spike_probability",
        "dlvolt.detection.network",
        "dlvolt.electrodes.clustering.dbscan",
    ],
)
def test_known_whatever_is_imported_first(first):
    out, err = in_fresh_interpreter(f"import {first}\n{KNOWN}")
    assert out == ALL_KNOWN
    assert "dlvolt" not in err


def test_autoload_can_be_switched_off_and_done_by_hand():
    script = f"{KNOWN}\nimport dlvolt\n{KNOWN}"  # the second time, the registries are imported already
    out, err = in_fresh_interpreter(script, DLVOLT_AUTOLOAD="0")
    assert out.splitlines() == [NONE_KNOWN, ALL_KNOWN]
    assert "dlvolt" not in err


def test_nothing_heavy_is_loaded_before_it_is_needed():
    out, _ = in_fresh_interpreter("import sys; print([m for m in sys.modules if m.startswith('dlvolt')])")
    assert out == "[]"
    out, _ = in_fresh_interpreter(
        """
        import sys, time
        start = time.perf_counter()
        import dlvolt
        print(time.perf_counter() - start)
        print([m for m in ("torch", "sklearn", "spikeinterface", "numpy", "scipy") if m in sys.modules])
        """
    )
    seconds, loaded = out.splitlines()
    assert float(seconds) < 0.1
    assert loaded == "[]"


SLOW = ("torch", "sklearn", "scipy.signal", "scipy.linalg")


@pytest.mark.parametrize("module", ["spikeinterface.sorters", "spikeinterface.preprocessing"])
def test_importing_spikeinterface_imports_nothing_slow_through_dlvolt(module):
    script = f"import sys, {module}; print([m for m in {SLOW} if m in sys.modules])"
    with_dlvolt, _ = in_fresh_interpreter(script)
    without, _ = in_fresh_interpreter(script, DLVOLT_AUTOLOAD="0")
    assert with_dlvolt == without


def test_a_broken_dlvolt_warns_and_does_not_break_spikeinterface(tmp_path):
    broken = tmp_path / "dlvolt"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('half installed')")
    out, err = in_fresh_interpreter(KNOWN, PYTHONPATH=str(tmp_path))
    assert out == NONE_KNOWN
    assert "dlvolt could not register itself with spikeinterface.sorters.sorterlist" in err
    assert "half installed" in err


def test_installing_twice_registers_once():
    before = list(sys.meta_path)
    _dlvolt_autoload.install()
    assert sys.meta_path == before
    _dlvolt_autoload.register("spikeinterface.sorters.sorterlist")
    assert resolve_name("spikeinterface.sorters.sorterlist").sorter_full_list.count(DlvoltSorter) == 1


def test_sorter_by_name():
    assert "dlvolt" in si.available_sorters()
    assert "dlvolt" in si.installed_sorters()
    defaults = si.get_default_sorter_params("dlvolt")
    assert list(defaults) == list(si.get_sorter_params_description("dlvolt"))
    assert all(si.get_sorter_params_description("dlvolt").values())


def small_recording(folder) -> BaseRecording:
    recording = si.generate_recording(num_channels=4, durations=[1.0], sampling_frequency=20000.0, seed=0)
    return recording.save(folder=folder, verbose=False)


def test_preprocessors_by_name(tmp_path):
    recording = small_recording(tmp_path / "recording")
    steps = [
        {"name": "fill_nan", "params": {"value": 1.0}},
        {"name": "highpass_filter"},
        {"name": "whiten_noise", "params": {"temporal_ms": 0.2}},
    ]
    piped = apply_preprocessing_pipeline(recording, steps)
    by_hand = whiten_noise(si.highpass_filter(fill_nan(recording, value=1.0)), temporal_ms=0.2)
    np.testing.assert_array_equal(piped.get_traces(), by_hand.get_traces())
    assert "whiten_noise" in repr(PreprocessingPipeline(steps))


def test_imaging_preprocessors_by_name(tmp_path):
    rate, spikes = 500.0, np.arange(0.2, 3.8, 0.3)
    turned = np.array([1, -1]) * bumps(spikes, round(4 * rate), rate)[:, None]
    traces = 50 + 3 * turned + np.random.default_rng(0).normal(scale=0.2, size=turned.shape)
    recording = si.NumpyRecording(traces, rate)
    model = save_matched_network(tmp_path / "model")
    steps = [
        {"name": "notch_comb", "params": {"freq": 60.0}},
        {"name": "delta_f_over_f", "params": {"window_s": 2.0}},
        {"name": "spike_probability", "params": {"model": model}},
    ]
    piped = apply_preprocessing_pipeline(recording, steps)
    by_hand = spike_probability(delta_f_over_f(notch_comb(recording, freq=60.0), window_s=2.0), model=model)
    np.testing.assert_array_equal(piped.get_traces(), by_hand.get_traces())
    assert piped.get_property("polarity").tolist() == ["positive", "negative"]

    # What was inferred from one recording is inferred anew from another, unless it is to be applied as it is.
    steps[-1]["params"]["inferred_polarity"] = ["negative", "positive"]
    for as_it_is, polarity in ((True, ["negative", "positive"]), (False, ["positive", "negative"])):
        again = apply_preprocessing_pipeline(recording, steps, apply_precomputed_kwargs=as_it_is)
        assert again.get_property("polarity").tolist() == polarity

    spread = apply_preprocessing_pipeline(recording, [{"name": "feature_channels"}, {"name": "mel_spectrogram"}])
    assert spread.channel_ids[[0, -1]].tolist() == ["0:raw:mel0", "1:median:mel6"]


@pytest.mark.parametrize("ending", ["json", "pkl"])
def test_provenance_round_trip(tmp_path, ending):
    recording = whiten_noise(fill_nan(small_recording(tmp_path / "recording"), value=2.0), temporal_ms=0.2)
    path = tmp_path / f"recording.{ending}"
    recording.dump(path)
    loaded = si.load(path)
    assert type(loaded) is WhitenNoiseRecording
    assert type(loaded._kwargs["recording"]) is FillNanRecording
    np.testing.assert_array_equal(loaded.get_traces(), recording.get_traces())

    steps = get_preprocessing_list_from_file(path)
    assert [step["name"] for step in steps] == ["fill_nan", "whiten_noise"]
    again = apply_preprocessing_pipeline(si.load(tmp_path / "recording"), steps)
    np.testing.assert_array_equal(again.get_traces(), recording.get_traces())


def test_matching_by_name(ground_truth, true_templates):
    recording, sorting = ground_truth
    one_second = recording.frame_slice(0, 30000)
    spikes = find_spikes_from_templates(one_second, true_templates, method="dlvolt", job_kwargs=dict(n_jobs=1))
    assert spikes.dtype.names == ("sample_index", "channel_index", "cluster_index", "amplitude", "segment_index")
    num_true = len(sorting.frame_slice(0, 30000).to_spike_vector())
    assert len(spikes) == pytest.approx(num_true, rel=0.1)
