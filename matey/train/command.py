"""The command line that pretraining and fine-tuning share: its flags and both files, read before PyTorch is imported."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matey.config import ConfigError, RunConfig, load_config, load_deepspeed_config
from matey.config.flags import RanksParser, take_local_rank
from matey.mistakes import Mistake
from matey.process.ending import end_with_error
from matey.process.likely_place import likely_place, looks_for_all
from matey.train.beforehand import check_disks
from matey.train.own_folder import is_done

ACCELERATORS = ("cuda", "cpu")
"""The devices that a run takes, by DeepSpeed's names."""

MONITORS = {"tensorboard": "tensorboard", "wandb": "wandb", "comet": "comet_ml"}
"""DeepSpeed's monitors and the package that each needs."""


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags of every training run."""
    parser = RanksParser(description=description)
    parser.add_argument("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine, see ds_configs/")
    parser.add_argument("--config", required=True, help="YAML of the run, see launch/runs/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value, such as train.steps=200"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in output.dir")
    parser.add_argument("--describe", action="store_true", help="say what would be done, and stop")
    parser.add_argument(
        "--is_done", action="store_true", help="say whether all steps are done, by the exit code 0 or 75, and stop"
    )
    take_local_rank(parser)
    return parser


def read_settings(
    args: argparse.Namespace, check: Callable[[RunConfig], object], overrides: Sequence[str] = ()
) -> tuple[RunConfig, dict[str, Any]]:
    """Return the run and the DeepSpeed configuration that the command line asks for; end with a sentence if they are wrong.

    Args:
        args: the arguments, as parsed by `training_parser`.
        check: function that raises ConfigError for a run that the command does not take.
        overrides: KEY=VALUE settings from other flags; they are applied after those of ``--set``.
    """
    try:
        check_accelerator(os.environ)
        run = load_config(args.config, [*args.set, *overrides])
        deepspeed_config = load_deepspeed_config(args.deepspeed_config)
        check_monitors(deepspeed_config, args.deepspeed_config)
        check(run)
        if args.is_done:
            sys.exit(0 if is_done(Path(run.output.dir), run.train.steps) else os.EX_TEMPFAIL)
        if looks_for_all():
            check_disks(run, only_describe=args.describe)
    except Mistake as error:
        sys.exit(end_with_error(*likely_place(), f"error: {error}"))
    if args.resume:
        run = run.model_copy(update={"output": run.output.model_copy(update={"resume": "auto"})})
    return run, deepspeed_config


def check_accelerator(variables: Mapping[str, str]) -> None:
    """Raise ConfigError if DeepSpeed is told to use an accelerator that this package does not use."""
    chosen = variables.get("DS_ACCELERATOR", ACCELERATORS[0])
    if chosen not in ACCELERATORS:
        raise ConfigError(
            f"DS_ACCELERATOR is {chosen!r}, not one of {', '.join(ACCELERATORS)} (AMD too is cuda); unset it, or set it to "
            "cpu to leave GPUs idle."
        )


def check_monitors(deepspeed_config: dict[str, Any], path: str) -> None:
    """Raise ConfigError if the DeepSpeed configuration turns on a monitor whose package is not installed."""
    for monitor, package in MONITORS.items():
        section = deepspeed_config.get(monitor)
        if not isinstance(section, dict) or not section.get("enabled"):
            continue
        if find_spec(package) is None:
            raise ConfigError(
                f"{path}: {monitor} is enabled, and the package {package} is not installed; pip install {package}, or set "
                f"{monitor}.enabled to false."
            )
