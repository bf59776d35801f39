"""Benchmarks a training step of one process, and compares it with the machine's matrix-product rate."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from matey.benchmark.machine import matmul_rate, memory, now
from matey.benchmark.speed_cases import Case
from matey.config import TrainSection
from matey.model.matey import MateyModel
from matey.parallel.engine import parameter_groups
from matey.train.loss import LossScale, training_loss

WARM_UP = 2  # untimed steps first: they make the optimizer's state, and memory reaches its peak

PRODUCTS = ("mm", "conv", "attention", "gemm", "flash", "fmha")
"""Parts of the names of operations and kernels that multiply matrices."""

NUM_ELSEWHERE = 8  # operations that are named


@dataclass(frozen=True)
class Speed:
    """Costs of a case's step: median times, and counts.

    Attributes:
        case: the case that was timed.
        num_tokens: number of tokens per sample.
        step_seconds: seconds of forward with the loss, backward and AdamW together.
        forward_seconds: seconds of tokenizer, network and loss.
        backward_seconds: seconds of the backward pass.
        optimizer_seconds: seconds of AdamW.
        peak_memory_bytes: peak memory above that in use before the model was made. On a CPU, if freed memory is kept, as in
            training, the holes in the heap count as well.
        model_flops: operations in the matrix products of forward and backward; backward counts twice the forward's.
        matmul_rate: operations per second of a square matrix product, measured between the steps.
        matmul_share: operations per second of the step, divided by ``matmul_rate``.
        outside_blocks_share: share of the step's time that forward and backward spend outside the transformer blocks.
        elsewhere: shares of the step by operation (PyTorch's name), the largest first, without products of matrices, attention
            and convolutions; as seen by PyTorch's profiler, which slows down small operations.
    """

    case: Case
    num_tokens: float
    step_seconds: float
    forward_seconds: float
    backward_seconds: float
    optimizer_seconds: float
    peak_memory_bytes: int
    model_flops: int
    matmul_rate: float
    matmul_share: float
    outside_blocks_share: float
    elsewhere: dict[str, float]

    def as_row(self) -> dict[str, Any]:
        """Return all values as a flat row for JSON and CSV."""
        row = {**asdict(self.case), **{key: value for key, value in asdict(self).items() if key != "case"}}
        row["elsewhere"] = ", ".join(f"{name} {share:.3f}" for name, share in self.elsewhere.items())
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
        self.marks: list[dict[str, float]] = []
        self.rates: list[float] = []
        for _ in range(WARM_UP):
            self.run()
        self.peak = memory(case.device, peak=True) - before
        self.marks.clear()
        self.flops = 3 * self._forward_flops()
        self.num_tokens = self.model.count_tokens(self.batch).double().mean().item()

    def run(self) -> None:
        """Take a step and record the time at which each part ended."""
        mark = {"start": now(self.case.device)}
        with blocks_noted(self.model, lambda name: mark.update({name: now(self.case.device)})):
            loss = self._loss()
            mark["forward"] = now(self.case.device)
            loss.backward()
            mark["backward"] = now(self.case.device)
        self.optimizer.step()
        self.optimizer.zero_grad()
        mark["optimizer"] = now(self.case.device)
        self.marks.append(mark)

    def speed(self) -> Speed:
        """Return the median costs."""
        step = self._median("start", "optimizer")
        forward, backward = self._median("start", "forward"), self._median("forward", "backward")
        in_blocks = self._median("enter", "leave") + self._median("enter backward", "leave backward")
        rate = statistics.median(self.rates)
        return Speed(
            case=self.case,
            num_tokens=self.num_tokens,
            step_seconds=step,
            forward_seconds=forward,
            backward_seconds=backward,
            optimizer_seconds=self._median("backward", "optimizer"),
            peak_memory_bytes=self.peak,
            model_flops=self.flops,
            matmul_rate=rate,
            matmul_share=self.flops / step / rate,
            outside_blocks_share=(forward + backward - in_blocks) / step,
            elsewhere=self._elsewhere(),
        )

    def _loss(self) -> Tensor:
        return training_loss(self.model([self.batch]), self.model.sequence_group, {self.batch.system: LossScale()})[0]

    def _forward_flops(self) -> int:
        # The counter only sees attention's matrix products in the plain implementation.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self._loss()
        return counter.get_total_flops()

    def _elsewhere(self) -> dict[str, float]:
        # Otherwise the profiler says on standard error that it starts and stops.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        with torch.profiler.profile() as profiler:
            self.run()
        self.marks.pop()
        seconds: Counter[str] = Counter()
        for row in profiler.key_averages():
            # A kernel's time is that of the operation that launched it as well.
            if row.device_type.name != "CPU":
                continue
            spent = row.self_device_time_total if self.case.device == "cuda" else row.self_cpu_time_total
            seconds[_short(row.key)] += spent
        others = {name: spent for name, spent in seconds.items() if not any(product in name for product in PRODUCTS)}
        most = Counter(others).most_common(NUM_ELSEWHERE)
        return {name: spent / seconds.total() for name, spent in most if spent}

    def _median(self, start: str, end: str) -> float:
        return statistics.median(mark[end] - mark[start] for mark in self.marks)


def _short(name: str) -> str:
    """Return an operation's name without where it is defined, and without the spaces and commas that part names in a row."""
    for prefix in ("autograd::engine::evaluate_function: ", "aten::", "autograd::"):
        name = name.removeprefix(prefix)
    return "_".join(name.replace(",", " ").split())


@contextmanager
def blocks_noted(model: MateyModel, note: Callable[[str], None]) -> Iterator[None]:
    """Note ``enter``, ``leave``, ``enter backward`` and ``leave backward`` when a pass enters or leaves the blocks."""

    def enter(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].requires_grad:
            args[0].register_hook(lambda _: note("leave backward"))
        note("enter")

    def leave(_module: nn.Module, _args: tuple[Tensor, ...], tokens: Tensor) -> None:
        note("leave")
        tokens.register_hook(lambda _: note("enter backward"))

    hooks = [model.blocks[0].register_forward_pre_hook(enter), model.blocks[-1].register_forward_hook(leave)]
    yield
    for hook in hooks:
        hook.remove()
