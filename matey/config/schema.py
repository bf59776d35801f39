"""The sections of the run YAML: a typed schema with one owner per number, and registries of what it chooses by name.

A user's package can add to the registries (docs/extending.md). The names are known here without importing the things
themselves, which lie in packages above this one and need PyTorch. A saved model has the settings of the network under the
same names.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from matey.config.description import DataDescription
from matey.config.section import FieldName, FolderText, PathText, Section
from matey.registry import Registry

SCHEMES: Registry[Any] = Registry(
    "attention scheme",
    "matey.attention_schemes",
    {name: f"matey.tokens.segments:{name}" for name in ("vit", "svit", "avit")},
)
"""Functions of the patch sizes that return the keys of a block's attentions, see `matey.tokens.segments`."""

BACKENDS: Registry[Any] = Registry(
    "attention backend",
    "matey.backends",
    {name: f"matey.model.attention:{name}" for name in ("auto", "grouped", "varlen", "flash_attn")},
)
"""Functions that attend within segments, see `matey.model.attention`."""

CRITERIA: Registry[Any] = Registry(
    "refinement criterion",
    "matey.criteria",
    {"variance": "matey.tokens.criteria:patch_variance"}
    | {name: f"matey.tokens.criteria:{name}" for name in ("last_change", "gradient", "second_difference", "random")},
)
"""Functions that rate how much each patch is worth splitting, see `matey.tokens.criteria`."""

LOSSES: Registry[Any] = Registry(
    "loss",
    "matey.losses",
    {name: f"matey.train.loss:{name.upper()}" for name in ("nrmse", "balanced", "gradient")},
    type="matey.train.loss:Loss",
)
"""The training losses, see `matey.train.loss`."""

FINETUNE_MODES: Registry[Any] = Registry(
    "fine-tuning mode",
    "matey.finetune_modes",
    {"all": "matey.train.finetune:every_part"}
    | {name: f"matey.train.finetune:{name}" for name in ("prepost", "lora", "head")},
)
"""Functions that choose the parameters of a model that are trained, see `matey.train.finetune`."""

Scheme = Annotated[str, AfterValidator(SCHEMES.check)]
Backend = Annotated[str, AfterValidator(BACKENDS.check)]
RefineRule = Literal["threshold", "fraction", "budget"]
RefineValues = Literal["normalised", "raw"]
Criterion = Annotated[str, AfterValidator(CRITERIA.check)]
LossName = Annotated[str, AfterValidator(LOSSES.check)]
FinetuneMode = Annotated[str, AfterValidator(FINETUNE_MODES.check)]

Part = Literal[
    "embedding",
    "embedding_fields",
    "position",
    "lead_time",
    "condition",
    "condition_fields",
    "parameters",
    "blocks",
    "decoder",
    "decoder_fields",
    "cells",
    "cells_fields",
]
"""A part of the network, see `matey.model.parts`."""

_Extent = Annotated[int, Field(ge=1, le=4096)]


def _four(size: Any) -> Any:  # noqa: ANN401
    if not isinstance(size, list | tuple) or len(size) != 4:
        raise ValueError("expected 4 numbers [t, z, y, x]")
    return tuple(size)  # strictly, a list is none


PatchSize = Annotated[tuple[_Extent, _Extent, _Extent, _Extent], BeforeValidator(_four)]
Layers = Annotated[list[Annotated[int, Field(ge=1, le=16)]], Field(min_length=2, max_length=2)]
TokenSet = Literal["uniform", "mix", "mul"]


