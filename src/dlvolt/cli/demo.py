"""``dlvolt demo``: simulate a recording with known spikes, sort it, and compare with the truth."""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dlvolt.cli.arguments import Commands, Parser, add_job_arguments, positive

if TYPE_CHECKING:
    import pandas as pd
    from spikeinterface.core import BaseRecording, BaseSorting

METADATA = {
    "NWBFile": {"session_description": "Simulated recording of the dlvolt demo."},
    "Subject": {
        "subject_id": "simulated",
        "description": "No animal: the recording is simulated.",
        "species": "Rattus norvegicus",  # archives ask for the species of an animal
        "sex": "U",
        "age": "P0D/",
    },
}


def add_command(commands: Commands) -> None:
    """Add ``dlvolt demo`` and its flags."""
    command = commands.add_parser(
        "demo",
        help="sort a simulated recording and show how right that is",
        description="Simulate one minute of 18 units on 32 channels, sort it, compare with the truth, and write an "
        "NWB file and a figure.",
    )
    command.set_defaults(run=demo)
    command.add_argument("--out", type=Path, default=Path("dlvolt_demo"), metavar="FOLDER", help="default: dlvolt_demo")
    command.add_argument("--duration", type=positive(float), default=60.0, metavar="SECONDS", help="default: 60")
    add_job_arguments(command)


def demo(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt demo``; files of an earlier demo are replaced."""
    if args.out.exists() and not args.out.is_dir():
        parser.error(f"--out: {args.out} is a file; give the name of a folder")
    started = time.monotonic()
    from matplotlib.figure import Figure
    from spikeinterface.sorters import run_sorter

    from dlvolt.analysis import analyze
    from dlvolt.io import write_nwb_units
    from dlvolt.parameters import SorterParameters
    from dlvolt.plotting import plot_sorting_summary
    from dlvolt.plotting.canvas import save_figure

    args.out.mkdir(parents=True, exist_ok=True)
    nwb_file, figure_file = args.out / "dlvolt_demo.nwb", args.out / "dlvolt_demo.png"
    job_kwargs = dict(n_jobs=args.n_jobs, progress_bar=not args.quiet, pool_engine="thread")
    now = {"session_start_time": datetime.now().astimezone().isoformat()}
    with tempfile.TemporaryDirectory(prefix="dlvolt-") as scratch:
        if not args.quiet:
            print(f"dlvolt: simulating {args.duration:g} s of 18 units on 32 channels")
        recording, truth = simulate(args.duration)
        recording = recording.save(folder=Path(scratch) / "recording", verbose=False, **job_kwargs)
        sorting = run_sorter(
            "dlvolt", recording, folder=Path(scratch) / "sorting", verbose=not args.quiet, job_kwargs=job_kwargs
        )
        analyzer = analyze(sorting, recording, SorterParameters(), job_kwargs=job_kwargs)
        write_nwb_units(analyzer, nwb_file, metadata=METADATA | {"NWBFile": METADATA["NWBFile"] | now}, overwrite=True)
        figure = plot_sorting_summary(analyzer, truth, figure=Figure(figsize=(13, 7), layout="constrained"))
        save_figure(figure, figure_file)
        performance = measure(sorting, truth)
    if not args.quiet:
        print(
            f"\n{performance.to_string(index=False, float_format='{:.3f}'.format)}\n\n"
            f"{len(sorting.unit_ids)} units found, {len(truth.unit_ids)} in the truth; mean accuracy "
            f"{performance['accuracy'].mean():.3f}; {time.monotonic() - started:.0f} s in all\n"
            f"units:  {nwb_file}\nfigure: {figure_file}"
        )


def simulate(duration_s: float) -> tuple[BaseRecording, BaseSorting]:
    """Simulate 18 units around a probe of 32 channels in two columns, 20 µm apart; 30 kHz, µV, noise of 8 µV."""
    from spikeinterface.core import generate_ground_truth_recording

    return generate_ground_truth_recording(
        durations=[duration_s],
        num_channels=32,
        num_units=18,
        sampling_frequency=30_000.0,
        generate_sorting_kwargs=dict(firing_rates=(1.0, 10.0), refractory_period_ms=4.0),
        generate_unit_locations_kwargs=dict(margin_um=10.0, minimum_z=5.0, maximum_z=40.0, minimum_distance=20.0),
        noise_kwargs=dict(noise_levels=8.0, strategy="on_the_fly"),
        seed=7,
    )


def measure(sorting: BaseSorting, truth: BaseSorting) -> pd.DataFrame:
    """Return a row for each true unit: its spikes, the unit found for it ("-" if none is), and how right that is."""
    import pandas as pd
    from spikeinterface.comparison import compare_sorter_to_ground_truth

    comparison = compare_sorter_to_ground_truth(truth, sorting, exhaustive_gt=True)
    scores = comparison.get_performance()[["accuracy", "recall", "precision"]].astype(float)
    found = comparison.hungarian_match_12.astype(object).where(lambda unit: unit != -1, "-")
    spikes = pd.Series(truth.count_num_spikes_per_unit(outputs="dict"))
    return scores.assign(**{"true unit": truth.unit_ids, "spikes": spikes, "found": found})[
        ["true unit", "spikes", "found", "accuracy", "recall", "precision"]
    ].reset_index(drop=True)
