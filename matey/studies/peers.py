"""Compares MATEY with other models of the same task, trained on the same windows at the same cost.

Peers are trained in this process, MATEY by launch/pretrain.py, as a user does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matey.checkpoints.trained import load_trained
from matey.config import RunConfig, load_config
from matey.config.loading import ROOT
from matey.studies import trainings
from matey.studies.cases import CELLS, COMPARED, DEMO, JOINT, MATEY, Simulated, StudyError
from matey.studies.engine import Study, call, digest, in_yaml, script
from matey.studies.fitting import run_peer
from matey.studies.table import Panel, Row, tasks_in

TIMED_STEPS, FIRST_TIMED = 60, 10
SHARE_OF_WARMUP = 30  # a run's warm-up is at most one thirtieth of its steps
CHECKPOINT_EVERY = 1000  # steps; a study that was cut off goes on from there


@dataclass(frozen=True)
class Point:
    """One training of a comparison.

    Attributes:
        model: one of `COMPARED`; `JOINT` is MATEY on several systems.
        systems: names of the training systems.
        seconds: cost of training on each system, in seconds.
        seed: seed of the stream of windows and of random weights.
    """

    model: str
    systems: tuple[str, ...]
    seconds: float
    seed: int

    @property
    def budget(self) -> float:
        """The total cost in seconds; joint training has as much per system as training on one system."""
        return self.seconds * len(self.systems)

    @property
    def name(self) -> str:
        """The name of the point's folder."""
        model = "matey-joint" if self.model == JOINT else f"{re.sub('[- ]', '', self.model.lower())}-{self.systems[0]}"
        return f"{model}-{self.seconds:g}-{self.seed}"

    @property
    def series(self) -> str:
        """The model's name in table and plot."""
        return {MATEY: f"{MATEY} per system", JOINT: f"{MATEY} joint"}.get(self.model, self.model)


def points_of(
    systems: Sequence[str], seconds: Iterable[float], seeds: int, models: Sequence[str] = COMPARED
) -> list[Point]:
    """Return the points of some of `COMPARED`, seed by seed: each on each system, and MATEY on all systems together."""
    points = []
    for seed, budget in itertools.product(range(seeds), sorted(seconds)):
        for model, system in itertools.product((each for each in models if each != JOINT), systems):
            points.append(Point(model, (system,), budget, seed))
        if JOINT in models and len(systems) > 1:
            points.append(Point(JOINT, tuple(systems), budget, seed))
    return points


