"""Decide which patches are worth splitting: those in which the field varies."""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange, repeat
from torch import Tensor

from matey.tokens.patches import Patch


def patch_variance(normalised: Tensor, patch: Patch) -> Tensor:
    """Variance of the values inside each spatial patch, over all frames and its cells, averaged over the fields.

    Args:
        normalised: ``(b, t, f, z, y, x)``, fields of unit variance, so that no unit outweighs another.
        patch: its spatial extent counts; a patch is split for all frames of the window or for none.

    Returns:
        ``(b, Z, Y, X)``.
    """
    _, pz, py, px = patch
    values = rearrange(normalised, "b t f (Z pz) (Y py) (X px) -> b Z Y X f (t pz py px)", pz=pz, py=py, px=px)
    return values.var(dim=-1, correction=0).mean(dim=-1)


def refine_by_threshold(normalised: Tensor, patches: Sequence[Patch], gamma: float) -> list[Tensor]:
    """Split a patch where its variance exceeds ``gamma`` times the largest of the sample at that level.

    Args:
        normalised: ``(b, t, f, z, y, x)``.
        patches: levels from coarse to fine.
        gamma: 0 splits wherever the field varies at all, 1 or more splits nothing.

    Returns:
        For every level but the finest, ``(b, Z, Y, X)`` of bool; a patch whose parent is whole is never split.
    """
    refined: list[Tensor] = []
    for level, patch in enumerate(patches[:-1]):
        variance = patch_variance(normalised, patch)
        split = variance > gamma * variance.amax(dim=(1, 2, 3), keepdim=True)
        if refined:
            split = split & to_children(refined[-1], patches[level - 1], patch)
        refined.append(split)
    return refined


def to_children(parents: Tensor, coarse: Patch, fine: Patch) -> Tensor:
    """Repeat a value per coarse patch ``(b, Z, Y, X)`` for each of its children at the finer level."""
    rz, ry, rx = (c // f for c, f in zip(coarse[1:], fine[1:], strict=True))
    return repeat(parents, "b Z Y X -> b (Z rz) (Y ry) (X rx)", rz=rz, ry=ry, rx=rx)
