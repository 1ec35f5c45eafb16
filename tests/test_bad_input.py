"""What is not a good recording, or not a parameter: a valid result, or one clear error and nothing left behind."""

import warnings

import numpy as np
import pytest
import spikeinterface.full as si
from probeinterface import generate_linear_probe

from dlvolt.parameters import SorterParameters

RATE = 20000.0


def noise(seconds=3.0, num_channels=4, seed=0):
    return np.random.default_rng(seed).normal(scale=10, size=(int(seconds * RATE), num_channels)).astype("float32")


def with_spikes(seconds=3.0, num_channels=4, units=(0, 2), rate=25.0, seed=1):
    """Noise of 10 µV and units whose spikes of -150 µV are seen by their channel and, half as large, by the next."""
    traces, rng = noise(seconds, num_channels), np.random.default_rng(seed)
    time = np.arange(60) - 20
    pulse = -np.exp(-((time / 4.0) ** 2)) + 0.3 * np.exp(-(((time - 15) / 8.0) ** 2))
    for unit in units:
        starts = np.cumsum(rng.integers(80, int(2 * RATE / rate) - 80, size=int(rate * seconds)))
        for start in starts[starts < len(traces) - 60]:
            traces[start : start + 60, unit] += 150 * pulse
            if unit + 1 < num_channels:
                traces[start : start + 60, unit + 1] += 75 * pulse
    return traces


def recording_of(folder, traces, probe=True, gain=None, offset=0.0):
    recording = si.NumpyRecording(traces, RATE)
    if gain is not None:
        recording.set_channel_gains(gain)
        recording.set_channel_offsets(offset)
    if probe:
        line = generate_linear_probe(traces.shape[1], ypitch=20)
        line.set_device_channel_indices(range(traces.shape[1]))
        recording.set_probe(line)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The extractor is not serializable")
        return recording.save(folder=folder / "recording", verbose=False)


