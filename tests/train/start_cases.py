"""Run by a launcher: opens the data of a run on all ranks, and says on rank 0 what was opened and found, as JSON.

Counted are calls of the system's open by Python, and of HDF5's, of the files whose paths begin as the first argument says.
"""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import h5py
import torch.distributed as dist

from matey.checkpoints.run_files import SPLIT
from matey.config import load_config
from matey.data.split_record import seen_text
from matey.parallel.collectives import barrier, deepspeed, from_all_ranks, rank
from matey.train.run_data import loss_scales, open_data

OPENED: Counter = Counter()


def count_opens(start):
    def note(path):
        path = os.fsdecode(path) if isinstance(path, str | bytes) else ""
        if path.startswith(start) and not os.path.isdir(path):
            OPENED[path] += 1

    sys.addaudithook(lambda event, args: note(args[0]) if event == "open" else None)
    plain = h5py.h5f.open
    h5py.h5f.open = lambda name, *args, **kwargs: note(name) or plain(name, *args, **kwargs)


def opens():
    """Return how often each file has been opened by all ranks since the last call, the most and the sum."""
    everyone = sum(from_all_ranks(OPENED), Counter())
    OPENED.clear()
    return [max(everyone.values(), default=0), sum(everyone.values())]


def main():
    package = deepspeed()
    package.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled, and is never called
    package.init_distributed("gloo", verbose=False)
    count_opens(sys.argv[1])
    run = load_config(sys.argv[2])
    found = {}
    data = open_data(run)
    found["described"] = opens()
    found["trajectories"] = repr([each.trajectories for each in data.all_sets])
    found["seen"] = seen_text(data.prints, [split.train for split in data.splits])
    found["scales"] = repr(loss_scales(run, data))
    found["is everywhere"] = len(set(from_all_ranks(json.dumps([found, data.record.text()])))) == 1
    if rank() == 0:
        Path(run.output.dir).mkdir(parents=True)
        (Path(run.output.dir) / SPLIT).write_text(data.record.text())
    barrier()
    again = run.model_copy(update={"output": run.output.model_copy(update={"resume": "auto"})})
    assert open_data(again).record == data.record
    if rank() == 0:
        sys.stdout.write(json.dumps(found) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
