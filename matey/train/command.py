"""The command line that pretraining and fine-tuning share: its flags, starting the ranks, and how a run ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from matey.config import ConfigError, RunConfig, load_config, load_deepspeed_config
from matey.data.trajectories import DataError
from matey.parallel.allocator import keep_freed_memory
from matey.parallel.environment import find_environment, likely_place, start_processes, stop_processes
from matey.parallel.failure import end_with_error, name_failures
from matey.parallel.signals import EXIT_CODE
from matey.train.checkpoint import RunError

Train = Callable[..., bool]
"""`matey.train.pretrain.pretrain` or `matey.train.finetune.finetune`."""


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the flags of every training run."""
    parser = _Parser(description=description)
    parser.add_argument("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine, see ds_configs/")
    parser.add_argument("--config", required=True, help="YAML of the run, see launch/runs/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value, such as train.steps=200"
    )
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in output.dir")
    parser.add_argument("--describe", action="store_true", help="say what would be done, and stop")
    parser.add_argument("--local_rank", type=int, help="set by the deepspeed launcher; not used")
    return parser


def run_training(train: Train, args: argparse.Namespace, overrides: Sequence[str] = ()) -> int:
    """Start the processes, train, and return the exit code.

    Args:
        train: the function that trains.
        args: the arguments, as parsed by `training_parser`.
        overrides: KEY=VALUE settings that other flags stand for; they come after those of ``--set``.

    Returns:
        Exit code: 0 if training is done; 75 if a signal asked the run to stop and it saved a whole checkpoint, so that
        the same command with ``--resume`` continues; 2 for a mistake that the printed sentence explains.
    """
    rank, world_size = likely_place()
    name_failures(rank, world_size)
    try:
        environment = find_environment()
        rank, world_size = environment.rank, environment.world_size
        run, deepspeed_config = _load(args, overrides)
        start_processes(environment, run.parallel.timeout, run.parallel.threads)
        if environment.device.type == "cpu":
            keep_freed_memory()
        tell = _print if rank == 0 else lambda line: None
        tell(f"Started: {environment}")
        is_done = train(run, deepspeed_config, tell, only_describe=args.describe)
    except (ConfigError, DataError, RunError) as error:
        return end_with_error(rank, world_size, f"error: {error}")
    return stop_processes(0 if is_done else EXIT_CODE)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag once for all ranks."""

    def error(self, message: str) -> NoReturn:
        sys.exit(end_with_error(*likely_place(), f"{self.format_usage()}error: {message}"))


def _load(args: argparse.Namespace, overrides: Sequence[str]) -> tuple[RunConfig, dict[str, Any]]:
    run = load_config(args.config, [*args.set, *overrides])
    if args.resume:
        run = run.model_copy(update={"output": run.output.model_copy(update={"resume": "auto"})})
    return run, load_deepspeed_config(args.deepspeed_config)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
