"""Cuts fields into patches and puts them together again, without regard to tokens or weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Patch = tuple[int, int, int, int]
"""Size of a patch along ``t, z, y, x``, in frames and cells."""

AXES = ("t", "z", "y", "x")


def long_axes(patches: Sequence[Patch]) -> list[int]:
    """Return those of the axes z, y, x (1, 2, 3) along which a patch has more than one cell."""
    return [axis for axis in (1, 2, 3) if any(patch[axis] > 1 for patch in patches)]


def cover(window: Sequence[int], patch: Patch) -> tuple[int, int, int, int]:
    """Return the smallest multiple ``t, z, y, x`` of a patch that holds a window; only in space may it be larger.

    Raises:
        ValueError: the number of frames is not a multiple of the patch; there is no padding in time.
    """
    if window[0] % patch[0]:
        divisors = [str(d) for d in range(1, window[0] + 1) if window[0] % d == 0]
        raise ValueError(
            f"Patch t={patch[0]} does not divide the t={window[0]} frames of the history; sizes that do are "
            f"{', '.join(divisors)} (tokens.patches in the run YAML)."
        )
    t, z, y, x = (-(-size // cells) * cells for size, cells in zip(window, patch, strict=True))
    return t, z, y, x


def patch_grid(covered: Sequence[int], patch: Patch) -> tuple[int, int, int, int]:
    """Return the number of patches along ``t, z, y, x`` that cover ``covered`` frames and cells."""
    assert not any(size % cells for size, cells in zip(covered, patch, strict=True)), f"{covered} by {patch}"
    t, z, y, x = (size // cells for size, cells in zip(covered, patch, strict=True))
    return t, z, y, x


def parts_along(coarse: Sequence[int], fine: Sequence[int]) -> tuple[int, int, int]:
    """Return how many fine patches lie along ``z, y, x`` of a coarse one."""
    z, y, x = (size // part for size, part in zip(coarse[1:], fine[1:], strict=True))
    return z, y, x


def extend(fields: Tensor, cells: Sequence[int], periodic: Sequence[bool], before: Sequence[int] = (0, 0, 0)) -> Tensor:
    """Extend fields ``(..., z, y, x)`` to ``cells`` cells from their origin on, and by ``before`` cells ahead of it.

    A periodic axis continues with its other side, any other with its outermost value.
    """
    for axis, (size, ahead, wraps) in enumerate(zip(cells, before, periodic, strict=True), start=fields.ndim - 3):
        if size != fields.shape[axis] or ahead:
            # Concatenating slices is several times as fast as indexing, and its gradient is the same on every run.
            pieces = _turns(fields, axis, -ahead, size) if wraps else _held(fields, axis, -ahead, size)
            fields = torch.cat(pieces, dim=axis)
    return fields


def _turns(fields: Tensor, axis: int, begin: int, end: int) -> list[Tensor]:
    """Return the pieces from ``begin`` to ``end`` of a periodic axis."""
    length = fields.shape[axis]
    turns = range(begin // length * length, max(end, begin + 1), length)
    spans = [(max(begin - turn, 0), min(end - turn, length)) for turn in turns]
    return [fields.narrow(axis, first, last - first) for first, last in spans]


def _held(fields: Tensor, axis: int, begin: int, end: int) -> list[Tensor]:
    """Return the pieces from ``begin`` to ``end`` of an axis that continues with its outermost values."""
    length, sizes = fields.shape[axis], list(fields.shape)
    first, last = (min(max(place, 0), length) for place in (begin, end))
    pieces = [fields.narrow(axis, first, last - first)]
    sizes[axis] = max(-begin, 0)
    pieces.insert(0, fields.narrow(axis, 0, 1).expand(sizes))
    sizes[axis] = max(end - max(begin, length), 0)
    pieces.append(fields.narrow(axis, length - 1, 1).expand(sizes))
    return pieces


def pad(fields: Tensor, cells: Sequence[int]) -> Tensor:
    """Pad fields ``(..., z, y, x)`` with zeros to ``cells`` along each axis."""
    beyond = [size - length for size, length in zip(cells, fields.shape[-3:], strict=True)]
    return F.pad(fields, (0, beyond[2], 0, beyond[1], 0, beyond[0])) if any(beyond) else fields


def holds_cells(grid: Sequence[int], covered: Sequence[int], patch: Patch, device: torch.device | str | None) -> Tensor:
    """Return the mask ``(Z, Y, X)`` of the patches that hold a cell of a grid ``z, y, x``, and not only padding."""
    along = [
        torch.arange(0, size, cells, device=device) < length
        for size, cells, length in zip(covered[1:], patch[1:], grid, strict=True)
    ]
    return along[0][:, None, None] & along[1][:, None] & along[2]


def padding_note(grid: Sequence[int], patch: Patch) -> str:
    """Return a clause on the padding of a grid ``z, y, x`` that a patch does not divide; empty if it needs none."""
    covered = cover((patch[0], *grid), patch)[1:]
    if covered == tuple(grid):
        return ""
    came, becomes, size = ("x".join(map(str, cells)) for cells in (grid, covered, patch[1:]))
    return (
        f"grid {came} (z y x) is padded to {becomes} at its far edge for patches of {size}, and predictions are cropped"
    )


def patchify(fields: Tensor, patch: Patch) -> Tensor:
    """Cut ``(b, t, f, z, y, x)`` into patches ``(b Z Y X T, f, pt, pz, py, px)``: rows by sample, place, then time."""
    pt, pz, py, px = patch
    return rearrange(fields, "b (T pt) f (Z pz) (Y py) (X px) -> (b Z Y X T) f pt pz py px", pt=pt, pz=pz, py=py, px=px)


def patches_at(fields: Tensor, patch: Patch, row: Tensor) -> Tensor:
    """Return some rows ``(m,)`` of `patchify`, ``(m, f, pt, pz, py, px)``, without cutting out the others."""
    pt, pz, py, px = patch
    pattern = "b (T pt) f (Z pz) (Y py) (X px) -> b Z Y X T f pt pz py px"
    patches = rearrange(fields, pattern, pt=pt, pz=pz, py=py, px=px)
    return patches[*unravelled(row, patches.shape[:5])]


def unravelled(number: Tensor, shape: Sequence[int | Tensor]) -> list[Tensor]:
    """Return the positions, each ``(m,)``, of numbered cells of a grid, whose shape may differ from number to number.

    `torch.unravel_index` would make a tensor of the shape, and the host would wait for the GPU.
    """
    places: list[Tensor] = []
    for size in reversed(shape[1:]):
        places.insert(0, number % size)
        number = number // size
    return [number, *places]


def unpatchify(patches: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
    """Invert `patchify`: ``(b Z Y X T, f, pt, pz, py, px)`` with ``grid`` (T, Z, Y, X) to ``(b, t, f, z, y, x)``."""
    T, Z, Y, X = grid
    return rearrange(patches, "(b Z Y X T) f pt pz py px -> b (T pt) f (Z pz) (Y py) (X px)", T=T, Z=Z, Y=Y, X=X)


def factor_stages(patch: Sequence[int]) -> list[tuple[int, ...]]:
    """Split a patch into the factors of a stem's stages, cells first: ``(1, 1, 16, 16)`` to (1, 1, 4, 4), (1, 1, 2, 2), ...

    On each axis the first factor is the largest divisor up to 4, the others are primes in ascending order, and an
    axis that runs out of factors goes on with 1. The product of the stages is the patch.
    """
    per_axis = []
    for cells in patch:
        head = max(d for d in range(1, 5) if cells % d == 0)
        per_axis.append([head, *_primes(cells // head)])
    num_stages = max(len(factors) for factors in per_axis)
    padded = [factors + [1] * (num_stages - len(factors)) for factors in per_axis]
    stages = list(zip(*padded, strict=True))
    assert math.prod(math.prod(stage) for stage in stages) == math.prod(patch)
    return stages


def _primes(number: int) -> list[int]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors
