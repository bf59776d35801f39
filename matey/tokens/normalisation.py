"""Normalises each sample and field by the mean and deviation of its own history.

Sums are taken over each coarsest patch, then over all patches in order, so that the result is the same to the last bit however
fields are cut, and the cut changes no decision. `torch.sum` adds in an order that depends on shape, strides and threads; here
both halves of an axis are added cell by cell, again and again: a tree of additions that depends on its length alone.

Cells that hold no data are NaN. They count as zero in sums, and not at all in the numbers by which sums are divided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from matey.fields import has_gaps, without_gaps
from matey.tokens.patches import Patch, cover, pad

AT_ONCE = 2**20
"""Number of values that are summed at once."""


def folded(values: Tensor, axis: int) -> Tensor:
    """Sum along an axis, which is removed."""
    while (length := values.shape[axis]) > 1:
        half = length // 2
        pairs = values.narrow(axis, 0, half) + values.narrow(axis, half, half)
        values = pairs if length == 2 * half else torch.cat([pairs, values.narrow(axis, 2 * half, 1)], dim=axis)
    return values.squeeze(axis)


def few_fields(fields: Tensor) -> Iterator[Tensor]:
    """Yield a few fields of ``(b, t, f, z, y, x)`` at a time, so that intermediate results stay small."""
    size = fields[:, :, 0].numel()
    yield from fields.split(max(1, AT_ONCE // size), dim=2)


def in_patches(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """View fields ``(b, t, f, z, y, x)`` by the cells of each spatial patch, ``(b, t, f, Z, pz, Y, py, X, px)``.

    Args:
        fields: the fields.
        covered: size ``z, y, x`` that the patches cover; values beyond the fields are zero.
        patch: size of a patch; only its spatial extent counts.
    """
    _, pz, py, px = patch
    return rearrange(pad(fields, covered), "b t f (Z pz) (Y py) (X px) -> b t f Z pz Y py X px", pz=pz, py=py, px=px)


def over_patches(cells: Tensor) -> Tensor:
    """Sum the result of `in_patches` over the frames and the cells of each patch, ``(b, f, Z, Y, X)``."""
    # The outermost axes first: their sums run along the others, and little is left for the innermost.
    for axis in (1, 3, 4, 5):
        cells = folded(cells, axis)
    return cells


def held_in(fields: Tensor) -> Tensor | None:
    """Return 1 for each value of fields and 0 for each NaN; None if there is no NaN."""
    return (~fields.isnan()).to(fields.dtype) if has_gaps(fields) else None


def off_mean(fields: Tensor, covered: Sequence[int], patch: Patch) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the values in each patch, and their squared deviations from its mean, and count them, each ``(b, f, Z, Y, X)``.

    Args:
        fields: the fields ``(b, t, f, z, y, x)``.
        covered: size ``z, y, x`` that the patches cover.
        patch: size of a patch.
    """
    held = held_in(fields)
    cells = in_patches(fields if held is None else without_gaps(fields), covered, patch)
    total, number = over_patches(cells), num_values(fields, held, covered, patch)
    mean = total / number.clamp_min(1)
    off = cells - mean[:, None, :, :, None, :, None, :, None]
    if tuple(covered) != fields.shape[3:] or held is not None:
        off = off * in_patches(torch.ones_like(fields[:1, :1, :1]) if held is None else held, covered, patch)
    return total, over_patches(off.square_()), number.expand_as(total)


def num_values(fields: Tensor, held: Tensor | None, covered: Sequence[int], patch: Patch) -> Tensor:
    """Return the number of values of each field in each patch, ``(b, f, Z, Y, X)``, or ``(1, 1, Z, Y, X)`` if all have one.

    Args:
        fields: the fields ``(b, t, f, z, y, x)``.
        held: the result of `held_in`.
        covered: size ``z, y, x`` that the patches cover.
        patch: size of a patch.
    """
    if held is not None:
        return over_patches(in_patches(held, covered, patch))
    return fields.shape[1] * num_cells(fields.shape[3:], covered, patch, fields)[None, None]


def num_cells(grid: Sequence[int], covered: Sequence[int], patch: Patch, like: Tensor) -> Tensor:
    """Return the number of cells of a grid ``z, y, x`` in each patch, ``(Z, Y, X)`` in the type of ``like``."""
    z, y, x = (
        (size - torch.arange(0, end, cells, device=like.device)).clamp(0, cells).to(like.dtype)
        for size, end, cells in zip(grid, covered, patch[1:], strict=True)
    )
    return z[:, None, None] * y[:, None] * x


