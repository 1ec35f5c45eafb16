import gc
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch: threads that wait for each other are slow

import hypothesis
import pytest
import spikeinterface as si
from spikeinterface.postprocessing import template_similarity

hypothesis.settings.register_profile("dlvolt", derandomize=True, deadline=None, max_examples=40)
hypothesis.settings.load_profile("dlvolt")


def pytest_collection_finish():
    """Let the garbage collector pass over what is imported: SpikeInterface calls it for every chunk that it writes."""
    import torch  # noqa: F401  (imported by nearly all tests, sooner or later)

    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the checkout, or the one named by DLVOLT_SHARED_DATA."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DLVOLT_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real recordings in {folder}; set DLVOLT_SHARED_DATA to their folder")
    return folder


@pytest.fixture(autouse=True, scope="session")
def quiet_spikeinterface():
    """One job and no progress bars, unless a test says so."""
    si.set_global_job_kwargs(n_jobs=1, progress_bar=False, chunk_duration="1s")


@pytest.fixture(autouse=True, scope="session")
def similarity_by_numpy():
    """Export to Phy asks SpikeInterface for template similarities, which numba compiles for half a minute each time."""
    with pytest.MonkeyPatch.context() as patch:
        by_numpy = template_similarity._compute_similarity_matrix_numpy
        patch.setattr(template_similarity, "_compute_similarity_matrix", by_numpy)
        yield


@pytest.fixture(scope="session")
def ground_truth(tmp_path_factory):
    """Five units on eight channels for twenty seconds: a saved recording and its true sorting."""
    recording, sorting = si.generate_ground_truth_recording(
        durations=[20.0],
        sampling_frequency=30000.0,
        num_channels=8,
        num_units=5,
        generate_sorting_kwargs=dict(firing_rates=8.0, refractory_period_ms=4.0),
        seed=1,
    )
    return recording.save(folder=tmp_path_factory.mktemp("ground_truth") / "recording", verbose=False), sorting


@pytest.fixture(scope="session")
def true_templates(ground_truth):
    """Mean waveforms of the true units."""
    recording, sorting = ground_truth
    analyzer = si.create_sorting_analyzer(sorting, recording, sparse=False)
    analyzer.compute({"random_spikes": {"seed": 0}, "templates": {"ms_before": 1.0, "ms_after": 2.0}})
    return analyzer.get_extension("templates").get_data(outputs="Templates")
