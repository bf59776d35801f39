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

from matplotlib.figure import Figure
from torch import OutOfMemoryError

from matey.checkpoints.run_files import METRICS, RECORDS
from matey.checkpoints.trained import load_trained, read_log
from matey.config import RunConfig, load_config
from matey.config.files import ROOT
from matey.data import DataError, open_dataset
from matey.evaluate.evaluation import score, tasks_of
from matey.evaluate.held_out import hold_out
from matey.evaluate.records import write_records
from matey.mistakes import one_line
from matey.peers.kinds import PEERS
from matey.studies.cases import CELLS, COMPARED, JOINT, MATEY, Simulated, StudyError
from matey.studies.engine import Row, RunnableStudy, call, digest, in_yaml, script
from matey.studies.fitting import train_peer
from matey.studies.table import Cost, Panel, errors_figure, errors_table, model_of, quotients_table, tasks_in
from matey.studies.trainings import (
    evaluation,
    forecast_speed,
    protocol_of,
    score_rows,
    scored_by,
    simulate,
    step_seconds,
)

CONFIG = ROOT / "launch/runs/demo.yaml"
TIMED_STEPS, FIRST_TIMED = 60, 10
SHARE_OF_WARMUP = 30  # a run's warm-up is at most one thirtieth of its steps
COSTS = {
    "seconds": Cost("cost", "{:.1f} s"),
    "parameters": Cost("weights", "{:,.0f}"),
    "samples_per_second": Cost("samples/s, training", "{:.3g}"),
    "forecast_seconds": Cost("a forecast", "{:.3g} ms", 1e3, is_compared=True),
    "batch_seconds": Cost("of 16", "{:.3g} ms", 1e3, is_compared=True),
}


@dataclass(frozen=True)
class Point:
    """One training of a comparison.

    Attributes:
        model: `MATEY`, `CELLS` or one of `PEERS`.
        data: name of the training system, or ``joint`` for all systems.
        systems: names of the training systems.
        seconds: cost of training on each system, in seconds.
        seed: seed of the stream of windows and of random weights.
    """

    model: str
    data: str
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
        return f"{re.sub('[- ]', '', self.model.lower())}-{self.data}-{self.seconds:g}-{self.seed}"

    @property
    def series(self) -> str:
        """The model's name in table and plot."""
        if self.model != MATEY:
            return self.model
        return f"{MATEY} {'joint' if self.data == JOINT else 'per system'}"


def points_of(
    systems: Sequence[str], seconds: Iterable[float], seeds: int, models: Sequence[str] = COMPARED
) -> list[Point]:
    """Return the points of some of `COMPARED`, seed by seed: each on each system, and MATEY on all systems together."""
    points = []
    for seed, budget in itertools.product(range(seeds), sorted(seconds)):
        for model, system in itertools.product((each for each in models if each != JOINT), systems):
            points.append(Point(model, system, (system,), budget, seed))
        if JOINT in models and len(systems) > 1:
            points.append(Point(MATEY, JOINT, tuple(systems), budget, seed))
    return points


