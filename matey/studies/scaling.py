"""How a run scales: the same few training steps on several numbers of ranks or nodes, beside what a plan expects of them."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from matey.checkpoints.run_files import replace_text
from matey.config import ConfigError, RunConfig, dump_config, load_config, load_deepspeed_config
from matey.config.loading import find_shipped
from matey.data.remote import rooted
from matey.planning.estimate import estimate
from matey.planning.machine import Machine, load_machine
from matey.planning.workload import Workload, load_workload
from matey.studies.cases import StudyError
from matey.studies.engine import Study, call, digest, on_this_machine, script
from matey.studies.table import Column, Panel, Row, results_table
from matey.studies.trainings import steps_of

Mode = Literal["weak", "strong", "sequence"]
COUNTED_STEPS = 3  # last steps of a run; counting their communication slows them down, so they are not timed
COLUMNS = {
    "samples": Column("samples", "{:.0f}"),
    "step_seconds": Column("s a step"),
    "tokens_per_second": Column("tokens/s", "{:,.0f}"),
    "of_a_rank": Column("of a rank", "{:,.0f}"),
    "cpu_seconds": Column("CPU s of all"),
    "memory": Column("GiB of a rank", "{:.2f}", 2**-30),
    "total_memory": Column("of all", "{:.2f}", 2**-30),
    "communication": Column("communication", "{:.0%}"),
}
"""Medians of the measured steps, and memory of the fullest rank; communication's share holds the waiting for slower ranks."""


@dataclass(frozen=True)
class Point:
    """One size of the machine.

    Attributes:
        ranks: number of processes.
        nodes: number of nodes that the processes fill; None if they are started on this machine.
    """

    ranks: int
    nodes: int | None = None

    @property
    def name(self) -> str:
        """The name of the point's folder."""
        return f"ranks_{self.ranks}" if self.nodes is None else f"nodes_{self.nodes}"


def points_of(sizes: Sequence[int], devices_per_node: int | None) -> list[Point]:
    """Return points with these numbers of ranks or, if ``devices_per_node`` is given, with these numbers of nodes."""
    sizes = sorted(set(sizes))
    if devices_per_node is None:
        return [Point(size) for size in sizes]
    return [Point(size * devices_per_node, size) for size in sizes]


