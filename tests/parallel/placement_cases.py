"""Started by test_placement.py on two ranks: each prints its cores as it is bound to them, and how it takes a placement."""

import json
import os
import sys

import torch.distributed as dist

from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.meter import cores_of_rank


def cores_when_bound_to(cores: set[int]) -> float:
    os.sched_setaffinity(0, cores)
    dist.barrier()
    return cores_of_rank()


def main() -> None:
    start_processes(find_environment(), timeout=60, threads=1)
    all_cores = sorted(os.sched_getaffinity(0))
    rank = dist.get_rank()
    seen = {
        "one for both": cores_when_bound_to({all_cores[0]}),
        "all for both": cores_when_bound_to(set(all_cores)),
        "one each": cores_when_bound_to({all_cores[rank]}) if len(all_cores) > 1 else 1.0,
    }
    sys.stdout.write(f"rank {json.dumps([len(all_cores), seen])}\n")
    stop_processes()


if __name__ == "__main__":
    main()
