"""The criteria that decide which patches are split: one number per patch, from the cells of that patch alone.

    variance             of the values, over frames and cells                                        (the paper's)
    last_change          mean square of the change between the last two frames
    gradient             mean square of the differences of neighbouring cells
    second_difference    mean square of a cell's difference from the mean of its two neighbours: the detail of an interpolating
                         wavelet
    random               pseudo-random: the control that any other criterion has to beat

No criterion looks beyond its patch, so none needs a halo, and the ends of the domain do not matter. When a field moves by
whole patches along a periodic axis, the split patches move with it (except for ``random``). Cells beyond the grid, and those
without data (NaN), do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matey.fields import without_gaps
from matey.tokens.normalisation import few_fields, folded, held_in, in_patches, num_values, off_mean, over_patches
from matey.tokens.patches import Patch, holds_cells

LOCAL_CRITERIA = ("variance", "last_change", "gradient", "second_difference")
"""Names of the criteria whose value for a patch depends on that patch alone, to the last bit."""

AXES_IN_PATCH = (4, 6, 8)
"""Axes of the cells of a patch in ``b t f Z pz Y py X px``."""
SHADES = 64
"""Steps per standard deviation to which means are rounded before they are hashed to a random number. The last bit of a sum,
which depends on the order of its terms, then does not matter."""


def patch_variance(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Variance of the values inside each spatial patch, over all frames and its cells, averaged over the fields.

    Args:
        fields: ``(b, t, f, z, y, x)``, the values whose variance is taken.
        covered: size ``t, z, y, x`` of the frames and cells covered by patches; cells beyond the fields do not count.
        patch: size of a patch; only its spatial extent counts, since a patch is split for all frames of the window or none.

    Returns:
        ``(b, Z, Y, X)``, the variance of each patch.
    """
    found = [off_mean(values, covered[1:], patch)[1] for values in few_fields(fields)]
    return folded(torch.cat(found, dim=1), 1) / _num_values(fields, covered, patch)


def last_change(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Mean square of the change between the last two frames, see `patch_variance`."""
    return patch_mean((fields[:, -1:] - fields[:, -2:-1]).square(), covered, patch)


def gradient(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Mean square of the differences of neighbouring cells of a patch, summed over the axes, see `patch_variance`."""
    return _mean_square_difference(fields, covered, patch, order=1)


def second_difference(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Mean square of ``u - (u_before + u_after) / 2`` in a patch, summed over the axes, see `patch_variance`.

    It is the detail of the interpolating wavelet of second order by which adaptive solvers refine (Harten, 1995).
    """
    return _mean_square_difference(fields, covered, patch, order=2) / 4


def random(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Pseudo-random numbers in [0, 1) for each sample and patch, see `patch_variance`.

    They are a function of the sample's values and the patch's place, so that all ranks have the same numbers, and a resumed
    run those of an uninterrupted one.
    """
    return drawn(patch_mean(fields, covered, patch), fields.shape[3:], covered, patch)


def drawn(means: Tensor, grid: Sequence[int], covered: Sequence[int], patch: Patch) -> Tensor:
    """Return the numbers of `random` ``(b, Z, Y, X)`` from the means of all patches over a grid ``z, y, x``.

    Minus infinity stands for a patch without data, and keeps its place.
    """
    empty = means.isneginf()
    means = means.masked_fill(empty, 0)
    shades = (means * SHADES).round().long().flatten(1)
    place = torch.arange(shades.shape[1], device=means.device)
    of_sample = mixed(shades * len(place) + place).sum(dim=1, keepdim=True)
    numbers = mixed(of_sample + mixed(place + math.prod(patch[1:]))) & (2**24 - 1)  # float32 holds 24 bits exactly
    real = torch.promote_types(means.dtype, torch.float32)  # bfloat16 would round many of them to the same number
    found = (numbers.to(real) / 2**24).view_as(means) * holds_cells(grid, covered, patch, means.device)
    return found.masked_fill(empty, -math.inf)


def patch_mean(values: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Mean of values ``(b, t, f, z, y, x)`` over the frames, the fields and the cells of each patch, ``(b, Z, Y, X)``.

    See `patch_variance` for the other arguments.
    """
    total = over_patches(in_patches(without_gaps(values), covered[1:], patch))
    return folded(total, 1) / _num_values(values, covered, patch)


def _num_values(fields: Tensor, covered: Sequence[int], patch: Patch) -> Tensor:
    """Return the number of values of fields ``(b, t, f, z, y, x)`` in each patch, ``(b or 1, Z, Y, X)``, but at least 1."""
    number = num_values(fields, held_in(fields), covered[1:], patch)
    return folded(number.expand(-1, fields.shape[2], -1, -1, -1), 1).clamp_min(1)


def _mean_square_difference(fields: Tensor, covered: Sequence[int], patch: Patch, order: int) -> Tensor:
    """Average the squared differences of an order between cells of a patch, and sum over the axes, ``(b, Z, Y, X)``."""
    held = held_in(fields)
    inside = torch.ones_like(fields[:1, :1, :1]) if held is None else held
    cells, inside = (in_patches(each, covered[1:], patch) for each in (fields, inside))
    total = fields.new_zeros(())
    for axis in AXES_IN_PATCH:
        if cells.shape[axis] <= order:
            continue
        # Padding comes last along every axis: a difference counts if its last cell is inside the grid.
        counts, squares = (
            inside.narrow(axis, order, inside.shape[axis] - order),
            cells.diff(n=order, dim=axis).square_(),
        )
        if held is None:
            number = over_patches(counts)[:, 0] * fields.shape[1] * fields.shape[2]
        else:
            counts, squares = counts * ~squares.isnan(), without_gaps(squares)
            number = folded(over_patches(counts), 1)
        total = total + folded(over_patches(squares * counts), 1) / number.clamp_min(1)
    return total.expand(len(fields), *cells.shape[3:8:2])


GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: the increment from one state of SplitMix64 to the next."""


def mixed(numbers: Tensor) -> Tensor:
    """Mix all 64 bits of int64 as in the last step of SplitMix64 (Steele, Lea and Flood, 2014)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ shifted_right(numbers, shift)) * (factor - 2**64)
    return numbers ^ shifted_right(numbers, 31)


def shifted_right(numbers: Tensor, bits: int) -> Tensor:
    """Shift int64 to the right and fill with zeros from the left."""
    shifted: Tensor = (numbers >> bits) & (2 ** (64 - bits) - 1)
    return shifted
