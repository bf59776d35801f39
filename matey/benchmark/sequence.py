"""The sequence-parallel benchmark: compares several numbers of ranks, each measured in its own processes.

The ranks of a point are ``torchrun -m matey.benchmark.sequence JSON``, of which rank 0 prints a line of JSON. They form one
sequence group; with one rank the model runs as without a group. Each reads its part of the fields from a file.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import psutil
import torch
from torch import Tensor

from matey.benchmark.step import Case, memory, return_freed_memory
from matey.config import DataDescription
from matey.data.described import DataFile, DescribedFiles
from matey.data.windows import Window
from matey.evaluate.evaluation import Protocol, score, tasks_of
from matey.evaluate.forecasts.series import forecast
from matey.evaluate.held_out import HeldOut
from matey.fields import FieldBatch
from matey.model.matey import MateyModel
from matey.model.prepare import Prepared
from matey.model.sequence_group import SequenceGroup
from matey.nested import tensors_in
from matey.parallel import collectives
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.exchange import HostExchange
from matey.parallel.meter import count_traffic, stop_counting, take_traffic
from matey.parallel.sequence import share_samples
from matey.parallel.topology import shares
from matey.train.loss import LossScale, training_loss
from matey.train.validation import read_and_prepare

Point = dict[str, Any]
PART_MEASURES = (
    *("peak_memory_bytes", "bytes_read", "layout_bytes", "exchanged_bytes"),
    *("forecast_memory_bytes", "evaluation_memory_bytes"),
)


def run_point(case: Case, ranks: int, repeat: int = 0, limit: float | None = None, before: Case | None = None) -> Point:
    """Measure memory and exchanges of a case on a number of ranks of this machine, and the time of ``repeat`` steps, if any.

    Args:
        case: the case.
        ranks: number of ranks.
        repeat: number of timed steps.
        limit: time limit of the measurement in seconds.
        before: the same model on a smaller grid, for the step before the measured one; by default the case itself.

    Raises:
        RuntimeError: a rank failed; with the end of what it said. Or it took more than ``limit`` seconds.
    """
    settings = case.to_json() | {"repeat": repeat, "before": (before or case).grid}
    name = f"The benchmark of {case.grid} cells"
    (point,) = points_of_ranks("matey.benchmark.sequence", settings, ranks, name, limit)
    return point


def points_of_ranks(module: str, settings: Point, ranks: int, name: str, limit: float | None = None) -> list[Point]:
    """Run a module on a number of ranks of this machine and return the points that it printed as lines ``point JSON``.

    Raises:
        RuntimeError: a rank failed; with the end of what it said. Or it took more than ``limit`` seconds.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
    command += ["-m", module, json.dumps(settings)]
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = launcher.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        launcher.terminate()  # it then ends its ranks; a killed launcher would leave them running
        launcher.communicate()
        raise RuntimeError(f"{name} on {ranks} ranks took more than {limit:g} seconds.") from None
    lines = [line[6:] for line in output.splitlines() if line.startswith("point ")]
    if launcher.returncode or not lines:
        raise RuntimeError(f"The benchmark on {ranks} ranks failed:\n{errors[-2000:]}")
    return [json.loads(line) for line in lines]


def longer(case: Case, factor: float) -> Case:
    """Return the case on a grid ``factor`` times as long along its first axis, in whole coarse patches."""
    cells = case.coarse_cells
    first = max(cells, round(case.grid[0] * factor / cells) * cells)
    return replace(case, grid=(first, *case.grid[1:]))


def longest(points: Sequence[Point], limit: float) -> float:
    """Return how many tokens fit into a limit of activations per rank, on the straight line through two measured points."""
    (n0, m0), (n1, m1) = ((p["num_tokens"], max(p["activation_bytes"])) for p in points)
    return n0 + (limit - m0) * (n1 - n0) / (m1 - m0)


