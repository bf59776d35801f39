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
Layers = Annotated[list[Annotated[int, Field(ge=0, le=16)]], Field(min_length=2, max_length=2)]
TokenSet = Literal["uniform", "mix", "mul"]


class ModelSection(Section):
    """Settings of the network."""

    size: Literal["micro", "mini", "Ti", "S", "B"] = "Ti"
    """heads, width and blocks: 3/96/2, 4/128/8 or the paper's"""
    scheme: Scheme = "vit"
    """attention: full; over time, then space; over time, then each axis"""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """probability that a sample skips a residual of the last block"""
    attention: Backend = "auto"
    """implementation of attention: the fastest available, or one by name"""
    network: Literal["matey", "paper", "cells"] = "matey"
    """tokens as the coarse scales of a network on the cells; tokens alone, as in the paper; no tokens"""
    channels: int = Field(24, ge=4, le=1024)
    """features of a cell"""
    layers: Layers = [1, 1]
    """layers on the cells before and after the tokens"""
    maps: int = Field(2, ge=0, le=16)
    """maps of neighbours before and after the blocks"""
    rotary: bool = False
    """whether rotary positions tell attention how far apart tokens are; the paper's network has none"""
    statistics: bool | None = None
    """whether the network is told the scales that the normalisation takes out; false: units cannot matter. By default
    all networks are but the paper's
    """
    predict: Literal["rate", "change", "field"] | None = None
    """quantity decoded: change over last change and lead, the default; change over deviation of the field; or the
    field, the default of the paper's network
    """
    fields: tuple[FieldName, ...] | None = None
    """field vocabulary; by default the fields of the data sets"""
    given: tuple[FieldName, ...] = ()
    """fields of the data sets that are known beforehand, such as a forcing: inputs, never predicted"""
    parameters: tuple[FieldName, ...] = ()
    """numbers of the trajectories that the network is told, such as a viscosity; some may lack them"""


class TokensSection(Section):
    """Settings of the tokenizer."""

    set: TokenSet = "mix"
    """one patch size, children that replace their parent, or children beside their parent"""
    patches: tuple[PatchSize, ...] = Field(((1, 1, 32, 32), (1, 1, 8, 8)), min_length=1, max_length=8)
    """[t, z, y, x], coarse to fine"""
    rule: RefineRule = "threshold"
    """split above a share of the criterion's largest value, the top share, or until so many tokens"""
    refine: float = Field(0.2, ge=0, le=1e9)
    """the rule's threshold gamma, share, or number of tokens of a sample"""
    values: RefineValues = "normalised"
    """fields whose values decide"""
    criterion: Criterion = "variance"
    """measure by which patches are compared"""
    change: float = Field(0.0, ge=0, le=1e6)
    """weight of the change between the last two frames beside the criterion"""

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
CheckpointBlocks = Literal["none", "every_other", "all"]
InitialRow = Annotated[str, Field(pattern=r"^(zero|mean|copy:.+)$")]


class DataSet(Section):
    """One data set of the mixture."""

    path: PathText
    """file, folder or glob, or the YAML that describes such"""
    weight: float = Field(1.0, gt=0, le=1e9)
    """factor of its share of the samples; see data.temperature"""
    description: DataDescription | None = None
    """contents of files that no reader knows, see the page on data"""
    split_by: Literal["trajectory", "time"] = "trajectory"
    """whether data.split shares out whole trajectories, or cuts the frames of each: train, valid, test"""


class CoarsenedSection(Section):
    """A further view of the training data, coarser in time or space."""

    frames: int = Field(1, ge=1, le=1024)
    """frames of the data from one to the next: 2 takes every other"""
    cells: int = Field(1, ge=1, le=1024)
    """cells along each axis that are averaged to one"""
    weight: float = Field(gt=0, le=1e9)
    """factor of its share of the samples, beside 1 of the data as it is"""

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
    """frames of history T"""
    lead_max: Count = 1
    """longest lead time in snapshots; lead times are drawn from 1 to this"""
    split: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
    """shares of train, valid, test; data with splits of its own keeps them"""
    split_seed: Seed = 0
    """seed of the permutation behind the split"""
    trajectories: Count | None = None
    """training trajectories of each set: the first so many of a fixed order; by default all"""
    changed: Literal["refuse", "keep"] = "refuse"
    """rule on --resume for files that came, went or changed: refuse, or keep what was held out and train on new"""
    coarsened: tuple[CoarsenedSection, ...] = ()
    """coarser views of every data set to train on as well, for other grids and time steps"""
    temperature: float = Field(0.0, ge=0, le=10)
    """a set's share goes as weight x (training windows)^temperature: 0 alike, 1 by size"""
    same_system: bool = False
    """whether each micro-batch of a rank holds windows of one set only"""
    bad_values: Literal["refuse", "skip"] = "refuse"
    """windows with NaN or infinity stop the run, or others are drawn in their place"""
    workers: int | None = Field(None, ge=0, le=1024)
    """processes per rank that read ahead; 0 reads in the training process; by default 1 on a GPU, 0 on a CPU"""

    def workers_with(self, *, gpu: bool) -> int:
        """Return ``workers``, or the default: a GPU's rank launches kernels meanwhile; a CPU's leaves no core to spare."""
        return int(gpu) if self.workers is None else self.workers


class GroupSection(Section):
    """Settings of a part of the network that is trained differently from the rest."""

    learning_rate: Rate | None = Field(None, gt=0)
    """peak learning rate of the part; it follows the schedule of all"""
    weight_decay: float | None = Field(None, ge=0, le=1e3)
    """weight decay of the part's matrices"""


