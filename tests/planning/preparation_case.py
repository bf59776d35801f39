"""Peak of main memory of each rank while it reads and prepares its part of micro-batches: prints a line for each case."""

import json
import sys

from matey.benchmark.machine import memory, return_freed_memory
from matey.benchmark.sequence_parts import in_a_file
from matey.benchmark.speed_cases import Case
from matey.data.windows import Window
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.sequence import DistributedSequenceGroup
from matey.parallel.topology import Topology
from matey.train.validation import read_and_prepare


def peak_of(case, chunk=None):
    model, size = case.make_model(), collectives.world_size()
    model.sequence_group = DistributedSequenceGroup(Topology(collectives.rank(), size, size, model.config.num_heads))
    stored = {"chunks": (1, 1, 1, *chunk), "compression": "gzip"} if chunk else {}
    with in_a_file(case, **stored) as (_, data):
        before = memory("cpu")
        read_and_prepare(model, [data], [Window(0, sample, 0, 1) for sample in range(case.batch)], case.frames)
        peak = memory("cpu", peak=True) - before
    return peak


def main(cases):
    start_processes(find_environment(), timeout=120, threads=1)
    return_freed_memory(at_once=True)
    peak_of(Case("micro", grid=(32, 32), batch=1))  # reads in the libraries' code
    for case, chunk in cases:
        peaks = collectives.from_all_ranks(peak_of(case, chunk))
        if collectives.rank() == 0:
            sys.stdout.write(f"case {json.dumps(peaks)}\n")
    stop_processes()


if __name__ == "__main__":
    main([(Case.from_json(settings), chunk) for settings, chunk in json.loads(sys.argv[1])])
