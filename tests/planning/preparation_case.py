"""Peak of main memory of each rank while it reads and prepares its part of micro-batches: prints a line for each case."""

import json
import sys
from dataclasses import replace

from matey.benchmark.step import Case, memory, return_freed_memory
from matey.data.windows import Window
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from matey.train.loop import read_and_prepare
from tests.support.fields_file import in_a_file


def peak_of(case):
    model, size = case.make_model(), collectives.world_size()
    model.sequence_group = DistributedSequenceGroup(Topology(collectives.rank(), size, size, model.config.num_heads))
    with in_a_file(replace(case, frames=case.frames + 1)) as (_, data):
        windows = [Window(0, sample, 0, 2) for sample in range(case.batch)]
        before = memory("cpu")
        read_and_prepare(model, [data], windows, case.frames)
        return memory("cpu", peak=True) - before


def main(cases):
    start_processes(find_environment(), timeout=120, threads=1)
    return_freed_memory(at_once=True)
    peak_of(Case("micro", grid=(32, 32), batch=1))  # reads in the libraries' code
    for case in cases:
        peaks = collectives.from_all_ranks(peak_of(case))
        if collectives.rank() == 0:
            sys.stdout.write(f"case {json.dumps(peaks)}\n")
            sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main([Case.from_json(settings) for settings in json.loads(sys.argv[1])])