@dataclass(frozen=True, kw_only=True)
class Comparison(Study[Point]):
    """The models and data of a comparison; ``settings`` override the demo's YAML, which has MATEY's settings.

    Attributes:
        paths: path of the data of each system.
        max_windows: largest number of windows to score each model on, per system and lead.
        simulated: the data sets to simulate; if empty, those of ``paths`` must exist.
    """

    columns = {key: trainings.COLUMNS[key] for key in ("seconds", "parameters")}
    by_system = True

    paths: Mapping[str, str]
    max_windows: int = 200
    simulated: tuple[Simulated, ...] = ()

    @property
    def facts(self) -> Mapping[str, Any]:
        """The data and the settings of the comparison, and a digest of the values of its YAML and of what it simulates."""
        about = {"set": [*self.settings], "device": trainings.device(), "made_of": digest(ROOT / DEMO, self.simulated)}
        return {"study": "peers", "data": dict(self.paths), **about, "max_windows": self.max_windows}

    def plan(self) -> str:
        """Return the costs of the remaining points, which are their budgets."""
        hours = sum(point.budget for point in self.waiting) / 3600
        names = ", ".join(dict.fromkeys(point.series for point in self.waiting))
        return f"{len(self.waiting)} trainings ({names}), {hours:.3g} hours of one CPU thread or GPU, without scores."

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the data, if the study has its own."""
        for data in self.simulated:
            self.simulate(data)

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point, whether its model is MATEY or a peer."""
        sets = ", ".join(f"{{path: {in_yaml(self.paths[system])}}}" for system in point.systems)
        # Without processes whose CPU time is not counted.
        own = [*self.settings, "data.workers=0", f"data.sets=[{sets}]", f"train.seed={point.seed}"]
        if point.model != CELLS:
            return own
        # Nothing is spent on finding tokens: the coarsest ones, of which the network takes no notice.
        coarsest = list(load_config(ROOT / DEMO, own).tokens.patches[0])
        return [*own, "model.network=cells", "tokens.set=uniform", f"tokens.patches=[{coarsest}]"]

    def run_config(self, point: Point) -> RunConfig:
        """Return the configuration of a point's run.

        Raises:
            StudyError: MATEY would have more information than the peers.
        """
        # A folder of the YAML's own may hold a run, and the record of its split.
        apart = [f"output.dir={in_yaml(self.folder(point))}", "output.resume=never"]
        run = load_config(ROOT / DEMO, [*self.overrides(point), *apart])
        if run.model.given or run.model.parameters:
            raise StudyError(
                "model.given and model.parameters tell MATEY what the peers cannot be told; compare without them: "
                "--set model.given=[] --set model.parameters=[]"
            )
        return run

    def run_point(self, point: Point) -> list[Row]:
        """Train and score one point."""
        folder, run = self.folder(point), self.run_config(point)
        if point.model in (CELLS, MATEY, JOINT):
            timed = [trainings.step_seconds(line, trainings.device()) for line in self._timed(point)[FIRST_TIMED:]]
            self._pretrain(point, point.name, folder / "run", max(1, int(point.budget * len(timed) / sum(timed))))
            protocol = trainings.protocol_of(run.data.lead_max, self.max_windows)
            command = trainings.evaluation(folder / "run", protocol, folder, device=trainings.device(), threads=1)
            call(self.out, point.name, command, self.work, {"OMP_NUM_THREADS": "1"})
            num_parameters = load_trained(folder / "run").model.num_parameters()
            costs = {"seconds": trainings.seconds_of(folder / "run"), "parameters": num_parameters}
        else:
            costs = run_peer(point.model, run, point.budget, self.max_windows, folder)
        costs["seconds"] /= len(point.systems)  # joint training serves all systems
        return trainings.score_rows(
            folder, {"series": point.series, "label": f"{point.seconds:g} s", "seed": point.seed}, costs
        )

    def panels(self, rows: Sequence[Row]) -> list[list[Panel]]:
        """Return errors against costs, a row of panels for each system."""
        x_title = "GPU seconds per system" if trainings.device() == "cuda" else "CPU seconds per system"
        systems = {system: [r for r in rows if r["system"] == system] for system in dict.fromkeys(self.paths)}
        return [
            [
                Panel(of_task, "seconds", x_title, f"{system}, {forecast}")
                for forecast, of_task in tasks_in(own, by_system=False).items()
            ]
            for system, own in systems.items()
            if own
        ]

    def _timed(self, point: Point) -> list[dict[str, Any]]:
        """Return the logged steps of a short run just before a point's training, so that the machine's load is the same."""
        folder = self.folder(point) / "timing"
        if len(trainings.steps_of(folder)) < TIMED_STEPS:
            self._pretrain(point, f"{point.name}-timing", folder, TIMED_STEPS)
        return trainings.steps_of(folder)

    def _pretrain(self, point: Point, name: str, folder: Path, steps: int) -> None:
        """Train on one thread, like the peers."""
        settings = [*self.overrides(point), f"train.steps={steps}", f"output.dir={in_yaml(folder)}"]
        warmup = min(self.run_config(point).train.warmup_steps, steps // SHARE_OF_WARMUP)
        settings += [f"train.validate_every={steps}", f"train.checkpoint_every={min(steps, CHECKPOINT_EVERY)}"]
        settings += [f"train.warmup_steps={warmup}", "train.log_every=1", "parallel.threads=1"]
        flags = {"deepspeed_config": "ds_configs/zero0.json", "resume": True, "config": ROOT / DEMO}
        command = script("launch/pretrain.py", flags, settings)
        call(self.out, name, command, self.work, {"OMP_NUM_THREADS": "1"})
