"""A training run from the agreement of its ranks to its last step: engine, folder, resuming, the loop.

A pretraining run takes the vocabulary of its data and random weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from matey.checkpoints.run_files import read_metrics
from matey.config import RunConfig
from matey.model.configuration import MateyConfig, model_config
from matey.model.matey import MateyModel
from matey.parallel import collectives
from matey.parallel.engine import build_engine, is_bf16
from matey.parallel.exchange import Topology
from matey.parallel.sequence import DistributedSequenceGroup
from matey.train import run_data
from matey.train.ahead import stream_of
from matey.train.checkpoint import MovingAverage, RunFolder
from matey.train.describe import closing, describe, describe_tokens
from matey.train.loop import Progress, train, validate, warm_up_notes
from matey.train.network import check_attention, check_fit, layout_of, topology_of, with_vocabulary
from matey.train.run_data import RunData


def train_run(
    run: RunConfig,
    data: RunData,
    model: MateyModel,
    deepspeed_config: dict[str, Any],
    say: Callable[[str], None],
    *,
    only_describe: bool = False,
    notes: Sequence[str] = (),
) -> bool:
    """Train as ``run`` says, from the model's weights or from the newest checkpoint; return whether training is done.

    Args:
        run: the run, resolved.
        data: data of the run.
        model: network of the run; parameters that require a gradient are trained.
        deepspeed_config: the configuration of the engine.
        say: function that prints a line on rank 0.
        only_describe: whether to describe the run only, without training.
        notes: sentences to print after the description that every run prints.
    """
    check_attention(run.model.attention, is_bf16(deepspeed_config))
    topology = topology_of(run, data, model.config, 2 if is_bf16(deepspeed_config) else 4)
    if topology.sequence_parallel_size > 1:
        model.sequence_group = DistributedSequenceGroup(topology, run.model.attention)
    model.checkpoint_blocks = run.parallel.checkpoint_blocks
    model.offload_activations = run.parallel.offload_activations
    notes = (*data.notes, *notes, *warm_up_notes(run.train))
    if only_describe:
        say("\n".join([describe(run, data, model, topology, 0), *notes]))
        layout = collectives.done_by_rank_zero(lambda: layout_of(run, data, model.config))
        say(describe_tokens(run, model, topology, layout))
        return True
    folder = RunFolder(run.output.dir)
    with folder.in_use():
        return _train_in(folder, run, data, model, topology, deepspeed_config, say, notes)


def _train_in(
    folder: RunFolder,
    run: RunConfig,
    data: RunData,
    model: MateyModel,
    topology: Topology,
    deepspeed_config: dict[str, Any],
    say: Callable[[str], None],
    notes: Sequence[str],
) -> bool:
    """Train in a folder that is this run's alone; return whether training is done."""
    windows, scales = run_data.validation_windows(run, data), run_data.loss_scales(run, data)
    notes = (*notes, *run_data.weighted_fields(data, scales))
    if model.config.statistics:
        model.config.scales = run_data.seen_scales(run, data, model.config.scales)
    model.config.spacings = run_data.seen_spacings(data, model.config.spacings)
    engine = build_engine(model, run.train, deepspeed_config)
    average = MovingAverage(engine, run.train.ema)

    # A mistake in the configuration or short data stops the run above: only now does an earlier run move aside.
    validated = run_data.chosen_by(run, data, windows)
    progress = _start_or_resume(run, deepspeed_config, folder, engine, average, say, validated)
    notes = (*notes, *run_data.write_split(folder.path, data))
    opening = "\n".join([describe(run, data, model, topology, progress.step), *notes])
    say(opening)
    folder.write_about(opening)
    if progress.is_done(run.train):
        said, key = f"Step {progress.step} of {run.train.steps} is done", "train.steps"
        if progress.has_stopped_early(run.train):
            said, key = f"Training ended early at step {progress.step}", "train.patience"
        say(f"{said}: nothing to do. Raise {key} to go on.")
        folder.record_done(run.train.steps)
        return True
    stream = stream_of(run, data.mixture, model, engine.device, topology, progress.step)
    check = partial(
        validate, engine, data.all_sets, windows, run.data.history, run.train.micro_batch, topology, len(data.sets)
    )
    progress = train(engine, stream, scales, check, run.train, folder, average, progress)
    if not progress.is_done(run.train):
        say(
            f"Asked to stop: step {progress.step} of {run.train.steps} is saved. The same command with --resume continues."
        )
        return False
    if progress.step < run.train.steps:
        say(f"Step {progress.step}: {progress.stale} validations without a new best end the training (train.patience).")
    if collectives.rank() == 0:
        say(closing([line for _, line in read_metrics(folder.metrics).lines], folder.path))
    folder.record_done(run.train.steps)
    return True


def _start_or_resume(
    run: RunConfig,
    deepspeed_config: dict[str, Any],
    folder: RunFolder,
    engine: collectives.Engine,
    average: MovingAverage,
    say: Callable[[str], None],
    validated: str,
) -> Progress:
    done = collectives.from_rank_zero(folder.newest_step()) if run.output.resume == "auto" else None
    if done is None:
        if run.output.resume == "auto":
            say(f"{folder.path} holds no checkpoint yet: training starts at its first step.")
        if note := folder.start(run, deepspeed_config):
            say(note)
        return Progress(validated=validated)
    state = folder.load(engine, run, done, average)
    if note := folder.go_on(run, deepspeed_config, done):
        say(note)
    if state["validated"] != validated:
        say(
            f"What is validated has changed since step {done}: the best weights are chosen anew, from the next validation on."
        )
        return Progress(done, owes_validation=state["owes_validation"], validated=validated)
    return Progress(done, state["best"], state["stale"], state["owes_validation"], validated)


def pretrain(
    run: RunConfig, deepspeed_config: dict[str, Any], say: Callable[[str], None], *, only_describe: bool = False
) -> bool:
    """Train as ``run`` says, from the start or from the newest checkpoint; return whether training is done.

    Args:
        run: the run; its vocabulary, if not given, is made of the fields of the data sets.
        deepspeed_config: the configuration of the engine.
        say: function that prints a line on rank 0.
        only_describe: whether to describe the run only, without training.
    """
    run, data, model = opened(run, deepspeed_config)
    return train_run(run, data, model, deepspeed_config, say, only_describe=only_describe)


def opened(
    run: RunConfig, deepspeed_config: dict[str, Any], pretrained: MateyConfig | None = None
) -> tuple[RunConfig, RunData, MateyModel]:
    """Return a run with its vocabulary, its data, and its network, with random weights and after a pretrained one if given."""
    collectives.check_same_run(run, deepspeed_config)
    data = run_data.open_data(run)
    run = with_vocabulary(run, data.all_sets, pretrained)
    config = model_config(run, pretrained)
    check_fit(config, data.sets_and_views)
    torch.manual_seed(run.train.seed)
    return run, data, MateyModel(config)
