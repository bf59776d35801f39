"""Error against the number of training trajectories: fine-tuned from a pretrained model and from random weights, and peers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from matey.checkpoints.run_files import replace_text
from matey.checkpoints.trained import load_trained
from matey.config import RunConfig, dump_config, load_config
from matey.config.loading import ROOT, find_shipped
from matey.data import open_sets
from matey.data.remote import rooted, within
from matey.mistakes import Mistake
from matey.model.configuration import MateyConfig, with_network_of
from matey.studies.cases import FINETUNE_SCALES, STARTED_PEERS, STARTS, FinetuneScale, StudyError
from matey.studies.engine import Study, call, digest, in_yaml
from matey.studies.fitting import run_peer
from matey.studies.table import Panel, Row, tasks_in
from matey.studies.trainings import COLUMNS, Training, evaluation, plan_text, protocol_of, score_rows, seconds_of
from matey.train.network import with_vocabulary

PEER = "peer"


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

    @property
    def series(self) -> str:
        """The model's name in table and plot."""
        return self.start if self.mode == PEER else f"{self.start}, {self.mode}"


def points_of(starts: Iterable[str], modes: Iterable[str], sizes: Iterable[int], seeds: int) -> list[Point]:
    """Return all points, seed by seed, in the order of `STARTS`."""
    order = list(itertools.product(range(seeds), sizes))
    return [
        Point(start, mode, size, seed)
        for start in sorted(starts, key=STARTS.index)
        for seed, size in order
        for mode in ((PEER,) if start in STARTED_PEERS else modes)
    ]


