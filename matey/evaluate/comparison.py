"""Several models on the same windows: each with its own history, which ends at the same frame for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from matey.data import DataError
from matey.evaluate.evaluation import Evaluation, Protocol, Task, check_fit, evaluate, tasks_of
from matey.evaluate.held_out import HeldOut
from matey.evaluate.records import Record
from matey.model.matey import MateyModel


@dataclass(frozen=True)
class Candidate:
    """One of the models.

    Attributes:
        name: name that no other has.
        model: the model, on its device.
        num_frames: number of history frames that it is given.
    """

    name: str
    model: MateyModel
    num_frames: int


def best_of(records: Sequence[Record]) -> int:
    """Return which model's record has the smallest error; one whose error is not finite is never it while others are."""
    errors = [record.nrmse for record in records]
    return min(range(len(errors)), key=lambda index: math.inf if math.isnan(errors[index]) else errors[index])


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell folders apart, as names of models."""
    parts = [folder.resolve().parts for folder in folders]
    length = 1
    while len({part[-length:] for part in parts}) < len({*parts}):
        length += 1
    names = ["/".join(part[-length:]) for part in parts]
    return [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]


def plan_comparison(candidates: Sequence[Candidate], data: HeldOut, protocol: Protocol) -> list[list[Task]]:
    """Choose the windows for each model, all of which forecast the same frames.

    Args:
        candidates: the models.
        data: the trajectories; its number of history frames does not matter.
        protocol: forecasts to measure.

    Raises:
        DataError: a model cannot take the data, or a trajectory is too short.
    """
    longest = max(candidate.num_frames for candidate in candidates)
    tasks = tasks_of(replace(data, num_frames=longest), protocol)
    plans = []
    for candidate in candidates:
        try:
            check_fit(candidate.model, replace(data, num_frames=candidate.num_frames))
        except DataError as error:
            raise DataError(f"{candidate.name}: {error}" if len(candidates) > 1 else str(error)) from None
        plans.append([_later(task, longest - candidate.num_frames) for task in tasks])
    return plans


def compare(
    candidates: Sequence[Candidate],
    data: HeldOut,
    protocol: Protocol,
    plans: Sequence[Sequence[Task]],
    on_forecasts: Callable[[int], object] = lambda num_forecasts: None,
) -> list[Evaluation]:
    """Evaluate each model on its tasks of `plan_comparison`.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    return [
        evaluate(candidate.model, replace(data, num_frames=candidate.num_frames), protocol, tasks, on_forecasts)
        for candidate, tasks in zip(candidates, plans, strict=True)
    ]


def _later(task: Task, frames: int) -> Task:
    return replace(task, windows=tuple(replace(window, start=window.start + frames) for window in task.windows))
