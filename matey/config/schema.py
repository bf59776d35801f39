"""The sections of the run YAML: a typed schema with one owner per number.

A saved model has the settings of the network under the same names.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from matey.config.choices import Backend, Criterion, FinetuneMode, LossName, Part, RefineRule, RefineValues, Scheme
from matey.config.description import DataDescription
from matey.config.section import FieldName, FolderText, PathText, Section

_Extent = Annotated[int, Field(ge=1, le=4096)]


def _four(size: Any) -> Any:  # noqa: ANN401
    if not isinstance(size, list | tuple) or len(size) != 4:
        raise ValueError("expected 4 numbers [t, z, y, x]")
    return tuple(size)  # strictly, a list is none


PatchSize = Annotated[tuple[_Extent, _Extent, _Extent, _Extent], BeforeValidator(_four)]
Layers = Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=2, max_length=2)]
TokenSet = Literal["uniform", "mix", "mul"]


class ModelSection(Section):
    """Settings of the network."""

    size: Literal["micro", "mini", "Ti", "S", "B"] = Field(
        "Ti", description="heads, width and blocks: 3/96/2, 4/128/8 or the paper's"
    )
    scheme: Scheme = Field("vit", description="attention: full; over time, then space; over time, then each axis")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="probability that a sample skips a residual of the last block"
    )
    attention: Backend = Field("auto", description="implementation of attention: the fastest available, or one by name")
    network: Literal["matey", "paper", "cells"] = Field(
        "matey",
        description="tokens as the coarse scales of a network on the cells; tokens alone, as in the paper; no tokens",
    )
    channels: int = Field(24, ge=4, le=1024, description="features of a cell")
    layers: Layers = Field([1, 1], description="layers on the cells before and after the tokens")
    maps: int = Field(2, ge=0, le=16, description="maps of neighbours before and after the blocks")
    rotary: bool = Field(
        False,
        description="whether rotary positions tell attention how far apart tokens are; the paper's network has none",
    )
    statistics: bool | None = Field(
        None,
        description="whether the network is told the scales that the normalisation takes out; false: units cannot matter. By "
        "default all networks are but the paper's",
    )
    predict: Literal["rate", "change", "field"] | None = Field(
        None,
        description="quantity decoded: change over last change and lead, the default; change over deviation of the field; or "
        "the field, the default of the paper's network",
    )
    fields: tuple[FieldName, ...] | None = Field(
        None, description="field vocabulary; by default the fields of the data sets"
    )
    given: tuple[FieldName, ...] = Field(
        (), description="fields of the data sets that are known beforehand, such as a forcing: inputs, never predicted"
    )
    parameters: tuple[FieldName, ...] = Field(
        (), description="numbers of the trajectories that the network is told, such as a viscosity; some may lack them"
    )


class TokensSection(Section):
    """Settings of the tokenizer."""

    set: TokenSet = Field(
        "mix", description="one patch size, children that replace their parent, or children beside their parent"
    )
    patches: tuple[PatchSize, ...] = Field(
        ((1, 1, 32, 32), (1, 1, 8, 8)), min_length=1, max_length=8, description="[t, z, y, x], coarse to fine"
    )
    rule: RefineRule = Field(
        "threshold",
        description="split above a share of the criterion's largest value, the top share, or until so many tokens",
    )
    refine: float = Field(
        0.2, ge=0, le=1e9, description="the rule's threshold gamma, share, or number of tokens of a sample"
    )
    values: RefineValues = Field("normalised", description="fields whose values decide")
    criterion: Criterion = Field("variance", description="measure by which patches are compared")
    change: float = Field(
        0.0, ge=0, le=1e6, description="weight of the change between the last two frames beside the criterion"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TokensSection:
        if self.set == "uniform" and len(self.patches) > 1:
            raise ValueError(
                f"'uniform' tokens have one patch size, but tokens.patches lists {len(self.patches)}; "
                "keep one of them or use 'mix' or 'mul' as tokens.set"
            )
        for coarse, fine in pairwise(self.patches):
            if any(cells % part for cells, part in zip(coarse, fine, strict=True)) or coarse == fine:
                raise ValueError(
                    f"tokens.patches has {list(fine)} after {list(coarse)}; each size [t, z, y, x] must divide the one before "
                    "it, and differ from it"
                )
        if self.rule == "fraction" and self.refine > 1:
            raise ValueError(f"tokens.refine is a share of the patches for the rule 'fraction', got {self.refine:g}")
        return self


# Bounds lie far above sensible values, and below values that hang a run, fill memory or overflow.
Count = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Rate = Annotated[float, Field(ge=0, le=10)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
MAX_SAMPLES = 2**20  # of one data-parallel group in a step
CheckpointBlocks = Literal["none", "every_other", "all"]
InitialRow = Annotated[str, Field(pattern=r"^(zero|mean|copy:.+)$")]


class DataSet(Section):
    """One data set of the mixture."""

    path: PathText = Field(description="file, folder or glob, or the YAML that describes such")
    weight: float = Field(1.0, gt=0, le=1e9, description="factor of its share of the samples; see data.temperature")
    description: DataDescription | None = Field(
        None, description="contents of files that no reader knows, see the page on data"
    )
    split_by: Literal["trajectory", "time"] = Field(
        "trajectory",
        description="whether data.split shares out whole trajectories, or cuts the frames of each: train, valid, test",
    )


class CoarsenedSection(Section):
    """A further view of the training data, coarser in time or space."""

    frames: int = Field(1, ge=1, le=1024, description="frames of the data from one to the next: 2 takes every other")
    cells: int = Field(1, ge=1, le=1024, description="cells along each axis that are averaged to one")
    weight: float = Field(gt=0, le=1e9, description="factor of its share of the samples, beside 1 of the data as it is")

    @model_validator(mode="after")
    def _coarser(self) -> CoarsenedSection:
        if self.frames == self.cells == 1:
            raise ValueError("frames and cells are 1, which leaves the data as it is; set one of them to 2 or more")
        return self


class DataSection(Section):
    """Settings of the data."""

    sets: tuple[DataSet, ...] = Field(min_length=1, description="the data sets of the mixture")
    validate_on: tuple[PathText, ...] = Field(
        (), description="more data, never trained on, whose errors are logged; the best weights are chosen without it"
    )
    history: int = Field(4, ge=1, le=1024, description="frames of history T")
    lead_max: Count = Field(1, description="longest lead time in snapshots; lead times are drawn from 1 to this")
    split: tuple[Share, Share, Share] = Field(
        (0.8, 0.1, 0.1), description="shares of train, valid, test; data with splits of its own keeps them"
    )
    split_seed: Seed = Field(0, description="seed of the permutation behind the split")
    trajectories: Count | None = Field(
        None, description="training trajectories of each set: the first so many of a fixed order; by default all"
    )
    changed: Literal["refuse", "keep"] = Field(
        "refuse",
        description="rule on --resume for files that came, went or changed: refuse, or keep what was held out and train on new",
    )
    coarsened: tuple[CoarsenedSection, ...] = Field(
        (), description="coarser views of every data set to train on as well, for other grids and time steps"
    )
    temperature: float = Field(
        0.0,
        ge=0,
        le=10,
        description="a set's share goes as weight x (training windows)^temperature: 0 alike, 1 by size",
    )
    same_system: bool = Field(False, description="whether each micro-batch of a rank holds windows of one set only")
    bad_values: Literal["refuse", "skip"] = Field(
        "refuse", description="windows with NaN or infinity stop the run, or others are drawn in their place"
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=1024,
        description="processes per rank that read ahead; 0 reads in the training process; by default 1 on a GPU, 0 on a CPU",
    )

    def workers_with(self, *, gpu: bool) -> int:
        """Return ``workers``, or the default: a GPU's rank launches kernels meanwhile; a CPU's leaves no core to spare."""
        return int(gpu) if self.workers is None else self.workers


class GroupSection(Section):
    """Settings of a part of the network that is trained differently from the rest."""

    learning_rate: Rate | None = Field(
        None, gt=0, description="peak learning rate of the part; it follows the schedule of all"
    )
    weight_decay: float | None = Field(None, ge=0, le=1e3, description="weight decay of the part's matrices")


class MuonSection(Section):
    """Muon, the optimizer of the blocks' matrices where ``train.optimizer`` asks for it."""

    learning_rate: Rate = Field(
        0.02, gt=0, description="peak learning rate of the blocks' matrices; it follows the schedule of all"
    )
    momentum: Beta = Field(0.95, description="decay of the momentum")