# The rounding of a field that is constant in its float32 file must not be amplified to unit variance.
ROUNDING = 1e-6
TINY = 1e-12
# Relative to the deviation: the rounding of a nearly steady field must not be amplified either.
SMALLEST_CHANGE = 1e-3
# Natural logarithms of deviations beyond this show rounding, not physics.
LARGEST_LOG = 16.0


@dataclass(frozen=True)
class Normalisation:
    """Statistics of each sample and field, all ``(b, f)`` and in physical units.

    Attributes:
        mean: mean over time and space.
        std: standard deviation over time and space.
        change: root mean square of the change between the last two frames; the standard deviation if there is one frame only.
    """

    mean: Tensor
    std: Tensor
    change: Tensor

    def apply(self, history: Tensor) -> Tensor:
        """Normalise ``(b, t, f, z, y, x)`` to zero mean and unit variance."""
        return (history - self.mean[:, None, :, None, None, None]) / self.std[:, None, :, None, None, None]

    def scales(self) -> Tensor:
        """Return the scales ``(b, f, 3)`` that normalisation removes from each sample and field; networks take them as inputs.

        These are the inverse hyperbolic sine of the mean over the deviation, and the logarithms of the deviation and of the
        last change over the deviation.
        """
        log = self.std.log().clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.stack([(self.mean / self.std).asinh(), log, (self.change / self.std).log()], dim=-1)

    def of(self, samples: Sequence[int] | Tensor | slice) -> Normalisation:
        """Return the statistics of some of the samples."""
        return Normalisation(self.mean[samples], self.std[samples], self.change[samples])


def normalisation_of(history: Tensor, patch: Patch | None = None) -> Normalisation:
    """Return the statistics of ``(b, t, f, z, y, x)`` over time and space, from sums over patches, by default a single one."""
    patch = patch or (1, *history.shape[3:])
    return normalisation_from(patch_sums(history, patch), history.shape[1], history.shape[3:], patch)


def patch_sums(history: Tensor, patch: Patch) -> Tensor:
    """Return four sums over the frames and the cells of each patch, ``(b, 4, f, Z, Y, X)``.

    They are sums of the values, of the squared deviations from the patch's mean, and of the squared changes between the last
    two frames; and the number of the values.

    Args:
        history: ``(b, t, f, z, y, x)``; the patches begin at its first cell.
        patch: size of a patch; only its spatial extent counts.
    """
    covered = cover((1, *history.shape[3:]), (1, *patch[1:]))[1:]
    found = []
    for values in few_fields(history):
        total, off, number = off_mean(values, covered, patch)
        change = values[:, -1:] - values[:, -2:-1] if len(history[0]) > 1 else torch.zeros_like(values[:, :1])
        change = over_patches(in_patches(without_gaps(change).square_(), covered, patch))
        found.append(torch.stack([total, off, change, number], dim=1))
    return torch.cat(found, dim=2)


def normalisation_from(sums: Tensor, num_frames: int, grid: Sequence[int], patch: Patch) -> Normalisation:
    """Return the statistics from `patch_sums` ``(b, 4, f, Z, Y, X)`` of the whole grid ``z, y, x``."""
    covered = cover((1, *grid), (1, *patch[1:]))[1:]
    total, off, change, in_patch = sums.unbind(1)
    of_all: Tensor | float = num_frames * math.prod(grid)
    if (in_patch != num_frames * num_cells(grid, covered, patch, sums)).any():
        of_all = in_patch.double().sum(dim=(2, 3, 4)).to(sums.dtype)
    mean = folded(total.flatten(2), 2) / of_all
    # From squared deviations around the mean of each patch to those around the overall mean.
    off = off + in_patch * (total / in_patch.clamp_min(1) - mean[..., None, None, None]).square()
    floor = (ROUNDING * mean.abs()).clamp_min(TINY)
    std = torch.maximum((folded(off.flatten(2), 2) / of_all).sqrt(), floor)
    if num_frames == 1:
        return Normalisation(mean, std, std)
    size = (folded(change.flatten(2), 2) / (of_all / num_frames)).sqrt()
    return Normalisation(mean, std, torch.maximum(size, SMALLEST_CHANGE * std))