@dataclass(frozen=True, kw_only=True)
class ScalingStudy(Study[Point]):
    """The same run at all points; ``settings`` override its YAML.

    Attributes:
        mode: the quantity that stays the same from point to point: the samples of a rank, the global batch, or one sample that
            all ranks share.
        config: YAML of the run at the smallest point.
        warm_up: number of first steps that are not timed.
        timed_steps: number of timed steps after them.
        global_batch: number of samples of a step in the mode ``strong``; None for that of the smallest point.
        site: the job script that a point on nodes runs.
    """

    columns = COLUMNS

    mode: Mode
    config: str
    warm_up: int = 3
    timed_steps: int = 10
    global_batch: int | None = None
    site: Path = Path("launch/slurm/pretrain.sbatch")

    @property
    def facts(self) -> Mapping[str, Any]:
        """Mode, overrides and smallest point, and a digest of the run and of what is timed; points may be added to a folder."""
        about = {"study": "scaling", "mode": self.mode, "set": [*self.settings], "first": self.points[0].name}
        files = Path(find_shipped(self.config)), Path(find_shipped(self.deepspeed_config))
        return {**about, "made_of": digest(*files, self.warm_up, self.timed_steps, self.global_batch)}

    def run_config(self, point: Point) -> RunConfig:
        """Return the run of a point: a few steps, all of them logged, the last ones with their communication counted."""
        whole = load_config(self.config, self.settings)
        steps = self.warm_up + self.timed_steps + COUNTED_STEPS
        batch = {"micro_batch": whole.train.micro_batch, "accumulation": whole.train.accumulation}
        size, *own = batch_of(self.mode, whole, point, self.points[0], self.global_batch)
        train = {**dict(zip(batch, own, strict=True)), "steps": steps, "count_traffic": COUNTED_STEPS, "log_every": 1}
        train |= {"validate_every": steps, "validation_windows": 1, "checkpoint_every": steps, "keep_checkpoints": 1}
        # The same number of threads at all points, as ranks would otherwise be faster at points with fewer ranks.
        threads = max(1, (os.cpu_count() or 1) // self.points[-1].ranks) if point.nodes is None else None
        parallel = {"sequence_parallel_size": size, "threads": whole.parallel.threads or threads}
        return whole.model_copy(
            update={
                "data": rooted(whole.data, Path.cwd()).model_copy(update={"validate_on": ()}),
                "train": whole.train.model_copy(update=train),
                "parallel": whole.parallel.model_copy(update=parallel),
                "output": whole.output.model_copy(update={"dir": str(self.folder(point) / "run")}),
            }
        )

    def plan(self) -> str:
        """Format what is expected of all points."""
        rows = [self._planned(point) for point in self.points]
        return f"Expected on {self.machine}:\n{results_table(rows, self.columns)}"

    def prepare(self, points: Sequence[Point]) -> None:
        """Write the runs."""
        for point in points:
            self.folder(point).mkdir(parents=True, exist_ok=True)
            replace_text(self._yaml(point), dump_config(self.run_config(point)))

    def run_point(self, point: Point) -> list[Row]:
        """Take the steps of a point, unless its job has done so, and return what is measured and what was expected."""
        run, log = self.run_config(point), self.folder(point) / "run"
        if not any(line["step"] == run.train.steps for line in steps_of(log)):
            if point.nodes is not None:
                raise StudyError(
                    f"{point.name} is not measured yet: --slurm writes its job, and this command then reads the log."
                )
            flags = {"deepspeed_config": self.deepspeed_config, "config": self._yaml(point), "resume": True}
            command = script("launch/pretrain.py", flags, launcher=on_this_machine(point.ranks))
            call(self.out, point.name, command, self.work)
        return [self._measured(point, run, log), self._planned(point)]

    def job(self, point: Point, command: Sequence[str]) -> list[str]:
        """Return the words with which ``sbatch`` runs the site's job script for the run of a point on its nodes."""
        if point.nodes is None:
            return super().job(point, command)
        variables = {"CONFIG": self._yaml(point), "DEEPSPEED_CONFIG": self.deepspeed_config, "MAX_JOBS": 1}
        variables["VENV"] = os.environ.get("VENV", sys.prefix)
        exported = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
        return [f"--nodes={point.nodes}", f"--export={exported}", str(self.site)]

    def panels(self, rows: Sequence[Row]) -> list[list[Panel]]:
        """Return throughput, time, memory and CPU time against the number of ranks."""
        shown = (
            ("of_a_rank", "tokens per second of a rank"),
            ("step_seconds", "seconds of a step"),
            ("memory", "GiB of a rank"),
        )
        return [[Panel(rows, "ranks", "ranks", title, key) for key, title in shown]]

    def _yaml(self, point: Point) -> Path:
        return self.folder(point) / "run.yaml"

    @cached_property
    def _workload(self) -> Workload:
        return load_workload(self.run_config(self.points[0]))

    @cached_property
    def _machine(self) -> Machine:
        return load_machine(self.machine)

    def _measured(self, point: Point, run: RunConfig, log: Path) -> Row:
        lines = [line for line in steps_of(log) if line["step"] > self.warm_up]
        timed, counted = (
            [line for line in lines if "traffic" not in line],
            [line for line in lines if "traffic" in line],
        )
        shares = [sum(kind["seconds"] for kind in line["traffic"].values()) / line["seconds"] for line in counted]
        tokens = statistics.median(line["num_tokens"] / line["seconds"] for line in timed)
        return {
            **about(point, "measured", samples_of(run, point)),
            "step_seconds": statistics.median(line["seconds"] for line in timed),
            "tokens_per_second": tokens,
            "of_a_rank": tokens / point.ranks,
            "cpu_seconds": statistics.median(line["cpu_seconds"] for line in timed),
            "memory": max(line["peak_memory_bytes"] for line in lines),
            "total_memory": max(line["total_memory_bytes"] for line in lines),
            "communication": statistics.median(shares),
        }

    def _planned(self, point: Point) -> Row:
        """Return the row of a plan on the machine.

        Raises:
            ConfigError: the machine has fewer nodes than the point needs.
        """
        run, engine = self.run_config(point), load_deepspeed_config(self.deepspeed_config)
        machine = self._machine.on_threads(point.ranks, run.parallel.threads)
        planned = estimate(run, engine, machine, ranks=point.ranks, workload=self._workload)
        return {
            **about(point, "planned", planned.samples_per_step),
            "step_seconds": planned.seconds.total,
            "tokens_per_second": planned.tokens_per_second,
            "of_a_rank": planned.tokens_per_second / point.ranks,
            "cpu_seconds": None,
            "memory": planned.memory.total,
            "total_memory": planned.memory.total * point.ranks,
            "communication": planned.seconds.communication / planned.seconds.total,
        }


def about(point: Point, series: str, samples: int) -> Row:
    """Return the point and the series of a row."""
    unit = f"{point.ranks} rank{'s' * (point.ranks > 1)}"
    label = unit if point.nodes is None else f"{point.nodes} node{'s' * (point.nodes > 1)}, {unit}"
    return {"series": series, "label": label, "seed": 0, "ranks": point.ranks, "samples": samples}


def samples_of(run: RunConfig, point: Point) -> int:
    """Return the global batch of a run at a point."""
    size = run.parallel.sequence_parallel_size
    assert size != "auto", "`batch_of` has refused it"
    return run.train.micro_batch * run.train.accumulation * point.ranks // size


def batch_of(
    mode: Mode, run: RunConfig, point: Point, first: Point, global_batch: int | None = None
) -> tuple[int, int, int]:
    """Return the ranks of a sequence group, the micro-batch and the number of micro-batches of a step at a point.

    Args:
        mode: mode of the study.
        run: the run at the smallest point.
        point: the point.
        first: the smallest point.
        global_batch: number of samples of a step in the mode ``strong``; by default that of the smallest point.

    Raises:
        ConfigError: sequence groups do not fit the ranks, or the global batch does not fit the groups.
    """
    if mode == "sequence":
        return point.ranks, 1, 1
    size, train = run.parallel.sequence_parallel_size, run.train
    if size == "auto" or point.ranks % size or first.ranks % size:
        raise ConfigError(
            f"parallel.sequence_parallel_size is {size}: in a study it must be a number that divides the ranks of all points; "
            f"choose another, or leave out {point.name}."
        )
    if mode == "weak":
        return size, train.micro_batch, train.accumulation
    groups, batch = point.ranks // size, global_batch or train.micro_batch * train.accumulation * first.ranks // size
    if batch % groups:
        raise ConfigError(
            f"A global batch of {batch} samples cannot be divided evenly among the {groups} groups of {point.name}; give a "
            f"multiple of {groups} as --global_batch, or leave that point out."
        )
    samples = batch // groups
    micro_batch = max(number for number in range(1, train.micro_batch + 1) if samples % number == 0)
    return size, micro_batch, samples // micro_batch
