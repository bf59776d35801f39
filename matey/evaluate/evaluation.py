"""Evaluates a model on held-out trajectories: forecasts at chosen leads and rollouts, compared with simple baselines.

Of fields that the ranks of a sequence group hold in boxes, each rank reads, forecasts and compares its own box of cells, frame
by frame. Sums over cells are added over the ranks, so that all find the same errors. Measures that need neighbouring cells are
left out: seams, spectra, divergence.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from matey.data import DataError, Window, read_rollout, read_windows, spread_windows
from matey.data.reading import read_parts, read_truth_part
from matey.data.trajectories import ALL_FIELDS
from matey.data.windows import alike, num_starts
from matey.evaluate.held_out import HeldOut, check_fit
from matey.evaluate.histories import Boxes, Forecaster, has_tokens, num_sharing
from matey.evaluate.records import (
    ErrorSums,
    Record,
    Task,
    patches_of_cells,
    rollout_kind,
    with_tokens_worth,
)
from matey.evaluate.rollout import Rollout, ShownRollout, rollout, show_rollouts
from matey.evaluate.spectra import Spectra, SpectraSums, with_power
from matey.fields import FieldBatch, Samples
from matey.model.boxes import share_of
from matey.model.matey import MateyModel
from matey.model.nested import with_tensors
from matey.parallel.collectives import dealt_out, rank
from matey.peers.networks import PeerFacts
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, cover, patch_grid


@dataclass(frozen=True)
class Protocol:
    """The measurements to make.

    Attributes:
        leads: lead times in snapshots, each predicted in one step.
        rollout_steps: number of snapshots of the rollout; 0 makes none.
        max_windows: most windows per system and lead, and per system and rollout, divided among the system's data sets and
            spread evenly over each.
        batch_size: number of samples predicted together.
        rollout_lead: snapshots per step of a second rollout from the same windows; 1 makes none.
        conserve: whether rollouts keep the totals of conserved quantities, see `matey.evaluate.rollout`.
    """

    leads: tuple[int, ...] = (1, 5)
    rollout_steps: int = 10
    max_windows: int = 100
    batch_size: int = 16
    rollout_lead: int = 1
    conserve: bool = False


@dataclass(frozen=True)
class _Sums:
    """Sums of one chunk of forecasts; added in the order of the chunks, they are the same for any number of ranks."""

    errors: ErrorSums = field(default_factory=ErrorSums)
    spectra: SpectraSums = field(default_factory=SpectraSums)
    costs: list[Cost] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """All results of an evaluation.

    Attributes:
        records: errors per system, field, kind and lead.
        costs: tokens and seconds per system.
        examples: a few forecasts per system at the largest lead, along one trajectory.
        spectra: power spectra per system, at the last step of each kind of rollout.
        worst: one forecast per system, at the largest lead in the middle of the trajectory with the largest error there.
        shown_rollouts: a rollout of each system from the same trajectory; empty without rollouts.
    """

    records: list[Record]
    costs: list[Cost]
    examples: list[Example] = field(default_factory=list)
    spectra: list[Spectra] = field(default_factory=list)
    worst: list[Example] = field(default_factory=list)
    shown_rollouts: list[ShownRollout] = field(default_factory=list)


def tasks_of(data: HeldOut, protocol: Protocol) -> list[Task]:
    """Choose the windows of every data set, lead and rollout; they do not depend on the model.

    Raises:
        DataError: a trajectory is too short for a lead or for the rollout.
    """
    tasks = []
    for index in range(len(data.sets)):
        for lead in protocol.leads:
            tasks.append(Task("lead", lead, _windows(data, index, protocol, lead)))
        if protocol.rollout_steps:
            windows = _windows(data, index, protocol, lead=1, horizon=protocol.rollout_steps)
            for step in dict.fromkeys((1, protocol.rollout_lead)):
                tasks.append(Task(rollout_kind(step), protocol.rollout_steps, windows, step, protocol.conserve))
    return tasks


def worth_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks for which the tokens' worth is measured: all but rollouts by one snapshot, the longest of all."""
    return [task for task in tasks if task.kind != rollout_kind(1)]


def chunks(tasks: Sequence[Task], protocol: Protocol) -> list[Task]:
    """Split tasks into chunks of forecasts made together, each by one rank, see `matey.parallel.collectives.dealt`."""
    size = protocol.batch_size
    starts = [(task, start) for task in tasks for start in range(0, len(task.windows), size)]
    return [replace(task, windows=task.windows[start : start + size]) for task, start in starts]


