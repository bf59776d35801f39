"""The one call of `deepspeed.initialize`, the operations on an engine that differ between ZeRO stages, and its checkpoints.

DeepSpeed's own checkpoints are loaded without running code that their pickles may ask for. The lock that a killed compilation
of a part of DeepSpeed left is removed: torch waits for its removal for ever, in silence.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.cpp_extension import get_default_build_root

from matey.config import ConfigError, GroupSection, TrainSection
from matey.mistakes import nearest_name, one_line
from matey.model.matey import MateyModel
from matey.model.parts import depth_of, part_of
from matey.parallel.collectives import Engine, barrier, deepspeed, rank
from matey.parallel.master import Muon, masters, matrices_of_blocks

if TYPE_CHECKING:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig


def build_engine(model: MateyModel, train: TrainSection, deepspeed_config: dict[str, Any]) -> Engine:
    """Wrap the model in a DeepSpeed engine with AdamW, or with Muon where there are matrices of blocks to train.

    Args:
        model: network; parameters train where ``requires_grad`` is set.
        train: section that owns batch, optimizer, learning rate, weight decay and clipping.
        deepspeed_config: DeepSpeed's JSON, which owns ZeRO, precision, offload, communication and monitors.

    Raises:
        ConfigError: the DeepSpeed configuration holds a wrong key or value, or asks its ZeRO stage for the impossible.
    """
    zero = zero_settings(deepspeed_config)
    is_offloaded = zero.offload_optimizer is not None and zero.offload_optimizer.device != "none"
    matrices = matrices_of_blocks(model) if train.optimizer == "muon" else {}
    # DeepSpeed's own Adam is compiled on first use; only AdamW offloaded to the CPU needs it.
    is_compiled = is_offloaded and not matrices
    config = {
        **deepspeed_config,
        # DeepSpeed would add up gradients over ranks in the type of the weights; bfloat16 loses half of them on 736 ranks.
        "communication_data_type": deepspeed_config.get("communication_data_type") or "fp32",
        "train_micro_batch_size_per_gpu": train.micro_batch,
        "gradient_accumulation_steps": train.accumulation,
        "gradient_clipping": train.clip_norm,
        "steps_per_print": 10**9,
    }
    if (train.ema or matrices) and config.get("bf16", {}).get("bf16_master_weights_and_grads"):
        raise ConfigError(
            "bf16.bf16_master_weights_and_grads keeps weights in bfloat16, in which a moving average (train.ema) soon stands "
            "still, and Muon's steps get lost; remove it from the DeepSpeed JSON, or these settings."
        )
    muon = None
    if matrices:
        _check_muon(zero)
        muon = partial(Muon, betas=train.betas, precision=torch.bfloat16 if is_bf16(config) else torch.float32)
        config["zero_force_ds_cpu_optimizer"] = False
        supported = deepspeed().runtime.zero.utils.ZERO_SUPPORTED_OPTIMIZERS
        if Muon not in supported:  # DeepSpeed would warn the user of any other
            supported.append(Muon)
    else:
        adam = {"lr": train.learning_rate, "betas": list(train.betas), "eps": 1e-8, "torch_adam": not is_compiled}
        # Fused, a parameter is updated in one pass: a third of the time of separate operations.
        config["optimizer"] = {"type": "AdamW", "params": adam if is_compiled else {**adam, "fused": True}}
    groups = parameter_groups(model, train)
    if train.compile:
        compile_blocks(model, deepspeed().get_accelerator().current_device_name())
        # So that ZeRO 3 gathers all weights of an MLP before its call: hooks inside would break up the compiled graph.
        for block in model.blocks:
            deepspeed().utils.set_z3_leaf_module(block.mlp, True)
    _mark_norms_on_the_device()
    wait_for_compilations()
    with _in_a_sentence():
        engine, *_ = deepspeed().initialize(model=model, optimizer=muon, model_parameters=groups, config=config)
    if matrices:
        engine.basic_optimizer.lay_out(masters(engine), matrices, is_cut=zero.stage > 0, device=engine.device)
    return engine


def compile_blocks(model: MateyModel, device: torch.device | str) -> None:
    """Have the MLPs of the blocks compiled at their first call; the names and the saved form of weights stay the same.

    MLPs are most of a block's computation and act token by token, so one compilation serves any number of tokens and all
    blocks. Attention is one kernel call already, and so is a convolution of cells.

    Args:
        model: the model.
        device: the device on which it will be trained.

    Raises:
        ConfigError: nothing can be compiled here.
    """
    from torch._inductor import config  # here, so that no other run pays for the import

    # Otherwise each rank would start a process for each core of its node to compile one function.
    config.compile_threads = 1
    try:
        torch.compile(lambda values: -values)(torch.zeros(2, device=device))
    except RuntimeError as error:
        raise ConfigError(
            f"train.compile needs a compiler that works here, and got: {one_line(error)}; install one (g++, or what CXX "
            "names; for GPUs the package triton as well), or set train.compile to false."
        ) from error
    for block in model.blocks:
        # Only `forward`: the hooks by which ZeRO gathers weights and collects gradients still run around it.
        block.mlp.forward = torch.compile(block.mlp.forward, dynamic=True)  # type: ignore[method-assign]


def _check_muon(zero: DeepSpeedZeroConfig) -> None:
    """Raise ConfigError if the optimizer's state would lie where Muon cannot step it."""
    offload = zero.offload_optimizer
    if zero.zenflow is not None or (
        offload is not None and (offload.device == "nvme" or offload.ratio < 1 or offload.super_offload)
    ):
        raise ConfigError(
            "train.optimizer muon needs the optimizer's state on the device or in main memory, but zero_optimization sends it "
            "to a disk, or a part of it to DeepSpeed's own Adam (ratio, super_offload, zenflow); set "
            "offload_optimizer.device to 'cpu' without these, or train.optimizer to adamw."
        )


