"""Time collectives on all ranks: ``torchrun --nproc_per_node 2 -m matey.parallel.collective_speed`` (or under srun, mpirun).

Rank 0 prints a line of JSON for each kind and size: what `matey.planning.collectives` fits its links to.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from matey.parallel.environment import find_environment, start_processes, stop_processes

SIZES = tuple(4**exponent * 1024 for exponent in range(8))  # bytes that a rank puts in: 1 KiB to 16 MiB
REPEAT = 30


def main() -> None:
    """Time every kind at every size."""
    environment = find_environment()
    start_processes(environment, timeout=600)
    ranks = dist.get_world_size()
    for num_bytes in SIZES:
        num_bytes = -(-num_bytes // (4 * ranks)) * 4 * ranks  # what is shared out has a part for each rank
        whole = torch.ones(num_bytes // 4, device=environment.device)
        part, gathered = whole[: len(whole) // ranks].clone(), whole.new_empty(len(whole) * ranks)
        for kind, call in _calls(whole, part, gathered).items():
            seconds = least_seconds(call, environment.device)
            if environment.rank == 0:
                point = {
                    "kind": kind,
                    "num_bytes": num_bytes,
                    "num_ranks": ranks,
                    "ranks_on_node": environment.local_world_size,
                    "seconds": seconds,
                }
                sys.stdout.write(f"{json.dumps(point)}\n")
    stop_processes()


def _calls(whole: Tensor, part: Tensor, gathered: Tensor) -> dict[str, Callable[[], object]]:
    return {
        "all_reduce": lambda: dist.all_reduce(whole, op=dist.ReduceOp.MAX),
        "reduce_scatter_tensor": lambda: dist.reduce_scatter_tensor(part, whole),
        "all_gather_into_tensor": lambda: dist.all_gather_into_tensor(gathered, whole),
        "all_to_all_single": lambda: dist.all_to_all_single(torch.empty_like(whole), whole),
        "broadcast": lambda: dist.broadcast(whole, src=0),
    }


def least_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the least that a collective takes until the last rank is done: what else the machine does only adds to it."""
    seconds = []
    for repeat in range(REPEAT + 2):
        dist.barrier()
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repeat >= 2:
            seconds.append(time.perf_counter() - start)
    slowest = torch.tensor(seconds, dtype=torch.float64, device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)
    return float(slowest.min())


if __name__ == "__main__":
    main()