def summarise(base: Point, point: Point, tokens_within_limit: float) -> Point:
    """Return a point's row, compared with one process.

    ``exchanged_over_formula`` compares the bytes that a rank puts into the attentions' exchanges of a forward pass with
    4 n e / P values, the formula for exchanging tokens for heads; gathers are listed separately. The backward pass gathers
    again, and the gradients of gathered values count among the exchanges.
    """
    ranks, tokens = point["ranks"], point["num_tokens"]
    formula = 4 * tokens * point["width"] / ranks * 4 * point["num_blocks"]
    forward, backward = point["traffic_forward"], point["traffic_backward"]

    def bytes_of(traffic: Point, kind: str) -> int:
        return traffic.get(kind, {"bytes": 0})["bytes"]

    return {
        "ranks": ranks,
        "num_tokens": tokens,
        "tokens_most_over_least": max(point["tokens_of_ranks"]) / max(1, min(point["tokens_of_ranks"])),
        "activation_bytes": max(point["activation_bytes"]),
        "memory_times_ranks": max(point["activation_bytes"]) * ranks / base["activation_bytes"][0],
        "longest_over_one": tokens_within_limit / base["num_tokens"],
        "exchanged_forward": bytes_of(forward, "all_to_all_single"),
        "exchanged_over_formula": bytes_of(forward, "all_to_all_single") / formula,
        "gathered_forward": bytes_of(forward, "all_gather_into_tensor"),
        "gathered_backward": bytes_of(backward, "all_gather_into_tensor"),
        "exchanged_backward": bytes_of(backward, "all_to_all_single"),
        **{name: point[name] for name in PART_MEASURES},
        "step_seconds": point["step_seconds"],
        "cpu_seconds": sum(point["cpu_seconds"]),
        "cpu_over_one": sum(point["cpu_seconds"]) / point["cpu_alone"],
        "cpu_most_over_least": max(point["cpu_seconds"]) / min(point["cpu_seconds"]),
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
    own = [num_tokens] if size == 1 else [s.stop - s.start for s in shares(num_tokens, size)]
    del batch
    return_freed_memory(at_once=True)
    shared = from_file_to_gradients(case, model, loss_of) if repeat else {}
    everyone = collectives.from_all_ranks((activations, traffic, times, shared))
    if rank == 0:
        point = {
            "ranks": size,
            "num_tokens": num_tokens,
            "tokens_of_ranks": own,
            "activation_bytes": [of_rank[0] for of_rank in everyone],
            **{way: mean_traffic([of_rank[1][way] for of_rank in everyone]) for way in traffic},
            "width": model.config.width,
            "num_blocks": model.config.num_blocks,
            **{name: max(of_rank[3][name] for of_rank in everyone) for name in shared},
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


def loss_of(model: MateyModel, batch: FieldBatch | Prepared) -> Tensor:
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


FILE, ARRAY, STEPS = "fields.h5", "values", 2


def from_file_to_gradients(
    case: Case, model: MateyModel, loss_of: Callable[[MateyModel, Prepared], Tensor]
) -> dict[str, int]:
    """Take a step on fields in a file, forecast from them into another file, score forecasts, and return the costs.

    All ranks must call.

    Returns:
        The peak of memory above that in use before, the bytes read from files, the bytes sent to other ranks before the
        step, the bytes of the layout (of all tokens, and of own ones), and the peaks of memory in the forecast and in
        the evaluation (at a lead and in a rollout, one step each).
    """
    with in_a_file(case) as (folder, data):
        before, bytes_before = memory("cpu"), psutil.Process().io_counters().read_chars
        exchange = model.sequence_group.exchange
        sent_before = exchange.num_bytes if isinstance(exchange, HostExchange) else 0
        prepared = read_and_prepare(
            model, [data], [Window(0, sample, 0, 1) for sample in range(case.batch)], case.frames
        )
        found = {"bytes_read": psutil.Process().io_counters().read_chars - bytes_before}
        sent = exchange.num_bytes - sent_before if isinstance(exchange, HostExchange) else 0
        found["layout_bytes"] = _bytes_behind(prepared.tokens)
        loss_of(model, prepared).backward()
        found |= {"exchanged_bytes": sent, "peak_memory_bytes": memory("cpu", peak=True) - before}
        model.zero_grad(set_to_none=False)
        del prepared
        collectives.barrier()
        before = memory("cpu")
        forecast(model, data, steps=STEPS, history=case.frames, batch_size=case.batch).write(folder / "forecast.h5")
        found["forecast_memory_bytes"] = memory("cpu", peak=True) - before
        collectives.barrier()
        before = memory("cpu")
        held_out = HeldOut((data,), (tuple(range(case.batch)),), case.frames)
        protocol = Protocol(leads=(1,), rollout_steps=1, batch_size=case.batch)
        score(model, held_out, protocol, tasks_of(held_out, protocol))
        found["evaluation_memory_bytes"] = memory("cpu", peak=True) - before
    return found


@contextmanager
def in_a_file(case: Case, axes: str = "zyx", **stored: object) -> Iterator[tuple[Path, DescribedFiles]]:
    """Write a case into a file of a temporary folder, see `write`; yield it and the opened data set. All ranks must call."""
    with tempfile.TemporaryDirectory() as own:
        folder = Path(collectives.from_rank_zero(own))
        if collectives.rank() == 0:
            write(case, folder, axes, **stored)
        collectives.barrier()
        data = opened(case, folder, axes)
        data.read(0, 0, 1, (slice(0, 1),) * 3)  # opens the file
        yield folder, data
        collectives.barrier()


def _bytes_behind(tokens: object) -> int:
    """Return the bytes of the tensors of all tokens, of which ``tokens`` holds views."""
    storages = (tensor.untyped_storage() for tensor in tensors_in(tokens))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def write(case: Case, folder: Path, axes: str = "zyx", **stored: object) -> None:
    """Write the histories and targets of a case as one array ``(b, t, f, *axes)``, ``stored`` as h5py is told."""
    batch, order = case.make_batch(), [3 + "zyx".index(axis) for axis in axes]
    with h5py.File(folder / FILE, "w") as file:
        frames = torch.cat([batch.history, batch.known_target[:, None]], dim=1)
        file.create_dataset(ARRAY, data=frames.permute(0, 1, 2, *order).cpu().numpy(), **stored)


def opened(case: Case, folder: Path, axes: str = "zyx") -> DescribedFiles:
    """Open the file that `write` has written as a data set."""
    description = DataDescription.model_validate(
        {
            "system": "benchmark",
            "files": FILE,
            "axes": ["trajectory", "time", "component", *axes],
            "fields": {f"field_{number}": {"array": ARRAY, "index": number} for number in range(case.fields)},
            "spacing": dict.fromkeys(axes, 1.0),
            "time_step": 1.0,
            "boundary": dict.fromkeys(axes, "open"),
        }
    )
    return DescribedFiles(description, [DataFile((folder / FILE,))])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(json.loads(sys.argv[1]))
