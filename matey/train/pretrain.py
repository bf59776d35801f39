"""Set a pretraining run up: open the data, build the model and the engine, resume, train."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from matey.config import ConfigError, RunConfig
from matey.data import open_dataset
from matey.data.mixture import Mixture, micro_batches
from matey.data.splits import Split, split_set
from matey.data.trajectories import DataError, TrajectorySet
from matey.data.windows import Window, sound_windows, spread_windows
from matey.model.configuration import SIZES
from matey.model.matey import MateyModel
from matey.parallel.collectives import from_rank_zero, rank, world_size
from matey.parallel.engine import build_engine
from matey.parallel.sequence import SequenceSeam
from matey.parallel.topology import Topology
from matey.tokens.patches import padding_note
from matey.train.checkpoint import RunFolder
from matey.train.loop import train
from matey.train.network import check_fit, model_config, with_vocabulary
from matey.train.validation import persistence_by_system, validate


def pretrain(run: RunConfig, deepspeed_config: dict[str, Any], say: Callable[[str], None]) -> None:
    """Train as ``run`` says, from the start or from the newest checkpoint.

    Args:
        run: the run; its vocabulary, where not given, is what the data sets hold.
        deepspeed_config: of the engine.
        say: prints a line on rank 0.
    """
    sets = [open_dataset(data.path) for data in run.data.sets]
    others = open_others(run, sets)
    run = with_vocabulary(run, [*sets, *others])
    check_fit(run, [*sets, *others])
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
    topology = topology_of(run)
    torch.manual_seed(run.train.seed)
    model = MateyModel(model_config(run))
    if topology.sequence_parallel_size > 1:
        model.seam = SequenceSeam(topology, run.model.attention)
    model.checkpoint_blocks = run.parallel.checkpoint_blocks
    model.offload_activations = run.parallel.offload_activations
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
    say(describe(run, sets, splits, mixture.shares, others, model, topology, first_step))
    if first_step >= run.train.steps:
        say(f"Step {first_step} of {run.train.steps} is done: nothing to do. Raise train.steps to go on.")
        return
    stream = micro_batches(
        mixture,
        first_step,
        run.train.steps - first_step,
        run.train.micro_batch,
        run.train.accumulation,
        topology.data_rank,
        topology.num_data_ranks,
        run.data.workers,
        same_system=run.data.same_system,
        bad_values=run.data.bad_values,
    )
    held_back = [*(split.valid for split in splits), *(range(data.num_trajectories) for data in others)]
    windows = windows_of(run, [*sets, *others], held_back)
    trained = [data.system for data in sets]
    check = partial(
        validate, engine, [*sets, *others], windows, run.data.history, run.train.micro_batch, topology, trained
    )
    scales = loss_scales(run, sets, splits)
    train(engine, stream, scales, check, run.train, folder, first_step, state.get("best", math.inf))
    say(f"Weights: {folder.model}   metrics: {folder.metrics}")


def open_others(run: RunConfig, sets: Sequence[TrajectorySet]) -> list[TrajectorySet]:
    """Open the data that is only validated on.

    Raises:
        ConfigError: some of it is trained on.
    """
    others = [open_dataset(path) for path in run.data.validate_on]
    known = {source for data in sets for source in data.sources}
    for path, data in zip(run.data.validate_on, others, strict=True):
        if both := known.intersection(data.sources):
            raise ConfigError(
                f"data.validate_on: {path} holds {min(both)}, which data.sets trains on; leave it out there, since every "
                "set is validated on its own valid part."
            )
    return others


def topology_of(run: RunConfig) -> Topology:
    """Return this rank's place among all.

    Raises:
        ConfigError: the size of a sequence group does not divide the ranks.
    """
    heads = SIZES[run.model.size][0]
    try:
        return Topology(rank(), world_size(), run.parallel.sequence_parallel_size, heads)
    except ValueError as error:
        raise ConfigError(str(error)) from None


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
    others: Sequence[TrajectorySet],
    model: MateyModel,
    topology: Topology,
    first_step: int,
) -> str:
    """Return the lines that open a run: data, model, batch."""
    lines = []
    for data, split, share, section in zip(sets, splits, shares, run.data.sets, strict=True):
        counts = f"{len(split.train)}/{len(split.valid)}/{len(split.test)} train/valid/test trajectories"
        lines.append(f"{data.system}: {', '.join(data.fields)}; {counts}; {share:.1%} of the samples; {section.path}")
    learnt = {name for data in sets for name in data.fields}
    for data, path in zip(others, run.data.validate_on, strict=True):
        names = ", ".join(name if name in learnt else f"{name} (not trained)" for name in data.fields)
        lines.append(f"{data.system}: {names}; {data.num_trajectories} trajectories to validate on; {path}")
    for data in (*sets, *others):
        for grid in dict.fromkeys(trajectory.grid for trajectory in data.trajectories):
            if note := padding_note(grid, run.tokens.patches[0]):
                lines.append(f"{data.system}: {note}")
    num_parameters = sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())
    samples = run.train.micro_batch * run.train.accumulation * topology.num_data_ranks
    lines.append(
        f"{run.model.size} {run.model.scheme}, {num_parameters:,} parameters; {run.tokens.set} patches "
        f"{[list(patch) for patch in run.tokens.patches]}; global batch {samples} samples on {topology.num_ranks} ranks"
    )
    if topology.sequence_parallel_size > 1:
        lines.append(
            f"{topology.num_data_ranks} sequence groups of {topology.sequence_parallel_size} ranks: attention exchanges tokens "
            f"for heads among {topology.head_ways} and shares queries among {topology.query_ways}"
        )
    if first_step:
        lines.append(f"Going on after step {first_step}.")
    return "\n".join(lines)
