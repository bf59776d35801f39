"""Run by a launcher on P ranks: rollouts of fields that no rank has whole, beside the same on one process, case by case.

Prints a line per case on rank 0: its name and the largest relative difference of any frame.
"""

import json
import sys
from dataclasses import replace

import torch

import matey.evaluate.rollout as limits
from matey.evaluate.histories import Boxes
from matey.evaluate.rollout import Rollout, rollout
from matey.model.boxes import share_of
from matey.model.sequence_group import SequenceGroup
from matey.parallel.collectives import from_all_ranks, rank, world_size
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from tests.support.models import VOCABULARY, make_batch, make_model
from tests.support.parts import parts_of

GAS = ("velocity_x", "velocity_y", "velocity_z", "density", "pressure")
PLANE, SPACE = ((1, 1, 16, 16), (1, 1, 4, 4)), ((1, 8, 8, 8), (1, 4, 4, 4))
# Token set, patches, grid, which axes are periodic, number of frames, lead of the rollout, and settings of the model.
CASES = {
    "plane, periodic": ("mix", PLANE, (1, 32, 48), (False, True, True), 2, 1, {}),
    "plane, padded": ("mul", PLANE, (1, 40, 20), (False, False, False), 2, 2, {}),
    "plane, padded and periodic": ("mix", PLANE, (1, 40, 20), (False, True, True), 2, 1, {"predict": "field"}),
    "smaller than a patch": (
        "uniform",
        ((1, 1, 16, 16),),
        (1, 40, 6),
        (False, True, True),
        1,
        1,
        {"history": 1},
    ),
    "space, periodic": ("mix", SPACE, (16, 8, 16), (True, False, True), 2, 2, {}),
    "space, padded and periodic": ("mul", SPACE, (12, 20, 9), (True, True, False), 4, 3, {"history": 4}),
    "space, one frame": ("uniform", SPACE[1:], (16, 8, 16), (True, False, True), 1, 2, {"history": 1}),
    "space, given": ("mix", SPACE, (12, 20, 9), (True, True, False), 2, 2, {"given": ("force",)}),
    "plane, given, constant": ("mul", PLANE, (1, 40, 20), (False, True, True), 2, 2, {"given": ("force",)}),
    "space, constant": ("mix", SPACE, (12, 20, 9), (True, True, False), 2, 2, {}),
    "plane, kept": ("mix", PLANE, (1, 40, 48), (False, False, True), 2, 2, {"fields": GAS}),
    "space, kept": ("mul", SPACE, (12, 20, 9), (True, True, False), 2, 1, {"fields": GAS}),
    "plane, gaps, kept": ("mix", PLANE, (1, 40, 48), (False, False, True), 2, 2, {"fields": GAS, "predict": "field"}),
    "fewer patches than ranks": ("uniform", ((1, 1, 8, 8),), (1, 8, 8), (False, False, True), 2, 1, {}),
    "space, one frame, kept": (
        "uniform",
        SPACE[1:],
        (16, 8, 16),
        (True, False, True),
        1,
        2,
        {"history": 1, "fields": GAS},
    ),
}
STEPS = 4


def put_together(batch, boxes_of_ranks, frames):
    """The whole frame from the boxes of all ranks."""
    whole = torch.full_like(batch.last, torch.nan)
    for boxes, of_rank in zip(boxes_of_ranks, frames, strict=True):
        for (sample, cells), values in zip(boxes, of_rank, strict=True):
            assert whole[sample][:, *cells].isnan().all(), "ranks that hold the same cells"
            whole[sample][:, *cells] = values
    return whole


def main(names, network):
    start_processes(find_environment(), timeout=120, threads=1)
    size = world_size()
    group = DistributedSequenceGroup(Topology(rank(), size, size, 3))
    for name in names:
        token_set, patches, grid, periodic, frames, lead, settings = CASES[name]
        # Some changes of the untrained model are limited, and some are not.
        limits.MAX_GROWTH = 4.0 if "space" in name else 1e6
        fields, system = settings.get("fields", VOCABULARY), "compressible_rand"  # a system that conserves
        made = make_batch(system, fields, num_samples=2, frames=frames, grid=grid, dtype=torch.float64)
        batch = replace(made, periodic=periodic)
        if "given" in name:
            known = 1 if "constant" in name else frames + STEPS
            given = torch.randn(2, known, 1, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
            batch = replace(batch, given_fields=("force",), given=given)
            settings = settings | {"fields": (*VOCABULARY, "force")}
        elif "constant" in name:
            batch.history[1, :, 1:] = 0
            batch.history[0, :, 1] = 3
        if "gaps" in name:  # cells without data, of one sample
            batch.history[0, ..., 3:20, 10:30] = torch.nan
        model = make_model(patches, set=token_set, network=network, **settings)
        (part,) = parts_of([batch], share_of(model.config, group.ranks))
        model.sequence_group = group
        rolled = Rollout(Boxes(model, part), "kept" in name)
        boxes, ours = rolled.histories.of_ranks, list(rolled.frames(STEPS, lead))
        model.sequence_group = SequenceGroup()
        expected = list(rollout(model, batch, STEPS, lead, conserve="kept" in name))
        off = []
        for found, whole in zip(ours, expected, strict=True):
            found = put_together(batch, boxes, from_all_ranks(found))
            assert torch.equal(found.isnan(), batch.last.isnan()), name
            found, whole = found.nan_to_num(), whole.nan_to_num()
            off.append(((found - whole).norm() / whole.norm()).item())
        moved = ((expected[-1] - batch.last).nan_to_num().norm() / batch.last.nan_to_num().norm()).item()
        assert moved > 1e-3, (name, moved)
        if rank() == 0:
            sys.stdout.write(f"case {json.dumps([name, max(off)])}\n")
    stop_processes()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
