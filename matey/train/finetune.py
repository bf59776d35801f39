"""A fine-tuning run: the network and its weights come from a trained model, fields are appended, parts are trained.

A mode freezes parameters of the model, and may put adapters of low rank beside them. A parameter is identified by its name, and
by the part of the network that it belongs to (`matey.model.parts`).
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, get_args

from matey.checkpoints.trained import Trained, load_trained
from matey.config import ConfigError, FinetuneSection, Part, RunConfig, source_of
from matey.config.schema import FINETUNE_MODES
from matey.model.configuration import with_network_of
from matey.model.matey import MateyModel, quiet
from matey.model.parts import OUTPUT, add_adapters, is_adapter, part_of
from matey.model.transfer import Transfer, transfer
from matey.train.describe import parts_table
from matey.train.run import opened, train_run
from matey.train.run_data import check_unseen


def finetune(
    run: RunConfig, deepspeed_config: dict[str, Any], say: Callable[[str], None], *, only_describe: bool = False
) -> bool:
    """Fine-tune as ``run`` says, from the start or from the newest checkpoint; return whether training is done.

    Args:
        run: the run; settings of network, tokens and history that it leaves out are those of the pretrained model.
        deepspeed_config: the configuration of the engine.
        say: function that prints a line on rank 0.
        only_describe: whether to describe the run only, without training.

    Raises:
        ConfigError: there is no pretrained model, or it does not fit the run.
    """
    trained = load_source(run)
    settings = run.finetune
    assert settings is not None and settings.pretrained is not None, "load_source refuses a run that names no source"
    source = None if trained is None else trained.model
    if source is not None:
        run = with_network_of(run, source.config)
    run, data, model = opened(run, deepspeed_config, None if source is None else source.config)
    if trained is not None and not settings.allow_seen:
        check_unseen(trained.split, trained.seen, data.sets, data.splits, settings.pretrained)
    moved = None if source is None else move_weights(source, model, settings)
    FINETUNE_MODES[settings.train](model, settings)
    notes = ["Initial weights are random."] if moved is None else [f"From {settings.pretrained}:", *moved.sentences]
    notes.append(parts_table(model, moved))
    return train_run(run, data, model, deepspeed_config, say, only_describe=only_describe, notes=notes)


def load_source(run: RunConfig) -> Trained | None:
    """Load the model to start from; None for random weights.

    Raises:
        ConfigError: no source is named, or random weights lack the settings of the network.
        CheckpointError: the model cannot be loaded.
    """
    if (source := source_of(run)) is None:
        return None
    with quiet():
        return load_trained(source)


def move_weights(source: MateyModel, model: MateyModel, settings: FinetuneSection) -> Transfer:
    """Copy the weights of the pretrained model that fit.

    Raises:
        ConfigError: the blocks do not fit, or initial rows are asked for that are not possible.
    """
    new = [name for name in model.config.fields if name not in source.config.fields]
    for name in settings.new_rows_of:
        if name not in new:
            raise ConfigError(
                f"finetune.new_rows_of names {name!r}, which is no new field; new are {', '.join(new) or 'none'}."
            )
    # Given fields change no forecast before their rows are trained.
    default = {name: "zero" if name in model.config.given else settings.new_rows for name in new}
    try:
        rows = {name: settings.new_rows_of.get(name, default[name]) for name in new}
        # Pretrained cells would predict nonsense for new fields, which takes training to unlearn.
        cells = settings.cells or ("features" if set(new) - set(model.config.given) else "pretrained")
        return transfer(source, model, rows, cells=cells)
    except ValueError as error:
        raise ConfigError(str(error)) from None


ALL: frozenset[Part] = frozenset(get_args(Part))


def every_part(model: MateyModel, settings: FinetuneSection) -> None:
    """Train all parameters."""
    train_parts(model, ALL)


def prepost(model: MateyModel, settings: FinetuneSection) -> None:
    """Train all but the blocks."""
    train_parts(model, ALL - {"blocks"})


def lora(model: MateyModel, settings: FinetuneSection) -> None:
    """Train all but the blocks, and adapters of low rank beside the blocks' linear maps."""
    add_adapters(model, settings.lora_rank, settings.lora_alpha)
    train_parts(model, ALL - {"blocks"})


def head(model: MateyModel, settings: FinetuneSection) -> None:
    """Train the parts that make the output."""
    train_parts(model, OUTPUT)


def train_parts(model: MateyModel, parts: Set[Part]) -> None:
    """Freeze all parameters except those of some parts and of adapters."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name) or part_of(name) in parts)