def sort(recording, folder, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # no division by zero, no mean of nothing
        return si.run_sorter("dlvolt", recording, folder=folder / "sorted", **{"num_sweeps": 1} | parameters)


def assert_valid(sorting, recording):
    assert sorting.get_num_segments() == recording.get_num_segments()
    spikes = sorting.to_spike_vector()
    assert np.all(spikes["sample_index"] >= 0)
    assert np.all(spikes["sample_index"] < recording.get_num_samples(0))
    for key in ("snr", "amplitude"):
        assert np.all(np.isfinite(sorting.get_property(key)))
    assert len(sorting.get_property("main_channel_id")) == len(sorting.unit_ids)


def damaged(traces, how):
    traces = traces.copy()
    if how == "a few NaN":
        traces[1000:1010, 1] = np.nan
        traces[30_000, :] = np.inf
    elif how == "a channel of NaN":
        traces[:, 3] = np.nan
    elif how == "a constant channel":
        traces[:, 3] = 1234.5
    elif how == "a channel of zeros":
        traces[:, 3] = 0
    elif how == "a saturated channel":
        traces[:, 3] = 3000.0 * np.sign(np.sin(np.arange(len(traces)) / 2500))  # from rail to rail
    elif how == "a loud channel":
        traces[:, 3] *= 300
    elif how == "saturated for a while":
        traces[20_000:24_000] = 3000.0
    elif how == "a large offset":
        traces += 5000
    else:
        raise AssertionError(how)
    return traces


@pytest.mark.parametrize(
    "how",
    [
        "a few NaN",
        "a channel of NaN",
        "a constant channel",
        "a channel of zeros",
        "a saturated channel",
        "a loud channel",
        "saturated for a while",
        "a large offset",
    ],
)
def test_damaged_channels_leave_the_others_sorted(tmp_path, how):
    recording = recording_of(tmp_path, damaged(with_spikes(units=(0,)), how))
    sorting = sort(recording, tmp_path)
    assert_valid(sorting, recording)
    largest = max(sorting.count_num_spikes_per_unit().values(), default=0)
    assert 50 <= largest <= 90  # about 70 were planted


def test_missing_samples_where_a_network_looks_at_the_peaks(tmp_path):
    """The network sees the traces that are not whitened, and these must be finite too."""
    recording = recording_of(tmp_path, damaged(with_spikes(units=(0,)), "a channel of NaN"))
    sorting = sort(recording, tmp_path, peak_model="waveform_cnn")
    assert_valid(sorting, recording)
    assert 50 <= max(sorting.count_num_spikes_per_unit().values(), default=0) <= 90


@pytest.mark.parametrize(
    "traces",
    [
        noise(),
        np.zeros((60_000, 4), dtype="float32"),
        np.full((60_000, 4), 700.0, dtype="float32"),
        np.full((60_000, 4), np.nan, dtype="float32"),
    ],
    ids=["pure noise", "zeros", "constant", "NaN"],
)
def test_zero_spikes_give_an_empty_sorting(tmp_path, traces):
    recording = recording_of(tmp_path, traces)
    sorting = sort(recording, tmp_path)
    assert_valid(sorting, recording)
    assert len(sorting.unit_ids) == 0
    assert len(si.load(tmp_path / "sorted" / "sorter_output" / "sorting").unit_ids) == 0


def test_one_unit(tmp_path):
    recording = recording_of(tmp_path, with_spikes(units=(1,)))
    sorting = sort(recording, tmp_path)
    assert_valid(sorting, recording)
    assert len(sorting.unit_ids) == 1


def test_one_channel(tmp_path):
    recording = recording_of(tmp_path, with_spikes(num_channels=1, units=(0,)))
    sorting = sort(recording, tmp_path)
    assert_valid(sorting, recording)
    assert len(sorting.unit_ids) == 1


@pytest.mark.parametrize("seconds", [0.02, 0.3])
def test_a_short_recording(tmp_path, seconds):
    recording = recording_of(tmp_path, with_spikes(seconds=3.0)[: int(seconds * RATE)])
    assert_valid(sort(recording, tmp_path), recording)


def test_the_scale_of_the_traces_does_not_matter(tmp_path):
    """int16 and uint16 steps, with and without gains, and float µV hold the same spikes."""
    volts = with_spikes()
    as_recorded = {
        "float": (volts, None, 0.0),
        "double": (volts.astype("float64"), None, 0.0),
        "int16": (np.round(volts / 0.195).astype("int16"), 0.195, 0.0),
        "unscaled": (np.round(volts / 0.195).astype("int16"), None, 0.0),
        "uint16": (np.round(volts / 0.195 + 2**15).astype("uint16"), 0.195, -0.195 * 2**15),
    }
    found = {}
    for name, (traces, gain, offset) in as_recorded.items():
        (tmp_path / name).mkdir()
        recording = recording_of(tmp_path / name, traces, gain=gain, offset=offset)
        found[name] = sort(recording, tmp_path / name)
        assert_valid(found[name], recording)
    assert len(found["float"].unit_ids) == 2
    for sorting in found.values():
        comparison = si.compare_two_sorters(found["float"], sorting, delta_time=0.1)
        agreement = comparison.agreement_scores.to_numpy()
        assert agreement.shape == (2, 2)
        assert np.all(agreement.max(axis=1) > 0.98)


def refuses(recording, folder, match, **parameters):
    """One error that says what is wrong; afterwards there is no folder."""
    with pytest.raises((ValueError, TypeError), match=match) as error:
        sort(recording, folder, **parameters)
    assert "Traceback" not in str(error.value)
    assert not (folder / "sorted").exists()


def test_no_channels(tmp_path):
    recording = recording_of(tmp_path, noise(), probe=False)
    refuses(recording.select_channels([]), tmp_path, "recording.*no channels")


def test_no_locations(tmp_path):
    refuses(recording_of(tmp_path, noise(), probe=False), tmp_path, r"recording.*locations.*set_probe")


def test_too_few_samples(tmp_path):
    refuses(recording_of(tmp_path, noise()).frame_slice(0, 5), tmp_path, "recording.*segment 0 has 5 samples")


def test_not_a_recording(tmp_path):
    with pytest.raises((ValueError, TypeError), match=r"[Rr]ecording"):
        si.run_sorter("dlvolt", noise(), folder=tmp_path / "sorted")
    assert not (tmp_path / "sorted").exists()


@pytest.fixture(scope="module")
def good_recording(tmp_path_factory):
    return recording_of(tmp_path_factory.mktemp("good"), with_spikes())


def test_unknown_parameter(tmp_path, good_recording):
    refuses(good_recording, tmp_path, "thresold", thresold=4)


NUMBERS = [
    "freq_min",
    "whitening_radius_um",
    "detect_threshold",
    "detection_radius_um",
    "ms_before",
    "ms_after",
    "radius_um",
    "num_temporal_components",
    "rank",
    "refractory_ms",
    "clustering_duration_s",
    "learning_duration_s",
    "num_sweeps",
]
WRONG = [
    *((name, value) for name in NUMBERS if name in SorterParameters.defaults() for value in (0, "a lot", np.nan)),
    ("rank", 2.5),
    ("num_sweeps", 1.5),
    ("num_temporal_components", 2.5),
    ("peak_sign", "up"),
    ("amplitude_min", 1.2),
    ("amplitude_max", 0.9),
    ("min_firing_rate", -1),
    ("min_firing_rate", "often"),
    ("device", "toaster"),
    ("freq_min", RATE),
    ("seed", "a"),
    ("seed", -1),
    ("job_kwargs", {"n_job": 2}),
    ("job_kwargs", 4),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values(tmp_path, good_recording, name, value):
    refuses(good_recording, tmp_path, name, **{name: value})


def test_existing_folder_is_kept(tmp_path, good_recording):
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        sort(good_recording, tmp_path)
    assert (tmp_path / "sorted" / "precious.txt").read_text() == "mine"
