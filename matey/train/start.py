"""Starts the ranks of a training run, trains, and ends them: the part of a command that needs PyTorch and DeepSpeed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from matey.config import RunConfig
from matey.mistakes import Mistake
from matey.parallel.allocator import keep_freed_memory
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.failure import name_failures
from matey.parallel.signals import EXIT_CODE
from matey.process.ending import end_with_error
from matey.process.likely_place import likely_place

Train = Callable[..., bool]
"""`matey.train.pretrain.pretrain` or `matey.train.finetune.finetune`."""


def run_training(train: Train, run: RunConfig, deepspeed_config: dict[str, Any], *, only_describe: bool) -> int:
    """Start the processes, train, and return the exit code.

    Returns:
        Exit code: 0 if training is done; 75 if a signal asked the run to stop and it saved a whole checkpoint; 2 for a
        mistake that the printed sentence explains. After 75, the same command with ``--resume`` continues.
    """
    rank, world_size = likely_place()
    name_failures(rank, world_size)
    try:
        environment = find_environment()
        rank, world_size = environment.rank, environment.world_size
        start_processes(environment, run.parallel.timeout, run.parallel.threads, can_save=True)
        if environment.device.type == "cpu":
            keep_freed_memory()
        tell = _print if rank == 0 else lambda line: None
        tell(f"Started: {environment}")
        is_done = train(run, deepspeed_config, tell, only_describe=only_describe)
    except Mistake as error:
        return end_with_error(rank, world_size, f"error: {error}")
    return stop_processes(0 if is_done else EXIT_CODE)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
