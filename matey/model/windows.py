"""The windows on the last frames around the blocks that a decoder writes, and their weighted sums.

Windows overlap: side by side they take several times the memory of their frames, in three dimensions eight times. Many windows
are therefore cut a few at a time, and cut again in the backward pass; few windows are kept, which is faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from matey.model.given import weighted_sums
from matey.model.one_tensor import joined
from matey.tokens.patches import Places, windows_of

KEPT_AT_ONCE = 2**26
"""Largest number of values in a batch's windows that are kept for the backward pass; with more, a quarter of it at a time."""


@dataclass(frozen=True)
class Windows:
    """Windows around some blocks of a batch.

    Attributes:
        frames: boxes of the normalised last frames, each ``(b, f, z, y, x)``.
        starts: first sample, and first cell ``z, y, x``, of each box.
        blocks: blocks with windows in each box.
        cells: size ``z, y, x`` of a block.
        halo: cells ``z, y, x`` by which a window reaches beyond its block, on each side.
    """

    frames: Sequence[Tensor]
    starts: Sequence[Sequence[int]]
    blocks: Sequence[Places]
    cells: Sequence[int]
    halo: Sequence[int]

    def __len__(self) -> int:
        """The number of windows ``c``."""
        return sum(blocks.number for blocks in self.blocks)

    def weighted_sums(self, weight: Tensor) -> Tensor:
        """Return each window's weighted sums ``(c, e)``, with weights ``(f, window, e)``, in the type of the weights."""
        weight = weight.flatten(0, 1)
        boxes = [
            _Box(frame, start, blocks, self.cells, self.halo)
            for frame, start, blocks in zip(self.frames, self.starts, self.blocks, strict=True)
        ]
        few = len(self) * len(weight) <= KEPT_AT_ONCE
        if few or (torch.is_grad_enabled() and any(frame.requires_grad for frame in self.frames)):
            return weighted_sums(joined([box.windows(box.blocks) for box in boxes]), weight)
        return joined([_CutAgain.apply(weight, box) for box in boxes])


@dataclass(frozen=True)
class _Box:
    """One box of the frames, and the blocks in it; see `Windows`."""

    frame: Tensor
    start: Sequence[int]
    blocks: Places
    cells: Sequence[int]
    halo: Sequence[int]

    def windows(self, blocks: Places) -> Tensor:
        """Return the windows around some of the blocks, ``(c, f window)``."""
        return windows_of(self.frame, self.start, self.cells, self.halo, blocks).flatten(1)

    def few(self, num_values: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield the slice of a few blocks at a time, and the windows around these blocks.

        Args:
            num_values: number of values in a window, of all fields.
        """
        at_once = max(1, KEPT_AT_ONCE // (4 * num_values))
        for first in range(0, self.blocks.number, at_once):
            part = slice(first, first + at_once)
            yield part, self.windows(Places(tuple(along[part] for along in self.blocks.inside), self.blocks.box))


class _CutAgain(torch.autograd.Function):
    """The weighted sums of windows that are not kept, cut from frames that need no gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, box: _Box) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(weight, box.frame)  # the frame as well, so that a change in place is noticed
        ctx.box = box
        sums = weight.new_empty(box.blocks.number, weight.shape[1])
        for part, windows in box.few(len(weight)):
            sums[part] = weighted_sums(windows, weight)
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        weight, _ = ctx.saved_tensors
        total = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, ctx.box.frame.dtype))
        for part, windows in ctx.box.few(len(weight)):
            total.addmm_(windows.to(total.dtype).T, gradient[part].to(total.dtype))
        return total.to(weight.dtype), None
