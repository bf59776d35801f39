"""Schema of the DeepSpeed JSON, for mistakes that DeepSpeed itself does not report or hangs on.

DeepSpeed checks the names in ``zero_optimization``, and reads other sections as it comes to them: a number instead of a
section ends in a traceback, a bucket of 1e15 values in a request for so much memory.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

# Numbers of values for which DeepSpeed allocates memory at once; its largest default is 1e9.
_Size = Annotated[int, Field(ge=0, le=5 * 10**9, strict=True)]
# Limits that DeepSpeed only compares with.
_Limit = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
_Few = Annotated[int, Field(ge=1, le=1024, strict=True)]
_Section = dict[str, Any]
_Flag = StrictBool | None
_Number = Literal["fp32", "fp16", "bf16"] | None


class _Part(BaseModel):
    """A section, or the root; keys that are not named here are left to DeepSpeed."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


class _Switched(_Part):
    """A section that is turned on or off."""

    enabled: StrictBool = False


class _Offload(_Part):
    """The memory to which parameters or the optimizer's state are offloaded."""

    device: Literal["none", "cpu", "nvme"] = "none"
    nvme_path: str | None = None
    buffer_count: _Few = 5
    buffer_size: _Size = 0
    max_in_cpu: _Limit = 0
    pin_memory: StrictBool = False
    ratio: float = Field(1.0, ge=0, le=1)


class _Zero(_Part):
    """The settings of ZeRO."""

    stage: int = Field(0, ge=0, le=3, strict=True)
    reduce_bucket_size: _Size = 0
    allgather_bucket_size: _Size = 0
    sub_group_size: _Limit = 0
    stage3_prefetch_bucket_size: _Size = 0
    stage3_param_persistence_threshold: _Limit = 0
    stage3_model_persistence_threshold: _Limit = 0
    stage3_max_live_parameters: _Limit = 0
    stage3_max_reuse_distance: _Limit = 0
    zero_hpz_partition_size: _Few = 1
    offload_param: _Offload | None = None
    offload_optimizer: _Offload | None = None


class _Files(_Part):
    """Reading and writing of values that are offloaded to NVMe."""

    block_size: Annotated[int, Field(ge=1, le=2**30, strict=True)] = 2**20
    queue_depth: _Few = 8
    thread_count: _Few = 1
    intra_op_parallelism: _Few = 1
    single_submit: StrictBool = False
    overlap_events: StrictBool = True


class _Types(_Part):
    """Types of numbers."""

    grad_accum_dtype: _Number = None


class DeepSpeedTree(_Part):
    """The sections and flags at the root."""

    zero_optimization: _Zero = _Zero()
    bf16: _Switched = _Switched()
    fp16: _Switched = _Switched()
    torch_autocast: _Switched = _Switched()
    tensorboard: _Switched = _Switched()
    wandb: _Switched = _Switched()
    comet: _Switched = _Switched()
    csv_monitor: _Switched = _Switched()
    flops_profiler: _Switched = _Switched()
    comms_logger: _Switched = _Switched()
    data_types: _Types = _Types()
    aio: _Files = _Files()
    checkpoint: _Section = {}
    compile: _Section = {}
    data_efficiency: _Switched = _Switched()
    timers: _Section = {}
    communication_data_type: _Number = None
    seq_parallel_communication_data_type: _Number = None
    gradient_predivide_factor: float = Field(1.0, gt=0, le=1e6)
    prescale_gradients: _Flag = None
    sparse_gradients: _Flag = None
    zero_allow_untested_optimizer: _Flag = None
    zero_force_ds_cpu_optimizer: _Flag = None
    wall_clock_breakdown: _Flag = None
    memory_breakdown: _Flag = None
    dump_state: _Flag = None
    graph_harvesting: _Flag = None
    load_universal_checkpoint: _Flag = None
    use_node_local_storage: _Flag = None
    disable_allgather: _Flag = None
