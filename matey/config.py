"""The run YAML: a typed schema with one owner per number, and the errors for who wrote it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from matey.fields import nearest_name

PatchSize = tuple[int, int, int, int]

# The run YAML owns these numbers and passes them to DeepSpeed; in the JSON as well, they would have two owners.
OWNED_BY_RUN = {
    "train_batch_size": "train.micro_batch and train.accumulation",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_clipping": "train.clip_norm",
    "optimizer": "train.learning_rate, train.betas and train.weight_decay",
    "scheduler": "train.schedule and train.warmup_steps",
    "steps_per_print": "train.log_every",
}
OWNED_BY_DEEPSPEED = (
    "zero_optimization", "bf16", "fp16", "torch_autocast", "data_types", "communication_data_type",
    "seq_parallel_communication_data_type", "prescale_gradients", "gradient_predivide_factor", "sparse_gradients",
    "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "aio", "comms_logger", "flops_profiler",
    "wall_clock_breakdown", "memory_breakdown", "dump_state", "tensorboard", "wandb", "comet", "csv_monitor",
    "checkpoint", "graph_harvesting", "compile", "load_universal_checkpoint", "use_node_local_storage",
    "disable_allgather", "data_efficiency", "timers",
)  # fmt: skip


class ConfigError(ValueError):
    """A mistake in the run YAML, in ``--set`` or in the DeepSpeed JSON: one sentence that says what to do."""


class Section(BaseModel):
    """A part of the run YAML; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """The network."""

    size: Literal["micro", "Ti", "S", "B"] = Field("Ti", description="heads, width and blocks: 3/96/4 or the paper's")
    scheme: Literal["vit", "svit", "avit"] = Field(
        "vit", description="attention: full; over time, then space; over time, then each axis"
    )
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="probability that a sample skips a residual of the last block"
    )
    attention: Literal["auto", "grouped", "varlen", "flash_attn"] = Field(
        "auto", description="what computes it: the fastest there is, or one by name"
    )
    predict: Literal["change", "field"] = Field("change", description="decode the change since the last frame, or u")
    fields: tuple[str, ...] | None = Field(None, description="field vocabulary; by default what the data sets hold")


class TokensSection(Section):
    """The tokenizer."""

    set: Literal["uniform", "mix", "mul"] = Field(
        "mix", description="one patch size, children that replace their parent, or children beside their parent"
    )
    patches: tuple[PatchSize, ...] = Field(((1, 1, 32, 32), (1, 1, 8, 8)), description="[t, z, y, x], coarse to fine")
    rule: Literal["threshold", "fraction", "budget"] = Field(
        "threshold", description="split above a share of the largest variance, the top share, or until so many tokens"
    )
    refine: float = Field(0.2, ge=0, description="the rule's threshold gamma, share, or number of tokens of a sample")
    values: Literal["normalised", "raw"] = Field("normalised", description="fields whose variance decides")
    change: float = Field(0.0, ge=0, description="weight of the change between the last two frames beside the variance")


class DataSet(Section):
    """One data set of the mixture."""

    path: str = Field(description="file, folder or glob")
    weight: float = Field(1.0, gt=0, description="factor of its share of the samples; see data.temperature")


class DataSection(Section):
    """What to train on."""

    sets: tuple[DataSet, ...] = Field(min_length=1, description="the data sets of the mixture")
    validate_on: tuple[str, ...] = Field(
        (), description="more data, never trained on, whose errors are logged; the best weights are chosen without it"
    )
    history: int = Field(4, ge=1, description="frames of history T")
    lead_max: int = Field(1, ge=1, description="lead times are drawn from 1 to this, in snapshots")
    split: tuple[float, float, float] = Field(
        (0.8, 0.1, 0.1), description="shares of train, valid, test; data with splits of its own keeps them"
    )
    split_seed: int = Field(0, ge=0, description="of the permutation behind the split")
    temperature: float = Field(
        0.0, ge=0, description="a set's share goes as weight x (training windows)^temperature: 0 alike, 1 by size"
    )
    same_system: bool = Field(False, description="whether each micro-batch of a rank holds windows of one set only")
    bad_values: Literal["refuse", "skip"] = Field(
        "refuse", description="windows with NaN or infinity stop the run, or others are drawn in their place"
    )
    workers: int = Field(0, ge=0, description="processes per rank that read ahead; 0 reads in the training process")


class TrainSection(Section):
    """How to train."""

    steps: int = Field(ge=1, description="optimizer steps")
    micro_batch: int = Field(8, ge=1, description="samples of one data-parallel group per micro-step")
    accumulation: int = Field(1, ge=1, description="micro-steps per optimizer step")
    seed: int = Field(0, ge=0, description="of the initial weights and of the stream of samples")
    learning_rate: float = Field(1e-3, gt=0, description="at its peak")
    final_learning_rate: float = Field(0.0, ge=0, description="at the last step of the cosine")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up")
    betas: tuple[float, float] = Field((0.9, 0.95), description="AdamW's moment decay")
    weight_decay: float = Field(0.01, ge=0, description="on matrices; never on norms, biases and embeddings")
    clip_norm: float = Field(1.0, ge=0, description="largest norm of the gradient; 0 does not clip")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, such as 0.999, which validation and model/ use; 0: none",
    )
    loss: Literal["nrmse", "balanced"] = Field(
        "nrmse",
        description="NRMSE, or NRMSE over persistence's mean NRMSE on the system, so that no system outweighs others",
    )
    log_every: int = Field(1, ge=1, description="steps between lines of metrics.jsonl")
    validate_every: int = Field(200, ge=1, description="steps between validations; there is one at the end as well")
    validation_windows: int = Field(32, ge=1, description="windows per system and validation")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints; there is one at the end as well")
    keep_checkpoints: int = Field(2, ge=1, description="how many of the newest checkpoints stay on disk")


