"""What DeepSpeed and the type checker ask of a network: results of several batches in one tensor, and a list of one class.

ZeRO 3 gathers a module's weights again for each tensor that the module returned, and prefetches the next weights in the order
of earlier steps. The number of batches differs between ranks and between steps. So that all ranks still gather the same weights
in the same order, every module is called once for all batches and returns one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Generic, TypeVar, overload

    M = TypeVar("M", bound=nn.Module)

    class ModuleList(nn.ModuleList, Generic[M]):
        """PyTorch's list, with the class of the modules that iterating and indexing give."""

        def __init__(self, modules: Iterable[M] | None = None) -> None: ...
        def __iter__(self) -> Iterator[M]: ...  # noqa: D105 (as PyTorch's)
        @overload
        def __getitem__(self, index: slice) -> ModuleList[M]: ...
        @overload
        def __getitem__(self, index: int) -> M: ...
        def __getitem__(self, index: int | slice) -> M | ModuleList[M]: ...  # noqa: D105 (as PyTorch's)
else:
    ModuleList = nn.ModuleList


def packed(batches: Sequence[Tensor]) -> Tensor:
    """Return the values of all batches, one after the other."""
    return torch.cat([values.flatten() for values in batches]) if len(batches) > 1 else batches[0].flatten()


def unpacked(values: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the batches, by their shapes."""
    parts = values.split([math.prod(shape) for shape in shapes])
    return [part.view(*shape) for part, shape in zip(parts, shapes, strict=True)]


def joined(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return tensors one after the other along an axis; a single tensor is returned unchanged."""
    return torch.cat([*parts], dim=dim) if len(parts) > 1 else parts[0]
