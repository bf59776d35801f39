"""The data and points of the study, and the scores of each point."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from matey.config import DataSection, RunConfig
from matey.data import DataError, open_sets
from matey.data.remote.paths import rooted
from matey.data.splits import split_set, split_trajectories
from matey.evaluate.records import read_records
from matey.report.summary import summary_records
from matey.studies.data_efficiency.scales import PEERS, STARTS
from matey.studies.folder import Row, StudyError
from matey.studies.physics import row_of
from matey.studies.speed import step_seconds

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


def points_of(starts: Iterable[str], modes: Iterable[str], sizes: Iterable[int], seeds: int) -> list[Point]:
    """Return all points, seed by seed, in the order of `STARTS`."""
    order = list(itertools.product(range(seeds), sizes))
    return [
        Point(start, mode, size, seed)
        for start in sorted(starts, key=STARTS.index)
        for seed, size in order
        for mode in ((PEER,) if start in PEERS else modes)
    ]


def with_those_in(folder: Path, points: Iterable[Point]) -> list[Point]:
    """Return some points and all whose folders are in a folder, in the order of `points_of`."""
    parts = (path.name.rsplit("-", 3) for path in folder.glob("*-*-*-*"))
    found = [
        Point(start, mode, int(size), int(seed))
        for start, mode, size, seed in parts
        if start in STARTS and size.isdecimal() and seed.isdecimal()
    ]
    return sorted(
        {*points, *found}, key=lambda each: (STARTS.index(each.start), each.seed, each.trajectories, each.mode)
    )


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
            parts, needs = "trajectories", f"{trajectories_for(size, data)} in all"
            if entry.split_by == "time":
                parts, needs = "blocks", f"{size} trajectories"
            raise StudyError(
                f"{entry.path} holds {opened.num_trajectories} {parts}, {num_train} of them to train on; --sizes asks for "
                f"{size}, which needs {needs}."
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


def scores(point: Point, metrics: Path, cost: Mapping[str, float]) -> list[Row]:
    """Return a row for each forecast of an evaluated point, from its ``metrics.json`` and its cost."""
    return [{**asdict(point), **row_of(record), **cost} for record in summary_records(read_records(metrics))]
