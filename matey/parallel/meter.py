"""Measures the cost of a step: seconds by part on this rank; CPU time, memory, cores and communication of all ranks.

Neither the host nor its device waits for numbers that are sent between them.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from matey.parallel.collectives import deepspeed, from_all_ranks, peak_memory_bytes, sum_over_ranks


class Late:
    """Numbers that the device is still computing, copied to main memory without waiting and read a step later."""

    def __init__(self, values: Tensor, then: Callable[[Any], Any] = lambda values: values) -> None:
        """Start the copy of the values; the host goes on. What `read` returns is ``then`` of the values."""
        self._then = then
        on_gpu = values.device.type == "cuda"
        # A copy to memory that is not pinned would wait.
        self._here = torch.empty(values.shape, dtype=values.dtype, pin_memory=on_gpu)
        self._here.copy_(values.detach(), non_blocking=True)
        self._arrival = torch.cuda.Event() if on_gpu else None
        if self._arrival is not None:
            self._arrival.record()

    def read(self) -> Any:  # noqa: ANN401
        """Return the values as Python's numbers, in nested lists, or what is made of them; wait if they have not come yet."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._then(self._here.tolist())


def sent(values: Sequence[float], device: torch.device) -> Tensor:
    """Send numbers of the host to a device, as float64 ``(n,)``; the host goes on."""
    here = torch.tensor(values, dtype=torch.float64)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here


Mark = tuple[str, Any]
"""A part of a step, and the time of its end: seconds, or an event on a GPU."""

_cores = float(os.cpu_count() or 1)


def note_cores(cores: float) -> None:
    """Note how many cores this rank has to itself: a fraction where ranks share some."""
    global _cores
    _cores = cores


def cores_of_rank() -> float:
    """Return how many cores this rank has to itself; a core that n ranks may run on counts 1 / n. All ranks must call.

    Launchers, schedulers and containers bind ranks to cores in many ways, so that this rank's binding alone does not tell: a
    few of the machine's cores may be its own, or those of a container in which all its ranks run.
    """
    bound = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    mine = socket.gethostname(), sorted(bound)
    num_ranks = Counter(core for node, cores in from_all_ranks(mine) if node == mine[0] for core in cores)
    return round(sum(1 / num_ranks[core] for core in mine[1]), 6)


class Meter:
    """Times the parts of a step on one rank.

    On a GPU the times are those of events in its stream, and the host need not wait for them. DeepSpeed's
    ``wall_clock_breakdown`` waits for the device at every part instead, which slows down the step that it measures.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.start()

    def start(self) -> None:
        """Begin a step."""
        self._cpu = time.process_time()
        self._started = time.perf_counter()
        self._marks: list[Mark] = [("start", self._now())]

    def mark(self, part: str) -> None:
        """Count the time since the last mark as ``part``; a part may come several times in a step."""
        self._marks.append((part, self._now()))

    def seconds(self) -> float:
        """Return the seconds since the step began."""
        return time.perf_counter() - self._started

    def read(self) -> Reading:
        """Collect the cost of the step up to its last mark from all ranks; all ranks must call."""
        memory = peak_memory_bytes()
        own = sent([time.process_time() - self._cpu, memory, _cores], self._device)
        return Reading(tuple(self._marks), Late(sum_over_ranks(own)), Late(sum_over_ranks(own, largest=True)))

    def _now(self) -> float | torch.cuda.Event:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@dataclass(frozen=True)
class Reading:
    """Costs of a step, which the device and other ranks have yet to report.

    Attributes:
        marks: the parts of the step, each with the time of its end.
        sums: CPU seconds, bytes of memory and cores, summed over the ranks.
        largest: the same three numbers, the largest over the ranks.
    """

    marks: tuple[Mark, ...]
    sums: Late
    largest: Late

    def numbers(self) -> dict[str, Any]:
        """Return the costs, equal on all ranks except for the seconds by part; wait if they have not come yet.

        Returns:
            A mapping: ``seconds_by_part`` of this rank; ``cpu_seconds`` (CPU time), ``total_memory_bytes`` and
            ``num_cores`` summed over the ranks, without the processes that read ahead; ``peak_memory_bytes`` of the
            rank that held most.
        """
        cpu, total, cores = self.sums.read()
        _, most, _ = self.largest.read()
        return {
            "seconds_by_part": self._seconds_by_part(),
            "cpu_seconds": cpu,
            "num_cores": round(cores, 3),
            "peak_memory_bytes": int(most),
            "total_memory_bytes": int(total),
        }

    def _seconds_by_part(self) -> dict[str, float]:
        seconds: dict[str, float] = {}
        last = self.marks[-1][1]
        if isinstance(last, torch.cuda.Event):
            last.synchronize()
        for (_, begin), (part, end) in pairwise(self.marks):
            took = begin.elapsed_time(end) / 1000 if isinstance(begin, torch.cuda.Event) else end - begin
            seconds[part] = seconds.get(part, 0.0) + took
        return seconds


Traffic = dict[str, dict[str, float]]


def count_traffic() -> None:
    """Turn the logger on from now on; ``"comms_logger": {"enabled": true, "prof_all": true}`` in the JSON does from the start.

    Every collective then waits until it has finished, so that none overlaps with computation.
    """
    deepspeed().comm.configure(enabled=True, prof_all=True)


def stop_counting() -> None:
    """Turn the logger off."""
    deepspeed().comm.configure(enabled=False)


def take_traffic() -> Traffic | None:
    """Return ``{kind: {"bytes": ..., "calls": ..., "seconds": ...}}`` since the last call, None if nothing is counted.

    Bytes are those that this rank puts into DeepSpeed's calls, its own share included. Seconds include waiting for ranks that
    come later.
    """
    comm = deepspeed().comm.comm
    if not comm.comms_logger.enabled:
        return None
    traffic: Traffic = {}
    for kind, by_size in comm.comms_logger.comms_dict.items():
        calls = {size: counts[0] for size, counts in by_size.items()}
        traffic[kind] = {
            "bytes": sum(size * count for size, count in calls.items()),
            "calls": sum(calls.values()),
            # The logger's own latencies are cumulative (it reads its timer without a reset), so the timer is read instead.
            "seconds": comm.timers(kind).elapsed() / 1000,
        }
    comm.comms_logger.comms_dict.clear()  # it keeps a latency for every call of a run
    return traffic