def _mark_norms_on_the_device() -> None:
    """Let DeepSpeed mark norms that are not finite without a copy from main memory, for which the host would wait."""
    deepspeed()
    for name in ("utils", "zero.stage_1_and_2", "zero.stage3"):
        module: Any = import_module(f"deepspeed.runtime.{name}")
        module.mask_nan_or_inf_with_val_inplace = mark_not_finite


def mark_not_finite(norm: Tensor, device: object = None, val: float = -1.0) -> None:
    """Replace `deepspeed.runtime.utils.mask_nan_or_inf_with_val_inplace`, which does not use ``val`` either."""
    norm.masked_fill_(~norm.isfinite(), -1.0)


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Turn what DeepSpeed, its monitors, or an operation that this device lacks, say of the configuration into a sentence."""
    try:
        yield
    except Exception as error:
        why = one_line(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{error.title}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        if isinstance(
            error, AssertionError | ImportError | OSError | TypeError | ValueError | deepspeed().DeepSpeedConfigError
        ):
            raise ConfigError(f"DeepSpeed does not start with its JSON ({why}); correct the key.") from error
        if not type(error).__module__.startswith("wandb."):
            raise
        raise ConfigError(
            f"wandb did not start ({why}); without a network or a key set WANDB_MODE=offline, or set wandb.enabled to false in "
            "the DeepSpeed JSON."
        ) from error


def parameter_groups(model: MateyModel, train: TrainSection) -> list[dict[str, Any]]:
    """Return the optimizer's groups: parameters with the same decay and the same ``factor`` on the run's learning rate.

    Parameters that Muon steps are in groups of their own, with a ``momentum``. Decay acts on the matrices of linear maps and
    the kernels of cells, not on norms, biases and rows of fields. The grouping follows from `train.groups` and depth alone,
    so that a resumed run may change the other rates and decays and still has the groups of its checkpoint.
    """
    groups: dict[tuple[object, ...], dict[str, Any]] = {}
    by_muon = matrices_of_blocks(model) if train.optimizer == "muon" else {}
    num_blocks = len(model.blocks)
    for path, module in model.named_modules():
        for last, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            name = f"{path}.{last}"
            is_matrix = last == "kernels" or (isinstance(module, nn.Linear) and last == "weight")
            kind = "muon" if name in by_muon else "decayed" if is_matrix else "plain"
            own = train.groups.get(part_of(name), GroupSection())
            below = num_blocks + 1 - depth_of(name, num_blocks) if train.layer_decay < 1 else 0
            key = (kind, own.learning_rate, own.weight_decay if is_matrix else None, below)
            if key not in groups:
                groups[key] = _empty_group(kind, own, below, train)
            groups[key]["params"].append(parameter)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0] == "plain")]  # matrices first


def _empty_group(kind: str, own: GroupSection, below: int, train: TrainSection) -> dict[str, Any]:
    """Return an optimizer's group without parameters; the run's settings fill in those that its part does not state."""
    rate = train.learning_rate if own.learning_rate is None else own.learning_rate
    decay = train.weight_decay if own.weight_decay is None else own.weight_decay
    factor = rate / train.learning_rate * train.layer_decay**below
    if kind == "muon":
        factor *= train.muon.learning_rate / train.learning_rate
    group = {"params": [], "weight_decay": 0.0 if kind == "plain" else decay, "factor": factor}
    group["name"] = f"{kind} x{factor:g}"
    return group | ({"momentum": train.muon.momentum} if kind == "muon" else {})


def set_learning_rate(engine: Engine, learning_rate: float) -> dict[str, float]:
    """Set the learning rate of the next step, which each group multiplies by its factor; return the groups' rates by name."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate * group["factor"]
    return {group["name"]: group["lr"] for group in engine.optimizer.param_groups}


