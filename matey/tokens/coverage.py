"""Which cells of the predicted frame some tokens stand for, and which tokens decode those cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, cover, extend, patch_grid
from matey.tokens.refinement import to_children


@dataclass(frozen=True)
class Frames:
    """The frames of one group of samples.

    Attributes:
        num_samples: ``b``.
        window: ``t, z, y, x`` of the history.
        periodic: whether the domain wraps around along ``z, y, x``.
    """

    num_samples: int
    window: tuple[int, int, int, int]
    periodic: tuple[bool, bool, bool]


def cells_of(layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch]) -> list[Tensor]:
    """Return per group the cells ``(b, 1, z, y, x)`` that lie in leaves among the tokens ``own``."""
    finest = patches[-1][1:]
    masks = []
    for covered_patches, group in zip(_finest_patches(layout, own, frames, patches), frames, strict=True):
        for axis, size in enumerate(finest, start=1):
            covered_patches = covered_patches.repeat_interleave(size, dim=axis)
        _, z, y, x = group.window
        masks.append(covered_patches[:, None, :z, :y, :x])
    return masks


def tokens_to_decode(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch], reach: Sequence[int]
) -> Tensor:
    """Return the numbers, ascending, of the tokens of the last frame that bear on the cells of the leaves among ``own``.

    Args:
        layout: of all tokens.
        own: tokens of one rank.
        frames: of every group.
        patches: levels from coarse to fine.
        reach: cells ``z, y, x`` that a decoded patch reaches into its neighbours.
    """
    wanted = torch.zeros_like(layout.is_last)
    for number, (mask, group) in enumerate(zip(_finest_patches(layout, own, frames, patches), frames, strict=True)):
        mask = _dilated(mask, group, patches, reach)
        for level, patch in enumerate(patches):
            rz, ry, rx = (c // f for c, f in zip(patch[1:], patches[-1][1:], strict=True))
            there = reduce(mask.float(), "b (Z rz) (Y ry) (X rx) -> (b Z Y X)", "max", rz=rz, ry=ry, rx=rx).bool()
            index = _last_of(layout, number, level)
            wanted[index] = there[_place(layout, index, group, patch)]
    return wanted.nonzero(as_tuple=True)[0]


def _finest_patches(
    layout: TokenLayout, own: slice, frames: Sequence[Frames], patches: Sequence[Patch]
) -> list[Tensor]:
    """Return per group ``(b, Z, Y, X)`` of bool on the grid of the finest patches: those in leaves among ``own``."""
    is_own = torch.zeros_like(layout.is_leaf)
    is_own[own] = layout.is_leaf[own]
    masks = []
    for number, group in enumerate(frames):
        covered = cover(group.window, patches[0])
        mask = torch.zeros((), dtype=torch.bool, device=is_own.device)
        for level, patch in enumerate(patches):
            _, Z, Y, X = patch_grid(covered, patch)
            at_level = torch.zeros(group.num_samples * Z * Y * X, dtype=torch.bool, device=is_own.device)
            index = _last_of(layout, number, level)
            at_level[_place(layout, index[is_own[index]], group, patch)] = True
            mask = mask | to_children(at_level.view(group.num_samples, Z, Y, X), patch, patches[-1])
        masks.append(mask)
    return masks


def _last_of(layout: TokenLayout, group: int, level: int) -> Tensor:
    return (layout.is_last & (layout.level == level) & (layout.group == group)).nonzero(as_tuple=True)[0]


def _place(layout: TokenLayout, index: Tensor, group: Frames, patch: Patch) -> Tensor:
    """Return the row of each token's patch among those of a single frame."""
    return layout.row[index] // (group.window[0] // patch[0])


def _dilated(mask: Tensor, group: Frames, patches: Sequence[Patch], reach: Sequence[int]) -> Tensor:
    """Grow a mask ``(b, Z, Y, X)`` of finest patches by the patches that reach into it."""
    radius = [-(-cells // size) for cells, size in zip(reach, patches[-1][1:], strict=True)]
    if not any(radius):
        return mask
    covered = cover(group.window, patches[0])
    wraps = [w and size == c for w, size, c in zip(group.periodic, group.window[1:], covered[1:], strict=True)]
    around = extend(mask.float(), [s + r for s, r in zip(mask.shape[1:], radius, strict=True)], wraps, before=radius)
    return F.max_pool3d(around[:, None], [2 * r + 1 for r in radius], stride=1)[:, 0].bool()