class TrainSection(Section):
    """Settings of the training."""

    steps: Count = Field(description="optimizer steps")
    micro_batch: int = Field(8, ge=1, le=MAX_SAMPLES, description="samples of one data-parallel group per micro-step")
    accumulation: int = Field(1, ge=1, le=MAX_SAMPLES, description="micro-steps per optimizer step")
    seed: Seed = Field(0, description="seed of the initial weights and of the stream of samples")
    learning_rate: Rate = Field(1e-3, gt=0, description="peak learning rate")
    final_learning_rate: Rate = Field(0.0, description="learning rate at the last step of the cosine")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    warmup_steps: int = Field(0, ge=0, le=10**9, description="steps of linear warm-up")
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="adamw; muon: Muon on the matrices of the blocks, AdamW on all else"
    )
    muon: MuonSection = MuonSection()
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW's moment decay")
    weight_decay: float = Field(
        0.01, ge=0, le=1e3, description="weight decay of matrices; norms, biases, embeddings and kernels have none"
    )
    groups: dict[Part, GroupSection] = Field({}, description="learning rate and weight decay of parts of the network")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor on the learning rate from each block to the one before it"
    )
    clip_norm: float = Field(1.0, ge=0, le=1e12, description="largest norm of the gradient; 0 does not clip")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, such as 0.999, which validation and model/ use; 0: none",
    )
    loss: LossName = Field(
        "nrmse",
        description="NRMSE; balanced: over persistence's mean on the system at the lead time; gradient: of values and slopes",
    )
    unroll: int = Field(
        0,
        ge=0,
        le=1000,
        description="most steps that the model is rolled out before it is trained on what it made; 0: never",
    )
    unroll_share: float = Field(0.25, ge=0, le=1, description="share of the micro-steps that are unrolled")
    compile: bool = Field(
        False,
        description="whether the MLPs of the blocks are compiled by torch.compile in the first step; on CPUs that gains little",
    )
    log_every: Count = Field(1, description="steps between lines of metrics.jsonl")
    validate_every: Count = Field(200, description="steps between validations; there is one at the end as well")
    validation_windows: int = Field(32, ge=1, le=10**6, description="windows per system and validation")
    patience: Count | None = Field(
        None, description="validations without a new best after which training ends; by default it never does"
    )
    checkpoint_every: Count = Field(500, description="steps between checkpoints; there is one at the end as well")
    count_traffic: int = Field(
        0,
        ge=0,
        le=10**9,
        description="last steps in which communication is counted, which makes collectives wait for their end",
    )
    keep_checkpoints: Count = Field(2, description="number of the newest checkpoints that stay on disk")


