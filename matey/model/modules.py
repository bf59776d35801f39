"""What layers share: results of several batches in one tensor, rows of fields, sums in float32, and a list of one class.

ZeRO 3 gathers a module's weights again for each tensor that the module returned, and prefetches the next weights in the order
of earlier steps. The number of batches differs between ranks and between steps. So that all ranks still gather the same weights
in the same order, every module is called once for all batches and returns one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
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


@dataclass(frozen=True)
class Rows:
    """The row of each field of a batch in the vocabulary.

    Attributes:
        inputs: ``(f,)``, rows of the predicted fields, then of the given fields.
        predicted: ``(f,)``, rows of the predicted fields.
    """

    inputs: Tensor
    predicted: Tensor


def chosen(weight: Tensor, rows: Tensor) -> Tensor:
    """Return some rows of a weight ``(f, ...)`` by a lookup: its gradient is one pass; an index's gradient sorts on GPUs."""
    return F.embedding(rows, weight.flatten(1)).view(len(rows), *weight.shape[1:])


def weighted_sums(values: Tensor, weight: Tensor) -> Tensor:
    """Multiply values ``(n, w)``, of cells or of samples, with weights ``(w, e)``; round the sums to the type of the weights.

    Rounding comes last, so that values which differ by less than the precision of bfloat16 can still be told apart.
    """
    dtype = torch.promote_types(values.dtype, weight.dtype)
    return (values.to(dtype) @ weight.to(dtype)).to(weight.dtype)


def wide(values: Tensor) -> Tensor:
    """Return values in float32, or in the more precise type that they have."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class WideLinear(nn.Linear):
    """A linear map in float32 of the few rows that tell a network about samples: close numbers must not become one."""

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(b, i)`` to ``(b, e)``."""
        weight = wide(self.weight)
        return F.linear(input.to(weight.dtype), weight, wide(self.bias))