class MuonSection(Section):
    """Muon, the optimizer of the blocks' matrices where ``train.optimizer`` asks for it."""

    learning_rate: Rate = Field(0.02, gt=0)
    """peak learning rate of the blocks' matrices; it follows the schedule of all"""
    momentum: Beta = 0.95
    """decay of the momentum"""


class TrainSection(Section):
    """Settings of the training."""

    steps: Count
    """optimizer steps"""
    micro_batch: int = Field(8, ge=1, le=2**20)
    """samples of one data-parallel group per micro-step"""
    accumulation: int = Field(1, ge=1, le=2**20)
    """micro-steps per optimizer step"""
    seed: Seed = 0
    """seed of the initial weights and of the stream of samples"""
    learning_rate: Rate = Field(1e-3, gt=0)
    """peak learning rate"""
    final_learning_rate: Rate = 0.0
    """learning rate at the last step of the cosine"""
    schedule: Literal["cosine", "constant"] = "cosine"
    """learning rate after the warm-up"""
    warmup_steps: int = Field(0, ge=0, le=10**9)
    """steps of linear warm-up"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """adamw; muon: Muon on the matrices of the blocks, AdamW on all else"""
    muon: MuonSection = MuonSection()
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    """AdamW's moment decay"""
    weight_decay: float = Field(0.01, ge=0, le=1e3)
    """weight decay of matrices and of kernels of cells; norms, biases and embeddings have none"""
    groups: dict[Part, GroupSection] = {}
    """learning rate and weight decay of parts of the network"""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """factor on the learning rate from each block to the one before it"""
    clip_norm: float = Field(1.0, ge=0, le=1e12)
    """largest norm of the gradient; 0 does not clip"""
    ema: float = Field(0.0, ge=0, lt=1)
    """decay of the moving average of the weights, such as 0.999, which validation and model/ use; 0: none"""
    loss: LossName = "balanced"
    """balanced: NRMSE over persistence's mean on the system at the lead time; nrmse; gradient: of values and slopes"""
    unroll: int = Field(0, ge=0, le=1000)
    """most steps that the model is rolled out before it is trained on what it made; 0: never"""
    unroll_share: float = Field(0.25, ge=0, le=1)
    """share of the micro-steps that are unrolled"""
    compile: bool = False
    """whether the MLPs of the blocks are compiled by torch.compile in the first step; on CPUs that gains little"""
    log_every: Count = 1
    """steps between lines of metrics.jsonl"""
    validate_every: Count = 200
    """steps between validations; there is one at the end as well"""
    validation_windows: int = Field(32, ge=1, le=10**6)
    """windows per system and validation"""
    patience: Count | None = None
    """validations without a new best after which training ends; by default it never does"""
    checkpoint_every: Count = 500
    """steps between checkpoints; there is one at the end as well"""
    count_traffic: int = Field(0, ge=0, le=10**9)
    """last steps in which communication is counted, which makes collectives wait for their end"""
    keep_checkpoints: Count = 2
    """number of the newest checkpoints that stay on disk"""


class ParallelSection(Section):
    """Settings of the distribution of a run over processes."""

    sequence_parallel_size: Count | Literal["auto"] = 1
    """ranks P that share the tokens of the same samples; auto: as few as memory_limit allows"""
    memory_limit: float | None = Field(None, gt=0, le=1e6)
    """GiB that a rank may keep in its blocks for the backward pass, for auto"""
    checkpoint_blocks: CheckpointBlocks = "none"
    """blocks that keep no activations but are computed again in the backward pass"""
    offload_activations: bool = False
    """whether the inputs that such blocks keep wait in main memory"""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads per process; by default cores over local ranks"""
    timeout: float = Field(1800, ge=1, le=1e7)
    """seconds after which a collective that hangs ends the run"""


class OutputSection(Section):
    """Settings of the folder of a run."""

    dir: FolderText
    """the run's folder; in it and all paths, $NAME is a variable of the environment"""
    resume: Literal["auto", "never"] = "never"
    """auto continues from the newest whole checkpoint in dir, if there is one"""


class FinetuneSection(Section):
    """The weights that launch/finetune.py starts from, and the parts that it trains."""

    pretrained: FolderText | None = None
    """folder of a run or a model, or none: random initial weights"""
    train: FinetuneMode = "all"
    """all: everything; prepost: all but the blocks; lora: these, and adapters in the blocks; head: decoder and cells"""
    new_rows: InitialRow = "mean"
    """initial rows of new fields to predict: zero, mean of the old, or copy:FIELD; of given ones, zero"""
    new_rows_of: dict[FieldName, InitialRow] = {}
    """the same for single fields, by name"""
    cells: Literal["pretrained", "features", "new"] | None = None
    """weights on the cells: as pretrained; features, those that find what changes may depend on, while what makes
    changes of it starts at zero; or new. By default features where a predicted field is new, else pretrained
    """
    lora_rank: int = Field(8, ge=1, le=4096)
    """rank of the adapters"""
    allow_seen: bool = False
    """whether pretraining may have trained on trajectories that this run holds out"""
    lora_alpha: float = Field(16.0, gt=0, le=1e6)
    """the adapters' product is multiplied by this over their rank"""


class RunConfig(Section):
    """All settings of a run but those of the DeepSpeed engine."""

    model: ModelSection = ModelSection()
    tokens: TokensSection = TokensSection()
    data: DataSection
    train: TrainSection
    parallel: ParallelSection = ParallelSection()
    output: OutputSection
    finetune: FinetuneSection | None = None
    """settings of launch/finetune.py alone"""

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