class ModelSection(Section):
    """Settings of the network."""

    size: Literal["micro", "mini", "Ti", "S", "B"] = "Ti"
    """attention heads, width and blocks: micro 3, 96, 2; mini 4, 128, 8; Ti 3, 192, 12; S 6, 384, 12; B 12, 768, 12"""
    scheme: Scheme = "vit"
    """attention: vit over all tokens; svit over time, then space; avit over time, then each axis"""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """probability that a sample skips the last block in training; it falls to 0 towards the first block"""
    attention: Backend = "auto"
    """implementation of attention; auto takes the fastest that there is"""
    network: Literal["matey", "paper", "cells"] = "matey"
    """matey: cells and tokens; paper: tokens alone, as in the paper; cells: no tokens"""
    channels: int = Field(24, ge=4, le=1024)
    """number of features of a cell"""
    layers: Layers = [1, 1]
    """numbers of layers on the cells before and after the tokens"""
    maps: int = Field(2, ge=0, le=16)
    """numbers of layers that mix neighbouring tokens before, and again after, the blocks"""
    rotary: bool = False
    """whether attention knows by rotary positions how far apart tokens are; the paper's network has none"""
    statistics: bool | None = None
    """whether the network knows the mean and deviation of the fields; with false, units cannot matter. By default true,
    in the paper's network false
    """
    predict: Literal["rate", "change", "field"] | None = None
    """quantity that the network computes: the change in units of the last change times the lead time (rate, the default);
    the change in units of the field's deviation; or the field itself, the default of the paper's network
    """
    fields: tuple[FieldName, ...] | None = None
    """names of all fields that the network knows; by default the fields of the data sets"""
    given: tuple[FieldName, ...] = ()
    """fields of the data sets that are known beforehand, such as a forcing: inputs, never predicted"""
    parameters: tuple[FieldName, ...] = ()
    """numbers of a trajectory that are inputs, such as a viscosity; trajectories may lack them"""


