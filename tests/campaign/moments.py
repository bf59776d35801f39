"""Tiny runs of every kind, watched from outside: moments, found by what is written, and ends beside those of undisturbed runs.

A moment lies at a share of the time that the undisturbed run took from what it wrote to what it wrote next.

    start | step | validation | model | save            | prune
          ^      ^            ^       ^                 ^        ^
          |  line of step  line of  step_*.new     latest names  older step
          |  in metrics    validation  is there    the step      is gone
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from matey.checkpoints.run_files import latest_tag
from matey.checkpoints.source import WEIGHTS, find_checkpoint, find_damage
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
            or (name.startswith("sem.") and not is_half_made(name) and not self._is_of_others(name))
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


def is_half_made(semaphore: str) -> bool:
    """Whether its process was killed within sem_open, where a semaphore has a second name; nobody can clean up after that."""
    with suppress(FileNotFoundError):
        return (SHARED_MEMORY / semaphore).stat().st_nlink > 1
    return False


def in_shared_memory() -> set[str]:
    """Return the names there are in shared memory."""
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()


SHARE = float(os.environ.get("CAMPAIGN_SHARE", "1"))  # of the cases of a campaign, such as 0.05 for a quick look
SECONDS = 240  # that a run may take, or may keep an event waiting
PHASES = ("start", "step", "validation", "model", "save", "prune")


def scaled(count: int) -> int:
    """Return the share of a count of cases that is run, at least one."""
    return max(1, math.ceil(count * SHARE))


def logged(run: Path) -> list[dict]:
    """Return the whole lines of the metrics, none while a run that starts anew moves them aside."""
    try:
        lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def last_step(run: Path, key: str = "loss") -> int:
    """Return the last step with a number in the metrics, 0 without any."""
    return max((line["step"] for line in logged(run) if key in line), default=0)


def saved_step(run: Path) -> int:
    """Return the step that `latest` names, 0 where there is none yet."""
    try:
        return int((run / "checkpoints" / "latest").read_text().removeprefix("step_"))
    except FileNotFoundError:
        return 0


def has_begun_to_save(run: Path, step: int) -> bool:
    """Whether a checkpoint is being written, or is written."""
    return (run / "checkpoints" / f"step_{step:06d}.new").exists() or saved_step(run) >= step


def has_pruned(run: Path, step: int) -> bool:
    """Whether the checkpoint before the last one is gone."""
    return saved_step(run) >= step and not (run / "checkpoints" / f"step_{step - EVERY:06d}").exists()


EVENTS: dict[str, Callable[[Path, int], bool]] = {
    "step": lambda run, step: last_step(run) >= step,
    "validation": lambda run, step: last_step(run, "valid_vrmse") >= step,
    "save": has_begun_to_save,
    "saved": lambda run, step: saved_step(run) >= step,
    "pruned": has_pruned,
}
BOUNDS = {
    "step": ("pruned", "step"),
    "validation": ("step", "validation"),
    "model": ("validation", "save"),
    "save": ("save", "saved"),
    "prune": ("saved", "pruned"),
}
"""The events between which each phase lies; a step begins when the one before is saved."""


@dataclass(frozen=True)
class Moment:
    """A moment of a run: so many seconds after an event, or after the start where there is none."""

    event: str | None
    step: int
    seconds: float

    def has_come(self, run: Path) -> bool:
        """Whether the event is over, as it is at the start."""
        return self.event is None or EVENTS[self.event](run, self.step)

    def wait(self, run: Path, has_ended: Callable[[], bool]) -> None:
        """Wait for it, or for the end of the run."""
        until = time.monotonic() + SECONDS
        while not self.has_come(run) and not has_ended():
            assert time.monotonic() < until, f"nobody has seen {self} in {run}"
            time.sleep(0.0005)
        time.sleep(self.seconds)

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s after {self.event or 'the start'} {self.step or ''}"


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed.

    Attributes:
        run: its folder.
        metrics: its lines, without what differs between any two runs.
        weights: the weights in ``model/``.
        checkpoint: the weights of the last checkpoint.
        times: seconds from the start to each event and step.
        best: steps after which it wrote ``model/``.
    """

    run: Path
    metrics: list[dict]
    weights: dict[str, torch.Tensor]
    checkpoint: dict[str, torch.Tensor]
    times: dict[tuple[str, int], float] = field(default_factory=dict)
    best: tuple[int, ...] = ()

    def steps_of(self, phase: str) -> Sequence[int]:
        """Return the steps at which there is a phase."""
        if phase == "model":
            return self.best
        return range(2 * EVERY if phase == "prune" else EVERY, NUM_STEPS + 1 - (phase == "step"), EVERY)

    def draw(self, phase: str, random: Random, step: int | None = None) -> Moment:
        """Draw a moment of a phase, at a step that is drawn too if none is given."""
        if phase == "start":
            return Moment(None, 0, random.uniform(0, self.times["step", 1]))
        step = step or random.choice(self.steps_of(phase))
        before, after = BOUNDS[phase]
        seconds = self.times[after, step + (phase == "step")] - self.times[before, step]
        # The events are seen late by up to the time between two looks.
        return Moment(before, step, random.uniform(0, max(seconds, 0.002)))

    def draw_several(self, random: Random) -> list[Moment]:
        """Draw moments that come one after the other: of the start, and of any phase at each step that is saved."""
        moments = [self.draw("start", random)]
        for step in range(EVERY, NUM_STEPS + 1, EVERY):
            phases = [phase for phase in BOUNDS if step in self.steps_of(phase)]
            phases += ["model"] * phases.count("model")  # which comes at few steps
            moments.append(self.draw(random.choice(phases), random, step))
        return moments


