"""The few collectives that training and its bookkeeping need outside the engine, and the check that all ranks agree.

DeepSpeed is imported on first use: importing a module of ours does not choose an accelerator.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import resource
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from matey.config import ConfigError, RunConfig, dump_config
from matey.mistakes import Mistake

Item = TypeVar("Item")
Value = TypeVar("Value")

ACCELERATOR = "DS_ACCELERATOR"

Engine: TypeAlias = Any
"""A ``deepspeed.DeepSpeedEngine``, which has no types of its own."""


@cache
def deepspeed() -> Any:  # noqa: ANN401
    """Return the package ``deepspeed``.

    Its import searches for an accelerator, which takes seconds and prints, unless a variable names one. PyTorch knows the
    accelerator already. The variable is removed again: jobs that this process starts may run on machines with other devices.
    """
    is_chosen = ACCELERATOR in os.environ
    if not is_chosen:
        os.environ[ACCELERATOR] = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        import deepspeed
        from deepspeed.runtime.zero.config import ZeroStageEnum
    finally:
        if not is_chosen:
            del os.environ[ACCELERATOR]
    # Python 3.11.2, which Debian 12 has, pickles a stage through getattr, which is refused when a checkpoint is read.
    ZeroStageEnum.__reduce_ex__ = lambda stage, protocol: (type(stage), (stage.value,))
    return deepspeed


def rank() -> int:
    """Return this process's rank, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(values: Tensor, *, largest: bool = False) -> Tensor:
    """Return the sum of ``values`` over all ranks, or the ``largest`` of each, on every rank."""
    total = values.clone()
    if dist.is_initialized():
        dist.all_reduce(total, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
    return total


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        dist.barrier()


def from_rank_zero(value: Value) -> Value:
    """Return rank 0's value on every rank."""
    box = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def from_all_ranks(value: object) -> list[Any]:
    """Return the values of all ranks, in their order."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def shared_out(work: Callable[[Item], Value], items: Sequence[Item], /) -> list[Value]:
    """Call ``work`` on each item, each on one rank, the first on rank 0; see `matey.data.splits.Share`.

    All ranks must call with as many items. Results travel as pickles.

    Raises:
        Mistake: the first mistake of any rank, in the order of the items, on every rank.
    """
    if world_size() == 1:
        return [work(item) for item in items]
    # Consecutive items are often in one file, which only one rank then opens.
    first, stop = (-(-each * len(items) // world_size()) for each in (rank(), rank() + 1))
    of_ranks = _from_all_packed([_outcome(work, item) for item in items[first:stop]])
    outcomes = [outcome for of_rank in of_ranks for outcome in of_rank]
    for outcome in outcomes:
        if isinstance(outcome, Mistake):
            raise outcome
    return outcomes


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Compute on one thread, so that the results of work for `shared_out` do not depend on the number of ranks.

    The number of threads of a rank depends on the number of ranks, and other numbers of threads add up in another order.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def dealt(items: Sequence[Item], together: int = 1) -> Sequence[Item]:
    """Return this rank's part of items that are dealt out like cards, since consecutive items often take equally long.

    Args:
        items: the items.
        together: number of consecutive ranks that have the same part.
    """
    return items[rank() // together :: world_size() // together]


def dealt_out(work: Callable[[Item], Value], items: Sequence[Item], /, together: int = 1) -> list[Value]:
    """Do as `shared_out` does, each rank for its part of `dealt`.

    Raises:
        Mistake: the first mistake that this rank meets, at once; it ends all ranks, whose parts might take hours.
    """
    own = [work(item) for item in dealt(items, together)]
    groups = _from_all_packed(own)[::together] if world_size() > 1 else [own]
    return [groups[number % len(groups)][number // len(groups)] for number in range(len(items))]


def done_by_rank_zero(work: Callable[[], Value]) -> Value:
    """Do a piece of work on rank 0, which sends the other ranks the result, or the mistake that it met."""
    (value,) = shared_out(lambda _: work(), [None])
    return value


def _outcome(work: Callable[[Item], Value], item: Item) -> Value | Mistake:
    try:
        return work(item)
    except Mistake as error:
        return error


def _from_all_packed(value: object) -> list[Any]:
    """Return the values of all ranks, in their order; values may differ much in length."""
    own = zlib.compress(pickle.dumps(value), level=1)
    lengths = from_all_ranks(len(own))
    whole = torch.zeros(sum(lengths), dtype=torch.uint8)
    whole.split(lengths)[rank()].copy_(torch.frombuffer(bytearray(own), dtype=torch.uint8))
    # A sum, since gathering would pad all values to the longest, and one rank may hold nearly everything.
    whole = whole.to("cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(whole)
    return [pickle.loads(zlib.decompress(part.numpy().tobytes())) for part in whole.cpu().split(lengths)]


def peak_memory_bytes() -> int:
    """Return the largest amount of memory that this process held: GPU memory if it uses a GPU, else resident memory."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    # Linux's getrusage returns the peak of the process that started this one if that peak was larger.
    if (status := Path("/proc/self/status")).exists() and (peak := re.search(r"VmHWM:\s*(\d+)", status.read_text())):
        return int(peak[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of macOS, in bytes


def fingerprint(text: str) -> str:
    """Return a short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_same_run(run: RunConfig, deepspeed_config: dict[str, Any]) -> None:
    """Raise ConfigError unless all ranks run the same code on the same configuration."""
    root, code = Path(__file__).resolve().parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        code.update(str(path.relative_to(root)).encode() + path.read_bytes())
    check_agreement(
        {
            "the code": code.hexdigest()[:12],
            "the run's configuration": fingerprint(dump_config(run)),
            "the DeepSpeed configuration": fingerprint(json.dumps(deepspeed_config, sort_keys=True)),
        }
    )


def check_agreement(facts: Mapping[str, str]) -> None:
    """Raise ConfigError, on every rank, unless all ranks have equal facts.

    Args:
        facts: fingerprints by name, such as ``the code``.
    """
    everyone = from_all_ranks(dict(facts))
    for what, value in everyone[0].items():
        others = [number for number, own in enumerate(everyone) if own[what] != value]
        if others:
            raise ConfigError(
                f"Rank {others[0]} has {what} with fingerprint {everyone[others[0]][what]}, rank 0 has {value} "
                f"({len(others)} of {len(everyone)} ranks differ from rank 0); give all nodes the same files."
            )
