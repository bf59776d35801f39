"""Error against the number of training trajectories: fine-tuned from a pretrained model and from random weights, and peers."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from matplotlib.figure import Figure

from matey.checkpoints.durable import replace_text
from matey.checkpoints.run_files import CONFIG, METRICS, RECORDS
from matey.checkpoints.source import find_checkpoint
from matey.checkpoints.trained import load_trained, read_log
from matey.config import DataSection, RunConfig, dump_config, load_config
from matey.config.files import ROOT, find_shipped
from matey.data import DataError, open_sets
from matey.data.remote import rooted, within
from matey.data.splits import split_set, split_trajectories
from matey.evaluate.evaluation import score, tasks_of
from matey.evaluate.records import write_records
from matey.mistakes import Mistake
from matey.model.configuration import MateyConfig, with_network_of
from matey.studies.cases import FINETUNE_SCALES, STARTED_PEERS, STARTS, SYSTEMS, FinetuneScale, Simulated, StudyError
from matey.studies.engine import Row, RunnableStudy, call, digest, in_yaml, script
from matey.studies.fitting import train_peer
from matey.studies.table import Cost, Panel, errors_figure, errors_table, models_in, quotients_table, tasks_in
from matey.studies.trainings import (
    Training,
    evaluation,
    plan_text,
    protocol_of,
    score_rows,
    scored_by,
    simulate,
    step_seconds,
)
from matey.train.network import with_vocabulary

PEER = "peer"
FRAMES = 51  # number of frames of each simulated trajectory
COSTS = {"seconds": Cost("cost", "{:.0f} s"), "windows": Cost("windows", "{:,.0f}")}


@dataclass(frozen=True)
class Point:
    """One fine-tuning run of the study, or the training of a peer.

    Attributes:
        start: initial weights, ``pretrained`` or ``random``, or the kind of a peer.
        mode: mode of fine-tuning, which selects the trained parts; `PEER` for a peer.
        trajectories: number of training trajectories.
        seed: seed of the stream of samples and of random weights.
    """

    start: str
    mode: str
    trajectories: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the point's folder."""
        return f"{self.start}-{self.mode}-{self.trajectories}-{self.seed}"


def points_of(starts: Iterable[str], modes: Iterable[str], sizes: Iterable[int], seeds: int) -> list[Point]:
    """Return all points, seed by seed, in the order of `STARTS`."""
    order = list(itertools.product(range(seeds), sizes))
    return [
        Point(start, mode, size, seed)
        for start in sorted(starts, key=STARTS.index)
        for seed, size in order
        for mode in ((PEER,) if start in STARTED_PEERS else modes)
    ]


