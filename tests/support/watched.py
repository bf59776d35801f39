"""Tiny runs of every kind in processes of their own, which are watched from outside: nothing in the product helps."""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import yaml

from tests.support import programs
from tests.support.programs import clean_environment, held_back, kill, preloaded, signals_in

NUM_STEPS, EVERY = 8, 2
SECONDS_TO_CLEAN_UP = 30  # promised in docs/reliability.md
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Kind:
    """A kind of run: so many ranks, a ZeRO stage, and so many processes that read data for each rank."""

    num_ranks: int
    stage: int
    workers: int

    def __str__(self) -> str:
        return f"{self.num_ranks} ranks, ZeRO {self.stage}, {self.workers} workers"


KINDS = [Kind(num_ranks, stage, workers) for num_ranks in (1, 2) for stage in (1, 3) for workers in (0, 2)]


def write_config(folder: Path, data: Path, kind: Kind, **train) -> Path:
    """Write the YAML of a run into a folder that is made."""
    tree = {
        "model": {"size": "micro", "channels": 4},
        "tokens": {"set": "uniform", "patches": [[1, 1, 8, 8]]},
        "data": {"sets": [{"path": str(data)}], "history": 1, "lead_max": 2, "workers": kind.workers},
        "train": {
            "steps": NUM_STEPS,
            "micro_batch": 4 // kind.num_ranks,
            "ema": 0.5,
            "validate_every": EVERY,
            "checkpoint_every": EVERY,
            "keep_checkpoints": 1,
            "validation_windows": 16,
            **train,
        },
        "parallel": {"threads": 1},  # threads that wait for each other take long where many programs share the cores
        "output": {"dir": str(folder / "run")},
    }
    folder.mkdir(parents=True)
    (folder / "tmp").mkdir()
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def training(folder: Path, kind: Kind, *flags: str) -> list[list[str]]:
    """Return the commands of the ranks that train in a folder."""
    files = ["--deepspeed_config", f"ds_configs/zero{kind.stage}.json", "--config", str(folder / "run.yaml")]
    return [[sys.executable, "launch/pretrain.py", *files, *flags]] * kind.num_ranks


def environments(folder: Path, num_ranks: int) -> list[dict[str, str]]:
    """Return the variables of each rank of a run, which puts its temporary files into the folder."""
    of_ranks = [clean_environment()] if num_ranks == 1 else programs.environments(num_ranks)
    return [variables | {"TMPDIR": str(folder / "tmp")} for variables in of_ranks]


class Ranks:
    """The ranks of a run without a launcher, or one other program, each in a session of its own."""

    def __init__(self, folder: Path, commands: list[list[str]]) -> None:
        self.run = folder / "run"
        self._output, self._temporary = folder / "output.txt", folder / "tmp"
        self._before = in_shared_memory()
        with self._output.open("ab") as output:
            self._begin = output.tell()
            self.programs = [
                preloaded().start(command, variables, output, output)
                for command, variables in zip(commands, environments(folder, len(commands)), strict=True)
            ]
        self.sessions = {program.pid for program in self.programs}
        self.numbers = {*self.sessions}

    def has_ended(self) -> bool:
        """Whether a rank has ended."""
        return bool(select.select(self.programs, [], [], 0)[0])

    def codes(self, timeout: float) -> list[int]:
        """Wait for all ranks and return their exit codes."""
        until = time.monotonic() + timeout
        for program in self.programs:
            assert select.select([program], [], [], max(0, until - time.monotonic()))[0], f"still there: {self.text()}"
        return [program.wait() for program in self.programs]

    def text(self) -> str:
        """Return all that they printed."""
        return self._output.read_bytes()[self._begin :].decode(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Return the processes of these ranks that are alive, those that read data for them too."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) in self.sessions and process.status() != psutil.STATUS_ZOMBIE
        except (ProcessLookupError, psutil.NoSuchProcess):
            return False

    def left_behind(self) -> list[str]:
        """Return what is there of processes, shared memory and temporary files."""
        names = in_shared_memory() - self._before
        # Other programs on this machine use shared memory too: names of ours hold a process number, or are semaphores.
        ours = [
            name
            for name in names
            if (self.numbers & set(map(int, re.findall(r"\d+", name))))
            or (name.startswith("sem.") and not self._is_of_others(name))
        ]
        processes = [f"process {process.pid}" for process in self.processes()]
        return processes + ours + [str(path) for path in self._temporary.rglob("*")]

    def _is_of_others(self, name: str) -> bool:
        """Whether a process that is none of ours uses a name in shared memory."""
        ours = {process.pid for process in self.processes()}
        for number in set(psutil.pids()) - ours:
            with suppress(OSError):
                if name in Path(f"/proc/{number}/maps").read_text():
                    return True
        return False

    def check_nothing_is_left(self) -> None:
        """Wait for the end of all processes and temporary files, for as long as they may take."""
        until = time.monotonic() + SECONDS_TO_CLEAN_UP
        while left := self.left_behind():
            assert time.monotonic() < until, f"{left} are left after {SECONDS_TO_CLEAN_UP} s: {self.text()}"
            time.sleep(0.1)

    def wait_until_not_killed_by(self, *numbers: int) -> None:
        """Wait until all ranks hold signals back, or handle them already: a loaded machine may show us only the latter."""
        until = time.monotonic() + 60
        while not all({*numbers} <= held_back(each) | signals_in(each, "SigCgt") for each in self.sessions):
            assert time.monotonic() < until and not self.has_ended(), self.text()
            time.sleep(0.0005)

    def signal(self, number: int, count: int, random: Random) -> None:
        """Send a signal to so many of the programs, drawn at random; one that has ended hears nothing."""
        self.numbers |= {process.pid for process in self.processes()}
        for process in random.sample(sorted(self.sessions), count):
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def end(self) -> None:
        """Kill what is left of them."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for program in self.programs:
            kill(program)


@contextmanager
def started(folder: Path, commands: list[list[str]]) -> Iterator[Ranks]:
    """Programs in the background, none of whose processes outlives the block."""
    ranks = Ranks(folder, commands)
    try:
        yield ranks
    finally:
        ranks.end()


def in_shared_memory() -> set[str]:
    """Return the names there are in shared memory."""
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()