def score(
    model: Forecaster,
    data: HeldOut,
    protocol: Protocol,
    tasks: Sequence[Task],
    on_forecasts: Callable[[int], object] = lambda num_forecasts: None,
) -> Evaluation:
    """Return the records, costs and spectra of `evaluate` for any model, without examples and the tokens' worth."""
    num_ranks = num_sharing(model)

    def of_chunk(task: Task) -> _Sums:
        sums = _Sums()
        for windows in alike(data.sets, task.windows):
            own = replace(task, windows=tuple(windows))
            if isinstance(model, MateyModel) and num_ranks > 1:
                sums.costs.extend(score_in_parts(model, data, own, sums.errors))
            elif task.kind == "lead":
                sums.costs.append(_score_lead(model, data, own, sums.errors))
            else:
                _score_rollout(model, data, own, sums)
        on_forecasts(task.num_forecasts)
        return sums

    total = _Sums()
    for sums in dealt_out(of_chunk, chunks(tasks, protocol), together=num_ranks):
        total.errors.merge(sums.errors)
        total.spectra.merge(sums.spectra)
        total.costs.extend(sums.costs)
    spectra = total.spectra.spectra()
    found = [replace(each, conserve=protocol.conserve and each.is_rollout) for each in total.errors.records()]
    return Evaluation(with_power(found, spectra), mean_costs(total.costs), spectra=spectra)


def evaluate(
    model: Forecaster,
    data: HeldOut,
    protocol: Protocol,
    tasks: Sequence[Task],
    on_forecasts: Callable[[int], object] = lambda num_forecasts: None,
) -> Evaluation:
    """Run the tasks of `tasks_of` on the model's device; with several ranks, each makes a part of the forecasts.

    A model with tokens makes the forecasts of `worth_tasks` a second time, with what tokens contribute at zero.

    All ranks have the numbers; only the first has examples, worst forecasts and rollouts to show. If the model's sequence
    group has several ranks, they forecast together, each a part of the fields, and show nothing.

    Args:
        model: the trained model, which can take the data.
        data: the trajectories with the windows of ``tasks``.
        protocol: the protocol, with the batch size and the lead of the examples.
        tasks: the forecasts to make.
        on_forecasts: function called with the number of forecasts that this rank has just made, for a progress bar.

    Raises:
        DataError: see ``TrajectorySet.read``.
    """
    given = model.config.given if isinstance(model, MateyModel) else ()
    data = replace(data, sets=tuple(each.with_given(given) for each in data.sets))  # what the model uses, and no more
    scores = score(model, data, protocol, tasks, on_forecasts)
    if has_tokens(model):
        with model.without_tokens():
            without = score(model, data, protocol, worth_tasks(tasks), on_forecasts).records
        scores = replace(scores, records=with_tokens_worth(scores.records, without))
    if rank() > 0 or num_sharing(model) > 1:
        return scores
    lead = max(protocol.leads)
    worst = [r.worst for r in scores.records if (r.field, r.kind, r.lead) == (ALL_FIELDS, "lead", lead)]
    steps = protocol.rollout_steps
    windows = [_window_of(data, label, steps) for label in worst] if steps else []
    shown = show_rollouts(model, data, windows, steps, protocol.conserve) if windows else []
    return replace(
        scores,
        examples=make_examples(model, data, lead),
        worst=[make_example(model, data, _window_of(data, label, lead)) for label in worst],
        shown_rollouts=shown,
    )


def _score_rollout(model: Forecaster, data: HeldOut, task: Task, sums: _Sums) -> None:
    """Roll out from windows of the same shape, and add errors and spectra to the sums."""
    batch, truth = read_rollout(data.sets, task.windows, data.num_frames, task.lead)
    frames = rollout(model, batch, task.lead, task.rollout_lead, conserve=task.conserve)
    for step, (frame, true) in enumerate(zip(frames, truth.unbind(dim=1), strict=True), start=1):
        frame = frame.cpu()
        sums.errors.add(batch, task.kind, step, frame, true, trajectories=data.labels(task.windows))
    sums.spectra.add(batch, task.kind, task.lead, frame, true)