def watch(ranks: Ranks) -> dict[tuple[str, int], float]:
    """Return the seconds until each event of a run that nobody disturbs."""
    begun, times = time.monotonic(), {}
    pending = {
        (event, step) for event in EVENTS for step in range(1, NUM_STEPS + 1) if event == "step" or step % EVERY == 0
    }
    while pending:
        has_ended = ranks.has_ended()
        seen = {(event, step) for event, step in pending if EVENTS[event](ranks.run, step)}
        times |= dict.fromkeys(seen, time.monotonic() - begun)
        pending -= seen
        assert not (pending and (has_ended or time.monotonic() > begun + SECONDS)), ranks.text()
        time.sleep(0.0005)
    return times


def run_whole(folder: Path, data: Path, kind: Kind) -> Whole:
    """Run from start to end and note when what happened."""
    write_config(folder, data, kind)
    with started(folder, training(folder, kind)) as ranks:
        times = watch(ranks)
        assert ranks.codes(60) == [0] * kind.num_ranks, ranks.text()
        ranks.check_nothing_is_left()
    return replace(outcome(folder / "run"), times=times)


def outcome(run: Path) -> Whole:
    """Read what a finished run left, which has to be whole."""
    assert latest_tag(run / "checkpoints") == f"step_{NUM_STEPS:06d}"
    # DeepSpeed puts two scripts beside them.
    entries = {path.name for path in (run / "checkpoints").iterdir() if path.suffix != ".py"}
    last, older = (f"step_{step:06d}" for step in (NUM_STEPS, NUM_STEPS - EVERY))
    # A run that is killed between its last save and the removal of the one before has nothing left to do.
    assert {"latest", last} <= entries <= {"latest", last, older}, entries
    assert not any((run / name).exists() for name in ("model.new", "model.old")), sorted(run.iterdir())
    keys = ("step", "loss", "grad_norm", "learning_rate", "valid_vrmse")
    metrics = [{key: line[key] for key in keys if key in line} for line in logged(run)]
    valid = {line["step"]: line["valid_vrmse"] for line in metrics if "valid_vrmse" in line}
    best = tuple(step for step in valid if all(valid[step] < valid[other] for other in valid if other < step))
    source, _ = find_checkpoint(run)
    assert find_damage(source) == []
    return Whole(run, metrics, load_file(run / "model" / "model.safetensors"), source.whole(WEIGHTS), best=best)


def check_same(found: Whole, whole: Whole, kind: Kind) -> None:
    """Compare a run that was disturbed with one that was not: to the last bit, or to 1e-6 where two ranks add up."""
    tolerance = 0 if kind.num_ranks == 1 else 1e-6
    assert [set(line) for line in found.metrics] == [set(line) for line in whole.metrics]
    for line, expected in zip(found.metrics, whole.metrics, strict=True):
        assert line == pytest.approx(expected, rel=tolerance, abs=0)
    for part in ("weights", "checkpoint"):
        ours, expected = getattr(found, part), getattr(whole, part)
        assert ours.keys() == expected.keys()
        for name in expected:
            difference = (ours[name] - expected[name]).abs().max().item()
            assert difference <= tolerance * expected[name].abs().max().item(), (part, name, difference)


def check_saved(run: Path, least: int) -> int:
    """Check that the last checkpoint is whole, and that of a step or a later one; return its step, 0 where there is none."""
    saved = saved_step(run)
    assert saved >= least, f"step {least} was saved, and now latest names {saved}"
    if saved:
        source, _ = find_checkpoint(run)
        assert source.step == saved and find_damage(source) == []
    return saved


def go_on_to_the_end(folder: Path, kind: Kind, least: int, whole: Whole) -> None:
    """Resume a run, in which at least so many steps are saved, and compare its end with that of the undisturbed one."""
    run = folder / "run"
    saved = check_saved(run, least)
    with started(folder, training(folder, kind, "--resume")) as ranks:
        assert ranks.codes(120) == [0] * kind.num_ranks, ranks.text()
        ranks.check_nothing_is_left()
    assert not saved or f"Going on after step {saved}." in ranks.text(), ranks.text()
    check_same(outcome(run), whole, kind)


def place_of(run: Path) -> str:
    """Return the phase that a run was in when it ended, by what it left."""
    checkpoints = run / "checkpoints"
    if (run / "model.new").exists() or (run / "model.old").exists():
        return "model"
    if list(checkpoints.glob("*.new")):
        return "save"
    if len(list(checkpoints.glob("step_??????"))) > 1:
        return "prune"
    step = last_step(run)
    if step == 0:
        return "start"
    if step % EVERY == 0 and last_step(run, "valid_vrmse") < step:
        return "validation"
    return "step"
