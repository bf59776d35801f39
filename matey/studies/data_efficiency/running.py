"""Fine-tunes and scores the points of the study."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from matey.checkpoints.durable import replace_text
from matey.checkpoints.run_files import CONFIG, METRICS, MODEL, RECORDS, REPORT
from matey.checkpoints.source import find_checkpoint
from matey.checkpoints.trained import WEIGHTS, load_trained, read_log
from matey.config import RunConfig, dump_config, load_config
from matey.config.files import ROOT
from matey.data import DataError, open_sets
from matey.data.remote.paths import rooted, within
from matey.evaluate.evaluation import score, tasks_of
from matey.evaluate.records import write_records
from matey.mistakes import Mistake
from matey.model.configuration import MateyConfig, with_network_of
from matey.studies.data_efficiency.points import (
    Point,
    check_data,
    cost_of_run,
    scores,
    trajectories_for,
    with_those_in,
)
from matey.studies.data_efficiency.results import study_figure, study_table
from matey.studies.data_efficiency.scales import PEERS, SCALES, SYSTEMS, Scale
from matey.studies.engine import RunnableStudy
from matey.studies.folder import Row, StudyError, call, check_trained, config_fact, digest, in_yaml, script, yaml_values
from matey.studies.peers.scoring import flags_of, protocol_of, scored_by
from matey.studies.peers.trained import train_peer
from matey.studies.planned import Training, plan_text
from matey.studies.simulated import Simulated, simulate
from matey.train.network import with_vocabulary

FRAMES = 51  # number of frames of each simulated trajectory
COST = "cost.json"  # file in the folder of a point


@dataclass(frozen=True)
class DataEfficiencyStudy(RunnableStudy[Point]):
    """Fine-tuning on increasing numbers of trajectories, from a pretrained model and from random weights.

    Attributes:
        system: name of the system, one of `SYSTEMS`.
        scale: name of the scale, one of `SCALES`.
        pretrained: run or model to start from; None for the model that comes with MATEY.
        launcher: the command before ``launch/finetune.py``.
        deepspeed_config: path of DeepSpeed's JSON.
        settings: overrides of every point's YAML.
        machine: name or file of the machine for the plan.
        ranks: number of ranks of each run in the plan, which ``launcher`` starts.
    """

    work: Path
    out: Path
    system: str
    scale: str
    points: Sequence[Point]
    pretrained: str | None = None
    launcher: str = shlex.quote(sys.executable)
    deepspeed_config: str = "ds_configs/zero1.json"
    settings: tuple[str, ...] = ()
    machine: str = "cpu"
    ranks: int = 1
    last_written = REPORT

    @property
    def shown(self) -> Sequence[Point]:
        """All points in the folder, whichever sizes, modes and starts this call names."""
        return with_those_in(self.out / "points", self.points)

    @property
    def facts(self) -> Mapping[str, Any]:
        """System, scale, initial model, trajectories, overrides, and a digest of YAML and scale, which make the points."""
        of_points = replace(self._scale, sizes={}, modes="", seeds=0)
        return {
            "study": "data_efficiency",
            "system": self.system,
            "scale": self.scale,
            "pretrained": self.pretrained,
            "trajectories": self.num_trajectories,
            "set": [*self.settings],
            "deepspeed_config": config_fact(self.deepspeed_config),
            "made_of": digest(yaml_values(self._config), of_points),
            **self._weights_fact,
        }

    @cached_property
    def num_trajectories(self) -> int:
        """Total number of trajectories, held-out ones included.

        Raises:
            StudyError: the data cannot be read, or holds too few or too short ones.
        """
        data = load_config(self._config, self.settings).data
        largest = max(point.trajectories for point in self.points)
        if self._scale.simulates:  # the same number for all sizes, so that all are scored on the same data
            return trajectories_for(max(largest, *map(int, self._scale.sizes[self.system].split(","))), data)
        return check_data(data, self.work, largest)

    def plan(self) -> str:
        """Format the expected costs of the remaining runs, as if all their weights were trained."""
        cells = self._resolution
        # The paper's grids are square; the grids simulated here have their own shape.
        grid = Simulated(SYSTEMS[self.system], cells, 0, 0).grid if self._scale.simulates else (1, cells, cells)
        waiting = [point for point in self.points if not self.is_done(point)]
        tuned = [point for point in waiting if point.start not in PEERS]
        run_of = {point.mode: self._run_of(point) for point in tuned}
        trainings = [Training(point.mode, run_of[point.mode], (grid,)) for point in tuned]
        hours = (len(waiting) - len(tuned)) * self._scale.peer_seconds / 3600
        text = plan_text(trainings, self.machine, self.ranks, self.deepspeed_config, self.work)
        return f"{text}\nAnd {len(waiting) - len(tuned)} peers, {hours:.3g} hours on one CPU or GPU." if hours else text

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the data, unless it exists, and write the pretrained network's settings for runs from random weights."""
        self._run_of(points[0])  # raises if there is no such model, before anything is simulated
        if self._scale.simulates:
            data = Simulated(SYSTEMS[self.system], self._resolution, self.num_trajectories, FRAMES)
            simulate(data, self._data, self.out, self.work)
        for mode in {point.mode for point in points if point.start == "random"}:
            self._state_network(mode)

    def run_point(self, point: Point) -> None:
        """Fine-tune and evaluate one point; an interrupted point continues from its newest checkpoint."""
        folder = self.folder(point)
        if point.start in PEERS:
            self._run_peer(point)
            return
        call(self.out, point.name, self.finetuning(point), self.work)
        # The cost is read on the training machine, because the machine that draws may have no GPU.
        check_trained(folder, self.launcher)
        run = load_config(folder / CONFIG)
        cost = cost_of_run(run, read_log(folder / METRICS), find_checkpoint(folder)[0].num_ranks)
        replace_text(folder / COST, json.dumps(cost) + "\n")
        flags = {
            "checkpoint": folder,
            "out": folder,
            **flags_of(protocol_of(run.data.lead_max, self._scale.max_windows)),
        }
        call(self.out, point.name, script(ROOT / "launch/evaluate.py", flags), self.work)

    def is_done(self, point: Point) -> bool:
        """Return whether a point is trained and scored; a peer has no report page."""
        return (self.folder(point) / (COST if point.start in PEERS else REPORT)).exists()

    def _run_peer(self, point: Point) -> None:
        """Train a peer on the training windows of the fine-tuned models, and score it on their test windows."""
        folder, run = self.folder(point), self._run_of(point)
        data = rooted(run.data, self.work).model_copy(update={"trajectories": point.trajectories})
        folder.mkdir(parents=True, exist_ok=True)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        protocol = protocol_of(run.data.lead_max, self._scale.max_windows)
        try:
            run = run.model_copy(update={"data": data})
            peer, held_out, training = train_peer(point.start, run, self._scale.peer_seconds, device, folder)
            held_out = scored_by(protocol, held_out, run)
            records = score(peer, held_out, protocol, tasks_of(held_out, protocol)).records
        except DataError as error:
            raise StudyError(str(error)) from None
        write_records(records, folder / RECORDS)
        cost = {"seconds": training.seconds, "windows": training.num_samples}
        replace_text(folder / COST, json.dumps(cost) + "\n")

    def finetuning(self, point: Point) -> list[str]:
        """Return the command that fine-tunes one point."""
        config, settings = self._config, self._settings(point)
        if point.start == "random" and self._source is not None:
            config = self._network(point.mode)
            settings = [setting for setting in settings if not setting.startswith("model.")]
        flags = {
            "deepspeed_config": self.deepspeed_config,
            "config": config,
            "pretrained": "none" if point.start == "random" else self._source,
            "train": point.mode,
            "trajectories": point.trajectories,
            "resume": True,
        }
        return script(ROOT / "launch/finetune.py", flags, settings, shlex.split(self.launcher))

    def rows_of(self, point: Point) -> list[Row]:
        """Return a row for each kind of forecast."""
        cost = json.loads((self.folder(point) / COST).read_text(encoding="utf-8"))
        return scores(point, self.folder(point) / RECORDS, cost)

    def text(self, rows: Sequence[Row]) -> str:
        """Format the errors for each number of trajectories."""
        return study_table(rows)

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw the errors against the number of trajectories."""
        return study_figure(rows, self.system)

    @property
    def _scale(self) -> Scale:
        return SCALES[self.scale]

    @property
    def _config(self) -> Path:
        return ROOT / self._scale.config.format(system=self.system)

    @property
    def _resolution(self) -> int:
        return self._scale.resolution[self.system]

    @property
    def _data(self) -> Path:
        return self.out / "data" / SYSTEMS[self.system]

    @property
    def _source(self) -> str | None:
        """The model to start from; MATEY's own if none is named and the study simulates its data."""
        box = str(ROOT / "models" / "matey-micro")
        return box if self.pretrained is None and self._scale.simulates else self.pretrained

    @property
    def _weights_fact(self) -> dict[str, str]:
        """A digest of the weights to start from, if they are here: a later training may replace them under the same name."""
        folder = within(self.work, self._source or "")
        found = [path for path in (folder / MODEL / WEIGHTS, folder / WEIGHTS) if self._source and path.is_file()]
        return {"weights": sha256(found[0].read_bytes()).hexdigest()[:12]} if found else {}

    def _settings(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point; the user's come last, except for the data, and take precedence."""
        scale = self._scale
        return [
            f"output.dir={in_yaml(self.folder(point))}",
            f"train.seed={point.seed}",
            *scale.settings,
            *(dict(scale.system_settings).get(self.system, ()) if self.pretrained is None else ()),
            *dict(scale.mode_settings).get(point.mode, ()),
            *self.settings,
            *([f"data.sets=[{{path: {in_yaml(self._data)}}}]"] if scale.simulates else []),
        ]

    def _network(self, mode: str) -> Path:
        """Return the path of the YAML with the full network and vocabulary of a run from the pretrained model."""
        return self.out / "networks" / f"{mode}.yaml"

    def _state_network(self, mode: str) -> None:
        """Write the YAML of `_network`, unless there is no pretrained model.

        Raises:
            StudyError: the model or the data cannot be read, or they do not fit each other.
        """
        if self._source is None:
            return
        try:
            run = self._run_of(next(point for point in self.points if point.mode == mode))
            sets = [data.with_given(run.model.given) for data in open_sets(rooted(run.data, self.work))]
            text = dump_config(with_vocabulary(run, sets, self._pretrained))
        except Mistake as error:
            raise StudyError(str(error)) from None
        path = self._network(mode)
        path.parent.mkdir(exist_ok=True)
        replace_text(path, text)  # another job of the study may be reading the file

    def _run_of(self, point: Point) -> RunConfig:
        """Return the run of a point, with the pretrained model's network and history, if there is one.

        Raises:
            StudyError: the model cannot be read, or the run's settings contradict it.
        """
        settings = self._settings(point)
        if point.start not in PEERS:
            settings.append(f"finetune.train={point.mode}")
        try:
            if self._pretrained is None:
                return load_config(self._config, settings)
            overrides = [*settings, f"finetune.pretrained={json.dumps(self._source)}"]
            return with_network_of(load_config(self._config, overrides), self._pretrained)
        except Mistake as error:
            raise StudyError(str(error)) from None

    @cached_property
    def _pretrained(self) -> MateyConfig | None:
        """The network of the model to start from."""
        if self._source is None:
            return None
        there = within(self.work, self._source)
        return load_trained(there if there.exists() else self._source).model.config  # or what is shipped