class ParallelSection(Section):
    """How a run is spread over processes."""

    sequence_parallel_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="ranks P that share the tokens of the same samples; auto: as few as memory_limit allows"
    )
    memory_limit: float | None = Field(None, gt=0, description="GiB that the activations of a rank may take, for auto")
    checkpoint_blocks: Literal["none", "all", "every_other"] = Field(
        "none", description="blocks that keep no activations but are computed again in the backward pass"
    )
    offload_activations: bool = Field(False, description="what such blocks keep waits in main memory")
    threads: int | None = Field(None, ge=1, description="CPU threads per process; by default cores over local ranks")
    timeout: float = Field(1800, gt=0, description="seconds after which a collective that hangs ends the run")


class OutputSection(Section):
    """What a run leaves behind."""

    dir: str = Field(description="the run's folder")
    resume: Literal["auto", "never"] = Field(
        "never", description="auto goes on from the newest whole checkpoint in dir, if there is one"
    )


class RunConfig(Section):
    """A run: everything but the DeepSpeed engine."""

    model: ModelSection = ModelSection()
    tokens: TokensSection = TokensSection()
    data: DataSection
    train: TrainSection
    parallel: ParallelSection = ParallelSection()
    output: OutputSection

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.tokens.set == "uniform" and len(self.tokens.patches) > 1:
            raise ValueError(
                f"tokens.set is 'uniform', which has one patch size, but tokens.patches lists {len(self.tokens.patches)}; "
                "keep one of them or use 'mix' or 'mul'"
            )
        if self.tokens.rule == "fraction" and self.tokens.refine > 1:
            raise ValueError(
                f"tokens.refine is a share of the patches for the rule 'fraction', got {self.tokens.refine:g}"
            )
        if self.parallel.sequence_parallel_size == "auto" and self.parallel.memory_limit is None:
            raise ValueError("parallel.sequence_parallel_size is 'auto', which needs parallel.memory_limit in GiB")
        if self.parallel.offload_activations and self.parallel.checkpoint_blocks == "none":
            raise ValueError(
                "parallel.offload_activations sends to main memory what checkpointed blocks keep, and "
                "parallel.checkpoint_blocks is 'none'; set that to 'all'"
            )
        if abs(sum(self.data.split) - 1) > 1e-6:
            raise ValueError(f"data.split must add up to 1, got {list(self.data.split)}")
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run YAML and apply ``--set`` overrides such as ``train.steps=200``; values are read as YAML.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown, or a value is out of range.
    """
    return parse_config(with_overrides(read_yaml(path), overrides), str(path))


def with_overrides(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a tree of sections with overrides such as ``train.steps=200`` applied; values are read as YAML.

    Raises:
        ConfigError: an override is not key=value, or goes through a value.
    """
    tree = deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    return tree


def parse_config(tree: dict[str, Any], source: str) -> RunConfig:
    """Validate a tree of sections; ``source`` names it in errors."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_sentence(e) for e in error.errors())) from None


def dump_config(config: RunConfig) -> str:
    """Return the YAML of a resolved configuration; `load_config` of it gives an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def load_deepspeed_config(path: str | Path) -> dict[str, Any]:
    """Read a DeepSpeed JSON, which owns ZeRO, precision, offload, communication and monitors.

    Raises:
        ConfigError: the file is missing or not JSON, a key is unknown, or the key's number belongs to the run YAML.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the DeepSpeed configuration {path}: {error.strerror}.") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error}.") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a JSON object, got {type(tree).__name__}.")
    for key in tree:
        if key in OWNED_BY_RUN:
            raise ConfigError(f"{path}: {key!r} is set in the run YAML ({OWNED_BY_RUN[key]}); remove it from the JSON.")
        if key not in OWNED_BY_DEEPSPEED:
            known = nearest_name(key, OWNED_BY_DEEPSPEED)
            raise ConfigError(f"{path}: DeepSpeed has no key {key!r}.{known}")
    return tree


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping."""
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}".replace("\n", " ")) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold sections such as 'data:' and 'train:', got {type(tree).__name__}.")
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value such as train.steps=200, got {override!r}.")
    *parents, name = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value, not a section.")
    try:
        tree[name] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: {value!r} is not a YAML value.") from None


def _sentence(error: dict[str, Any]) -> str:
    """Turn one pydantic error into a sentence; an unknown key names the nearest known one."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        section = _section_at(error["loc"][:-1])
        return f"unknown key {where!r}.{nearest_name(str(error['loc'][-1]), section.model_fields)}"
    if error["type"] == "missing":
        return f"{where!r} is required"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {error['input']!r})" if where else message


def _section_at(location: Sequence[str | int]) -> type[Section]:
    section: type[Section] = RunConfig
    for part in location:
        if isinstance(part, str):
            annotation = section.model_fields[part].annotation
            section = DataSet if part == "sets" else annotation
    return section
