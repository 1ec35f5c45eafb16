"""Processes that import nothing but SpikeInterface sort with dlvolt: one of each kind is started here."""

import os
import subprocess
import sys

import numpy as np
import pytest
import spikeinterface.full as si

SCRIPT = """
import sys
import spikeinterface.full as si

{imports}

if __name__ == "__main__":
    recording = si.load(sys.argv[1])
    jobs = [dict(sorter_name="dlvolt", recording=recording, folder=sys.argv[2])]
    {run}
"""

ENGINES = {
    "loky": ("", "si.run_sorter_jobs(jobs, engine='joblib', engine_kwargs=dict(n_jobs=2, backend='loky'))"),
    **{
        method: (
            "import multiprocessing",
            "si.run_sorter_jobs(jobs, engine='processpoolexecutor', "
            f"engine_kwargs=dict(max_workers=1, mp_context=multiprocessing.get_context({method!r})))",
        )
        for method in ("spawn", "forkserver", "fork")
    },
    "dask": (
        "from dask.distributed import Client, LocalCluster",
        "with LocalCluster(n_workers=1, processes=True, threads_per_worker=1, dashboard_address=None) as cluster, "
        "Client(cluster) as client: si.run_sorter_jobs(jobs, engine='dask', engine_kwargs=dict(client=client))",
    ),
    "slurm": ("", "si.run_sorter_jobs(jobs, engine='slurm', engine_kwargs=dict(tmp_script_folder=sys.argv[3]))"),
}

SBATCH = """#!/bin/sh
# A cluster of one: run the script, the last argument, as slurm would, with the interpreter in its first line.
for script; do :; done
exec "$script"
"""


@pytest.fixture(scope="module")
def recording_folder(tmp_path_factory):
    recording, _ = si.generate_ground_truth_recording(
        durations=[3.0],
        sampling_frequency=20000.0,
        num_channels=4,
        num_units=2,
        generate_sorting_kwargs=dict(firing_rates=30.0, refractory_period_ms=4.0),
        seed=0,
    )
    folder = tmp_path_factory.mktemp("workers") / "recording"
    recording.save(folder=folder, verbose=False)
    return folder


@pytest.fixture(scope="module")
def expected(recording_folder, tmp_path_factory):
    """What this process finds."""
    folder = tmp_path_factory.mktemp("expected") / "sorted"
    spikes = si.run_sorter("dlvolt", si.load(recording_folder), folder=folder).to_spike_vector()
    assert len(spikes) > 50
    return spikes


@pytest.mark.skipif(os.name != "posix", reason="fork, forkserver and sbatch are of Unix")
@pytest.mark.parametrize("kind", ENGINES)
def test_worker_knows_dlvolt(tmp_path, recording_folder, expected, kind):
    imports, run = ENGINES[kind]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(imports=imports, run=run))
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "sbatch").write_text(SBATCH)
    (bin_folder / "sbatch").chmod(0o755)
    done = subprocess.run(
        [sys.executable, script, recording_folder, tmp_path / "sorted", tmp_path / "jobs"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    sorting = si.read_sorter_folder(tmp_path / "sorted")
    np.testing.assert_array_equal(sorting.to_spike_vector(), expected)
