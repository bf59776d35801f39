"""The sequence-parallel benchmark: compares several numbers of ranks, each measured in its own processes.

The ranks of a point are ``torchrun -m matey.benchmark.sequence JSON``, of which rank 0 prints a line of JSON. They form one
sequence group; with one rank the model runs as without a group.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from matey.benchmark.step import Case, memory, return_freed_memory
from matey.fields import FieldBatch
from matey.model.matey import MateyModel
from matey.model.sequence_group import SequenceGroup
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.meter import count_traffic, stop_counting, take_traffic
from matey.parallel.sequence import share_samples
from matey.train.loss import LossScale, training_loss

Point = dict[str, Any]


def run_point(case: Case, ranks: int, repeat: int = 0, before: Case | None = None) -> Point:
    """Measure memory and exchanges of a case on a number of ranks of this machine, and the time of ``repeat`` steps, if any.

    Args:
        case: the case.
        ranks: number of ranks.
        repeat: number of timed steps.
        before: the same model on a smaller grid, for the step before the measured one; by default the case itself.

    Raises:
        RuntimeError: a rank failed; the message holds the end of its output.
    """
    settings = case.to_json() | {"repeat": repeat, "before": (before or case).grid}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
    command += ["-m", "matey.benchmark.sequence", json.dumps(settings)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    points: list[Point] = [json.loads(line[6:]) for line in result.stdout.splitlines() if line.startswith("point ")]
    if result.returncode or not points:
        raise RuntimeError(f"The benchmark on {ranks} ranks failed:\n{result.stderr[-2000:]}")
    return points[0]


def longer(case: Case, factor: float) -> Case:
    """Return the case on a grid ``factor`` times as long along its first axis, in whole coarse patches."""
    cells = case.patches[0]
    first = max(cells, round(case.grid[0] * factor / cells) * cells)
    return replace(case, grid=(first, *case.grid[1:]))


def longest(points: Sequence[Point], limit: float) -> float:
    """Return how many tokens fit into a limit of activations per rank, on the straight line through two measured points."""
    (n0, m0), (n1, m1) = ((p["num_tokens"], max(p["activation_bytes"])) for p in points)
    return n0 + (limit - m0) * (n1 - n0) / (m1 - m0)


def summarise(base: Point, point: Point, tokens_within_limit: float) -> Point:
    """Return a point's row, compared with one process."""
    sent = (kind["bytes"] for way in ("traffic_forward", "traffic_backward") for kind in point[way].values())
    most = max(point["activation_bytes"])
    return {
        "ranks": point["ranks"],
        "num_tokens": point["num_tokens"],
        "activation_bytes": most,
        "memory_times_ranks": most * point["ranks"] / base["activation_bytes"][0],
        "longest_over_one": tokens_within_limit / base["num_tokens"],
        "exchanged_bytes": sum(sent),
        "step_seconds": point["step_seconds"],
        "cpu_seconds": sum(point["cpu_seconds"]),
        "cpu_over_one": sum(point["cpu_seconds"]) / point["cpu_alone"],
    }


def main(settings: dict[str, Any]) -> None:
    """Measure the case on all ranks and print the results on rank 0."""
    repeat = settings.pop("repeat")  # number of timed steps; 0 measures no times
    before = tuple(settings.pop("before"))  # grid of the step before the measured one
    case = Case.from_json(settings)
    start_processes(find_environment(), timeout=600, threads=1)
    rank, size = collectives.rank(), collectives.world_size()
    model = case.make_model().train()
    if size > 1:
        share_samples(model)
    return_freed_memory(at_once=True)
    # The first step allocates gradients and loads library code for these sizes: neither counts as activations.
    step(model, replace(case, grid=before).make_batch())
    batch = case.make_batch()
    activations, traffic = activations_and_traffic(model, batch)
    return_freed_memory(at_once=False)
    times = step_times(model, batch, repeat) if repeat else None
    num_tokens = int(model.count_tokens(batch).sum())
    everyone = collectives.from_all_ranks((activations, traffic, times))
    if rank == 0:
        point = {
            "ranks": size,
            "num_tokens": num_tokens,
            "activation_bytes": [of_rank[0] for of_rank in everyone],
            **{way: mean_traffic([of_rank[1][way] for of_rank in everyone]) for way in traffic},
            "width": model.config.width,
            "num_blocks": model.config.num_blocks,
        }
        if times:
            seconds, cpu, alone = zip(*(of_rank[2] for of_rank in everyone), strict=True)
            point |= {"step_seconds": max(seconds), "cpu_seconds": cpu, "cpu_alone": alone[0]}
        sys.stdout.write(f"point {json.dumps(point)}\n")
    stop_processes()


def mean_traffic(of_ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return calls and mean bytes over the ranks for each kind of exchange; all ranks make the same calls."""
    return {
        kind: {"calls": sent["calls"], "bytes": statistics.mean(of_rank[kind]["bytes"] for of_rank in of_ranks)}
        for kind, sent in of_ranks[0].items()
    }


def loss_of(model: MateyModel, batch: FieldBatch) -> Tensor:
    """Return the training loss."""
    return training_loss(model(batch), model.sequence_group, {"benchmark": LossScale()})[0]


def step(model: MateyModel, batch: FieldBatch) -> None:
    """Run forward and backward; gradients stay allocated."""
    loss_of(model, batch).backward()
    model.zero_grad(set_to_none=False)


def step_times(model: MateyModel, batch: FieldBatch, repeat: int) -> tuple[float, float, float]:
    """Return medians of the wall time and the CPU time of a step, and of rank 0's when it runs alone, in seconds.

    The group and the single process take turns, because the speed of a shared processor changes within minutes.
    """
    own = model.sequence_group
    sequence_groups = [own] if collectives.world_size() == 1 else [own, SequenceGroup()]
    times: list[list[tuple[float, float]]] = [[] for _ in sequence_groups]
    for turn in range(repeat + 1):
        for sequence_group, measured in zip(sequence_groups, times, strict=True):
            model.sequence_group = sequence_group
            collectives.barrier()
            wall, used = time.perf_counter(), time.process_time()
            if sequence_group is own or collectives.rank() == 0:
                step(model, batch)
            if turn:  # the first turn grows the heap
                measured.append((time.perf_counter() - wall, time.process_time() - used))
    model.sequence_group = own
    medians = [tuple(map(statistics.median, zip(*measured, strict=True))) for measured in times]
    (seconds, cpu), (_, alone) = medians[0], medians[-1]
    return seconds, cpu, alone


def activations_and_traffic(model: MateyModel, batch: FieldBatch) -> tuple[int, dict[str, Any]]:
    """Return the peak of memory in a step above that in use before, and the exchanges of tokens forward and backward."""
    count_traffic()
    before = memory("cpu")
    loss = loss_of(model, batch)
    forward = take_traffic()
    loss.backward()
    backward = take_traffic()
    peak = memory("cpu", peak=True) - before
    model.zero_grad(set_to_none=False)
    stop_counting()
    return peak, {"traffic_forward": forward, "traffic_backward": backward}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