def _score_lead(model: Forecaster, data: HeldOut, task: Task, sums: ErrorSums) -> Cost:
    """Forecast at a lead from windows of the same shape and add the errors to the sums; return the costs."""
    (batch,) = read_windows(data.sets, task.windows, data.num_frames)
    start = time.perf_counter()
    prediction, layout = predict_with_tokens(model, batch)
    num_tokens = math.nan if layout is None else layout.num_tokens
    cost = cost_of(model, batch.samples, num_tokens, time.perf_counter() - start)
    patch_of_cell = None if layout is None else patches_of_cells(batch, patches_of(model), layout).cpu()
    sums.add(batch, "lead", task.lead, prediction, batch.known_target, patch_of_cell, data.labels(task.windows))
    return cost


def _window_of(data: HeldOut, label: str, lead: int) -> Window:
    """Return the window in the middle of the trajectory with a label."""
    index, number, about = next(each for each in data.chosen if each[2].label == label)
    starts = num_starts(about, data.num_frames, lead)
    return Window(index, number, (starts - 1) // 2, lead)


def _windows(data: HeldOut, index: int, protocol: Protocol, lead: int, horizon: int = 0) -> tuple[Window, ...]:
    source, chosen = data.sets[index], data.trajectories[index]
    count = math.ceil(protocol.max_windows / sum(source.system == other.system for other in data.sets))
    return tuple(spread_windows(source, chosen, data.num_frames, lead, count, horizon=horizon, set_index=index))


def patches_of(model: Forecaster) -> tuple[Patch, ...]:
    """Return the sizes ``[t, z, y, x]`` of a model's patches, coarse to fine; none of a model without tokens."""
    return tuple(model.config.patches) if has_tokens(model) else ()


def predict_with_tokens(model: Forecaster, batch: FieldBatch) -> tuple[Tensor, TokenLayout | None]:
    """Return the predicted frame ``(b, f, z, y, x)`` on the CPU, and the tokens of the batch, if the model has any."""
    if not has_tokens(model):
        return model.predict(batch).cpu(), None
    tokens = model.tokens_of(batch)
    return model.predict(batch, tokens).cpu(), tokens.layout


@dataclass(frozen=True)
class Cost:
    """Mean cost of one forecast of a system, over one batch or several.

    Attributes:
        system: name of the PDE system.
        tokens: mean number of tokens per sample; NaN for a peer, which has none.
        uniform_tokens: mean number of tokens per sample of the uniform grid of the finest patches; NaN for a peer.
        seconds: seconds per sample, from the fields in main memory to the prediction there; of several batches the median, so
            that the first batch's warm-up does not count.
        num_forecasts: number of forecasts in these means.
    """

    system: str
    tokens: float
    uniform_tokens: float
    seconds: float
    num_forecasts: int

    @property
    def share(self) -> float:
        """Number of tokens divided by that of the uniform grid."""
        return self.tokens / self.uniform_tokens


def cost_of(model: Forecaster, samples: Samples, num_tokens: float, seconds: float) -> Cost:
    """Return the cost of a batch from its tokens, NaN for a model without any, and its seconds."""
    number, uniform = samples.number, num_uniform_tokens(model, samples)
    return Cost(samples.system, num_tokens / number, uniform, seconds / number, number)


def num_uniform_tokens(model: Forecaster, samples: Samples) -> float:
    """Return the number of tokens if the samples were cut into the finest patches everywhere; NaN for peers."""
    if not (patches := patches_of(model)):
        return math.nan
    finest = patches[-1]
    return math.prod(patch_grid(cover(samples.window, finest), finest))


def mean_costs(batches: Sequence[Cost]) -> list[Cost]:
    """Average the costs of batches into one per system, in the order in which the systems first appear."""
    costs = []
    for system in dict.fromkeys(batch.system for batch in batches):
        own = [batch for batch in batches if batch.system == system]
        number = sum(batch.num_forecasts for batch in own)
        tokens = sum(batch.tokens * batch.num_forecasts for batch in own) / number
        uniform = sum(batch.uniform_tokens * batch.num_forecasts for batch in own) / number
        costs.append(Cost(system, tokens, uniform, statistics.median(batch.seconds for batch in own), number))
    return costs


@dataclass(frozen=True)
class Example:
    """One sample, its forecast and its tokens.

    Attributes:
        system: name of the PDE system.
        batch: the sample: histories, target, fields and spacing.
        units: unit of each field; ``1`` for a field without one.
        trajectory: file and name of the trajectory.
        frame: index of the last known frame in its trajectory.
        lead: number of snapshots from the last known frame to the target.
        time_step: time between two snapshots.
        prediction: ``(f, z, y, x)``, the forecast.
        layout: the sample's tokens; None for a peer, which has none.
        patches: size ``[t, z, y, x]`` of the patches of each level, coarse to fine; empty for a peer.
        num_uniform_tokens: number of tokens if the sample were cut into the finest patches everywhere; NaN for a peer.
    """

    system: str
    batch: FieldBatch
    units: tuple[str, ...]
    trajectory: str
    frame: int
    lead: int
    time_step: float
    prediction: Tensor
    layout: TokenLayout | None
    patches: tuple[Patch, ...]
    num_uniform_tokens: float

    @property
    def tokens_per_level(self) -> list[int]:
        """Number of tokens at each level of refinement, coarse to fine."""
        return [] if self.layout is None else self.layout.level.bincount(minlength=len(self.patches)).tolist()


def make_examples(model: Forecaster, data: HeldOut, lead: int) -> list[Example]:
    """Predict at the beginning, the middle and the end of each system's first trajectory, in that order."""
    examples = []
    for system in data.systems:
        index = next(i for i, trajectory_set in enumerate(data.sets) if trajectory_set.system == system)
        trajectory = data.trajectories[index][0]
        last_start = data.sets[index].trajectories[trajectory].num_frames - data.num_frames - lead
        for start in dict.fromkeys((0, last_start // 2, last_start)):
            examples.append(make_example(model, data, Window(index, trajectory, start, lead)))
    return examples


def make_example(model: Forecaster, data: HeldOut, window: Window) -> Example:
    """Predict one window and keep the frames and tokens to show."""
    (batch,) = read_windows(data.sets, [window], data.num_frames)
    prediction, layout = predict_with_tokens(model, batch)
    trajectory_set = data.sets[window.set_index]
    trajectory = trajectory_set.trajectories[window.trajectory]
    return Example(
        system=batch.system,
        batch=batch,
        units=trajectory_set.units,
        trajectory=f"{trajectory.source.name}, trajectory {trajectory.name}",
        frame=window.start + data.num_frames - 1,
        lead=window.lead,
        time_step=trajectory.time_step,
        prediction=prediction[0],
        layout=with_tensors(layout, Tensor.cpu),
        patches=patches_of(model),
        num_uniform_tokens=num_uniform_tokens(model, batch.samples),
    )


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
    of_models = [{record.key: record for record in records} for records in records_by_model]
    keys = dict.fromkeys(key for records in of_models for key in records)
    return [tuple(records.get(key) for records in of_models) for key in keys]


def one_of(row: Sequence[Record | None]) -> Record:
    """Return the first record of a row: its data and baselines are the same for all models."""
    return next(record for record in row if record is not None)


def best_of(records: Sequence[Record | None]) -> int:
    """Return the index of the record with the smallest error; an error that is not finite counts as the largest."""
    errors = [math.nan if record is None else record.vrmse for record in records]
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


LEFT_OUT = (
    "Ranks held parts of the fields: there are no pictures, spectra, seams or divergences, and no numbers of metrics "
    "that a package measures on whole fields."
)


@torch.no_grad()
def score_in_parts(model: MateyModel, data: HeldOut, task: Task, sums: ErrorSums) -> list[Cost]:
    """Make forecasts from windows of the same shape and add their errors to the sums; return the costs of those at a lead."""
    windows, share = task.windows, share_of(model.config, model.sequence_group.ranks)
    assert share is not None, "a model whose ranks hold whole fields"
    (part,) = read_parts(data.sets, windows, data.num_frames, share, task.lead)
    targets = [piece.target for piece in part.pieces if piece.target is not None] if task.kind == "lead" else []
    histories = Boxes(model, part, data.about(windows[0]).spacing)
    del part  # of the first histories two frames are kept
    newest, names = histories.history[:, -2:].clone(), data.labels(windows)
    add = partial(sums.add_cells, histories.cells, histories.part.samples, task.kind)
    if task.kind == "lead":
        start = time.perf_counter()
        frame, truth = histories.predict(task.lead), histories.of_own(targets)
        cost = cost_of(model, histories.part.samples, histories.num_tokens, time.perf_counter() - start)
        add(task.lead, newest, frame, truth, names)
        return [cost]
    rolled = Rollout(histories, task.conserve)
    del histories  # so that the first are released as the rollout moves on
    for step, frame in enumerate(rolled.frames(task.lead, task.rollout_lead), start=1):
        assert isinstance(rolled.histories, Boxes)
        read = read_truth_part(data.sets, windows, data.num_frames, step, share)
        truth = rolled.histories.of_own([piece.history[0] for piece in read.pieces])
        add(step, newest, frame, truth, names)
    return []