def take_step(engine: Engine) -> Tensor | None:
    """End a micro-batch; after the last one of a step, step the optimizer and return the norm of the unclipped gradient.

    The norm is not read here, since the device is still computing it.
    """
    if not engine.is_gradient_accumulation_boundary():
        engine.step()
        return None
    norm = None
    if engine.zero_optimization_stage() == 0:
        # Without ZeRO the engine clips but does not keep the norm.
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
    engine.step()
    return torch.as_tensor(engine.get_global_grad_norm() if norm is None else norm)


def forget_order_of_modules(engine: Engine) -> None:
    """Let ZeRO 3 record anew the order in which modules run, after forward passes without a backward pass.

    ZeRO 3 prefetches weights by the recorded order. An order that it recorded in such a pass ended runs by a "tracing error" in
    the next step, if the weights had come from a checkpoint (DeepSpeed 0.19).
    """
    if engine.zero_optimization_stage() == 3:
        coordinator = engine.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()


def whole_parameters(engine: Engine) -> dict[str, Tensor]:
    """Return the complete weights of the module on rank 0, an empty dictionary on the others. All ranks must call.

    In bfloat16, trained weights come in float32: a step is often smaller than the rounding of a weight. Weights that must be
    gathered (trained ones in bfloat16, and all weights in stage 3) are gathered one parameter after the other, since a rank
    that writes nothing needs no copy of the model.
    """
    is_sliced, weights = engine.zero_optimization_stage() == 3, engine.module.state_dict()
    for name, parameter in engine.module.named_parameters():
        whole = None
        if engine.bfloat16_enabled() and parameter.requires_grad:
            whole = deepspeed().utils.safe_get_full_fp32_param(parameter).cpu()
        elif is_sliced:
            with deepspeed().zero.GatheredParameters([parameter]):
                whole = parameter.detach().to("cpu", copy=True) if rank() == 0 else None
        if whole is not None and rank() == 0:
            weights[name] = whole
    return weights if rank() == 0 else {}


REFUSED = {
    "torch_autocast.enabled": "the network itself chooses what it computes in float32; use bf16, or float32 without either",
    "fp16.enabled": "its loss scaling skips steps; use bf16, or float32 without either",
    "zero_optimization.elastic_checkpoint": "neither --resume nor conversion reads what it saves",
    "zero_optimization.round_robin_gradients": "with it DeepSpeed 0.19 keeps weights in another order than their names, so "
    "that each would be saved under the name of another",
}
"""Keys of the DeepSpeed JSON that must not be set, and why."""


def zero_settings(config: dict[str, Any]) -> DeepSpeedZeroConfig:
    """Return the ZeRO section of a DeepSpeed configuration with its defaults filled in.

    Raises:
        ConfigError: the section holds a wrong key or value, or asks for a precision that its stage cannot do, or for an order
            of weights that DeepSpeed does not record.
    """
    zero = _parse_zero(config.get("zero_optimization", {}))
    if is_bf16(config) and zero.stage == 0:
        raise ConfigError(
            "bf16 with ZeRO stage 0 uses an optimizer wrapper whose results differ from those of the other stages; "
            "use zero_optimization.stage 1, which costs nothing on one rank."
        )
    for key, why in REFUSED.items():
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value:
            raise ConfigError(f"{key} is not supported: {why}; remove it from the DeepSpeed JSON.")
    if zero.stage == 0 and zero.offload_optimizer is not None and zero.offload_optimizer.device != "none":
        raise ConfigError(
            "zero_optimization.offload_optimizer needs stage 1 or above: stage 0 keeps the optimizer on the device; remove it "
            "from the DeepSpeed JSON, or raise the stage."
        )
    return zero