class TokensSection(Section):
    """Settings of the tokenizer."""

    set: TokenSet = "mix"
    """uniform: patches of one size; mix: small patches replace the large one that was split; mul: they stand beside it"""
    patches: tuple[PatchSize, ...] = Field(((1, 1, 32, 32), (1, 1, 8, 8)), min_length=1, max_length=8)
    """sizes of patches as t, z, y, x, coarse to fine [frames, then cells]"""
    rule: RefineRule = "threshold"
    """rule that chooses patches to split: all above a threshold, a fraction of them, or as many as a budget of tokens allows"""
    refine: float = Field(0.2, ge=0, le=1e9)
    """threshold as a share of the criterion's largest value, fraction of the patches, or budget in tokens of a sample"""
    values: RefineValues = "normalised"
    """whether the fields decide as normalised, or raw in their units"""
    criterion: Criterion = "variance"
    """quantity that says how much a patch is worth splitting"""
    change: float = Field(0.0, ge=0, le=1e6)
    """weight of the change between the last two frames, which is added to the criterion"""

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
PeakRate = Annotated[float, Field(gt=0, le=10)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
CheckpointBlocks = Literal["none", "every_other", "all"]
InitialRow = Annotated[str, Field(pattern=r"^(zero|mean|copy:.+)$")]


class DataSet(Section):
    """A data set of the mixture; `data.sets` is a list of them."""

    path: PathText
    """file, folder or glob, or the YAML that describes your own files"""
    weight: float = Field(1.0, gt=0, le=1e9)
    """factor of this set's share of the samples; see data.temperature"""
    description: DataDescription | None = None
    """what a matey.yaml would say, in the run itself"""
    split_by: Literal["trajectory", "time"] = "trajectory"
    """what data.split shares out: whole trajectories, or the frames of each, in the order train, valid, test"""


class CoarsenedSection(Section):
    """A coarser view of the training data; `data.coarsened` is a list of them."""

    frames: int = Field(1, ge=1, le=1024)
    """step in time: 2 takes every other frame [frames]"""
    cells: int = Field(1, ge=1, le=1024)
    """cells that are averaged to one, along each axis [cells]"""
    weight: float = Field(gt=0, le=1e9)
    """factor of this view's share of the samples; the data itself has 1"""

    @model_validator(mode="after")
    def _coarser(self) -> CoarsenedSection:
        if self.frames == self.cells == 1:
            raise ValueError("frames and cells are 1, which leaves the data as it is; set one of them to 2 or more")
        return self


class DataSection(Section):
    """Settings of the data."""

    sets: tuple[DataSet, ...] = Field(min_length=1)
    """the data sets of the mixture"""
    validate_on: tuple[PathText, ...] = ()
    """more data, never trained on, whose errors are logged; the best weights are chosen without it"""
    history: int = Field(4, ge=1, le=1024)
    """length of the history that the network sees [frames]"""
    lead_max: Count = 1
    """longest lead time; each sample draws one from 1 to this [snapshots]"""
    split: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
    """shares of train, valid and test; data with a split of its own keeps it"""
    split_seed: Seed = 0
    """seed of the random order in which trajectories are split"""
    trajectories: Count | None = None
    """number of training trajectories that are used of each set, in a fixed order; by default all"""
    changed: Literal["refuse", "keep"] = "refuse"
    """what --resume does if files were added, removed or changed: refuse, or keep what was held out and train on the new"""
    coarsened: tuple[CoarsenedSection, ...] = ()
    """coarser views of every data set, trained on as well, so that the model serves other grids and time steps"""
    temperature: float = Field(0.0, ge=0, le=10)
    """a set's share is weight x (training windows)^temperature: with 0 alike for all, with 1 by size"""
    same_system: bool = False
    """whether each micro-batch of a rank has windows of one set only"""
    bad_values: Literal["refuse", "skip"] = "refuse"
    """what to do at NaN or infinity: end the run, or take another window"""
    workers: int | None = Field(None, ge=0, le=1024)
    """processes of each rank that read ahead; 0: the training process reads; by default 1 on a GPU, 0 on a CPU"""

    def workers_with(self, *, gpu: bool) -> int:
        """Return ``workers``, or the default: a GPU's rank launches kernels meanwhile; a CPU's leaves no core to spare."""
        return int(gpu) if self.workers is None else self.workers


class GroupSection(Section):
    """A part of the network that is trained differently from the rest; `train.groups` names parts."""

    learning_rate: PeakRate | None = None
    """largest learning rate of the part, which follows the common schedule"""
    weight_decay: float | None = Field(None, ge=0, le=1e3)
    """weight decay of the part's matrices"""


class MuonSection(Section):
    """Settings of Muon, for `train.optimizer: muon`."""

    learning_rate: PeakRate = 0.02
    """largest learning rate of the blocks' matrices, which follows the common schedule"""
    momentum: Beta = 0.95
    """decay of the momentum"""


class TrainSection(Section):
    """Settings of the training."""

    steps: Count
    """length of the training [optimizer steps]"""
    micro_batch: int = Field(8, ge=1, le=2**20)
    """size of a micro-batch, of each rank or of each group of ranks that share samples [samples]"""
    accumulation: int = Field(1, ge=1, le=2**20)
    """number of micro-batches in an optimizer step"""
    seed: Seed = 0
    """seed of the initial weights and of the order of the samples"""
    learning_rate: PeakRate = 1e-3
    """largest learning rate"""
    final_learning_rate: Rate = 0.0
    """learning rate at the last step, for the cosine"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """course of the learning rate after the warm-up"""
    warmup_steps: int = Field(0, ge=0, le=10**9)
    """length of the linear warm-up [optimizer steps]"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """optimizer; with muon, the matrices of the blocks have Muon and all else AdamW"""
    muon: MuonSection = MuonSection()
    """settings of Muon"""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """decay of AdamW's two moments"""
    weight_decay: float = Field(0.01, ge=0, le=1e3)
    """weight decay of matrices and of the kernels on cells; norms, biases and the rows of fields have none"""
    groups: dict[Part, GroupSection] = {}
    """parts of the network with a learning rate or weight decay of their own"""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """factor on the learning rate, from each block to the one before it"""
    clip_norm: float = Field(1.0, ge=0, le=1e12)
    """norm to which larger gradients are scaled down; 0: never"""
    ema: float = Field(0.0, ge=0, lt=1)
    """decay of the moving average of the weights, such as 0.999, which is validated and saved in model/; 0: none"""
    loss: LossName = "balanced"
    """training loss: the NRMSE, this over that of persistence for the system and lead time (balanced), or also of slopes; of
    fields more than ten times as large as their deviation, the error over that"""
    unroll: int = Field(0, ge=0, le=1000)
    """most steps of a rollout by the model whose outcome it is then trained on; 0: never [steps of the rollout]"""
    unroll_share: float = Field(0.25, ge=0, le=1)
    """share of the micro-batches that begin with such a rollout"""
    compile: bool = False
    """whether torch.compile compiles the MLPs of the blocks in the first step; on CPUs that gains little"""
    log_every: Count = 1
    """interval of the lines in metrics.jsonl [optimizer steps]"""
    validate_every: Count = 200
    """interval of validations; there is one at the end as well [optimizer steps]"""
    validation_windows: int = Field(32, ge=1, le=10**6)
    """size of a validation, for each system [windows]"""
    patience: Count | None = None
    """number of validations without a new best after which training ends; by default it goes on"""
    checkpoint_every: Count = 500
    """interval of checkpoints; there is one at the end as well [optimizer steps]"""
    count_traffic: int = Field(0, ge=0, le=10**9)
    """number of last steps whose communication is measured, which slows them [optimizer steps]"""
    keep_checkpoints: Count = 2
    """number of newest checkpoints that are kept"""


class ParallelSection(Section):
    """Settings of the distribution of a run over processes."""

    sequence_parallel_size: Count | Literal["auto"] = 1
    """number of ranks that share each sample; auto: as few as memory_limit allows"""
    memory_limit: float | None = Field(None, gt=0, le=1e6)
    """memory of a rank for what the blocks keep for the backward pass, for auto [GiB]"""
    checkpoint_blocks: CheckpointBlocks = "none"
    """blocks that are computed again in the backward pass, which saves their memory"""
    offload_activations: bool = False
    """whether the inputs of such blocks are kept in main memory meanwhile"""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of a process; by default the cores of a node over its processes"""
    timeout: float = Field(1800, ge=1, le=1e7)
    """time after which communication that hangs ends the run [s]"""


class OutputSection(Section):
    """Settings of the folder of a run."""

    dir: FolderText
    """the run's folder; in this and all paths, $NAME is a variable of the environment"""
    resume: Literal["auto", "never"] = "never"
    """auto, or --resume: continue from the newest complete checkpoint in dir, if there is one"""


class FinetuneSection(Section):
    """The weights that `matey finetune` starts from, and the parts that it trains."""

    pretrained: FolderText | None = None
    """folder of a run or a model to start from, or none: random initial weights"""
    train: FinetuneMode = "all"
    """what is trained: all; prepost, all but the blocks; lora, these and adapters in the blocks; head, decoder and cells"""
    new_rows: InitialRow = "mean"
    """initial weights of fields that are new and predicted: zero, the mean of the old fields', or copy:FIELD"""
    new_rows_of: dict[FieldName, InitialRow] = {}
    """the same for single fields, by name"""
    cells: Literal["pretrained", "features", "new"] | None = None
    """initial weights of the cells: pretrained; features, where the last layer starts at zero; or new. By default features
    if a predicted field is new, else pretrained
    """
    lora_rank: int = Field(8, ge=1, le=4096)
    """rank of the adapters"""
    allow_seen: bool = False
    """whether this run may hold out trajectories that the pretraining was trained on"""
    lora_alpha: float = Field(16.0, gt=0, le=1e6)
    """scale of the adapters: their product is multiplied by this over lora_rank"""


class RunConfig(Section):
    """All settings of a run but those of the DeepSpeed engine."""

    model: ModelSection = ModelSection()
    tokens: TokensSection = TokensSection()
    data: DataSection
    train: TrainSection
    parallel: ParallelSection = ParallelSection()
    output: OutputSection
    finetune: FinetuneSection | None = None
    """settings of `matey finetune` alone"""

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
        if abs(sum(self.data.split) - 1) > 1e-6:
            raise ValueError(f"data.split must add up to 1, got {list(self.data.split)}")
        return self
