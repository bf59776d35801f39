"""Reads from a DeepSpeed configuration what memory and communication depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matey.config import ConfigError
from matey.parallel.engine import is_bf16, zero_settings


@dataclass(frozen=True)
class EngineSettings:
    """The settings of a DeepSpeed configuration that planning needs.

    Attributes:
        stage: the ZeRO stage.
        precision: precision of weights and activations, ``float32`` or ``bfloat16``.
        gradient_bytes: bytes of each gradient value that is kept for the optimizer.
        message_bytes: bytes of each gradient value that is sent to other ranks.
        bucket: number of values that are reduced together.
        overlap: whether gradients should be reduced during the backward pass, see `overlaps`.
        live: number of gathered weight values that stage 3 keeps at once.
        prefetch: number of weight values that stage 3 gathers together.
        persistent: size of a parameter below which stage 3 keeps it whole.
        offloads_optimizer: whether the optimizer's state is kept off the device; DeepSpeed allows it from stage 1 on.
        offloads_weights: whether the weights are kept off the device; with stage 3 only.
        optimizer_on_disk: whether the offloaded optimizer state goes to a disk instead of main memory.
        weights_on_disk: whether the offloaded weights go to a disk.
    """

    stage: int
    precision: str
    gradient_bytes: int
    message_bytes: int
    bucket: int
    overlap: bool
    live: int
    prefetch: int
    persistent: int
    offloads_optimizer: bool
    offloads_weights: bool
    optimizer_on_disk: bool = False
    weights_on_disk: bool = False

    @property
    def value_bytes(self) -> int:
        """Bytes of a weight or an activation."""
        return 2 if self.precision == "bfloat16" else 4

    @property
    def reduces_after_backward(self) -> bool:
        """Whether DeepSpeed uses its optimizer for bfloat16 with stage 1 and float32 gradients.

        It keeps whole gradients in both precisions, and reduces them after the backward pass, ignoring ``overlap_comm``.
        """
        return (
            self.stage == 1
            and self.precision == "bfloat16"
            and self.gradient_bytes == 4
            and not self.offloads_optimizer
        )

    @property
    def overlaps(self) -> bool:
        """Whether gradients of the last layers are reduced while those of the first are computed."""
        return self.overlap and self.stage > 0 and not self.reduces_after_backward


def read_engine(config: dict[str, Any]) -> EngineSettings:
    """Read a DeepSpeed configuration as DeepSpeed does.

    Raises:
        ConfigError: the configuration holds a wrong key or value.
    """
    zero = zero_settings(config)
    half = is_bf16(config)
    accumulate = config.get("data_types", {}).get("grad_accum_dtype")
    if accumulate not in (None, "fp32", "bf16"):
        raise ConfigError(f"data_types.grad_accum_dtype is {accumulate!r}; planning knows fp32 and bf16.")
    parts = (zero.offload_optimizer, zero.offload_param)
    offload, on_disk = (
        [part is not None and part.device not in nearer for part in parts] for nearer in (("none",), ("none", "cpu"))
    )
    return EngineSettings(
        stage=int(zero.stage),
        precision="bfloat16" if half else "float32",
        gradient_bytes=2 if half and accumulate != "fp32" else 4,
        message_bytes=4 if config.get("communication_data_type") in (None, "fp32") else 2,
        bucket=zero.reduce_bucket_size,
        overlap=bool(zero.overlap_comm),
        live=min(zero.max_live_parameters, zero.max_reuse_distance),
        prefetch=zero.prefetch_bucket_size,
        persistent=zero.param_persistence_threshold,
        offloads_optimizer=offload[0] and zero.stage >= 1,
        offloads_weights=offload[1] and zero.stage == 3,
        optimizer_on_disk=on_disk[0],
        weights_on_disk=on_disk[1],
    )