class ParallelSection(Section):
    """Settings of the distribution of a run over processes."""

    sequence_parallel_size: Count | Literal["auto"] = Field(
        1, description="ranks P that share the tokens of the same samples; auto: as few as memory_limit allows"
    )
    memory_limit: float | None = Field(
        None, gt=0, le=1e6, description="GiB that a rank may keep in its blocks for the backward pass, for auto"
    )
    checkpoint_blocks: CheckpointBlocks = Field(
        "none", description="blocks that keep no activations but are computed again in the backward pass"
    )
    offload_activations: bool = Field(False, description="whether the inputs that such blocks keep wait in main memory")
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads per process; by default cores over local ranks"
    )
    timeout: float = Field(1800, ge=1, le=1e7, description="seconds after which a collective that hangs ends the run")


class OutputSection(Section):
    """Settings of the folder of a run."""

    dir: FolderText = Field(description="the run's folder; in it and all paths, $NAME is a variable of the environment")
    resume: Literal["auto", "never"] = Field(
        "never", description="auto continues from the newest whole checkpoint in dir, if there is one"
    )


class FinetuneSection(Section):
    """The weights that launch/finetune.py starts from, and the parts that it trains."""

    pretrained: FolderText | None = Field(
        None, description="folder of a run or a model, or none: random initial weights"
    )
    train: FinetuneMode = Field(
        "all",
        description="all: everything; prepost: all but the blocks; lora: these, and adapters in the blocks; head: decoder "
        "and cells",
    )
    new_rows: InitialRow = Field(
        "mean",
        description="initial rows of new fields to predict: zero, mean of the old, or copy:FIELD; of given ones, zero",
    )
    new_rows_of: dict[FieldName, InitialRow] = Field({}, description="the same for single fields, by name")
    cells: Literal["pretrained", "features", "new"] | None = Field(
        None,
        description="weights on the cells: as pretrained; features, those that find what changes may depend on, while what "
        "makes changes of it starts at zero; or new. By default features where a predicted field is new, else pretrained",
    )
    lora_rank: int = Field(8, ge=1, le=4096, description="rank of the adapters")
    allow_seen: bool = Field(
        False, description="whether pretraining may have trained on trajectories that this run holds out"
    )
    lora_alpha: float = Field(
        16.0, gt=0, le=1e6, description="the adapters' product is multiplied by this over their rank"
    )


class RunConfig(Section):
    """All settings of a run but those of the DeepSpeed engine."""

    model: ModelSection = ModelSection()
    tokens: TokensSection = TokensSection()
    data: DataSection
    train: TrainSection
    parallel: ParallelSection = ParallelSection()
    output: OutputSection
    finetune: FinetuneSection | None = Field(None, description="settings of launch/finetune.py alone")

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.parallel.sequence_parallel_size == "auto" and self.parallel.memory_limit is None:
            raise ValueError("parallel.sequence_parallel_size is 'auto', which needs parallel.memory_limit in GiB")
        if self.parallel.offload_activations and self.parallel.checkpoint_blocks == "none":
            raise ValueError(
                "parallel.offload_activations moves the inputs of checkpointed blocks to main memory, but "
                "parallel.checkpoint_blocks is 'none'; set that to 'all'"
            )
        if self.train.optimizer != "muon" and self.train.muon != MuonSection():
            raise ValueError(
                f"train.muon is set, but train.optimizer is {self.train.optimizer!r}; set it to 'muon', or leave out train.muon"
            )
        if (samples := self.train.micro_batch * self.train.accumulation) > MAX_SAMPLES:
            raise ValueError(
                f"train.micro_batch {self.train.micro_batch} x train.accumulation {self.train.accumulation} are {samples:,} "
                f"samples in a step, more than {MAX_SAMPLES:,}; lower one of them"
            )
        if abs(sum(self.data.split) - 1) > 1e-6:
            raise ValueError(f"data.split must add up to 1, got {list(self.data.split)}")
        return self
