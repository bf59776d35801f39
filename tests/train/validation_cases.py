"""Run by a launcher: data in space and in a padded, periodic plane, validated on by ranks that read a part of each window.

Prints a line on rank 0: what the validation found, and the largest share of the values that any rank has read.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch

from matey.data import TrajectorySet
from matey.data.windows import Window
from matey.parallel.collectives import from_all_ranks, rank, world_size
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from matey.train.loop import validate
from tests.support.models import VOCABULARY, make_batch, make_model

PATCHES = ((1, 4, 8, 8), (1, 2, 4, 4))


def data_of(system, fields, grid, boundary):
    """Two trajectories of six frames."""
    batch = make_batch(fields=fields, num_samples=2, frames=5, grid=grid)
    values = torch.cat([batch.history, batch.target[:, None]], dim=1)
    return TrajectorySet.from_arrays(
        system, {name: values[:, :, at] for at, name in enumerate(fields)}, spacing=(1.0,) * 3, boundary=boundary
    )


def main():
    start_processes(find_environment(), timeout=120, threads=1)
    size = world_size()
    model = make_model(PATCHES, torch.float32, network="paper")  # whose ranks read no halos
    if size > 1:
        model.sequence_group = DistributedSequenceGroup(Topology(rank(), size, size, 3))
    sets = [
        data_of("shallow_water", VOCABULARY[:1], (1, 40, 20), ("open", "wall", "periodic")),
        data_of("diffusion_reaction", VOCABULARY[1:], (8, 16, 12), ("periodic", "open", "periodic")),
    ]
    read = []
    for each in sets:
        plain = each._read_frames
        each._read_frames = lambda *args, plain=plain: read.append(frames := plain(*args)) or frames
    windows = [Window(index, trajectory, 1, lead) for index in (0, 1) for trajectory in (0, 1) for lead in (1, 3)]
    engine = SimpleNamespace(module=model, device=model.device, eval=model.eval, train=model.train)
    engine = type("Engine", (), {**vars(engine), "__call__": lambda self, batches: model(batches)})()
    found = validate(engine, sets, windows, 2, 3, Topology(rank(), size, size, 3), 2)
    most = max(from_all_ranks(int(np.sum([frames.size for frames in read]))))
    total = len(windows) / 2 * 3 * sum(len(each.fields) * np.prod(each.trajectories[0].grid) for each in sets)
    if rank() == 0:
        sys.stdout.write(f"case {json.dumps([found, most / total])}\n")
    stop_processes()


if __name__ == "__main__":
    main()
