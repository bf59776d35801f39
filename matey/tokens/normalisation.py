"""Normalise each sample and field over its own history, and undo it on the prediction.

Sums are taken of each coarsest patch, and then of all patches in their order: whoever takes them, the result is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.tokens.patches import Patch, cover
from matey.tokens.sums import few_fields, folded, in_patches, num_cells, off_mean, over_patches

# A field that is constant up to the rounding of its float32 file must not have that rounding blown up to unit variance.
ROUNDING = 1e-6
TINY = 1e-12
# Of the deviation: a field that all but rests must not have its rounding blown up either.
SMALLEST_CHANGE = 1e-3
# Natural logarithms of deviations beyond this tell of rounding, not of physics.
LARGEST_LOG = 16.0


@dataclass(frozen=True)
class Normalisation:
    """Statistics of each sample and field, all ``(b, f)`` and in physical units.

    Attributes:
        mean: mean over time and space.
        std: standard deviation over time and space.
        change: root mean square of the change between the last two frames; of a single frame, which shows none, the
            standard deviation.
    """

    mean: Tensor
    std: Tensor
    change: Tensor

    def apply(self, history: Tensor) -> Tensor:
        """Normalise ``(b, t, f, z, y, x)`` to zero mean and unit variance."""
        return (history - self.mean[:, None, :, None, None, None]) / self.std[:, None, :, None, None, None]

    def apply_(self, history: Tensor) -> Tensor:
        """Do as `apply` does, to the same last bit, in the memory of the history."""
        return history.sub_(self.mean[:, None, :, None, None, None]).div_(self.std[:, None, :, None, None, None])

    def scales(self) -> Tensor:
        """Return the scales ``(b, f, 3)`` that it takes out of each sample and field, of which networks are told.

        The mean over the deviation (inverse hyperbolic sine), the deviation, and the last change over it (logarithms).
        """
        log = self.std.log().clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.stack([(self.mean / self.std).asinh(), log, (self.change / self.std).log()], dim=-1)

    def of(self, samples: Sequence[int] | Tensor | slice) -> Normalisation:
        """Return the statistics of some samples."""
        return Normalisation(self.mean[samples], self.std[samples], self.change[samples])


def normalisation_of(history: Tensor, patch: Patch | None = None) -> Normalisation:
    """Take the statistics of ``(b, t, f, z, y, x)`` over time and space, from sums over patches; by default all is one."""
    patch = patch or (1, *history.shape[3:])
    return normalisation_from(patch_sums(history, patch), history.shape[1], history.shape[3:], patch)


def patch_sums(history: Tensor, patch: Patch) -> Tensor:
    """Return three sums over the frames and the cells of each patch, ``(b, 3, f, Z, Y, X)``.

    The values, the squares of what they are off the patch's mean, and the squares of the change between the last two frames.

    Args:
        history: ``(b, t, f, z, y, x)``; the patches begin at its first cell.
        patch: the patch, of which only the spatial extent counts.
    """
    covered = cover((1, *history.shape[3:]), (1, *patch[1:]))[1:]
    found = []
    for values in few_fields(history):
        cells = in_patches(values, covered, patch)
        total = over_patches(cells)
        change = cells[:, -1:] - cells[:, -2:-1] if len(history[0]) > 1 else torch.zeros_like(cells[:, :1])
        off = off_mean(cells, total, values, covered, patch)
        found.append(torch.stack([total, off, over_patches(change.square_())], dim=1))
    return torch.cat(found, dim=2)


def normalisation_from(sums: Tensor, num_frames: int, grid: Sequence[int], patch: Patch) -> Normalisation:
    """Return the statistics from `patch_sums` ``(b, 3, f, Z, Y, X)`` of the whole grid ``z, y, x``."""
    covered = cover((1, *grid), (1, *patch[1:]))[1:]
    in_patch = num_frames * num_cells(grid, covered, patch, sums)
    total, off, change = sums.unbind(1)
    of_all = num_frames * math.prod(grid)
    mean = folded(total.flatten(2), 2) / of_all
    # Squares around the mean of all, from those around the means of the patches.
    off = off + in_patch * (total / in_patch - mean[..., None, None, None]).square()
    floor = (ROUNDING * mean.abs()).clamp_min(TINY)
    std = torch.maximum((folded(off.flatten(2), 2) / of_all).sqrt(), floor)
    if num_frames == 1:
        return Normalisation(mean, std, std)
    size = (folded(change.flatten(2), 2) / math.prod(grid)).sqrt()
    return Normalisation(mean, std, torch.maximum(size, SMALLEST_CHANGE * std))
