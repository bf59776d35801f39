"""Evaluates several models on the same windows: each has a history of its own length, all ending at the same frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from matey.data import DataError
from matey.evaluate.evaluation import Protocol, Task, check_fit, tasks_of
from matey.evaluate.forecaster import Forecaster
from matey.evaluate.held_out import HeldOut
from matey.evaluate.records import Record
from matey.model.matey import MateyModel
from matey.peers.kinds import PeerFacts


@dataclass(frozen=True)
class Candidate:
    """One of the compared models.

    Attributes:
        name: unique name of the model.
        model: the model, on its device.
        num_frames: number of history frames that the model is given.
        facts: kind, system and fields of a peer; None for MATEY.
    """

    name: str
    model: Forecaster
    num_frames: int
    facts: PeerFacts | None = None

    def own(self, data: HeldOut) -> HeldOut:
        """Return the data with histories of this model's length; for a peer, only the data of its system."""
        data = replace(data, num_frames=self.num_frames)
        return data if self.facts is None else data.of_system(self.facts.system)


def side_by_side(records_by_model: Sequence[Sequence[Record]]) -> list[tuple[Record | None, ...]]:
    """Return rows of records of the same forecasts, one record per model; None for a peer of another system."""
    of_models = [{(r.system, r.field, r.kind, r.lead): r for r in records} for records in records_by_model]
    keys = dict.fromkeys(key for records in of_models for key in records)
    return [tuple(records.get(key) for records in of_models) for key in keys]


def one_of(row: Sequence[Record | None]) -> Record:
    """Return the first record of a row: its data and baselines are the same for all models."""
    return next(record for record in row if record is not None)


def best_of(records: Sequence[Record | None]) -> int:
    """Return the index of the record with the smallest error; an error that is not finite counts as the largest."""
    errors = [math.nan if record is None else record.nrmse for record in records]
    return min(range(len(errors)), key=lambda i: (records[i] is None, math.inf if math.isnan(errors[i]) else errors[i]))


def plan_comparison(candidates: Sequence[Candidate], data: HeldOut, protocol: Protocol) -> list[list[Task]]:
    """Choose the windows of each model such that all models forecast the same frames.

    Args:
        candidates: the models.
        data: the trajectories; its number of history frames does not matter.
        protocol: forecasts to measure.

    Raises:
        DataError: a model cannot take the data, or a trajectory is too short.
    """
    longest = max(candidate.num_frames for candidate in candidates)
    plans = []
    for candidate in candidates:
        own = candidate.own(data)
        tasks = tasks_of(replace(own, num_frames=longest), protocol)
        try:
            if isinstance(candidate.model, MateyModel):
                check_fit(candidate.model, own)
            elif candidate.facts is not None:
                check_peer(candidate.facts, own)
        except DataError as error:
            raise DataError(f"{candidate.name}: {error}" if len(candidates) > 1 else str(error)) from None
        plans.append([_later(task, longest - candidate.num_frames) for task in tasks])
    return plans


def check_peer(facts: PeerFacts, data: HeldOut) -> None:
    """Raise DataError if a peer cannot take the data of its system."""
    if not data.sets:
        raise DataError(f"It was trained on {facts.system} alone, which the data does not hold; give some with --data.")
    if data.num_frames != facts.history:
        raise DataError(f"It takes {facts.history} frames of history and no other number; leave out --history.")
    for each in data.sets:
        if each.fields != facts.fields:
            known, there = ", ".join(facts.fields), ", ".join(each.fields)
            raise DataError(f"It was trained on {known} of {each.system}, and the data has {there}; take other data.")


def _later(task: Task, frames: int) -> Task:
    return replace(task, windows=tuple(replace(window, start=window.start + frames) for window in task.windows))
