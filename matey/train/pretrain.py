"""Set a pretraining run up: open the data, build the model and the engine, resume, train."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from matey.config import ConfigError, RunConfig, dump_config
from matey.data import open_dataset
from matey.data.mixture import Mixture, micro_batches
from matey.data.splits import Split, split_set
from matey.data.trajectories import DataError, TrajectorySet
from matey.data.windows import Window, read_windows, sound_windows, spread_windows
from matey.fields import FieldBatch
from matey.model.blocks import scheme_keys
from matey.model.configuration import SIZES
from matey.model.matey import MateyModel
from matey.parallel.agreement import check_agreement, code_fingerprint, fingerprint
from matey.parallel.average import MovingAverage
from matey.parallel.collectives import from_rank_zero, rank, world_size
from matey.parallel.engine import build_engine
from matey.parallel.sequence import SequenceSeam
from matey.parallel.topology import Topology
from matey.tokens.tokenize import tokenize
from matey.train.checkpoint import RunFolder
from matey.train.describe import describe, describe_tokens
from matey.train.loop import train
from matey.train.memory import activation_bytes, smallest_group
from matey.train.network import check_fit, model_config, with_vocabulary
from matey.train.validation import persistence_by_system, validate

AUTO_DRAWS = 4  # micro-batches of which the one with most tokens decides the size of a sequence group


def pretrain(
    run: RunConfig, deepspeed_config: dict[str, Any], say: Callable[[str], None], *, only_describe: bool = False
) -> bool:
    """Train as ``run`` says, from the start or from the newest checkpoint; return whether all steps are done.

    Args:
        run: the run; its vocabulary, where not given, is what the data sets hold.
        deepspeed_config: of the engine.
        say: prints a line on rank 0.
        only_describe: whether to say what would be done, and leave.
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
    topology = topology_of(run, mixture)
    check_agreement(
        {
            "the code": code_fingerprint(),
            "the run's configuration": fingerprint(dump_config(run)),
            "the DeepSpeed configuration": fingerprint(json.dumps(deepspeed_config, sort_keys=True)),
            "the data": fingerprint(repr([data.trajectories for data in (*sets, *others)])),
        }
    )
    torch.manual_seed(run.train.seed)
    model = MateyModel(model_config(run))
    if topology.sequence_parallel_size > 1:
        model.seam = SequenceSeam(topology, run.model.attention)
    model.checkpoint_blocks = run.parallel.checkpoint_blocks
    model.offload_activations = run.parallel.offload_activations
    if only_describe:
        say(describe(run, sets, splits, mixture.shares, others, model, topology, 0))
        say(describe_tokens(run, model, topology, sample_of(run, mixture)))
        return True
    engine = build_engine(model, run.train, deepspeed_config)
    average = MovingAverage(engine, run.train.ema)

    # All that a mistake in the configuration can stop lies above: only now is the run's folder touched.
    folder = RunFolder(run.output.dir)
    done = from_rank_zero(folder.newest_step()) if run.output.resume == "auto" else None
    if done is None:
        folder.start(run, deepspeed_config)
        state = {}
    else:
        folder.go_on(run, deepspeed_config, done)
        state = folder.load(engine, done, average)
    first_step = done or 0
    opening = describe(run, sets, splits, mixture.shares, others, model, topology, first_step)
    say(opening)
    folder.write_about(opening)
    if first_step >= run.train.steps:
        say(f"Step {first_step} of {run.train.steps} is done: nothing to do. Raise train.steps to go on.")
        return True
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
    best = state.get("best", math.inf)
    last_step = train(engine, stream, scales, check, run.train, folder, average, first_step, best)
    if last_step < run.train.steps:
        say(f"Asked to leave: step {last_step} of {run.train.steps} is saved. The same command with --resume goes on.")
        return False
    say(f"Weights: {folder.model}   metrics: {folder.metrics}")
    return True


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


def sample_of(run: RunConfig, mixture: Mixture, step: int = 0) -> list[FieldBatch]:
    """Read a micro-batch of a step, the same on every rank."""
    return read_windows(mixture.sets, mixture.global_batch(step, run.train.micro_batch), run.data.history)


def topology_of(run: RunConfig, mixture: Mixture) -> Topology:
    """Return this rank's place among all.

    Raises:
        ConfigError: the size of a sequence group does not divide the ranks, or none is large enough for the memory limit.
    """
    heads = SIZES[run.model.size][0]
    size = run.parallel.sequence_parallel_size
    if size == "auto":
        config = model_config(run)
        samples = (sample_of(run, mixture, step) for step in range(AUTO_DRAWS))
        most = max(tokenize(batches, config.patches, config.refinement).layout.num_tokens for batches in samples)
        attentions = len(scheme_keys(config.scheme, config.patches))
        kept = activation_bytes(config, most, attentions, run.parallel.checkpoint_blocks)
        size = smallest_group(kept, run.parallel.memory_limit * 2**30, world_size())
    try:
        return Topology(rank(), world_size(), size, heads)
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
