"""Runs a study that pretrains many models: simulates data, then trains, scores and measures the models."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from matey.checkpoints.run_files import CONFIG
from matey.config import RunConfig, load_config
from matey.config.files import ROOT
from matey.mistakes import Mistake
from matey.studies.engine import RunnableStudy
from matey.studies.folder import Row, StudyError, call, check_trained, config_fact, digest, in_yaml, script, yaml_values
from matey.studies.peers.scoring import flags_of, protocol_of
from matey.studies.planned import Training, plan_text
from matey.studies.pretraining.costs import Costs, measure
from matey.studies.pretraining.figure import growth_figure, study_figure
from matey.studies.pretraining.rows import rows_of, study_table
from matey.studies.pretraining.table import Point, Table
from matey.studies.simulated import Simulated, simulate

COSTS = "costs.json"
TOGETHER = 4  # samples scored together: 16 with 65,536 tokens each would need more memory than a laptop has


@dataclass(frozen=True)
class PretrainingStudy(RunnableStudy[Point]):
    """A table of trainings, run by ``launch/pretrain.py``.

    Attributes:
        table: the models and their training data.
        identity: name and scale of the study.
        costs: names of the costs on the horizontal axes of the plot.
        launcher: the command before ``launch/pretrain.py``.
        deepspeed_config: path of DeepSpeed's JSON.
        settings: overrides of every point's YAML in addition to the table's.
        machine: name or file of the machine for the plan.
        ranks: number of ranks of each training in the plan, which ``launcher`` starts.
    """

    work: Path
    out: Path
    table: Table
    points: Sequence[Point] = ()
    identity: tuple[str, str] = ("", "")
    costs: tuple[str, ...] = ()
    launcher: str = shlex.quote(sys.executable)
    deepspeed_config: str = "ds_configs/zero1.json"
    settings: tuple[str, ...] = ()
    machine: str = "cpu"
    ranks: int = 1
    last_written = COSTS
    growing = ("data", "models")

    @property
    def shown(self) -> Sequence[Point]:
        """All models and seeds in the folder, whichever of them are trained in this call."""
        names = (path.name.rpartition("-seed")[2] for path in (self.out / "points").glob("*-seed*"))
        seeds = [int(name) for name in names if name.isdecimal()]
        return self.table.points(1 + max(seeds, default=0))

    @property
    def facts(self) -> Mapping[str, Any]:
        """Name, scale, YAML, data, settings, overrides, and digests of what points are made of; none may change in a folder.

        Models and their data may be added; the YAML is told by its values, not by its comments.
        """
        name, scale = self.identity
        data_of = {
            case.name: {data.name: f"{data.trajectories} of {data.frames} frames" for data in self.table.data_of(case)}
            for case in self.table.cases
        }
        return {
            "study": name,
            "scale": scale,
            "config": self.table.config,
            "data": {name: frames for data in data_of.values() for name, frames in data.items()},
            "settings": [*self.table.settings],
            "set": [*self.settings],
            "deepspeed_config": config_fact(self.deepspeed_config),
            "made_of": digest(yaml_values(ROOT / self.table.config), self.table.rollout, self.table.max_windows),
            "models": {case.name: digest(case.settings, data_of[case.name]) for case in self.table.cases},
        }

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point; the user's come last and take precedence."""
        sets = ", ".join(f"{{path: {in_yaml(self.data_folder(data))}}}" for data in self.table.data_of(point.case))
        return [
            f"output.dir={in_yaml(self.folder(point))}",
            f"train.seed={point.seed}",
            *([f"data.sets=[{sets}]"] if sets else []),
            *self.table.settings,
            *point.case.settings,
            *self.settings,
        ]

    def data_folder(self, data: Simulated) -> Path:
        """Return the folder of a simulated data set, which all studies beside this one share."""
        return self.out.parent / "data" / f"{data.name}-{data.trajectories}x{data.frames}"

    def run_config(self, point: Point) -> RunConfig:
        """Return the run of a point.

        Raises:
            ConfigError: the settings contradict each other.
        """
        return load_config(ROOT / self.table.config, self.overrides(point))

    def plan(self) -> str:
        """Format the expected costs of the remaining trainings."""
        waiting = (point for point in self.points if not self.is_done(point))
        trainings = [Training(p.case.name, self.run_config(p), self.table.grids_of(p.case)) for p in waiting]
        return plan_text(trainings, self.machine, self.ranks, self.deepspeed_config, self.work)

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the training data of these points, unless it exists."""
        for data in dict.fromkeys(data for point in points for data in self.table.data_of(point.case)):
            simulate(data, self.data_folder(data), self.out, self.work)

    def run_point(self, point: Point) -> None:
        """Train, score and measure a point; an interrupted point continues from its newest checkpoint."""
        folder = self.folder(point)
        self.train(point)
        check_trained(folder, self.launcher)
        lead_max = load_config(folder / CONFIG).data.lead_max
        protocol = protocol_of(lead_max, self.table.max_windows, self.table.rollout)
        flags: dict[str, object] = {"checkpoint": folder, "out": folder, **flags_of(protocol), "batch": TOGETHER}
        flags |= {"threads": min(self.ranks, os.cpu_count() or 1)}  # the cores that the training had
        call(self.out, point.name, script(ROOT / "launch/evaluate.py", flags), self.work)
        self.finish(point, asdict(self.costs_of(point)))

    def train(self, point: Point, *settings: str) -> None:
        """Train a point, with further overrides of its YAML; it continues from the newest checkpoint in its folder."""
        flags = {"deepspeed_config": self.deepspeed_config, "config": ROOT / self.table.config, "resume": True}
        overrides, launcher = [*self.overrides(point), *settings], shlex.split(self.launcher)
        call(self.out, point.name, script(ROOT / "launch/pretrain.py", flags, overrides, launcher), self.work)

    def costs_of(self, point: Point, timed: Path | None = None) -> Costs:
        """Measure the costs of a trained point, with the step's times of another run if one is given.

        Raises:
            StudyError: the model or its data cannot be read.
        """
        try:
            return measure(self.folder(point), timed)
        except Mistake as error:
            raise StudyError(f"{point.name}: {error}") from None

    def rows_of(self, point: Point) -> list[Row]:
        """Return a row for each system and forecast."""
        folder = self.folder(point)
        return rows_of(point, self.run_config(point).train.steps, folder, folder / COSTS)

    def text(self, rows: Sequence[Row]) -> str:
        """Format the costs and errors of each model."""
        return study_table(rows, self.table)

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw errors against costs, or costs against cells."""
        return (growth_figure if self.table.labels_grow else study_figure)(rows, self.costs)
