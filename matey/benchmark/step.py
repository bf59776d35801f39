"""Benchmarks a training step: of one process beside the machine's matrix-product rate, and of several ranks beside one.

Ranks that share a sample are ``torchrun -m matey.benchmark.step JSON``, of which rank 0 prints a line of JSON. They form one
sequence group; with one rank the model runs as without a group.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from matey.config import TrainSection
from matey.fields import FieldBatch
from matey.model.configuration import MateyConfig
from matey.model.matey import MateyModel
from matey.model.sequence_group import SequenceGroup
from matey.parallel import collectives
from matey.parallel.engine import parameter_groups
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.parallel.meter import count_traffic, stop_counting, take_traffic
from matey.parallel.sequence import share_samples
from matey.process.start import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, set_options
from matey.train.loss import LossScale, training_loss

WARM_UP = 2  # untimed steps first: they make the optimizer's state, and memory reaches its peak


@dataclass(frozen=True)
class Speed:
    """Costs of a case's step: median times, and counts.

    Attributes:
        case: the case that was timed.
        num_tokens: number of tokens per sample.
        step_seconds: seconds of forward with the loss, backward and AdamW together.
        peak_memory_bytes: peak memory above that in use before the model was made. On a CPU, if freed memory is kept, as in
            training, the holes in the heap count as well.
        model_flops: operations in the matrix products of forward and backward; backward counts twice the forward's.
        matmul_rate: operations per second of a square matrix product, measured between the steps.
        matmul_share: operations per second of the step, divided by ``matmul_rate``.
    """

    case: Case
    num_tokens: float
    step_seconds: float
    peak_memory_bytes: int
    model_flops: int
    matmul_rate: float
    matmul_share: float

    def as_row(self) -> dict[str, Any]:
        """Return all values as a flat row for JSON and CSV."""
        row = {**asdict(self.case), **{key: value for key, value in asdict(self).items() if key != "case"}}
        for name in ("patches", "grid"):
            row[name] = ",".join(map(str, row[name]))
        return {**row, "dtype": str(self.case.dtype).removeprefix("torch.")}


def measure(cases: Sequence[Case], repeat: int) -> list[Speed]:
    """Time the cases in turns, so that other load on the machine affects all alike.

    Raises:
        ValueError: no model can be made for a case.
    """
    stands = [_Stand(case) for case in cases]
    for _ in range(repeat):
        for stand in stands:
            stand.run()
            stand.rates.append(matmul_rate(stand.case.device, stand.case.dtype))
    return [stand.speed() for stand in stands]


class _Stand:
    """A case with its model, and the times of its steps."""

    def __init__(self, case: Case) -> None:
        before = memory(case.device)
        self.case, self.batch, self.model = case, case.make_batch(), case.make_model()
        groups = parameter_groups(self.model, TrainSection(steps=1))
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
        self.seconds: list[float] = []
        self.rates: list[float] = []
        for _ in range(WARM_UP):
            self.run()
        self.peak = memory(case.device, peak=True) - before
        self.seconds.clear()
        self.flops = 3 * self._forward_flops()
        self.num_tokens = self.model.count_tokens(self.batch).double().mean().item()

    def run(self) -> None:
        """Take a step and record its time."""
        start = now(self.case.device)
        self._loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(now(self.case.device) - start)

    def speed(self) -> Speed:
        """Return the median costs."""
        step, rate = statistics.median(self.seconds), statistics.median(self.rates)
        return Speed(
            case=self.case,
            num_tokens=self.num_tokens,
            step_seconds=step,
            peak_memory_bytes=self.peak,
            model_flops=self.flops,
            matmul_rate=rate,
            matmul_share=self.flops / step / rate,
        )

    def _loss(self) -> Tensor:
        return training_loss(self.model([self.batch]), self.model.sequence_group, {self.batch.system: LossScale()})[0]

    def _forward_flops(self) -> int:
        # The counter only sees attention's matrix products in the plain implementation.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self._loss()
        return counter.get_total_flops()


@dataclass(frozen=True)
class Case:
    """A model and a sample to time.

    Attributes:
        model: size of the model, see `matey.model.configuration.SIZES`.
        scheme: attention scheme.
        tokens: token set.
        patches: cells of a patch along each axis of space, coarse to fine.
        refine: share of the patches of each level that is split.
        grid: cells along ``y, x`` or ``z, y, x``.
        frames: number of history frames.
        fields: number of fields.
        batch: number of samples.
        dtype: precision of weights and tokens.
        device: the device that the step runs on.
        patch_frames: frames of a patch, on every level.
        checkpoint_blocks: the setting ``parallel.checkpoint_blocks``.
        network: the setting ``model.network``.
    """

    model: str = "Ti"
    scheme: str = "vit"
    tokens: str = "uniform"
    patches: tuple[int, ...] = (8,)
    refine: float = 0.25
    grid: tuple[int, ...] = (128, 128)
    frames: int = 4
    fields: int = 4
    batch: int = 2
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    patch_frames: int = 1
    checkpoint_blocks: str = "none"
    network: str = "matey"

    @classmethod
    def from_json(cls, settings: dict[str, Any]) -> Case:
        """Return the case that `to_json` wrote."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        return cls(**{**values, "dtype": getattr(torch, settings["dtype"])})

    def to_json(self) -> dict[str, Any]:
        """Return the case in values that JSON can hold."""
        return asdict(self) | {"dtype": str(self.dtype).removeprefix("torch.")}

    def make_config(self) -> MateyConfig:
        """Return the configuration of the model."""
        depths = [1 if len(self.grid) == 2 else cells for cells in self.patches]
        patches = [(self.patch_frames, z, cells, cells) for z, cells in zip(depths, self.patches, strict=True)]
        tokens = {"set": self.tokens, "patches": patches, "rule": "fraction", "refine": self.refine}
        names = {"fields": self._names(), "scheme": self.scheme, "history": self.frames, "network": self.network}
        return MateyConfig.from_size(self.model, tokens=tokens, **names)

    def make_model(self) -> MateyModel:
        """Return a model with random weights."""
        torch.manual_seed(0)
        model = MateyModel(self.make_config()).to(self.device, self.dtype)
        model.checkpoint_blocks = self.checkpoint_blocks
        return model

    def make_batch(self) -> FieldBatch:
        """Return smooth fields with a few sharp spots that drift."""
        random = torch.Generator().manual_seed(0)
        z, y, x = (*(1,) * (3 - len(self.grid)), *self.grid)
        axes = torch.meshgrid(*(torch.linspace(0, 1, size) for size in (z, y, x)), indexing="ij")
        frames = torch.arange(self.frames + 1)[:, None, None, None, None]
        phase = 6.3 * torch.rand(self.batch, 1, self.fields, 1, 1, 1, generator=random)
        values = torch.sin(3 * axes[2] + 2 * axes[1] + axes[0] + 0.05 * frames + phase)
        for _ in range(4):
            centre = torch.rand(3, self.batch, 1, 1, 1, 1, 1, generator=random) + 0.01 * frames
            if z == 1:
                centre[0] = 0  # in the plane of a 2-D grid, which most spots would otherwise miss
            distance = sum((axis - at).square() for axis, at in zip(axes, centre, strict=True))
            values = values + 3 * torch.exp(-distance / 0.03**2)
        lead_time = torch.ones(self.batch, dtype=torch.long)
        batch = FieldBatch("benchmark", self._names(), values[:, :-1], lead_time, values[:, -1])
        return batch.to(self.device)

    def _names(self) -> tuple[str, ...]:
        return tuple(f"field_{number}" for number in range(self.fields))


