"""Trains and scores the points of a comparison: peers in this process, MATEY by launch/pretrain.py, as a user does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from matey.studies.engine import RunnableStudy
from matey.studies.folder import Row, StudyError, call, digest, in_yaml, script, yaml_values
from matey.studies.peers.points import CELLS, MATEY, RESULT, Point, points_of, rows_of
from matey.studies.peers.scoring import flags_of, protocol_of, scored_by
from matey.studies.peers.table import peers_figure, peers_table
from matey.studies.peers.trained import train_peer
from matey.studies.simulated import Simulated, simulate
from matey.studies.speed import forecast_speed, step_seconds

TIMED_STEPS, FIRST_TIMED = 60, 10
NAME = re.compile(r".+-(\d+(?:\.\d+)?(?:e\+\d+)?)-(\d+)")  # of the folder of a point: its cost and its seed
SHARE_OF_WARMUP = 30  # a run's warm-up is at most one thirtieth of its steps


@dataclass(frozen=True)
class Comparison(RunnableStudy[Point]):
    """The models and data of a comparison, and its folder.

    Attributes:
        config: run YAML with MATEY's settings.
        settings: overrides of the YAML.
        paths: path of the data of each system.
        device: the device to train on, ``cpu`` or ``cuda``.
        max_windows: largest number of windows to score each model on, per system and lead.
        simulated: the data sets to simulate; if empty, those of ``paths`` must exist.
    """

    work: Path
    out: Path
    config: Path
    settings: tuple[str, ...]
    paths: Mapping[str, str]
    device: str
    points: Sequence[Point]
    max_windows: int = 200
    simulated: tuple[Simulated, ...] = ()
    last_written = RESULT

    @property
    def shown(self) -> Sequence[Point]:
        """All points in the folder, whichever costs and seeds this call names."""
        found = [of.groups() for path in (self.out / "points").glob("*") if (of := NAME.fullmatch(path.name))]
        costs = {text: float(text) for text, _ in found} | {
            f"{point.seconds:g}": point.seconds for point in self.points
        }
        return points_of(tuple(self.paths), costs.values(), 1 + max((int(seed) for _, seed in found), default=0))

    @property
    def facts(self) -> Mapping[str, Any]:
        """The data and the settings of the comparison, and a digest of the values of its YAML and of what it simulates."""
        made_of = digest(yaml_values(self.config), self.simulated)
        about = {"config": str(self.config), "set": [*self.settings], "device": self.device, "made_of": made_of}
        return {"study": "peers", "data": dict(self.paths), **about, "max_windows": self.max_windows}

    def plan(self) -> str:
        """Return the costs of the remaining points, which are their budgets."""
        waiting = [point for point in self.points if not self.is_done(point)]
        unit = "GPU hours" if self.device == "cuda" else "hours of CPU time"
        hours = sum(point.budget for point in waiting) / 3600
        return f"{len(waiting)} trainings, {hours:.3g} {unit}, without their starts and scores."

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
        coarsest = list(load_config(self.config, own).tokens.patches[0])
        return [*own, "model.network=cells", "tokens.set=uniform", f"tokens.patches=[{coarsest}]"]

    def run_config(self, point: Point) -> RunConfig:
        """Return the configuration of a point's run.

        Raises:
            StudyError: MATEY would have more information than the peers, or CPU time that is not counted.
        """
        # A folder of the YAML's own may hold a run, and the record of its split.
        apart = [f"output.dir={in_yaml(self.folder(point))}", "output.resume=never"]
        run = load_config(self.config, [*self.overrides(point), *apart])
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

    def run_point(self, point: Point) -> None:
        """Train and score one point, and write ``metrics.json``, ``result.json`` and the trained model to its folder."""
        self.folder(point).mkdir(parents=True, exist_ok=True)
        result = self._run_matey(point) if point.model in (CELLS, MATEY) else self._run_peer(point)
        self.finish(point, result)

    def rows_of(self, point: Point) -> list[Row]:
        """Return a row for each system and kind of forecast."""
        return rows_of(point, self.folder(point))

    def text(self, rows: Sequence[Row]) -> str:
        """Format the errors at the largest cost at which most models are done."""
        return peers_table(rows)

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw errors against costs."""
        return peers_figure(rows, "GPU seconds" if self.device == "cuda" else "CPU seconds")

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
        flags = {"checkpoint": folder / "run", "out": folder, "device": self.device, "threads": 1}
        command = script(ROOT / "launch/evaluate.py", flags | flags_of(protocol))
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
        flags = {"deepspeed_config": "ds_configs/zero0.json", "resume": True, "config": self.config}
        command = script(ROOT / "launch/pretrain.py", flags, settings)
        call(self.out, name, command, self.work, self._environment())

    def _environment(self) -> dict[str, str]:
        """Return the environment variables of a command: one thread, like the peers, and no visible GPU on the CPU."""
        threads = {"OMP_NUM_THREADS": "1"}
        return threads | ({} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"})


def _steps_of(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(folder / METRICS) if "loss" in line]
