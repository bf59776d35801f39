"""A scaling study on disk: the sizes of the machine to measure, and the run's settings at each size."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from matey.checkpoints.durable import replace_text
from matey.config import ConfigError, RunConfig, load_config
from matey.data.remote.paths import within
from matey.studies.folder import STUDY, read_study
from matey.studies.scaling.lengths import Lengths

Mode = Literal["weak", "strong", "sequence"]
RUN, JOB, SLURM_JOB = "run.yaml", "job.sh", "job.sbatch"  # files of a point
COUNTED_STEPS = 3  # last steps of a run; counting their communication slows them down, so they are not timed


@dataclass(frozen=True)
class Point:
    """One size of the machine, a point of the study.

    Attributes:
        name: name of the point's folder in the study's folder.
        ranks: number of processes.
        nodes: number of nodes that the processes fill; None if they are started on this machine.
    """

    name: str
    ranks: int
    nodes: int | None = None

    def __str__(self) -> str:
        """Return the size in words."""
        ranks = f"{self.ranks} rank{'s' * (self.ranks > 1)}"
        return ranks if self.nodes is None else f"{self.nodes} node{'s' * (self.nodes > 1)}, {ranks}"


@dataclass(frozen=True)
class Study:
    """The contents of ``study.json``.

    Attributes:
        folder: the folder of the study.
        mode: the quantity that stays the same from point to point: the samples of a rank, the global batch, or the single
            sample.
        machine: the machine for which the points' costs are estimated.
        warm_up: number of first steps that are not timed.
        steps: number of steps of each run, including the warm-up and the steps whose communication is counted.
        points: the points, ordered by size.
        lengths: the search for the longest sequence, for the mode ``sequence``.
    """

    folder: Path
    mode: Mode
    machine: str
    warm_up: int
    steps: int
    points: tuple[Point, ...]
    lengths: Lengths | None = None

    def folder_of(self, point: Point) -> Path:
        """Return the absolute folder of a point."""
        return self.folder.absolute() / point.name

    def run_of(self, point: Point) -> RunConfig:
        """Read the run of a point."""
        return load_config(self.folder_of(point) / RUN)

    def write(self) -> None:
        """Write ``study.json``."""
        tree = {name: value for name, value in asdict(self).items() if name != "folder"}
        replace_text(self.folder / STUDY, json.dumps(tree, indent=2) + "\n")


def load_study(folder: Path) -> Study:
    """Read the study in a folder.

    Raises:
        StudyError: the folder holds no study.
    """
    tree = read_study(folder)
    points = tuple(Point(**point) for point in tree.pop("points"))
    lengths = tree.pop("lengths")
    return Study(folder, points=points, lengths=Lengths(**lengths) if lengths else None, **tree)


def make_points(sizes: Sequence[int], devices_per_node: int | None) -> list[Point]:
    """Return points with these numbers of ranks or, if ``devices_per_node`` is given, with these numbers of nodes."""
    if wrong := [size for size in sizes if size < 1]:
        raise ConfigError(f"A point has at least one rank or node, got {wrong[0]}.")
    unit = "ranks" if devices_per_node is None else "nodes"
    width = len(str(max(sizes)))
    names = {size: f"{unit}_{size:0{width}}" for size in sorted(set(sizes))}
    if devices_per_node is None:
        return [Point(name, size) for size, name in names.items()]
    return [Point(name, size * devices_per_node, size) for size, name in names.items()]


def runs_of(mode: Mode, run: RunConfig, points: Sequence[Point], global_batch: int | None = None) -> list[RunConfig]:
    """Return the run at each point, with the batch and the sequence groups of the mode.

    Args:
        mode: mode of the study.
        run: the run at the smallest point.
        points: the points, ordered by size.
        global_batch: number of samples of a step in the mode ``strong``; by default that of the smallest point.

    Raises:
        ConfigError: sequence groups do not fit the ranks, or the global batch does not fit the groups.
    """
    if mode == "sequence":
        return [_with(run, point.ranks, 1, 1) for point in points]
    size = run.parallel.sequence_parallel_size
    if size == "auto":
        raise ConfigError(
            "parallel.sequence_parallel_size is 'auto': in a study it must be the same number at all points."
        )
    if wrong := [point for point in points if point.ranks % size]:
        raise ConfigError(
            f"parallel.sequence_parallel_size is {size}, which does not divide the {wrong[0].ranks} ranks of a point; "
            "leave that point out, or choose a size that divides all."
        )
    groups = [point.ranks // size for point in points]
    if mode == "weak":
        return [_with(run, size, run.train.micro_batch, run.train.accumulation) for _ in points]
    batch = global_batch or run.train.micro_batch * run.train.accumulation * groups[0]
    if uneven := [count for count in groups if batch % count]:
        raise ConfigError(
            f"A global batch of {batch} samples cannot be divided evenly among the {uneven[0]} groups of a point; give a "
            f"multiple of {math.lcm(*groups)} as --global_batch, or leave that point out."
        )
    return [_with(run, size, *_micro_steps(batch // count, run.train.micro_batch)) for count in groups]


def timed(run: RunConfig, folder: Path, warm_up: int, timed_steps: int, threads: int | None) -> RunConfig:
    """Return a run that takes a few steps, logs all of them, and writes to the folder of its point.

    Args:
        run: the run at the point.
        folder: the folder of the point.
        warm_up: number of steps before the timed ones.
        timed_steps: number of timed steps.
        threads: number of threads of a process; the run's own setting takes precedence.
    """
    steps = warm_up + timed_steps + COUNTED_STEPS
    train = {
        "steps": steps,
        "count_traffic": COUNTED_STEPS,
        "log_every": 1,
        "validate_every": steps,
        "validation_windows": 1,
        "checkpoint_every": steps,
        "keep_checkpoints": 1,
    }
    sets = tuple(data.model_copy(update={"path": str(within(Path.cwd(), data.path))}) for data in run.data.sets)
    return run.model_copy(
        update={
            "data": run.data.model_copy(update={"sets": sets, "validate_on": ()}),
            "train": run.train.model_copy(update=train),
            "parallel": run.parallel.model_copy(update={"threads": run.parallel.threads or threads}),
            "output": run.output.model_copy(update={"dir": str(folder / "run")}),
        }
    )


def _with(run: RunConfig, size: int, micro_batch: int, accumulation: int) -> RunConfig:
    train = run.train.model_copy(update={"micro_batch": micro_batch, "accumulation": accumulation})
    parallel = run.parallel.model_copy(update={"sequence_parallel_size": size})
    return run.model_copy(update={"train": train, "parallel": parallel})


def _micro_steps(samples: int, most: int) -> tuple[int, int]:
    """Divide a group's samples of a step into the largest allowed equal micro-batches; return their size and number."""
    micro_batch = max(size for size in range(1, most + 1) if samples % size == 0)
    return micro_batch, samples // micro_batch
