"""Runs the points of a study: simulates, trains, scores; goes on where it was interrupted."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from matey.config import RunConfig, load_config, load_resolved
from matey.studies.folder import StudyError, call
from matey.studies.pretraining.costs import measure
from matey.studies.pretraining.tables import Point, Simulated, Table

COSTS = "costs.json"
"""Written last: a point that has it is done."""


@dataclass(frozen=True)
class Runner:
    """A study on its way.

    Attributes:
        root: folder with the scripts and the shipped configurations.
        work: folder that the scripts are started in.
        out: folder of the study.
        table: the study.
        launcher: the command before ``launch/pretrain.py``.
        engine: JSON of DeepSpeed.
        settings: overrides of every point's YAML on top of the table's.
        jobs: number of points that run at the same time.
    """

    root: Path
    work: Path
    out: Path
    table: Table
    launcher: str = sys.executable
    engine: str = "ds_configs/zero1.json"
    settings: tuple[str, ...] = ()
    jobs: int = 1

    def folder(self, point: Point) -> Path:
        """Return the folder of a point's run."""
        return self.out / "points" / point.name

    def is_done(self, point: Point) -> bool:
        """Return whether a point is trained, scored and measured."""
        return (self.folder(point) / COSTS).exists()

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point; what the user gave comes last, and wins."""
        sets = ", ".join(f"{{path: {self.data_folder(data)}}}" for data in self.table.data_of(point.case))
        return [
            f"output.dir={self.folder(point)}",
            f"train.seed={point.seed}",
            *([f"data.sets=[{sets}]"] if sets else []),
            *self.table.settings,
            *point.case.settings,
            *self.settings,
        ]

    def data_folder(self, data: Simulated) -> Path:
        """Return the folder of a simulated set."""
        return self.out / "data" / data.name

    def run_config(self, point: Point) -> RunConfig:
        """Return the run of a point.

        Raises:
            ConfigError: the settings contradict each other.
        """
        return load_config(self.root / self.table.config, self.overrides(point))

    def simulate(self, points: Sequence[Point]) -> None:
        """Simulate what the points are trained on, unless it is there.

        Raises:
            StudyError: it failed.
        """
        for data in dict.fromkeys(data for point in points for data in self.table.data_of(point.case)):
            sizes = {"trajectories": data.trajectories, "resolution": data.resolution, "frames": data.frames}
            command = [
                sys.executable,
                str(self.root / "tools/simulate.py"),
                data.system,
                "--out",
                str(self.data_folder(data)),
            ]
            call(self.out, f"simulate-{data.name}", command + _flags(sizes), self.work)

    def run(self, points: Sequence[Point]) -> Iterator[Point]:
        """Run the points that are not done, `jobs` at a time, and yield each when it is done.

        Raises:
            StudyError: one of them failed; those that run beside it come to their end first.
        """
        waiting = [point for point in points if not self.is_done(point)]
        with ThreadPoolExecutor(self.jobs) as pool:
            running = {pool.submit(self.run_point, point): point for point in waiting}
            try:
                for future in as_completed(running):
                    future.result()
                    yield running[future]
            finally:
                pool.shutdown(cancel_futures=True)

    def run_point(self, point: Point) -> None:
        """Train, score and measure a point; an interrupted one goes on from its newest checkpoint.

        Raises:
            StudyError: it failed.
        """
        folder = self.folder(point)
        command = [
            *shlex.split(self.launcher),
            str(self.root / "launch/pretrain.py"),
            "--deepspeed_config",
            self.engine,
        ]
        command += ["--config", str(self.root / self.table.config), "--resume"]
        command += [part for setting in self.overrides(point) for part in ("--set", setting)]
        call(self.out, point.name, command, self.work, self._environment())
        lead_max = load_resolved(folder / "config.yaml").data.lead_max
        command = [
            sys.executable,
            str(self.root / "launch/evaluate.py"),
            "--checkpoint",
            str(folder),
            "--out",
            str(folder),
        ]
        command += ["--leads", ",".join(map(str, sorted({1, lead_max}))), "--threads", "1"]
        command += _flags({"rollout": self.table.rollout, "max-windows": self.table.max_windows})
        call(self.out, point.name, command, self.work, self._environment())
        try:
            costs = measure(folder)
        except ValueError as error:
            raise StudyError(f"{point.name}: {error}") from None
        (folder / COSTS).write_text(json.dumps(asdict(costs)) + "\n", encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        """Keep points that run at the same time off each other's cores."""
        if self.jobs == 1:
            return {}
        return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // self.jobs))}


def _flags(values: dict[str, int]) -> list[str]:
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]
