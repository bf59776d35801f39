"""Cut fields into patches and put them together again; nothing here knows of tokens or weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

Patch = tuple[int, int, int, int]
"""Size of a patch along ``t, z, y, x``, in frames and cells."""

AXES = ("t", "z", "y", "x")


def patch_grid(shape: Sequence[int], patch: Patch) -> tuple[int, int, int, int]:
    """Return how many patches lie along ``t, z, y, x`` of a window of ``shape`` (t, z, y, x).

    Raises:
        ValueError: an axis is not a multiple of the patch.
    """
    for axis, size, cells in zip(AXES, shape, patch, strict=True):
        if size % cells:
            divisors = [str(d) for d in range(1, size + 1) if size % d == 0]
            what = "the history has" if axis == "t" else "the grid has"
            raise ValueError(
                f"Patch {axis}={cells} does not divide {axis}={size} that {what}; "
                f"sizes that do are {', '.join(divisors)} (tokens.patches in the run YAML)."
            )
    return tuple(size // cells for size, cells in zip(shape, patch, strict=True))


def check_levels(patches: Sequence[Patch]) -> None:
    """Raise ValueError unless each level's patch divides the one before it."""
    for coarse, fine in zip(patches, patches[1:], strict=False):
        if any(c % f for c, f in zip(coarse, fine, strict=True)) or coarse == fine:
            raise ValueError(
                f"Patch {list(fine)} must divide the coarser patch {list(coarse)} on every axis and differ from it; "
                "write tokens.patches as [t, z, y, x] from coarse to fine."
            )


def patchify(fields: Tensor, patch: Patch) -> Tensor:
    """Cut ``(b, t, f, z, y, x)`` into patches ``(b Z Y X T, f, pt, pz, py, px)``: rows by sample, place, then time."""
    pt, pz, py, px = patch
    return rearrange(fields, "b (T pt) f (Z pz) (Y py) (X px) -> (b Z Y X T) f pt pz py px", pt=pt, pz=pz, py=py, px=px)


def unpatchify(patches: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
    """Invert `patchify`: ``(b Z Y X T, f, pt, pz, py, px)`` with ``grid`` (T, Z, Y, X) to ``(b, t, f, z, y, x)``."""
    T, Z, Y, X = grid
    return rearrange(patches, "(b Z Y X T) f pt pz py px -> b (T pt) f (Z pz) (Y py) (X px)", T=T, Z=Z, Y=Y, X=X)


def surroundings(
    frame: Tensor, patch: Sequence[int], cells: Sequence[int], halo: Sequence[int], periodic: Sequence[bool]
) -> Tensor:
    """Cut a window around each block of cells, patch by patch.

    Args:
        frame: ``(b, f, z, y, x)``.
        patch: size ``z, y, x`` of a patch.
        cells: size ``z, y, x`` of the blocks that a patch is cut into.
        halo: how far the window reaches beyond its block on either side of ``z, y, x``. Beyond the domain the field goes on
            from the other side where it is periodic, and with its outermost value elsewhere.
        periodic: along ``z, y, x``.

    Returns:
        ``(b Z Y X, blocks of a patch, f, window)``; rows as those of ``patchify`` with a single frame.
    """
    blocks = [p // c for p, c in zip(patch, cells, strict=True)]
    for axis, (size, reach, wraps) in enumerate(zip(cells, halo, periodic, strict=True), start=2):
        length = frame.shape[axis]
        index = torch.arange(-reach, length + reach, device=frame.device)
        if reach:
            frame = frame.index_select(axis, index % length if wraps else index.clamp(0, length - 1))
        frame = frame.unfold(axis, size + 2 * reach, size)
    pattern = "b f (Z sz) (Y sy) (X sx) wz wy wx -> (b Z Y X) (sz sy sx) f (wz wy wx)"
    return rearrange(frame, pattern, sz=blocks[0], sy=blocks[1], sx=blocks[2])


def factor_stages(patch: Sequence[int], first: int = 4) -> list[tuple[int, ...]]:
    """Split a patch into the factors of a stem's stages, cells first: ``(1, 1, 16, 16)`` to (1, 1, 4, 4), (1, 1, 2, 2), ...

    On each axis the first factor is the largest divisor up to ``first``, the others are primes in ascending order, and an
    axis that runs out of factors goes on with 1. The product of the stages is the patch.
    """
    per_axis = []
    for cells in patch:
        head = max(d for d in range(1, first + 1) if cells % d == 0)
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
