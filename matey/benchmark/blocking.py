"""Counts the calls of a step that make the host wait for a GPU, on any machine.

A host that launches work for a GPU runs ahead of it until it asks for a result that the GPU has to compute first: a count of
nonzeros, a value, a copy to main memory. On a machine without a GPU such calls cost nothing. They are therefore counted by name
if they touch data that a GPU would hold: the weights, the fields of a micro-batch, and all tensors computed from them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import matey

WAITING = frozenset(
    ("_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "histc", "unique_dim")
    + ("_unique", "_unique2", "unique_consecutive", "unique_dim_consecutive", "is_nonzero", "_linalg_check_errors")
)
"""Operations whose result, or its size, the host needs."""

INDEXING = frozenset(("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"))
"""Operations that search for nonzeros if an index is a mask."""

FROM_DEVICE = frozenset((Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__))
"""Methods that copy to main memory; on a CPU, PyTorch's dispatcher does not see them."""

LITERALS = frozenset((torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor))
"""Functions that make a tensor from numbers in main memory."""

AUTOGRAD: Any = torch.autograd
_run_backward = AUTOGRAD._engine_run_backward

ROOT = str(Path(matey.__file__).parent)


class BlockingCalls:
    """A context that counts the blocking calls of this thread by part of the step and by line of code.

    Attributes:
        where: number of calls of each operation from each line of this package, by the part named in `mark`.
        operations: number of all operations except views, in the transformer blocks and outside, by the same parts.
        in_blocks: whether the blocks are being computed, as `matey.benchmark.step.blocks_noted` reports.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        """Take the tensors that a GPU holds from the start."""
        self.where: dict[str, Counter[str]] = {}
        self.operations: dict[str, Counter[str]] = {}
        self.in_blocks = False
        self._since: Counter[str] = Counter()
        self._operations_since: Counter[str] = Counter()
        self._held: dict[int, StorageWeakRef] = {}
        self._literals: dict[int, StorageWeakRef] = {}
        self.hold(on_device)
        self._modes = _Dispatched(self), _Called(self)

    def _heard_backward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        # Inside a call that a mode handles, PyTorch disables the mode: the hooks of a backward pass would not be seen.
        with self._modes[1]:
            return _run_backward(*args, **kwargs)

    def __enter__(self) -> BlockingCalls:
        """Start counting."""
        for mode in self._modes:
            mode.__enter__()
        AUTOGRAD._engine_run_backward = self._heard_backward
        return self

    def __exit__(self, *about: Any) -> None:  # noqa: ANN401
        """Stop counting; ``about`` holds the error that ended the block, if any."""
        AUTOGRAD._engine_run_backward = _run_backward
        for mode in reversed(self._modes):
            mode.__exit__(*about)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Note tensors as held by a GPU."""
        _note(self._held, tensors)

    def mark(self, part: str) -> None:
        """Assign the calls since the last mark to a ``part``; a part may be named several times."""
        for of_parts, since in ((self.where, self._since), (self.operations, self._operations_since)):
            of_parts.setdefault(part, Counter()).update(since)
            since.clear()

    def number(self, *parts: str) -> int:
        """Return the number of blocking calls in some parts."""
        return sum(self.where[part].total() for part in parts if part in self.where)

    def note_operation(self) -> None:
        """Count an operation, whether it blocks or not."""
        self._operations_since["blocks" if self.in_blocks else "outside"] += 1

    def met(self, name: str, inputs: Any, results: Any, *, waits: bool) -> None:  # noqa: ANN401
        """Count an operation that ``waits`` if its inputs are on a GPU; its results are there then, too."""
        tensors = list(_tensors(inputs))
        if not any(map(self.holds, tensors)):
            return
        if waits:
            self._count(name)
        # A tensor made from numbers must be copied to the GPU where it meets a tensor there.
        for literal in (tensor for tensor in tensors if tensor.ndim and _is_noted(self._literals, tensor)):
            self._count("host to device")
            self._literals.pop(literal.untyped_storage()._cdata, None)
        self.hold(_tensors(results))

    def moved(self, tensor: Tensor, result: Tensor, *, to_device: bool, waits: bool) -> None:
        """Count a move to a GPU or to main memory if it waits and the tensor was not there yet."""
        self._cross(from_device=self.holds(tensor), to_device=to_device, waits=waits)
        if to_device:
            self.hold([result])

    def copied(self, into: Tensor, values: Tensor, *, waits: bool) -> None:
        """Count a copy of values into a tensor if it waits and only one of the two is on a GPU."""
        is_assigned = values.ndim == 0 and not self.holds(values) and not _is_noted(self._literals, values)
        self._cross(from_device=self.holds(values), to_device=self.holds(into), waits=waits and not is_assigned)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a GPU would hold a tensor."""
        return _is_noted(self._held, tensor)

    def made_there(self, tensor: Tensor, *, waits: bool) -> None:
        """Note a tensor that was made on the device; count the call if it ``waits`` for numbers sent from the host."""
        self._cross(from_device=False, to_device=True, waits=waits)
        self._literals.pop(tensor.untyped_storage()._cdata, None)
        self.hold([tensor])

    def made(self, tensor: Tensor) -> None:
        """Note a tensor that was made from numbers."""
        _note(self._literals, [tensor])

    def _cross(self, *, from_device: bool, to_device: bool, waits: bool) -> None:
        if waits and from_device != to_device:
            self._count("host to device" if to_device else "device to host")

    def _count(self, name: str) -> None:
        self._since[f"{name} {_place()}"] += 1


class _Dispatched(TorchDispatchMode):
    def __init__(self, calls: BlockingCalls) -> None:
        super().__init__()
        self._calls = calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs, calls, name = kwargs or {}, self._calls, func.overloadpacket.__name__
        result = func(*args, **kwargs)
        if not func.is_view and name != "_unsafe_view":
            calls.note_operation()
        if name == "lift_fresh" and args[0].ndim:  # a single assigned number becomes a tensor on the target's device
            calls.made(result)
        elif name == "copy_":
            calls.copied(args[0], args[1], waits=not (len(args) > 2 and args[2] or kwargs.get("non_blocking", False)))
        else:
            waits = name in WAITING or (name in INDEXING and _has_mask(args[1]))
            waits = waits or (name == "repeat_interleave" and kwargs.get("output_size") is None)
            calls.met(name, (args, kwargs), result, waits=waits)
        return result


class _Called(TorchFunctionMode):
    def __init__(self, calls: BlockingCalls) -> None:
        super().__init__()
        self._calls = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs, calls, caller = kwargs or {}, self._calls, sys._getframe(1)
        result = func(*args, **kwargs)
        if func in FROM_DEVICE:
            calls.met("device to host", args, (), waits=True)
        elif func is Tensor.to and (target := _target_of(args[1:], kwargs)) is not None:
            to_device = calls.holds(target) if isinstance(target, Tensor) else _is_device(target, caller)
            calls.moved(args[0], result, to_device=to_device, waits=not kwargs.get("non_blocking", False))
        elif isinstance(result, Tensor) and _is_device(kwargs.get("device"), caller):
            calls.made_there(result, waits=func in LITERALS)
        elif isinstance(result, Tensor) and func in LITERALS:
            calls.made(result)
        return result


def _target_of(args: Iterable[Any], kwargs: dict[str, Any]) -> str | torch.device | Tensor | None:
    """Return the device, or the tensor to match, that `Tensor.to` was given; None if it was given a type only."""
    named = [kwargs[name] for name in ("device", "other") if kwargs.get(name) is not None]
    return next((each for each in (*named, *args) if isinstance(each, str | torch.device | Tensor)), None)


def _is_device(place: str | torch.device | None, caller: FrameType) -> bool:
    """Whether a place is the device that a step computes on.

    Code that means main memory writes ``"cpu"``; code that means the device passes on a variable; DeepSpeed names it.
    """
    is_named = isinstance(place, str) and str(caller.f_globals.get("__name__")).startswith("deepspeed")
    return isinstance(place, torch.device) or is_named


def _has_mask(indices: Iterable[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _tensors(values: Any) -> Iterator[Tensor]:  # noqa: ANN401
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _note(noted: dict[int, StorageWeakRef], tensors: Iterable[Tensor]) -> None:
    # A reference to the storage prevents reuse of its number.
    for tensor in tensors:
        storage = tensor.untyped_storage()
        noted.setdefault(storage._cdata, StorageWeakRef(storage))


def _is_noted(noted: dict[int, StorageWeakRef], tensor: Tensor) -> bool:
    return tensor.untyped_storage()._cdata in noted


def _place() -> str:
    """Return the innermost line of this package on the stack outside this file."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (not frame.f_code.co_filename.startswith(ROOT) or frame.f_code.co_filename == __file__):
        frame = frame.f_back
    return "elsewhere" if frame is None else f"{frame.f_code.co_filename[len(ROOT) + 1 :]}:{frame.f_lineno}"
