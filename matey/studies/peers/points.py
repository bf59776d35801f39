"""The points of a comparison: which model is trained on which systems at which cost, and what each of them scored."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matey.checkpoints.run_files import RECORDS
from matey.evaluate.records import read_records
from matey.peers.kinds import PEERS
from matey.report.summary import forecast_text, summary_records
from matey.studies.folder import Row
from matey.studies.physics import physics_of

MATEY = "MATEY"
RESULT = "result.json"  # cost of a point's training, in its folder
JOINT = "joint"
COSTS = ("steps", "parameters", "samples_per_second", "forecast_seconds", "batch_seconds")
"""Costs in that file beside ``seconds`` of CPU or GPU: optimizer steps (windows of a stencil), trained parameters, samples that
were taken in in a second of training, and those of `matey.studies.speed.forecast_speed`."""


@dataclass(frozen=True)
class Point:
    """One training.

    Attributes:
        model: `MATEY` or one of `PEERS`.
        data: name of the system that it is trained on, or ``joint``: all of them.
        systems: names of the systems that it is trained on.
        seconds: cost of training on each of them, in seconds.
        seed: seed of the stream of windows and of random weights.
    """

    model: str
    data: str
    systems: tuple[str, ...]
    seconds: float
    seed: int

    @property
    def budget(self) -> float:
        """The training's budget: joint training has as much for each system as training on that alone."""
        return self.seconds * len(self.systems)

    @property
    def name(self) -> str:
        """A name for its folder."""
        return f"{self.model.lower().replace('-', '')}-{self.data}-{self.seconds:g}-{self.seed}"


def points_of(systems: Sequence[str], seconds: Iterable[float], seeds: int) -> list[Point]:
    """Return all points, one seed after the other: each peer and MATEY on each system, and MATEY on all of them."""
    points = []
    for seed, budget in itertools.product(range(seeds), sorted(seconds)):
        for model, system in itertools.product((*PEERS, MATEY), systems):
            points.append(Point(model, system, (system,), budget, seed))
        if len(systems) > 1:
            points.append(Point(MATEY, JOINT, tuple(systems), budget, seed))
    return points


def rows_of(point: Point, folder: Path) -> list[Row]:
    """Return a row for each system and kind of forecast of a finished point, from the two files in its folder."""
    cost = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return [
        {
            "model": label_of(point),
            "budget": point.seconds,
            "seed": point.seed,
            "system": record.system,
            "forecast": forecast_text(record),
            "ratio": record.ratio,
            "nrmse": record.nrmse,
            "persistence_nrmse": record.persistence_nrmse,
            "extrapolation_nrmse": record.extrapolation_nrmse,
            "num_windows": record.num_windows,
            # Joint training serves all systems; each bears its share.
            "seconds": cost["seconds"] / len(point.systems),
            **{name: cost.get(name, math.nan) for name in COSTS},
            **physics_of(record),
        }
        for record in summary_records(read_records(folder / RECORDS))
    ]


def label_of(point: Point) -> str:
    """Return a model's name in table and plot."""
    if point.model != MATEY:
        return point.model
    return f"{MATEY} {'joint' if point.data == JOINT else 'per system'}"
