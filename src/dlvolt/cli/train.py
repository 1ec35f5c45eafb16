"""``dlvolt train``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dlvolt import __version__
from dlvolt.cli.arguments import (
    Commands,
    Parser,
    add_trace_arguments,
    one_line_errors,
    positive,
    read_trace_source,
)
from dlvolt.whole import check_parent

CARD = """# {out.name}

`{model}` of dlvolt {version}, trained on {source.name} with the labels {labels.name}, seed {seed}, settings {settings}.

Tested on the last 15 % of each trace. {scores}.
"""


def add_command(commands: Commands) -> None:
    """Add ``dlvolt train`` and its flags."""
    command = commands.add_parser(
        "train",
        usage="dlvolt train SOURCE --labels FILE --model NAME --out FOLDER [options]",
        help="train a network on labelled traces",
        description="Train a network on the first 70 % of labelled traces, choose when to stop and the threshold by "
        "the next 15 %, test on the last 15 %, and save it for 'dlvolt detect --model'.",
        epilog="Example: dlvolt train traces.npy --labels spikes.csv --sampling-frequency 500 --model bilstm "
        "--out my_model --set hidden_size=32",
    )
    command.set_defaults(run=train)
    add_trace_arguments(command)
    add = command.add_argument
    add(
        "--labels",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV or .npz with 'channel' (0, 1, …) and 'time_s' of each spike, or 0/1 traces (.npy, .npz, .csv)",
    )
    add(
        "--model",
        required=True,
        metavar="NAME",
        help="the architecture: mel_svm, tcn, transformer, bilstm, fcn or unet; for calcium, s2s or calcium",
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="the new folder for the model")
    add("--overwrite", action="store_true", help="replace the model in the folder if there is one")
    add("--epochs", type=positive(int), dest="max_epochs", metavar="N", help="at most so many; default: as published")
    add("--lr", type=positive(float), metavar="RATE", help="learning rate; default: as published")
    add("--seed", type=int, default=0, metavar="N", help="same seed, same model; default: 0")
    add(
        "--set",
        type=setting,
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="another setting of the model, e.g. hidden_size=32; may be given several times",
    )
    add("--quiet", action="store_true", help="no progress, only results")


def setting(text: str) -> tuple[str, Any]:
    """Return the name and value of NAME=VALUE, a value of JSON (64, 0.1, true, [32, 64]) or else a plain word."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    return name, tuple(parsed) if isinstance(parsed, list) else parsed


def train(parser: Parser, args: argparse.Namespace) -> None:
    """Run ``dlvolt train``: check everything that can be wrong, then train, test and save."""
    from dlvolt.io import read_label_file

    with one_line_errors(parser):
        check_parent(args.out, "--out")
        if args.out.exists() and not (args.out.is_dir() and args.overwrite):
            raise FileExistsError(f"--out: {args.out} exists; give the name of a new folder, or --overwrite")
        recording = read_trace_source(args)
        labels = read_label_file(args.labels, recording.get_num_channels())

        from dlvolt.networks import create, save
        from dlvolt.training import fit

        given = {name: getattr(args, name) for name in ("max_epochs", "lr") if getattr(args, name) is not None}
        model = create(args.model, name=args.out.name, **given | dict(args.settings))
    with one_line_errors(parser, TypeError, RuntimeError):  # odd values of --set raise these
        fit(
            model,
            recording.get_traces(),
            labels,
            sampling_frequency=recording.sampling_frequency,
            seed=args.seed,
            verbose=not args.quiet,
        )
    kinds = {
        "auc": "25 Hz: correlation {correlation:.3f}, rank {rank:.3f}, AUC {auc:.3f}; estimated by true spikes: "
        "{count_ratio:.2f}",
        "f1": "samples: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}; events within 5 ms: precision "
        "{event_precision:.3f}, recall {event_recall:.3f}, F1 {event_f1:.3f}",
    }
    found = model.test_scores_
    scores = kinds["auc" if "auc" in found else "f1"].format(**found)
    save(model, args.out, card=CARD.format(version=__version__, scores=scores, **vars(args)))
    print(f"test: {scores}: {args.out}")
