"""Pretrain one model on many PDE systems: `deepspeed launch/pretrain.py --deepspeed_config JSON --config YAML`."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from matey.config import ConfigError, load_config, load_deepspeed_config
from matey.data.trajectories import DataError
from matey.parallel.environment import find_environment, likely_rank, start_processes, stop_processes
from matey.parallel.failure import end_with_error
from matey.parallel.signals import EXIT_CODE
from matey.train.checkpoint import RunError
from matey.train.pretrain import pretrain


def main() -> int:
    """Run from the command line.

    Returns:
        0 if all steps are done; 75 if a signal asked the run to leave, which it did with a whole checkpoint, so that the
        same command with ``--resume`` goes on; 2 for a mistake that the printed sentence explains.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deepspeed_config", required=True, help="JSON of the DeepSpeed engine, see ds_configs/")
    parser.add_argument("--config", required=True, help="YAML of the run, see launch/runs/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a value, as train.steps=200"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in output.dir")
    parser.add_argument("--describe", action="store_true", help="say what would be done, and leave")
    parser.add_argument("--local_rank", type=int, help="set by the deepspeed launcher; not used")
    args = parser.parse_args()
    rank, world_size = likely_rank(), 1
    try:
        environment = find_environment()
        rank, world_size = environment.rank, environment.world_size
        run = load_config(args.config, args.set)
        if args.resume:
            run = run.model_copy(update={"output": run.output.model_copy(update={"resume": "auto"})})
        deepspeed_config = load_deepspeed_config(args.deepspeed_config)
        start_processes(environment, run.parallel.timeout, run.parallel.threads)
        tell = partial(print, flush=True) if rank == 0 else lambda line: None
        tell(f"Started: {environment}")
        is_done = pretrain(run, deepspeed_config, tell, only_describe=args.describe)
    except (ConfigError, DataError, RunError) as error:
        # Every rank meets a mistake in the configuration; broken data may be one rank's alone.
        return end_with_error(rank, world_size, f"error: {error}", is_common=isinstance(error, ConfigError))
    stop_processes()
    return 0 if is_done else EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
