"""Peak of main memory of each rank while it reads and prepares its part of micro-batches: prints a line for each case."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

from matey.benchmark.step import Case, memory, return_freed_memory
from matey.data.reading import read_parts
from matey.data.windows import Window
from matey.model.boxes import share_of
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.sequence import DistributedSequenceGroup
from matey.parallel.topology import Topology
from matey.train.unroll import rolled_out
from matey.train.validation import read_and_prepare
from tests.support.fields_file import in_a_file


def peak_of(case, unrolled=False):
    model, size = case.make_model(), collectives.world_size()
    model.sequence_group = DistributedSequenceGroup(Topology(collectives.rank(), size, size, model.config.num_heads))
    with in_a_file(replace(case, frames=case.frames + 1)) as (_, data):
        windows = [Window(0, sample, 0, 2) for sample in range(case.batch)]
        if unrolled:
            return peak_of_unrolling(model, data, windows, case.frames)
        before = memory("cpu")
        read_and_prepare(model, [data], windows, case.frames)
        return memory("cpu", peak=True) - before


def peak_of_unrolling(model, data, windows, num_frames):
    engine, share = Engine(model), share_of(model.config, model.sequence_group.ranks)
    for _ in range(2):  # at its first use, a size makes the libraries load code and keep buffers
        before, engine.peak = memory("cpu"), 0
        rolled_out(engine, read_parts([data], windows, num_frames, share), 1)
    return max(engine.peak, memory("cpu", peak=True)) - before


class Engine(SimpleNamespace):
    """What unrolling needs of an engine, and the peak of memory before the model computes; while it does, no peak counts."""

    def __init__(self, model):
        super().__init__(module=model, device=model.device, eval=model.eval, train=model.train, peak=0)

    def __call__(self, prepared):
        self.peak = max(self.peak, memory("cpu", peak=True))
        forecasts = self.module(prepared)
        memory("cpu")
        return forecasts


def main(cases):
    start_processes(find_environment(), timeout=120, threads=1)
    return_freed_memory(at_once=True)
    peak_of(Case("micro", grid=(32, 32), batch=1))  # reads in the libraries' code
    for case, how in cases:
        peaks = collectives.from_all_ranks(peak_of(case, **how))
        if collectives.rank() == 0:
            sys.stdout.write(f"case {json.dumps(peaks)}\n")
            sys.stdout.flush()
    stop_processes()


if __name__ == "__main__":
    main([(Case.from_json(settings), how) for settings, how in json.loads(sys.argv[1])])
