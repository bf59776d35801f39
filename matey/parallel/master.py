"""The float32 weights that the optimizer steps on this rank: one view for ZeRO 0 to 3, float32 and bf16; and Muon.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) moves a matrix by the momentum of its gradient with all
singular values set to about one. A rank keeps the momentum of the values that it owns, as AdamW keeps its moments. The singular
values are those of the whole matrix, so one rank assembles the matrix, computes its step, and sends the parts back:

    rank 0 owns  [A A A A A B B]              [A A A A A B B]
                            v v                          ^ ^
    rank 1 owns  [B B B C C C C]              [B B B C C C C]
                  momentum, there    steps of A; of B and C    steps, back
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Size, Tensor, nn

from matey.config import ConfigError
from matey.model.matey import MateyModel
from matey.model.parts import is_adapter
from matey.parallel.collectives import Engine, deepspeed, from_all_ranks, rank
from matey.parallel.exchange import exchange_rows

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


ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of Jordan's polynomial, which raises small singular values fastest and leaves them between 0.7 and 1.2."""


def matrices_of_blocks(model: MateyModel) -> dict[str, Size]:
    """Return the shapes of the matrices that Muon steps, by name: trained weights of the blocks' linear maps, no adapters."""
    return {
        f"blocks.{path}.weight": getattr(module.weight, "ds_shape", module.weight.shape)  # whole, with ZeRO 3 too
        for path, module in model.blocks.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not is_adapter(f"{path}.weight")
    }


def orthogonalized(matrix: Tensor, precision: torch.dtype) -> Tensor:
    """Return a matrix with all singular values about one, times the root of rows / columns if it has more rows.

    It takes five Newton-Schulz iterations of degree five, in the given precision.
    """
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix
    x = (x / x.norm().clamp(min=1e-7)).to(precision)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    x = (x.T if rows > columns else x).to(matrix.dtype)
    return x * math.sqrt(max(1, rows / columns))


class Muon(torch.optim.AdamW):
    """Muon for groups of parameters with a ``momentum``, AdamW for the others.

    The momentum is a moving average as in AdamW and is saved under the same name, ``exp_avg``; there is no second moment.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], precision: torch.dtype) -> None:
        super().__init__(groups, betas=betas, eps=1e-8, fused=True)
        self.matrices: Mapping[str, Size] = {}
        self._precision = precision
        self._shared: dict[Tensor, _Shared] = {}

    def lay_out(
        self, masters: Sequence[Master], matrices: Mapping[str, Size], is_cut: bool, device: torch.device
    ) -> None:
        """Learn which rank owns which parts of the matrices. All ranks must call, before the first step.

        Args:
            masters: tensors that this optimizer steps on this rank.
            matrices: shapes of all matrices by name.
            is_cut: whether ranks own parts of the matrices; otherwise each rank owns all of them.
            device: device that multiplies matrices, and from which ranks send.
        """
        self.matrices = matrices
        own = [master.pieces for master in masters]
        of_ranks, place = (from_all_ranks(own), rank()) if is_cut else ([own], 0)
        for number, master in enumerate(masters):
            if "momentum" in master.group:
                pieces = [of_rank[number] for of_rank in of_ranks]
                self._shared[master.weights] = _Shared(pieces, place, matrices, self._precision, device)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401
        """Take a step with the gradients that exist. All ranks must call, with the same groups."""
        groups = self.param_groups
        for group in groups:
            for weights in group["params"] if "momentum" in group else ():
                if weights.grad is not None:
                    self._step_matrices(weights, weights.grad, group)
        self.param_groups = [group for group in groups if "momentum" not in group]
        loss = super().step(closure)
        self.param_groups = groups
        return loss

    def _step_matrices(self, weights: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[weights]
        if not state:
            state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(weights, requires_grad=False))
        state["step"] += 1
        average = state["exp_avg"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"])  # Nesterov's
        weights.mul_(1 - group["lr"] * group["weight_decay"])
        weights.sub_(self._shared[weights].orthogonalized(ahead), alpha=group["lr"])


def stepped_by_muon(engine: Engine) -> list[str]:
    """Return the names of the parameters that Muon steps; AdamW steps all others."""
    return list(engine.basic_optimizer.matrices) if isinstance(engine.basic_optimizer, Muon) else []


class _Shared:
    """The matrices of one master tensor: which rank owns each stretch of them, and which rank makes each matrix's step.

    A step is made on the rank that would hold the middle of the matrix if the tensor were cut evenly. With ZeRO 1 and 2, which
    cut so, that is an owner of the matrix; with ZeRO 3 every rank owns a slice of it, and all ranks make about as many steps.
    """

    def __init__(
        self,
        pieces: Sequence[Sequence[Piece]],
        own: int,
        matrices: Mapping[str, Size],
        precision: torch.dtype,
        device: torch.device,
    ) -> None:
        names = dict.fromkeys(piece.name for of_rank in pieces for piece in of_rank)
        ends = dict(zip(names, accumulate(matrices[name].numel() for name in names), strict=True))
        middles = {name: end - matrices[name].numel() / 2 for name, end in ends.items()}
        makers = {name: int(len(pieces) * middle / max(ends.values())) for name, middle in middles.items()}
        own_by_maker = [[piece for piece in pieces[own] if makers[piece.name] == maker] for maker in range(len(pieces))]
        made_by_owner = [[piece for piece in of_rank if makers[piece.name] == own] for of_rank in pieces]
        self._own, self._made = list(chain(*own_by_maker)), list(chain(*made_by_owner))
        self._to_makers, self._from_owners = map(_counts, (own_by_maker, made_by_owner))
        self._shapes = {name: matrices[name] for name in names if makers[name] == own}
        self._precision, self._device = precision, device

    def orthogonalized(self, values: Tensor) -> Tensor:
        """Return this rank's part of the orthogonalized matrices, given its part of the matrices. All ranks must call."""
        flat = values.flatten().to(self._device)
        sent = [flat[piece.offset : piece.offset + piece.length] for piece in self._own]
        there = _swap(torch.cat([flat[:0], *sent]), self._to_makers, self._from_owners)
        whole = {name: flat.new_empty(shape) for name, shape in self._shapes.items()}
        for piece, stretch in zip(self._made, there.split([piece.length for piece in self._made]), strict=True):
            whole[piece.name].view(-1)[piece.start : piece.start + piece.length] = stretch
        steps = {name: orthogonalized(matrix, self._precision).flatten() for name, matrix in whole.items()}
        sent = [steps[piece.name][piece.start : piece.start + piece.length] for piece in self._made]
        back = _swap(torch.cat([flat[:0], *sent]), self._from_owners, self._to_makers)
        result = torch.zeros_like(flat)
        for piece, stretch in zip(self._own, back.split([piece.length for piece in self._own]), strict=True):
            result[piece.offset : piece.offset + piece.length] = stretch
        return result.view_as(values).to(values.device)


def _counts(pieces: Sequence[Sequence[Piece]]) -> list[int]:
    """Return the number of values in the pieces of each rank."""
    return [sum(piece.length for piece in of_rank) for of_rank in pieces]


def _swap(values: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
    """Send values, in the order of the receivers, and return those received, in the order of the senders."""
    return values if len(send) == 1 else exchange_rows(values, send, receive, None)
