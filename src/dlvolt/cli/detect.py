"""``dlvolt detect``."""

from __future__ import annotations

import argparse

import dlvolt
from dlvolt.cli.arguments import (
    ROI_PARAMETERS,
    Commands,
    Parser,
    add_job_arguments,
    add_nwb_arguments,
    add_result_arguments,
    add_sorter_parameters,
    add_trace_arguments,
    one_line_errors,
    read_trace_source,
)
from dlvolt.cli.compare import agreement, read_units
from dlvolt.cli.destination import check_new_places, nwb_destination
from dlvolt.cli.run_record import versions
from dlvolt.parameters import ROI_TRACES, SorterParameters


def add_command(commands: Commands) -> None:
    """Add ``dlvolt detect`` and its flags."""
    command = commands.add_parser(
        "detect",
        usage="dlvolt detect SOURCE --out FILE [options]",
        help="detect the spikes of each ROI with a network and write them to an NWB file",
        description="Find spikes in voltage or calcium imaging, a unit for each ROI, and write them to a new NWB file.",
        epilog="Example: dlvolt detect traces.npy --sampling-frequency 500 --model voltage --out spikes.nwb "
        "--session-start-time 2024-05-31T14:30:00+02:00",
    )
    command.set_defaults(run=detect)
    add_trace_arguments(command)
    add = command.add_argument
    add("--model", default="voltage", metavar="NAME", help="pretrained weights or a model's folder; default: voltage")
    add("--threshold", type=float, help="least spike probability; default: the model's")
    add("--shadow-ms", type=float, metavar="MS", help="a spike suppresses weaker ones so near; default: the model's")
    add(
        "--polarity",
        choices=("auto", "positive", "negative"),
        default="auto",
        help="which way spikes point; default: auto, inferred for each trace",
    )
    add(
        "--traces",
        nargs="+",
        choices=ROI_TRACES,
        default=[],
        help="also write these traces of each ROI to the NWB file",
    )
    add_result_arguments(command)
    add_sorter_parameters(command, ROI_PARAMETERS)
    add_nwb_arguments(command)
    add_job_arguments(command)


def detect(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt detect``: check everything that can be wrong, then detect, write and compare."""
    from dlvolt.cli.describe import what_is_read
    from dlvolt.evaluation import comparison_tolerance_ms
    from dlvolt.exports import export_csv
    from dlvolt.io import write_nwb_units
    from dlvolt.rois import recipe
    from dlvolt.sorter import check, choose_modality

    given = {name: getattr(args, name) for name in (*ROI_PARAMETERS, "model", "polarity")}
    given["probability_threshold"] = "auto" if args.threshold is None else args.threshold
    given["shadow_ms"] = "auto" if args.shadow_ms is None else args.shadow_ms
    with one_line_errors(parser):
        check_new_places(args)
        recording = read_trace_source(args)
        electrodes = choose_modality(recording) == "extracellular"
        if electrodes:
            if args.traces:
                raise ValueError("--traces: are those of ROIs; SOURCE is of electrodes")
            given["crosstalk"] = "ignore"
        parameters = SorterParameters(
            **given, modality="optical", job_kwargs=dict(n_jobs=args.n_jobs, progress_bar=not args.quiet)
        )
        check(recording, parameters)
        recipe.check_traces(recording, args.traces, parameters)
        destination = nwb_destination(args, recording)
        other = None if args.compare is None else read_units(args.compare, recording)

    if not args.quiet:
        print(f"dlvolt: {what_is_read(args.source, recording)}")
    sorting = recipe.sort_rois(recording, parameters, verbose=not args.quiet)
    sorting.register_recording(recording)
    if electrodes:
        sorting.annotate(modality="extracellular")
        for name in ("spike_label", "num_bursts", "num_complex_spikes"):  # electrodes show no slow depolarisation
            sorting.delete_property(name)
    traces = recipe.roi_traces(recording, sorting, args.traces, parameters)
    write_nwb_units(sorting, args.out, traces=traces, **destination)
    if args.csv is not None:
        export_csv(sorting, args.csv)
    print(f"{len(sorting.unit_ids)} units, {sorting.count_total_num_spikes()} spikes: {args.out}")
    if args.report is not None:
        run = dict(source=str(args.source), parameters=given, versions=versions(), command=["dlvolt", *args.arguments])
        print(f"report: {dlvolt.report(sorting, args.report, run=run, warnings=args.warned, overwrite=True)}")
    if other is not None:
        print(agreement(sorting, other, args.compare, comparison_tolerance_ms(sorting, other)))
