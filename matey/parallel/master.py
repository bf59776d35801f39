"""The float32 weights that the optimizer steps on this rank: one view for ZeRO 0 to 3, float32 and bf16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from matey.config import ConfigError
from matey.parallel.collectives import Engine, deepspeed, rank

Optimizer = Any  # one of DeepSpeed's, which has no type annotations

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Piece:
    """A stretch of one parameter inside a master tensor.

    Attributes:
        name: name of the parameter, as in the module's state dict.
        start: index at which the stretch begins in the flattened parameter.
        offset: index at which it begins in the flattened master tensor.
        length: number of values.
    """

    name: str
    start: int
    offset: int
    length: int


@dataclass(frozen=True)
class Master:
    """A tensor that the optimizer steps on this rank, and the parameters in it; alignment padding is in no piece.

    Attributes:
        weights: the tensor.
        pieces: stretches of parameters in it.
        group: settings of the tensor's group of parameters.
    """

    weights: Tensor
    pieces: tuple[Piece, ...]
    group: Mapping[str, Any]

    @property
    def moments(self) -> tuple[str, ...]:
        """Names of the moments that the optimizer keeps of the tensor: Muon, whose groups have a momentum, keeps one."""
        return MOMENTS[:1] if "momentum" in self.group else MOMENTS

    def __iter__(self) -> Iterator[tuple[Piece, Tensor]]:
        """Yield every piece with its values, a one-dimensional view."""
        flat = self.weights.detach().view(-1)
        return ((piece, flat[piece.offset : piece.offset + piece.length]) for piece in self.pieces)


def masters(engine: Engine) -> list[Master]:
    """Return the weights that this rank's optimizer updates: whole parameters without ZeRO, else a part of each group.

    Raises:
        ConfigError: the optimizer's tensors wait on a disk.
    """
    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 0:
        return [
            Master(parameter, (Piece(engine.param_names[parameter], 0, 0, parameter.numel()),), group)
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
    settings = optimizer.optimizer.param_groups
    if stage == 3:
        if optimizer.swap_optimizer:
            raise ConfigError(
                "zero_optimization.offload_optimizer moves the optimizer's state to a disk, where neither train.ema nor a "
                "universal checkpoint reaches it; offload it to 'cpu', or do without."
            )
        parts = zip(optimizer.fp32_partitioned_groups_flat, optimizer.fp16_groups, strict=True)
        return [
            Master(flat, tuple(_sliced(optimizer, part)), settings[optimizer.sub_group_to_group_id[number]])
            for number, (flat, part) in enumerate(parts)
        ]
    groups = optimizer.bf16_groups if hasattr(optimizer, "bf16_groups") else optimizer.bit16_groups
    return [
        Master(of_group["params"][0], tuple(_mapped(optimizer, group)), of_group)
        for of_group, group in zip(settings, groups, strict=True)
    ]


def refresh_module(engine: Engine) -> None:
    """Bring the module's weights into line with the master weights. All ranks must call."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer.checkpoint_event_prologue()
        for flat, half, parts in zip(
            optimizer.fp32_partitioned_groups_flat,
            optimizer.fp16_partitioned_groups_flat,
            optimizer.fp16_partitioned_groups,
            strict=True,
        ):
            half.data.copy_(flat.data)
            for part, values in zip(parts, optimizer.unflatten(half, parts), strict=True):
                part.data = values.data
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
        optimizer.checkpoint_event_epilogue()


def set_whole(engine: Engine, read: Callable[[str, str], Tensor], step: int) -> None:
    """Set the trained weights, the optimizer's moments and the counters of steps. All ranks must call.

    Args:
        engine: an engine that has taken no step yet.
        read: function that returns a whole tensor of a parameter, given ``fp32``, ``exp_avg`` or ``exp_avg_sq`` and the
            parameter's name.
        step: number of steps taken.
    """
    inner = engine.optimizer if engine.zero_optimization_stage() == 0 else engine.optimizer.optimizer
    for master in masters(engine):
        moments = {what: torch.zeros_like(master.weights, requires_grad=False) for what in master.moments}
        for what, values in {"fp32": master.weights, **moments}.items():
            for piece, part in replace(master, weights=values):
                part.copy_(read(what, piece.name).flatten()[piece.start : piece.start + piece.length])
        # The count of steps of each tensor: PyTorch's Adam adds to it in place, DeepSpeed's keeps a number.
        is_tensor, device = isinstance(inner, torch.optim.AdamW), master.weights.device
        count = torch.tensor(float(step), device=device) if is_tensor else step
        inner.state[master.weights] = {"step": count, **moments}
    refresh_module(engine)
    engine.global_steps = step
    engine.global_samples = step * engine.train_batch_size()


def set_frozen(engine: Engine, weights: Mapping[str, Tensor]) -> None:
    """Set the parameters that are not trained. All ranks must call."""
    frozen = {name: p for name, p in engine.module.named_parameters() if not p.requires_grad}
    sliced = engine.zero_optimization_stage() == 3
    with torch.no_grad(), deepspeed().zero.GatheredParameters(list(frozen.values()), modifier_rank=0, enabled=sliced):
        for name, parameter in frozen.items() if rank() == 0 or not sliced else ():
            parameter.copy_(weights[name])


def trained_names(engine: Engine) -> list[list[str]]:
    """Return the names of the trained parameters, group by group, in the optimizer's order."""
    optimizer = engine.optimizer
    for attribute in ("fp16_groups", "bf16_groups", "bit16_groups"):
        if hasattr(optimizer, attribute):
            return [[engine.param_names[p] for p in group] for group in getattr(optimizer, attribute)]
    return [[engine.param_names[p] for p in group["params"]] for group in optimizer.param_groups]


def _mapped(optimizer: Optimizer, group: Iterable[Any]) -> Iterator[Piece]:
    """Yield the pieces in stages 1 and 2: DeepSpeed links the parameters that overlap this rank's part of a group."""
    for parameter in group:
        if (link := parameter._hp_mapping) is not None:
            start, address = link.lp_fragment_address.start, link.hp_fragment_address
            yield Piece(optimizer.param_names[parameter], start, address.start, address.numel)


def _sliced(optimizer: Optimizer, group: Iterable[Any]) -> Iterator[Piece]:
    """Yield the pieces in stage 3: every parameter is cut into equal slices; the last ones may be padding."""
    offset, own = 0, dist.get_rank(optimizer.dp_process_group)
    for parameter in group:
        length = parameter.partition_numel()
        start = min(own * length, parameter.ds_numel)
        yield Piece(optimizer.param_names[parameter], start, offset, min(length, parameter.ds_numel - start))
        offset += length
