"""The points of a comparison: the model, the systems and the cost of each training, and its scores."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matey.checkpoints.run_files import RECORDS
from matey.evaluate.records import read_records
from matey.peers.kinds import PEERS
from matey.report.summary import summary_records
from matey.studies.folder import Row
from matey.studies.physics import row_of

MATEY = "MATEY"
CELLS = "cells"  # MATEY's network on the cells without tokens, trained as MATEY is
RESULT = "result.json"  # file with the cost of a point's training, in its folder
JOINT = "joint"
COSTS = ("steps", "parameters", "samples_per_second", "forecast_seconds", "batch_seconds")
"""Costs in the file `RESULT` besides ``seconds`` of CPU or GPU: optimizer steps (for a stencil, windows), trained parameters,
training samples per second, and the costs of `matey.studies.speed.forecast_speed`."""


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


def points_of(systems: Sequence[str], seconds: Iterable[float], seeds: int) -> list[Point]:
    """Return all points, seed by seed: each peer, the cells alone and MATEY on each system, and MATEY on all systems."""
    points = []
    for seed, budget in itertools.product(range(seeds), sorted(seconds)):
        for model, system in itertools.product((*PEERS, CELLS, MATEY), systems):
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
            **row_of(record),
            "extrapolation_nrmse": record.extrapolation_nrmse,
            # Joint training serves all systems, so its cost is divided among them.
            "seconds": cost["seconds"] / len(point.systems),
            **{name: cost.get(name, math.nan) for name in COSTS},
        }
        for record in summary_records(read_records(folder / RECORDS))
    ]


def label_of(point: Point) -> str:
    """Return a model's name in table and plot."""
    if point.model != MATEY:
        return point.model
    return f"{MATEY} {'joint' if point.data == JOINT else 'per system'}"