@dataclass(frozen=True, kw_only=True)
class DataEfficiencyStudy(Study[Point]):
    """Fine-tuning on increasing numbers of trajectories, from a pretrained model and from random weights.

    Attributes:
        system: name of the system.
        scale: name of the scale, one of `FINETUNE_SCALES`.
        pretrained: run or model to start from; None for the model that comes with MATEY.
    """

    columns = {"seconds": COLUMNS["seconds"]}

    system: str
    scale: str
    pretrained: str | None = None

    @property
    def size(self) -> FinetuneScale:
        """The data and settings at this scale."""
        return FINETUNE_SCALES[self.system][self.scale]

    @property
    def facts(self) -> Mapping[str, Any]:
        """System, scale, initial model and overrides, and a digest of YAML, data and settings, which make the points."""
        about = {"system": self.system, "scale": self.scale, "pretrained": self.pretrained, "set": [*self.settings]}
        size, files = self.size, (ROOT / self.size.config, find_shipped(self.deepspeed_config))
        own = size.data, size.settings, size.mode_settings, size.peer_seconds, size.max_windows
        return {"study": "data_efficiency", **about, "made_of": digest(*files, *own)}

    def plan(self) -> str:
        """Format the expected costs of the remaining runs, as if all their weights were trained."""
        tuned = [point for point in self.waiting if point.mode != PEER]
        grids = tuple(data.grid for data in self.size.data) or self.size.grids
        trainings = [Training(point.mode, self.run_config(point), grids) for point in tuned]
        text = plan_text(trainings, self.machine, self.ranks, self.deepspeed_config, self.work)
        num_peers = len(self.waiting) - len(tuned)
        hours = num_peers * self.size.peer_seconds / 3600
        return f"{text}\nAnd {num_peers} peers, {hours:.3g} hours on one CPU or GPU." if num_peers else text

    def prepare(self, points: Sequence[Point]) -> None:
        """Simulate the data, unless it exists, and write the pretrained network's settings for runs from random weights."""
        self.run_config(points[0])  # raises if there is no such model, before anything is simulated
        for data in self.size.data:
            self.simulate(data)
        if self._source is not None:
            for point in {point.mode: point for point in points if point.start == "random"}.values():
                self._state_network(point)

    def run_point(self, point: Point) -> list[Row]:
        """Fine-tune and evaluate one point, or train and score a peer; an interrupted point continues."""
        folder, run = self.folder(point), self.run_config(point)
        if point.mode == PEER:
            data = rooted(run.data, self.work).model_copy(update={"trajectories": point.trajectories})
            run = run.model_copy(update={"data": data})
            seconds = run_peer(point.start, run, self.size.peer_seconds, self.size.max_windows, folder)["seconds"]
        else:
            self.train(point, "launch/finetune.py", **self.finetuning(point))
            protocol = protocol_of(run.data.lead_max, self.size.max_windows)
            call(self.out, point.name, evaluation(folder, protocol, folder), self.work)
            seconds = seconds_of(folder)
        about = {"series": point.series, "label": str(point.trajectories), "seed": point.seed}
        return score_rows(folder, about, {"seconds": seconds})

    def finetuning(self, point: Point) -> dict[str, Any]:
        """Return the YAML, the overrides and the flags with which launch/finetune.py trains a point."""
        is_random, config, settings = point.start == "random", ROOT / self.size.config, self.overrides(point)
        if is_random and self._source is not None:
            config, settings = self._network(point), [each for each in settings if not each.startswith("model.")]
        flags = {"pretrained": "none" if is_random else self._source, "train": point.mode}
        return {"config": config, "settings": settings, **flags, "trajectories": point.trajectories}

    def panels(self, rows: Sequence[Row]) -> list[list[Panel]]:
        """Return the errors against the number of trajectories."""
        tasks = tasks_in(rows, by_system=False)
        y_title = f"{self.system}, {{}}: VRMSE / persistence"
        return [
            [Panel(own, "label", "training trajectories", y_title.format(forecast)) for forecast, own in tasks.items()]
        ]

    @property
    def _source(self) -> str | None:
        """The model to start from; MATEY's own if none is named and the study simulates its data."""
        box = str(ROOT / "models" / "matey-micro")
        return box if self.pretrained is None and self.size.data else self.pretrained

    def overrides(self, point: Point) -> list[str]:
        """Return the overrides of the YAML for a point; the user's come last, except for the data, and take precedence."""
        sets = ", ".join(f"{{path: {in_yaml(self.data_folder(data))}}}" for data in self.size.data)
        return [
            f"output.dir={in_yaml(self.folder(point))}",
            f"train.seed={point.seed}",
            *self.size.settings,
            *([self.size.new_rows] if self.pretrained is None and self.size.new_rows else ()),
            *self.size.mode_settings.get(point.mode, ()),
            *self.settings,
            *([f"data.sets=[{sets}]"] if sets else []),
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
            run = self.run_config(point)
            sets = [data.with_given(run.model.given) for data in open_sets(rooted(run.data, self.work))]
            text = dump_config(with_vocabulary(run, sets, self._pretrained))
        except Mistake as error:
            raise StudyError(str(error)) from None
        path = self._network(point)
        path.parent.mkdir(exist_ok=True)
        replace_text(path, text)  # another job of the study may be reading the file

    def run_config(self, point: Point) -> RunConfig:
        """Return the run of a point, with the pretrained model's network and history, if there is one.

        Raises:
            StudyError: the model cannot be read, or the run's settings contradict it.
        """
        settings = self.overrides(point) + ([] if point.mode == PEER else [f"finetune.train={point.mode}"])
        try:
            if self._pretrained is None:
                return load_config(ROOT / self.size.config, settings)
            overrides = [*settings, f"finetune.pretrained={json.dumps(self._source)}"]
            return with_network_of(load_config(ROOT / self.size.config, overrides), self._pretrained)
        except Mistake as error:
            raise StudyError(str(error)) from None

    @cached_property
    def _pretrained(self) -> MateyConfig | None:
        """The network of the model to start from."""
        if self._source is None:
            return None
        there = within(self.work, self._source)
        return load_trained(there if there.exists() else self._source).model.config  # or what is shipped