def is_bf16(config: dict[str, Any]) -> bool:
    """Whether a DeepSpeed configuration asks for bfloat16 weights and activations."""
    return bool(config.get("bf16", {}).get("enabled"))


def _parse_zero(values: dict[str, Any]) -> DeepSpeedZeroConfig:
    schema = deepspeed().runtime.zero.config.DeepSpeedZeroConfig
    try:
        return schema(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("zero_optimization", *first["loc"])))
        message = f"{first['msg']}."
        if first["type"] == "extra_forbidden":
            message = f"DeepSpeed has no such key.{nearest_name(str(first['loc'][-1]), schema.model_fields)}"
        raise ConfigError(f"DeepSpeed configuration: {key}: {message}") from None


COMPILED = ("cpu_adam", "async_io", "gds", "pin_memory", "quantizer", "fused_adam")
"""The parts that DeepSpeed compiles for a run on first use: Adam for the CPU, offload to a disk, quantized communication."""

QUIET = 300.0  # seconds without a new file after which a compilation counts as killed: a single file takes a minute


def wait_for_compilations(quiet: float = QUIET) -> None:
    """Wait until no other process compiles, and remove the locks of those that were killed. All ranks must call.

    The compiling process removes its lock when it is done; a killed one leaves it, perhaps on another node.

    Args:
        quiet: seconds without a new file after which a compilation counts as killed.
    """
    for lock, age in locks():
        if age < quiet and rank() == 0:
            sys.stderr.write(f"Waiting until {lock} is removed, or nothing was written beside it for {quiet:g} s.\n")
        with suppress(FileNotFoundError):  # it has been removed
            while _age(lock) < quiet:
                time.sleep(0.5)
            lock.unlink()
    barrier()


def locks() -> Iterator[tuple[Path, float]]:
    """Yield the locks of compilations that run, or were killed, with the seconds since something was written beside them."""
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in root.glob("**/lock"):
        with suppress(FileNotFoundError):  # just now it was removed
            if lock.parent.name in COMPILED:
                yield lock, _age(lock)


def _age(lock: Path) -> float:
    lock.stat()
    return time.time() - max(path.stat().st_mtime for path in lock.parent.iterdir())


# DeepSpeed lets PyTorch run any code in the files. PyTorch's first variable overrules that; the second, which a site or a user
# may have set, does the opposite. With both, PyTorch refuses to load anything.
ONLY_WEIGHTS, ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
FROM_CONFIGURATION = frozenset({"name", "weight_decay", "betas", "eps", "factor", "momentum"})
"""Settings of a group of parameters that come from the run's configuration; its rate is set in every step."""
CLIP_NORM = "clip_grad"  # as DeepSpeed's optimizers call it; without one, the engine clips as it is configured


def load_deepspeed(engine: Engine, folder: Path) -> dict[str, Any]:
    """Load the checkpoint in a folder ``step_*`` into the engine and return the state saved with it. All ranks must call.

    Raises:
        UnpicklingError: a file holds an object of another class.
    """
    groups, clip_norm = engine.optimizer.param_groups, getattr(engine.optimizer, CLIP_NORM, None)
    settings = [{key: group[key] for key in group.keys() & FROM_CONFIGURATION} for group in groups]
    with _only_weights(), torch.serialization.safe_globals(_classes()):
        path, state = engine.load_checkpoint(str(folder.parent), tag=folder.name)
    assert path is not None, "the files were seen to be there"
    # DeepSpeed overwrites the settings with the checkpoint's, but the configuration may have changed since.
    for group, of_group in zip(engine.optimizer.param_groups, settings, strict=True):
        group.update(of_group)
    if clip_norm is not None:
        setattr(engine.optimizer, CLIP_NORM, clip_norm)
    return state


def _classes() -> list[Any]:
    """Return all classes in the files of DeepSpeed 0.19 that are neither tensors nor plain Python."""
    deepspeed()
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


@contextmanager
def _only_weights() -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in (ONLY_WEIGHTS, ANYTHING) if name in os.environ}
    os.environ[ONLY_WEIGHTS] = "1"
    try:
        yield
    finally:
        os.environ.pop(ONLY_WEIGHTS)
        os.environ.update(before)
