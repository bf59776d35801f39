"""Run by a launcher on P ranks, with a folder and names of cases: forecasts into files by ranks that hold parts of the fields.

Prints a line per case on rank 0: its name, how far the file is off one process, whether one that was broken off and gone
on with is the same, the largest share of a field that was read at once, and the share of the file that each rank wrote.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import matey
import matey.evaluate.forecasts.series as series
from matey.data import TrajectorySet
from matey.evaluate.forecasts.formats import FORMATS, ForecastFile
from matey.model.sequence_group import SequenceGroup
from matey.parallel.collectives import barrier, from_all_ranks, rank, world_size
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from tests.support.models import VOCABULARY, make_batch, make_model

STEPS, STRETCH, BEFORE = 5, 2, 7  # frames of two trajectories; so many are made before a forecast breaks off
PLANE, SPACE = ((1, 1, 16, 16), (1, 1, 4, 4)), ((1, 4, 8, 8), (1, 2, 4, 4))
CASES = {
    "plane .nc": (PLANE, (1, 40, 20), ("open", "wall", "periodic"), ".nc", {}),
    "space .zarr": (SPACE, (8, 20, 16), ("periodic", "periodic", "open"), ".zarr", {}),
    "space .h5": (SPACE, (8, 20, 16), ("periodic", "periodic", "open"), ".h5", {}),
    "plane and halos .nc": (PLANE, (1, 40, 20), ("open", "wall", "periodic"), ".nc", {}),
    "space and halos .h5": (SPACE, (8, 20, 16), ("periodic", "periodic", "open"), ".h5", {}),
    "space at rest .h5": (SPACE, (8, 20, 16), ("periodic", "periodic", "open"), ".h5", {}),
    "whole at rest .nc": (
        PLANE,
        (1, 40, 20),
        ("open", "wall", "periodic"),
        ".nc",
        {"criterion": "random", "change": 0.5},
    ),
    "whole .nc": (PLANE, (1, 40, 20), ("open", "wall", "periodic"), ".nc", {"criterion": "random", "change": 0.5}),
}


class Broken(Exception):
    pass


def data_of(grid, boundary, is_at_rest):
    batch = make_batch(fields=VOCABULARY[1:], num_samples=2, frames=3, grid=grid)
    fields = {name: batch.history[:, :, at] * (not is_at_rest) for at, name in enumerate(VOCABULARY[1:])}
    return TrajectorySet.from_arrays("cells", fields, spacing=(1.0,) * 3, boundary=boundary)


def break_off(forecasts, path):
    made = []

    def note(num_frames):
        made.append(num_frames)
        if sum(made) >= BEFORE:
            raise Broken

    try:
        forecasts.write(path, on_frames=note)
    except Broken:
        barrier()
        return
    raise AssertionError("it was to break off")


def frames_in(path, forecasts):
    file = FORMATS[path.suffix].open_file(path, forecasts.contents, "r")
    frames = file.read(0, 2, 0, STEPS)
    file.close()
    return frames


def main(folder, names):
    start_processes(find_environment(), timeout=120, threads=1)
    group = DistributedSequenceGroup(Topology(rank(), world_size(), world_size(), 3))
    wrote, write = [], ForecastFile.write
    ForecastFile.write = lambda *args: (wrote.append(args[3].size), write(*args))
    for name in names:
        patches, grid, boundary, suffix, settings = CASES[name]
        series.STRETCH_BYTES = STRETCH * 4 * int(np.prod(grid))
        data, read = data_of(grid, boundary, "at rest" in name), []
        # With a file, however little is in it, none of the data is read to know a forecast again.
        data.trajectories = tuple(replace(each, source=Path(__file__)) for each in data.trajectories)
        plain = data._read_frames
        data._read_frames = lambda *args, plain=plain, read=read: read.append(frames := plain(*args)) or frames
        network = "matey" if "halos" in name else "paper"
        model = make_model(patches, torch.float32, num_blocks=1, network=network, **settings)
        forecasts = matey.forecast(model, data, steps=STEPS, lead=2, start=1, history=2, batch_size=1)
        expected = torch.stack([frame.values[0] for frame in forecasts]).view(2, STEPS, 2, *grid).numpy()
        read.clear()
        wrote.clear()
        model.sequence_group = group
        path, again = (Path(folder) / f"{name.replace(' ', '_')}_{n}{suffix}" for n in (1, 2))
        forecasts.write(path)
        shares = from_all_ranks(sum(wrote) / expected.size)
        break_off(forecasts, again)
        counted = []
        forecasts.write(again, on_frames=counted.append)
        assert counted[0] >= BEFORE, counted
        most = max(from_all_ranks(max([frames[0, 0].size for frames in read], default=0)))
        if rank() == 0:
            found = frames_in(path, forecasts)
            off = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            is_same = np.array_equal(frames_in(again, forecasts), found)
            sys.stdout.write(f"case {json.dumps([name, float(off), is_same, most / int(np.prod(grid)), shares])}\n")
        model.sequence_group = SequenceGroup()
        barrier()
    stop_processes()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
