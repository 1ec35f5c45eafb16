"""What the scripts share that train the weights of the package."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from skorch.callbacks import GradientNormClipping, LRScheduler
from torch.optim.lr_scheduler import OneCycleLR

from dlvolt.networks.store import CONFIG


def one_cycle(
    max_lr: float, num_windows: int, batch_size: int, max_epochs: int = 1, pct_start: float = 0.3
) -> list[tuple[str, Any]]:
    """Return skorch's callbacks for a learning rate that rises to its maximum and falls, and for gradients of norm 1.

    `num_windows` are the windows or snippets of an epoch; the rate rises in the share `pct_start` of the training.
    """
    steps = max_epochs * -(-num_windows // batch_size) + 1
    schedule = LRScheduler(OneCycleLR, max_lr=max_lr, total_steps=steps, pct_start=pct_start, step_every="batch")
    return [("schedule", schedule), ("clipping", GradientNormClipping(1.0))]


def model_card(
    name: str, version: str, about: str, architecture: str, command: str, scores: Sequence[tuple[str, pd.DataFrame]]
) -> str:
    """Return a model card in Markdown, with the command that trains the weights again, and tables of scores.

    `about` says what the weights are for and trained on; each table comes with the text that introduces it.
    """
    tables = "\n\n".join(f"{what}:\n\n```\n{table.round(3).to_string()}\n```" for what, table in scores)
    return f"""# {name}, version {version}

{about}

Architecture: `{architecture}`; settings in `{CONFIG}`. Licence of the weights: MIT. Train it again with

    {command}

{tables}
"""


def script_parser(script: str, description: str | None) -> ArgumentParser:
    """Return the parser of ``python -m dlvolt.training.SCRIPT``, with the options that all such scripts have."""
    parser = ArgumentParser(f"dlvolt.training.{script}", description=description)
    parser.add_argument("--out", type=Path, help="folder to write; default: that of the weights in the package")
    parser.add_argument("--seed", type=int, default=0)
    return parser
