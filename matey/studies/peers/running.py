"""Trains and scores the points of a comparison: peers in this process, MATEY as a user would, by launch/pretrain.py."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from matey.checkpoints.peer_folder import write_peer
from matey.checkpoints.run_files import METRICS, RECORDS
from matey.checkpoints.trained import load_trained, read_log
from matey.config import RunConfig, load_config
from matey.config.shipped import ROOT
from matey.data import DataError, open_dataset
from matey.data.seen import seen_text
from matey.evaluate.evaluation import score, tasks_of
from matey.evaluate.held_out import hold_out
from matey.evaluate.records import write_records
from matey.parallel.allocator import keep_freed_memory
from matey.peers.kinds import PeerFacts, untrained
from matey.peers.stencil import StencilPeer
from matey.studies.engine import RunnableStudy
from matey.studies.folder import Row, StudyError, call, script
from matey.studies.peers.fitting import check_memory, fit_stencil
from matey.studies.peers.points import MATEY, RESULT, Point, Result, rows_of
from matey.studies.peers.scoring import flags_of, protocol_of
from matey.studies.peers.table import peers_figure, peers_table
from matey.studies.peers.training import Settings, train_network
from matey.studies.speed import forecast_speed
from matey.train.run_data import loss_scales, open_data

SETTINGS = {
    "ResNet": Settings(batch=4, learning_rate=4e-3),
    "U-Net": Settings(batch=4, learning_rate=2e-3),
    "FNO": Settings(batch=4, learning_rate=3e-3),
}
TIMED_STEPS, FIRST_TIMED = 60, 10
SHARE_OF_WARMUP = 30  # a run's warm-up is at most this part of its steps


@dataclass(frozen=True)
class Comparison(RunnableStudy[Point]):
    """The models and data of a comparison, and its folder.

    Attributes:
        work: folder that scripts are started in.
        out: folder of the study.
        config: run YAML with MATEY's settings.
        settings: overrides of the YAML.
        paths: path of the data of each system.
        device: the device to train on, ``cpu`` or ``cuda``.
        points: the trainings.
        max_windows: largest number of windows to score each model on, per system and lead.
    """

    work: Path
    out: Path
    config: Path
    settings: tuple[str, ...]
    paths: Mapping[str, str]
    device: str
    points: Sequence[Point]
    max_windows: int = 200
    last_written = RESULT

    @property
    def facts(self) -> Mapping[str, Any]:
        """Data and settings."""
        about = {"config": str(self.config), "set": [*self.settings], "device": self.device}
        return {"study": "peers", "data": dict(self.paths), **about, "max_windows": self.max_windows}

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides with which a point's model is trained, MATEY or not."""
        sets = ", ".join(f"{{path: {self.paths[system]}}}" for system in point.systems)
        return [*self.settings, f"data.sets=[{sets}]", f"train.seed={point.seed}"]

    def run_config(self, point: Point) -> RunConfig:
        """Return the configuration of a point's run.

        Raises:
            StudyError: MATEY would be told more than the peers.
        """
        run = load_config(self.config, self.overrides(point))
        if run.model.given or run.model.parameters:
            raise StudyError(
                "model.given and model.parameters tell MATEY what the peers cannot be told; compare without them: "
                "--set model.given=[] --set model.parameters=[]"
            )
        return run

    def run_point(self, point: Point) -> None:
        """Train and score one point, and write ``metrics.json``, ``result.json`` and what was trained to its folder.

        Raises:
            StudyError: a command failed, or the data does not suit the peers.
        """
        self.folder(point).mkdir(parents=True, exist_ok=True)
        result = self._run_matey(point) if point.model == MATEY else self._run_peer(point)
        text = json.dumps(asdict(result)) + "\n"
        (self.folder(point) / self.last_written).write_text(text, encoding="utf-8")

    def rows_of(self, point: Point) -> list[Row]:
        """Return a row for each system and kind of forecast."""
        return rows_of(point, self.folder(point))

    def text(self, rows: Sequence[Row]) -> str:
        """Lay out the errors at the largest cost."""
        return peers_table(rows)

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw errors against costs."""
        return peers_figure(rows, "GPU seconds" if self.device == "cuda" else "CPU seconds")

    def _run_peer(self, point: Point) -> Result:
        run = self.run_config(point)
        keep_freed_memory()  # as MATEY's training does
        try:
            data = open_data(run)
            torch.manual_seed(point.seed)
            peer = untrained(point.model, run.data.history, len(data.fields)).to(torch.device(self.device))
            if isinstance(peer, StencilPeer):
                check_memory(data.sets, run.data.lead_max)
                training = fit_stencil(peer, data.mixture, run.data.bad_values, point.budget)
                num_samples = training.steps
            else:
                settings = SETTINGS[point.model]
                training = train_network(peer, run, data, loss_scales(run, data), settings, point.budget)
                num_samples = training.steps * settings.batch
            held_out = hold_out(data.sets, "test", run.data.history, run.data)
            protocol = protocol_of(run.data.lead_max, self.max_windows)
            records = score(peer, held_out, protocol, tasks_of(held_out, protocol)).records
            speed = forecast_speed(peer, held_out, run.data.lead_max)
            seen = seen_text(data.sets, [split.train for split in data.splits])
        except DataError as error:
            raise StudyError(str(error)) from None
        facts = PeerFacts(
            kind=point.model,
            system=data.sets[0].system,
            fields=data.sets[0].fields,
            history=run.data.history,
            lead_max=run.data.lead_max,
        )
        write_peer(self.folder(point), peer, facts, data.record, seen)
        write_records(records, self.folder(point) / RECORDS)
        rate = num_samples / training.seconds
        return Result(training.seconds, training.steps, peer.num_parameters, rate, **vars(speed))

    def _run_matey(self, point: Point) -> Result:
        folder = self.folder(point)
        timed = self._timed(point)[FIRST_TIMED:]
        steps = max(1, int(point.budget * len(timed) / sum(self._cost(line) for line in timed)))
        self._pretrain(point, point.name, folder / "run", steps)
        run = self.run_config(point)
        protocol = protocol_of(run.data.lead_max, self.max_windows)
        flags = {"checkpoint": folder / "run", "out": folder, "device": self.device, "threads": 1}
        command = script(ROOT / "launch/evaluate.py", flags | flags_of(protocol))
        call(self.out, point.name, command, self.work, self._environment())
        lines = _steps_of(folder / "run")
        seconds = sum(self._cost(line) for line in lines)
        trained = load_trained(folder / "run")
        sets = [open_dataset(self.paths[system]) for system in point.systems]
        held_out = hold_out(sets, "test", run.data.history, run.data, trained.split, are_of_the_run=True)
        speed = forecast_speed(trained.model.to(self.device), held_out, run.data.lead_max)
        rate = len(lines) * run.train.micro_batch * run.train.accumulation / seconds
        return Result(seconds, len(lines), trained.model.num_parameters(), rate, **vars(speed))

    def _timed(self, point: Point) -> list[dict[str, Any]]:
        """Return the steps of a short run of a point, made right before its own so that as much runs beside them."""
        folder = self.folder(point) / "timing"
        if len(_steps_of(folder)) < TIMED_STEPS:
            self._pretrain(point, f"{point.name}-timing", folder, TIMED_STEPS)
        return _steps_of(folder)

    def _pretrain(self, point: Point, name: str, folder: Path, steps: int) -> None:
        settings = [*self.overrides(point), f"train.steps={steps}", f"output.dir={folder}"]
        warmup = min(self.run_config(point).train.warmup_steps, steps // SHARE_OF_WARMUP)
        settings += [f"train.{key}={steps}" for key in ("validate_every", "checkpoint_every")]
        settings += [f"train.warmup_steps={warmup}", "train.log_every=1", "parallel.threads=1"]
        flags = {"deepspeed_config": "ds_configs/zero0.json", "resume": True, "config": self.config}
        command = script(ROOT / "launch/pretrain.py", flags, settings)
        call(self.out, name, command, self.work, self._environment())

    def _environment(self) -> dict[str, str]:
        """Return the variables of a command: one thread, as the peers have, and on the CPU no sight of a GPU."""
        threads = {"OMP_NUM_THREADS": "1"}
        return threads | ({} if self.device == "cuda" else {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"})

    def _cost(self, line: Mapping[str, Any]) -> float:
        """Return what a step took: CPU seconds, or on a GPU seconds."""
        seconds: float = line["seconds"] if self.device == "cuda" else line["cpu_seconds"]
        return seconds


def _steps_of(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_log(folder / METRICS) if "loss" in line]