@dataclass(frozen=True)
class Comparison(RunnableStudy[Point]):
    """The models and data of a comparison, and its folder.

    Attributes:
        settings: overrides of the demo's YAML, which has MATEY's settings.
        paths: path of the data of each system.
        device: the device to train on, ``cpu`` or ``cuda``.
        max_windows: largest number of windows to score each model on, per system and lead.
        simulated: the data sets to simulate; if empty, those of ``paths`` must exist.
    """

    work: Path
    out: Path
    settings: tuple[str, ...]
    paths: Mapping[str, str]
    device: str
    points: Sequence[Point]
    max_windows: int = 200
    simulated: tuple[Simulated, ...] = ()

    @property
    def facts(self) -> Mapping[str, Any]:
        """The data and the settings of the comparison, and a digest of the values of its YAML and of what it simulates."""
        about = {"set": [*self.settings], "device": self.device, "made_of": digest(CONFIG, self.simulated)}
        return {"study": "peers", "data": dict(self.paths), **about, "max_windows": self.max_windows}

    def plan(self) -> str:
        """Return the costs of the remaining points, which are their budgets."""
        unit = "GPU hours" if self.device == "cuda" else "hours of CPU time"
        hours = sum(point.budget for point in self.waiting) / 3600
        return f"{len(self.waiting)} trainings, {hours:.3g} {unit}, without their starts and scores."

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the data, if the study has its own."""
        for data in self.simulated:
            simulate(data, Path(self.paths[data.system]), self.out, self.work)

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point, whether its model is MATEY or a peer."""
        sets = ", ".join(f"{{path: {in_yaml(self.paths[system])}}}" for system in point.systems)
        # Without processes whose CPU time is not counted: `run_config` refuses them.
        own = ["data.workers=0", *self.settings, f"data.sets=[{sets}]", f"train.seed={point.seed}"]
        if point.model != CELLS:
            return own
        # Nothing is spent on finding tokens: the coarsest ones, of which the network takes no notice.
        coarsest = list(load_config(CONFIG, own).tokens.patches[0])
        return [*own, "model.network=cells", "tokens.set=uniform", f"tokens.patches=[{coarsest}]"]

    def run_config(self, point: Point) -> RunConfig:
        """Return the configuration of a point's run.

        Raises:
            StudyError: MATEY would have more information than the peers, or CPU time that is not counted.
        """
        # A folder of the YAML's own may hold a run, and the record of its split.
        apart = [f"output.dir={in_yaml(self.folder(point))}", "output.resume=never"]
        run = load_config(CONFIG, [*self.overrides(point), *apart])
        if run.model.given or run.model.parameters:
            raise StudyError(
                "model.given and model.parameters tell MATEY what the peers cannot be told; compare without them: "
                "--set model.given=[] --set model.parameters=[]"
            )
        if run.data.workers:
            raise StudyError(
                f"With data.workers {run.data.workers}, other processes would read MATEY's windows and their CPU time would "
                "not be counted, while the peers read their own; compare without them: --set data.workers=0"
            )
        return run

    def run_point(self, point: Point) -> list[Row]:
        """Train and score one point."""
        self.folder(point).mkdir(parents=True, exist_ok=True)
        costs = self._run_matey(point) if point.model in (CELLS, MATEY) else self._run_peer(point)
        costs["seconds"] /= len(point.systems)  # joint training serves all systems
        about = {"series": point.series, "label": f"{point.seconds:g} s", "seed": point.seed}
        return score_rows(self.folder(point), about, costs)

    def text(self, rows: Sequence[Row]) -> str:
        """Format errors and costs of each model, and MATEY's over those of the peers at each cost."""
        labels = dict.fromkeys(row["label"] for row in rows)
        known = {model_of(row) for row in rows}
        own = [f"{MATEY} {how}, {label}" for label in labels for how in ("per system", "joint")]
        pairs = [(name, f"{peer}, {label}") for label in labels for peer in (*PEERS, CELLS) for name in own]
        alike = [pair for pair in pairs if known.issuperset(pair) and pair[0].endswith(pair[1].rpartition(", ")[2])]
        return "\n\n".join(
            filter(
                None, [errors_table(rows, COSTS, by_system=True), quotients_table(rows, alike, COSTS, by_system=True)]
            )
        )

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw errors against costs, a row of panels for each system."""
        unit = "GPU seconds per system" if self.device == "cuda" else "CPU seconds per system"
        panels = [
            [
                Panel(of_task, "seconds", unit, f"{system}, {forecast}")
                for forecast, of_task in tasks_in([r for r in rows if r["system"] == system], by_system=False).items()
            ]
            for system in dict.fromkeys(row["system"] for row in rows)
        ]
        return errors_figure(panels)

    def _run_peer(self, point: Point) -> dict[str, float]:
        run, folder = self.run_config(point), self.folder(point)
        protocol = protocol_of(run.data.lead_max, self.max_windows)
        try:
            peer, held_out, training = train_peer(point.model, run, point.budget, self.device, folder)
            held_out = scored_by(protocol, held_out, run)
            records = score(peer, held_out, protocol, tasks_of(held_out, protocol)).records
            speed = forecast_speed(peer, held_out, run.data.lead_max)
        except (DataError, OutOfMemoryError) as error:
            raise StudyError(f"{point.name}: {one_line(error)}") from None
        write_records(records, folder / RECORDS)
        cost = {"seconds": training.seconds, "steps": training.steps, "parameters": peer.num_parameters}
        return {**cost, "samples_per_second": training.num_samples / training.seconds, **speed}

    def _run_matey(self, point: Point) -> dict[str, float]:
        folder = self.folder(point)
        timed = self._timed(point)[FIRST_TIMED:]
        steps = max(1, int(point.budget * len(timed) / sum(step_seconds(line, self.device) for line in timed)))
        self._pretrain(point, point.name, folder / "run", steps)
        run = self.run_config(point)
        protocol = protocol_of(run.data.lead_max, self.max_windows)
        command = evaluation(folder / "run", protocol, folder, device=self.device, threads=1)
        call(self.out, point.name, command, self.work, self._environment())
        lines = _steps_of(folder / "run")
        seconds = sum(step_seconds(line, self.device) for line in lines)
        trained = load_trained(folder / "run")
        sets = [open_dataset(self.paths[system]) for system in point.systems]
        held_out = hold_out(sets, "test", run.data.history, run.data, trained.split, are_of_the_run=True)
        held_out = scored_by(protocol, held_out, run)
        speed = forecast_speed(trained.model.to(self.device), held_out, run.data.lead_max)
        cost = {"seconds": seconds, "steps": len(lines), "parameters": trained.model.num_parameters()}
        num_samples = len(lines) * run.train.micro_batch * run.train.accumulation
        return {**cost, "samples_per_second": num_samples / seconds, **speed}

    def _timed(self, point: Point) -> list[dict[str, Any]]:
        """Return the logged steps of a short run just before a point's training, so that the machine's load is the same."""
        folder = self.folder(point) / "timing"
        if len(_steps_of(folder)) < TIMED_STEPS:
            self._pretrain(point, f"{point.name}-timing", folder, TIMED_STEPS)
        return _steps_of(folder)

    def _pretrain(self, point: Point, name: str, folder: Path, steps: int) -> None:
        settings = [*self.overrides(point), f"train.steps={steps}", f"output.dir={in_yaml(folder)}"]
        warmup = min(self.run_config(point).train.warmup_steps, steps // SHARE_OF_WARMUP)
        settings += [f"train.{key}={steps}" for key in ("validate_every", "checkpoint_every")]
        settings += [f"train.warmup_steps={warmup}", "train.log_every=1", "parallel.threads=1"]
        flags = {"deepspeed_config": "ds_configs/zero0.json", "resume": True, "config": CONFIG}
        call(self.out, name, script("launch/pretrain.py", flags, settings), self.work, self._environment())

    def _environment(self) -> dict[str, str]:
        """Return the environment variables of a command: one thread, like the peers, and no visible GPU on the CPU."""
        threads = {"OMP_NUM_THREADS": "1"}
        return threads | ({} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"})


def _steps_of(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(folder / METRICS) if "loss" in line]
