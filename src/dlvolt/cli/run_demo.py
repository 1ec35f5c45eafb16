"""The work of ``dlvolt demo``: simulate a recording with known spikes, sort it, and compare with the truth."""

from __future__ import annotations

import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import spikeinterface as si
from matplotlib.figure import Figure
from spikeinterface.comparison import compare_sorter_to_ground_truth
from spikeinterface.core import BaseRecording, BaseSorting, generate_ground_truth_recording
from spikeinterface.sorters import run_sorter

from dlvolt.analysis import analyze
from dlvolt.io import write_nwb_units
from dlvolt.parameters import SorterParameters
from dlvolt.plotting import plot_sorting_summary


class Demo(NamedTuple):
    """The results of the demo."""

    sorting: BaseSorting
    truth: BaseSorting
    performance: pd.DataFrame  # of each true unit: unit, spikes, accuracy, recall, precision
    nwb_file: Path
    figure_file: Path


def simulate(duration_s: float = 60.0, seed: int = 7) -> tuple[BaseRecording, BaseSorting]:
    """Simulate 18 units around a probe of 32 channels, two columns 20 µm apart.

    Parameters
    ----------
    duration_s : float
        Length, s.
    seed : int
        Same seed, same recording.

    Returns
    -------
    recording : BaseRecording
        30 kHz, µV, noise of 8 µV.
    truth : BaseSorting
        The spikes of its units.
    """
    return generate_ground_truth_recording(
        durations=[duration_s],
        num_channels=32,
        num_units=18,
        sampling_frequency=30_000.0,
        generate_sorting_kwargs=dict(firing_rates=(1.0, 10.0), refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(margin_um=10.0, minimum_z=5.0, maximum_z=40.0, minimum_distance=20.0),
        noise_kwargs=dict(noise_levels=8.0, strategy="on_the_fly"),
        seed=seed,
    )


def run_demo(folder: str | Path, *, duration_s: float = 60.0, n_jobs: int = -1, verbose: bool = False) -> Demo:
    """Simulate a recording, sort it, compare with the truth, write an NWB file and a figure.

    Parameters
    ----------
    folder : path
        Folder for ``dlvolt_demo.nwb`` and ``dlvolt_demo.png``, made if it does not exist. Files of an earlier demo are
        replaced.
    duration_s : float
        Length of the recording, s.
    n_jobs : int
        Number of workers; -1 takes all cores.
    verbose : bool
        Whether to print what is done, progress bars and the table.

    Returns
    -------
    Demo
        The units found, their scores and the paths of the files.
    """
    started = time.monotonic()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    say = print if verbose else lambda *_: None
    job_kwargs = dict(n_jobs=n_jobs, progress_bar=verbose, pool_engine="thread")

    with tempfile.TemporaryDirectory(prefix="dlvolt-") as scratch:
        say(f"dlvolt: simulating {duration_s:g} s of 18 units on 32 channels")
        recording, truth = simulate(duration_s)
        recording = recording.save(folder=Path(scratch) / "recording", verbose=False, **job_kwargs)
        sorting = run_sorter(
            "dlvolt", recording, folder=Path(scratch) / "sorting", verbose=verbose, job_kwargs=job_kwargs
        )
        analyzer = analyze(sorting, recording, SorterParameters(), job_kwargs=job_kwargs)
        nwb_file = write_nwb_units(
            analyzer,
            folder / "dlvolt_demo.nwb",
            metadata={
                "NWBFile": {
                    "session_description": "Simulated recording of the dlvolt demo.",
                    "session_start_time": datetime.now().astimezone().isoformat(),
                },
                "Subject": {
                    "subject_id": "simulated",
                    "description": "No animal: the recording is simulated.",
                    "species": "Rattus norvegicus",  # archives ask for the species of an animal
                    "sex": "U",
                    "age": "P0D/",
                },
            },
            overwrite=True,
        )
        figure = plot_sorting_summary(analyzer, truth, figure=Figure(figsize=(13, 7), layout="constrained"))
        figure_file = folder / "dlvolt_demo.png"
        figure.savefig(figure_file, dpi=150)
        sorting = si.NumpySorting.from_sorting(sorting)  # in memory, as the scratch folder is deleted
        truth = si.NumpySorting.from_sorting(truth)

    performance = measure(sorting, truth)
    say(f"\n{performance.to_string(index=False, float_format='{:.3f}'.format)}\n")
    say(
        f"{len(sorting.unit_ids)} units found, {len(truth.unit_ids)} in the truth; mean accuracy "
        f"{performance['accuracy'].mean():.3f}; {time.monotonic() - started:.0f} s in all\n"
        f"units:  {nwb_file}\nfigure: {figure_file}"
    )
    return Demo(sorting, truth, performance, nwb_file, figure_file)


def measure(sorting: BaseSorting, truth: BaseSorting) -> pd.DataFrame:
    """Return how well each true unit was found.

    Parameters
    ----------
    sorting, truth : BaseSorting
        The units found, and the true ones.

    Returns
    -------
    DataFrame
        A row for each true unit: ``true unit``, its ``spikes``, the ``found`` unit that matches it ("-" if none
        does), and that unit's ``accuracy``, ``recall`` and ``precision``.
    """
    comparison = compare_sorter_to_ground_truth(truth, sorting, exhaustive_gt=True)
    scores = comparison.get_performance()[["accuracy", "recall", "precision"]].astype(float)
    found = comparison.hungarian_match_12.astype(object).where(lambda unit: unit != -1, "-")
    spikes = pd.Series(truth.count_num_spikes_per_unit(outputs="dict"))
    return scores.assign(**{"true unit": truth.unit_ids, "spikes": spikes, "found": found})[
        ["true unit", "spikes", "found", "accuracy", "recall", "precision"]
    ].reset_index(drop=True)
