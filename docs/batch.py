"""Sort three recordings at once with dask: ``python docs/batch.py FOLDER``. The second one fails; the others finish."""

import sys
from pathlib import Path

import spikeinterface.full as si
from dask.distributed import Client, LocalCluster


def sort_all(recordings, folder, client):
    """Sort recordings, given by name; return the sortings, and the errors of those that failed, each by name."""
    running = {
        name: client.submit(si.run_sorter, "dlvolt", recording, folder=folder / name, with_output=False)
        for name, recording in recordings.items()
    }
    errors = {name: future.exception() for name, future in running.items()}  # waits for each
    return {name: si.read_sorter_folder(folder / name) for name in errors if errors[name] is None}, {
        name: error for name, error in errors.items() if error is not None
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    recordings = {}
    for seed, name in enumerate(["monday", "tuesday", "wednesday"]):
        made, _ = si.generate_ground_truth_recording(durations=[20.0], num_channels=8, num_units=4, seed=seed)
        recordings[name] = made.save(folder=folder / "recordings" / name, n_jobs=1, progress_bar=False)
    raw = folder / "recordings" / "tuesday" / "traces_cached_seg0.raw"
    recordings["tuesday"] = si.read_binary(raw, 25_000.0, "float32", num_channels=8)  # without its probe

    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        sortings, errors = sort_all(recordings, folder, client)
    for name, sorting in sortings.items():
        print(f"{name}: {sorting.get_num_units()} units")
    for name, error in errors.items():
        print(f"{name}: {error}")
