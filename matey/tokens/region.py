"""A box of cells cut out of the domain, continued beyond its ends like the domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from matey.tokens.patches import extend


@dataclass(frozen=True)
class Region:
    """Values in a box of cells of some samples.

    Attributes:
        values: ``(b, ..., z, y, x)``.
        samples: the range of samples that the values belong to.
        start: number ``z, y, x`` of the first cell; on a periodic axis the count goes on beyond the ends.
        wraps: whether the box holds a whole periodic axis, along ``z, y, x``. Other axes are continued with the outermost
            values of the box, which ends with the domain or beyond the cells that are asked for.
    """

    values: Tensor
    samples: slice
    start: tuple[int, ...]
    wraps: tuple[bool, ...]

    @classmethod
    def whole(cls, values: Tensor, periodic: Sequence[bool]) -> Region:
        """Return all samples and cells as a region."""
        return cls(values, slice(0, len(values)), (0, 0, 0), tuple(periodic))

    def around(self, samples: slice, begin: Sequence[int], end: Sequence[int]) -> Tensor:
        """Return the values ``(b, ..., z, y, x)`` of some samples from cell ``begin`` to ``end``, also beyond the domain."""
        values = self.values[samples.start - self.samples.start : samples.stop - self.samples.start]
        return extend(
            values,
            [to - start for to, start in zip(end, self.start, strict=True)],
            self.wraps,
            before=[start - first for first, start in zip(begin, self.start, strict=True)],
        )

    def means(self, factor: Sequence[int]) -> Region:
        """Return the region of means over blocks of ``factor`` cells ``z, y, x``, which may be smaller at the far edge."""
        if all(s == 1 for s in factor):
            return self
        assert not any(start % s for start, s in zip(self.start, factor, strict=True)), f"{self.start} by {factor}"
        window = [min(s, size) for s, size in zip(factor, self.values.shape[-3:], strict=True)]
        of_all = self.values.flatten(0, -4)
        # In float32 at least: PyTorch cannot average bfloat16 on a CPU.
        means = F.avg_pool3d(
            of_all.to(torch.promote_types(of_all.dtype, torch.float32)), window, ceil_mode=True, count_include_pad=False
        ).to(of_all.dtype)
        start = tuple(start // s for start, s in zip(self.start, factor, strict=True))
        return Region(means.unflatten(0, self.values.shape[:-3]), self.samples, start, self.wraps)
