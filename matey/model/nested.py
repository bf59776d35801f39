"""Finds, replaces and moves together the tensors in nested objects (dataclasses, tuples, lists, dictionaries).

A micro-batch that is ready for a step consists of a hundred small tensors, which travel in one buffer. Otherwise each would
need a file descriptor between processes, and a copy of its own to a device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Nested = TypeVar("Nested")
ALIGNMENT = 64  # bytes; a view must begin at a multiple of the size of its type


def tensors_in(nested: object) -> list[Tensor]:
    """Return every tensor, in a fixed order."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    with_tensors(nested, note)
    return found


def num_bytes_of(nested: object) -> int:
    """Return the bytes of all tensors."""
    return sum(tensor.nbytes for tensor in tensors_in(nested))


def with_tensors(nested: Nested, replace: Callable[[Tensor], Tensor]) -> Nested:
    """Return the same objects with ``replace(tensor)`` in the place of every tensor."""
    return cast(Nested, _replaced(nested, Tensor, replace))


@dataclass(frozen=True)
class Packed:
    """Nested objects whose tensors lie in one buffer.

    Attributes:
        outline: the objects, with a place in the buffer instead of each tensor.
        buffer: bytes ``(n,)``.
    """

    outline: Any
    buffer: Tensor

    def unpacked(self) -> Any:  # noqa: ANN401
        """Return the objects; their tensors are views of the buffer, on its device."""
        return _replaced(self.outline, _Place, lambda place: place.view_of(self.buffer))


def packed(nested: object, device: torch.device | None = None, *, pin: bool = False) -> Packed:
    """Copy all tensors, which lie in main memory, into one buffer.

    Args:
        nested: the objects.
        device: device on which the buffer lies; by default main memory.
        pin: whether the buffer is pinned in main memory, so that a GPU can copy it while other work goes on.
    """
    places: list[_Place] = []
    tensors: list[Tensor] = []
    end = 0

    def place_of(tensor: Tensor) -> _Place:
        nonlocal end
        places.append(_Place(end, tuple(tensor.shape), tensor.dtype))
        tensors.append(tensor)
        end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        return places[-1]

    outline = _replaced(nested, Tensor, place_of)
    buffer = torch.empty(end, dtype=torch.uint8, device=device, pin_memory=pin)
    for place, tensor in zip(places, tensors, strict=True):
        place.view_of(buffer).copy_(tensor)
    return Packed(outline, buffer)


@dataclass(frozen=True)
class _Place:
    """A tensor's first byte in a buffer, its shape and its type."""

    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def view_of(self, buffer: Tensor) -> Tensor:
        num_bytes = torch.Size(self.shape).numel() * self.dtype.itemsize
        return buffer[self.start : self.start + num_bytes].view(self.dtype).view(self.shape)


def _replaced(nested: Any, kind: type, replace: Callable[[Any], Any]) -> Any:  # noqa: ANN401
    if isinstance(nested, kind):
        return replace(nested)
    if is_dataclass(nested) and not isinstance(nested, type):
        # A copy, not a new object: `__post_init__` would look at the tensors again, and wait for the device.
        other = copy.copy(nested)
        for field in fields(nested):
            object.__setattr__(other, field.name, _replaced(getattr(nested, field.name), kind, replace))
        return other
    if isinstance(nested, dict):
        return {key: _replaced(value, kind, replace) for key, value in nested.items()}
    if isinstance(nested, list | tuple):
        return type(nested)(_replaced(value, kind, replace) for value in nested)
    return nested
