"""What a module returns for several groups of samples, as one tensor.

ZeRO 3 gathers a module's weights again for each tensor that it returned, and fetches those of the next modules in the order it
has seen before. Ranks may have different numbers of groups, and from one step to the next: so that they all gather the same in
the same order, every module is called once for all groups and returns one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def packed(groups: Sequence[Tensor]) -> Tensor:
    """Return the values of all groups, one after the other."""
    return torch.cat([values.flatten() for values in groups]) if len(groups) > 1 else groups[0].flatten()


def unpacked(values: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the groups, by their shapes."""
    parts = values.split([math.prod(shape) for shape in shapes])
    return [part.view(*shape) for part, shape in zip(parts, shapes, strict=True)]
