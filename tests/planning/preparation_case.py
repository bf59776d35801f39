"""Peak of main memory of each rank while it reads and prepares its part of micro-batches: prints a line for each case."""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import torch

from matey.benchmark.step import Case, memory, return_freed_memory
from matey.config import DataDescription
from matey.data.described import DataFile, DescribedFiles
from matey.data.windows import Window
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from matey.train.loop import read_and_prepare


def peak_of(case):
    model, size = case.make_model(), collectives.world_size()
    model.sequence_group = DistributedSequenceGroup(Topology(collectives.rank(), size, size, model.config.num_heads))
    with tempfile.TemporaryDirectory() as own:
        path = Path(collectives.from_rank_zero(own)) / "fields.h5"
        if collectives.rank() == 0:
            write(replace(case, frames=case.frames + 1), path)
        collectives.barrier()
        data = DescribedFiles(described(case), [DataFile((path,))])
        data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file
        windows = [Window(0, sample, 0, 2) for sample in range(case.batch)]
        before = memory("cpu")
        read_and_prepare(model, [data], windows, case.frames)
        peak = memory("cpu", peak=True) - before
        collectives.barrier()
    return peak


def write(case, path):
    """Write the histories and targets of a case as one array ``(b, t, f, z, y, x)``."""
    batch = case.make_batch()
    with h5py.File(path, "w") as file:
        file["values"] = torch.cat([batch.history, batch.known_target[:, None]], dim=1).numpy()


def described(case):
    axes = ("z", "y", "x")
    fields = {f"field_{number}": {"array": "values", "index": number} for number in range(case.fields)}
    about = {
        "system": "benchmark",
        "files": "fields.h5",
        "axes": ["trajectory", "time", "component", *axes],
        "fields": fields,
    }
    ends = {"spacing": dict.fromkeys(axes, 1.0), "time_step": 1.0, "boundary": dict.fromkeys(axes, "open")}
    return DataDescription.model_validate(about | ends)


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