MATRIX = 1024  # rows and columns of the matrices whose product is timed


def now(device: str) -> float:
    """Return the seconds of a clock, once the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Return the operations per second of one product of square matrices."""
    a, b = torch.ones(2, MATRIX, MATRIX, dtype=dtype, device=device)
    start = now(device)
    torch.mm(a, b)
    return 2 * MATRIX**3 / (now(device) - start)


def return_freed_memory(at_once: bool) -> None:
    """Choose whether the C library returns every freed tensor to the system, or keeps its memory for reuse, which is faster.

    Kept memory counts as resident, so a peak would be that of the library's heap with its holes.
    """
    set_options({M_MMAP_THRESHOLD: 2**16 if at_once else 2**25, M_TRIM_THRESHOLD: 2**16 if at_once else 2**26})


def memory(device: str, *, peak: bool = False) -> int:
    """Return the bytes in use, or with ``peak`` the most since the last call without it."""
    if device == "cuda":
        if peak:
            return torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not peak:
        ctypes.CDLL(None).malloc_trim(0)
        # This resets Linux's high-water mark of resident memory (proc(5), clear_refs).
        Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmHWM" if peak else "VmRSS"].split()[0]) * 1024


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
    command += ["-m", "matey.benchmark.step", json.dumps(settings)]
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
