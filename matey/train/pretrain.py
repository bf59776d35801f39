"""Set a pretraining run up: open the data, build the model and the engine, resume, train."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from matey.config import RunConfig
from matey.data import open_dataset
from matey.data.mixture import Mixture, micro_batches
from matey.data.splits import Split, split_set
from matey.data.trajectories import DataError, TrajectorySet
from matey.data.windows import Window, sound_windows, spread_windows
from matey.model.matey import MateyModel
from matey.parallel.collectives import from_rank_zero, rank, world_size
from matey.parallel.engine import build_engine
from matey.tokens.patches import padding_note
from matey.train.checkpoint import RunFolder
from matey.train.loop import train
from matey.train.network import check_fit, model_config, with_vocabulary
from matey.train.validation import persistence_by_system, validate


def pretrain(run: RunConfig, deepspeed_config: dict[str, Any], say: Callable[[str], None]) -> bool:
    """Train as ``run`` says, from the start or from the newest checkpoint; return whether all steps are done.

    Args:
        run: the run; its vocabulary, where not given, is what the data sets hold.
        deepspeed_config: of the engine.
        say: prints a line on rank 0.
    """
    sets = [open_dataset(data.path) for data in run.data.sets]
    run = with_vocabulary(run, sets)
    check_fit(run, sets)
    splits = [split_of(data, run) for data in sets]
    mixture = Mixture(
        sets,
        [split.train for split in splits],
        [data.weight for data in run.data.sets],
        run.data.history,
        run.data.lead_max,
        run.train.seed,
        run.data.temperature,
    )
    torch.manual_seed(run.train.seed)
    model = MateyModel(model_config(run))
    engine = build_engine(model, run.train, deepspeed_config)

    # All that a mistake in the configuration can stop lies above: only now is the run's folder touched.
    folder = RunFolder(run.output.dir)
    done = from_rank_zero(folder.newest_step()) if run.output.resume == "auto" else None
    if done is None:
        folder.start(run, deepspeed_config)
        state = {}
    else:
        folder.go_on(run, deepspeed_config, done)
        state = folder.load(engine, done)
    first_step = done or 0
    say(describe(run, sets, splits, mixture.shares, model, first_step))
    if first_step >= run.train.steps:
        say(f"Step {first_step} of {run.train.steps} is done: nothing to do. Raise train.steps to go on.")
        return True
    stream = micro_batches(
        mixture,
        first_step,
        run.train.steps - first_step,
        run.train.micro_batch,
        run.train.accumulation,
        rank(),
        world_size(),
        run.data.workers,
        same_system=run.data.same_system,
        bad_values=run.data.bad_values,
    )
    windows = windows_of(run, sets, [split.valid for split in splits])
    check = partial(validate, engine, sets, windows, run.data.history, run.train.micro_batch)
    scales = loss_scales(run, sets, splits)
    last_step = train(engine, stream, scales, check, run.train, folder, first_step, state.get("best", math.inf))
    if last_step < run.train.steps:
        say(f"Asked to leave: step {last_step} of {run.train.steps} is saved. The same command with --resume goes on.")
        return False
    say(f"Weights: {folder.model}   metrics: {folder.metrics}")
    return True


def loss_scales(run: RunConfig, sets: Sequence[TrajectorySet], splits: Sequence[Split]) -> dict[str, float]:
    """Return the NRMSE that counts as a loss of 1 for each system, as ``train.loss`` asks for."""
    if run.train.loss == "balanced":
        windows = windows_of(run, sets, [split.train for split in splits])
        return persistence_by_system(sets, windows, run.data.history)
    return dict.fromkeys((data.system for data in sets), 1.0)


def split_of(data: TrajectorySet, run: RunConfig) -> Split:
    """Split the trajectories of a data set; an error says whose they are."""
    try:
        return split_set(data, run.data.split, run.data.split_seed)
    except DataError as error:
        raise DataError(f"{data.sources[0]}: {error}") from None


def windows_of(run: RunConfig, sets: Sequence[TrajectorySet], trajectories: Sequence[Sequence[int]]) -> list[Window]:
    """Spread ``train.validation_windows`` per system over its trajectories, half at lead 1 and half at the largest lead."""
    leads = sorted({1, run.data.lead_max})
    count = math.ceil(run.train.validation_windows / len(leads))
    windows = [
        window
        for index, (data, chosen) in enumerate(zip(sets, trajectories, strict=True))
        for lead in leads
        for window in spread_windows(data, chosen, run.data.history, lead, count, set_index=index)
    ]
    return sound_windows(sets, windows, run.data.history) if run.data.bad_values == "skip" else windows


def describe(
    run: RunConfig,
    sets: Sequence[TrajectorySet],
    splits: Sequence[Split],
    shares: Sequence[float],
    model: MateyModel,
    first_step: int,
) -> str:
    """Return the lines that open a run: data, model, batch."""
    lines = []
    for data, split, share, section in zip(sets, splits, shares, run.data.sets, strict=True):
        counts = f"{len(split.train)}/{len(split.valid)}/{len(split.test)} train/valid/test trajectories"
        lines.append(f"{data.system}: {', '.join(data.fields)}; {counts}; {share:.1%} of the samples; {section.path}")
        for grid in dict.fromkeys(trajectory.grid for trajectory in data.trajectories):
            if note := padding_note(grid, run.tokens.patches[0]):
                lines.append(f"{data.system}: {note}")
    num_parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    samples = run.train.micro_batch * run.train.accumulation * world_size()
    lines.append(
        f"{run.model.size} {run.model.scheme}, {num_parameters:,} parameters; {run.tokens.set} patches "
        f"{[list(patch) for patch in run.tokens.patches]}; global batch {samples} samples on {world_size()} ranks"
    )
    if first_step:
        lines.append(f"Going on after step {first_step}.")
    return "\n".join(lines)