@dataclass(frozen=True)
class DataEfficiencyStudy(RunnableStudy[Point]):
    """Fine-tuning on increasing numbers of trajectories, from a pretrained model and from random weights.

    Attributes:
        system: name of the system, one of `SYSTEMS`.
        scale: name of the scale, one of `FINETUNE_SCALES`.
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

    @property
    def facts(self) -> Mapping[str, Any]:
        """System, scale, initial model, trajectories and overrides, and a digest of YAML and scale, which make the points."""
        of_points = replace(self._scale, sizes={}, modes="", seeds=0)
        return {
            "study": "data_efficiency",
            "system": self.system,
            "scale": self.scale,
            "pretrained": self.pretrained,
            "trajectories": self.num_trajectories,
            "set": [*self.settings],
            "made_of": digest(self._config, find_shipped(self.deepspeed_config), of_points),
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
        cells = self._scale.resolution[self.system]
        # The paper's grids are square; the grids simulated here have their own shape.
        grid = Simulated(SYSTEMS[self.system], cells, 0, 0).grid if self._scale.simulates else (1, cells, cells)
        tuned = [point for point in self.waiting if point.start not in STARTED_PEERS]
        run_of = {point.mode: self._run_of(point) for point in tuned}
        trainings = [Training(point.mode, run_of[point.mode], (grid,)) for point in tuned]
        num_peers = len(self.waiting) - len(tuned)
        text = plan_text(trainings, self.machine, self.ranks, self.deepspeed_config, self.work)
        hours = num_peers * self._scale.peer_seconds / 3600
        return f"{text}\nAnd {num_peers} peers, {hours:.3g} hours on one CPU or GPU." if num_peers else text

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the data, unless it exists, and write the pretrained network's settings for runs from random weights."""
        self._run_of(points[0])  # raises if there is no such model, before anything is simulated
        if self._scale.simulates:
            resolution = self._scale.resolution[self.system]
            data = Simulated(SYSTEMS[self.system], resolution, self.num_trajectories, FRAMES)
            simulate(data, self._data, self.out, self.work)
        if self._source is not None:
            for point in {point.mode: point for point in points if point.start == "random"}.values():
                self._state_network(point)

    def run_point(self, point: Point) -> list[Row]:
        """Fine-tune and evaluate one point, or train and score a peer; an interrupted point continues."""
        folder = self.folder(point)
        if point.start in STARTED_PEERS:
            cost = self._run_peer(point)
        else:
            call(self.out, point.name, self.finetuning(point), self.work)
            if not (folder / CONFIG).exists():
                raise StudyError(f"{self.launcher!r} has ended without a training in {folder}; see --launcher.")
            run = load_config(folder / CONFIG)
            cost = cost_of_run(run, read_log(folder / METRICS), find_checkpoint(folder)[0].num_ranks)
            protocol = protocol_of(run.data.lead_max, self._scale.max_windows)
            call(self.out, point.name, evaluation(folder, protocol, folder), self.work)
        series = point.start if point.start in STARTED_PEERS else f"{point.start}, {point.mode}"
        about = {"series": series, "label": str(point.trajectories), "start": point.start, "mode": point.mode}
        return score_rows(folder, {**about, "seed": point.seed}, cost)

    def _run_peer(self, point: Point) -> dict[str, float]:
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
        return {"seconds": training.seconds, "windows": training.num_samples}

    def finetuning(self, point: Point) -> list[str]:
        """Return the command that fine-tunes one point."""
        config, settings = self._config, self._settings(point)
        if point.start == "random" and self._source is not None:
            config = self._network(point)
            settings = [setting for setting in settings if not setting.startswith("model.")]
        flags = {
            "deepspeed_config": self.deepspeed_config,
            "config": config,
            "pretrained": "none" if point.start == "random" else self._source,
            "train": point.mode,
            "trajectories": point.trajectories,
            "resume": True,
        }
        return script("launch/finetune.py", flags, settings, shlex.split(self.launcher))

    def text(self, rows: Sequence[Row]) -> str:
        """Format errors and costs for each number of trajectories, and those of pretrained starts over random ones."""
        models = models_in(rows)
        pairs = [(name, f"random{name.removeprefix('pretrained')}") for name in models if name.startswith("pretrained")]
        known = [pair for pair in pairs if pair[1] in models]
        return "\n\n".join(filter(None, [errors_table(rows, COSTS), quotients_table(rows, known, COSTS)]))

    def figure(self, rows: Sequence[Row]) -> Figure:
        """Draw the errors against the number of trajectories."""
        panels = [
            Panel(own, "label", "training trajectories", f"{self.system}, {forecast}: NRMSE / persistence")
            for forecast, own in tasks_in(rows, by_system=False).items()
        ]
        return errors_figure([panels])

    @property
    def _scale(self) -> FinetuneScale:
        return FINETUNE_SCALES[self.scale]

    @property
    def _config(self) -> Path:
        return ROOT / self._scale.config.format(system=self.system)

    @property
    def _data(self) -> Path:
        return self.out / "data" / SYSTEMS[self.system]

    @property
    def _source(self) -> str | None:
        """The model to start from; MATEY's own if none is named and the study simulates its data."""
        box = str(ROOT / "models" / "matey-micro")
        return box if self.pretrained is None and self._scale.simulates else self.pretrained

    def _settings(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point; the user's come last, except for the data, and take precedence."""
        scale = self._scale
        return [
            f"output.dir={in_yaml(self.folder(point))}",
            f"train.seed={point.seed}",
            *scale.settings,
            *([scale.new_rows[self.system]] if self.pretrained is None and scale.new_rows else ()),
            *scale.mode_settings.get(point.mode, ()),
            *self.settings,
            *([f"data.sets=[{{path: {in_yaml(self._data)}}}]"] if scale.simulates else []),
        ]

    def _network(self, point: Point) -> Path:
        """Return the path of the YAML with the full network and vocabulary of a run from the pretrained model."""
        return self.out / "networks" / f"{point.mode}.yaml"

    def _state_network(self, point: Point) -> None:
        """Write the YAML of `_network`.

        Raises:
            StudyError: the model or the data cannot be read, or they do not fit each other.
        """
        try:
            run = self._run_of(point)
            sets = [data.with_given(run.model.given) for data in open_sets(rooted(run.data, self.work))]
            text = dump_config(with_vocabulary(run, sets, self._pretrained))
        except Mistake as error:
            raise StudyError(str(error)) from None
        path = self._network(point)
        path.parent.mkdir(exist_ok=True)
        replace_text(path, text)  # another job of the study may be reading the file

    def _run_of(self, point: Point) -> RunConfig:
        """Return the run of a point, with the pretrained model's network and history, if there is one.

        Raises:
            StudyError: the model cannot be read, or the run's settings contradict it.
        """
        settings = self._settings(point)
        if point.start not in STARTED_PEERS:
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


def trajectories_for(size: int, data: DataSection) -> int:
    """Return the smallest number of trajectories whose split leaves ``size`` for training."""
    counts = itertools.count(max(3, size))
    return next(n for n in counts if len(split_trajectories(n, data.split, data.split_seed).train) >= size)


def check_data(data: DataSection, root: Path, size: int) -> int:
    """Return the number of trajectories in a run's data; its paths are relative to ``root``.

    Raises:
        StudyError: the data cannot be read, leaves fewer than ``size`` for training, or has trajectories too short to score.
    """
    total = 0
    for entry in data.sets:
        try:
            (opened,) = open_sets(rooted(data.model_copy(update={"sets": (entry,)}), root))
            num_train = len(split_set(opened, data.split, data.split_seed).train)
        except DataError as error:
            raise StudyError(str(error)) from None
        if num_train < size:
            needed = size if entry.split_by == "time" else trajectories_for(size, data)
            raise StudyError(
                f"{entry.path} holds {opened.num_trajectories} trajectories or blocks, {num_train} of them to train on; "
                f"--sizes asks for {size}, which needs {needed} trajectories in all."
            )
        shortest, needed = min(each.num_frames for each in opened.trajectories), data.history + data.lead_max
        if shortest < needed:
            raise StudyError(
                f"{entry.path} has a trajectory of {shortest} frames; a history of {data.history} and the lead "
                f"{data.lead_max}, at which runs are scored, need {needed}."
            )
        total += opened.num_trajectories
    return total


def cost_of_run(run: RunConfig, log: Sequence[Mapping[str, Any]], ranks: int) -> dict[str, float]:
    """Return the ``seconds`` of a run and the number of ``windows`` that it trained on, repeated windows included.

    Seconds are those of all ranks together, CPU seconds or seconds of GPUs. They are computed from the median of the logged
    steps or, since steps that are rolled out take longer, from the mean with ``train.unroll``.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, size = run.train, run.parallel.sequence_parallel_size
    of_step = (fmean if train.unroll else median)([step_seconds(line, device) for line in log if "cpu_seconds" in line])
    steps = max(line["step"] for line in log)  # fewer than asked for where ``train.patience`` ended the run
    seconds = steps * of_step * (ranks if device == "cuda" else 1)
    groups = ranks if size == "auto" else ranks // size
    return {"seconds": seconds, "windows": steps * train.micro_batch * train.accumulation * groups}
