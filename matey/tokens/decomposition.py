"""Divides the cells of a batch among the ranks that share it: each holds the same box of cells of the same samples for the run.

A batch of two samples, six patches by four, on four and on eight ranks:

      0 0 0 0 0 0 | 2 2 2 2 2 2        0 0 0 1 1 1 | 4 4 4 5 5 5
      0 0 0 0 0 0 | 2 2 2 2 2 2        0 0 0 1 1 1 | 4 4 4 5 5 5
      1 1 1 1 1 1 | 3 3 3 3 3 3        2 2 2 3 3 3 | 6 6 6 7 7 7
      1 1 1 1 1 1 | 3 3 3 3 3 3        2 2 2 3 3 3 | 6 6 6 7 7 7

Boxes are of whole coarsest patches. Samples and axes are divided so that the rank with most to do computes the fewest cells,
with those in halos.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from matey.tokens.patches import Patch, patch_grid


@dataclass(frozen=True)
class Frames:
    """The frames of one batch.

    Attributes:
        num_samples: number of samples ``b``.
        window: size ``t, z, y, x`` of the history.
        periodic: whether the domain wraps around along ``z, y, x``.
        covered: size ``z, y, x`` that the coarsest patches cover, at least that of the grid.
    """

    num_samples: int
    window: tuple[int, int, int, int]
    periodic: tuple[bool, bool, bool]
    covered: tuple[int, int, int]

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Whether the covered cells wrap around along ``z, y, x``; a padded axis does not."""
        return tuple(w and s == c for w, s, c in zip(self.periodic, self.window[1:], self.covered, strict=True))

    def grid_of(self, patch: Patch) -> tuple[int, int, int, int]:
        """Return the number of samples, and of patches of a given size along ``z, y, x``."""
        return self.num_samples, *patch_grid((1, *self.covered), (1, *patch[1:]))[1:]


@dataclass(frozen=True)
class Box:
    """The cells of a batch that a rank holds; a rank for which no patches are left holds no samples.

    Attributes:
        samples: the samples.
        cells: the cells along ``z, y, x``, the same of each sample.
    """

    samples: slice
    cells: tuple[slice, slice, slice]


@dataclass(frozen=True)
class Decomposition:
    """The boxes of one batch.

    Attributes:
        frames: the frames of the batch.
        coarsest: the coarsest patch.
        ends: the ends of the parts of the samples, and of the coarsest patches along ``z, y, x``, from 0 on.
    """

    frames: Frames
    coarsest: Patch
    ends: tuple[tuple[int, ...], ...]

    @classmethod
    def among(
        cls, num_ranks: int, frames: Frames, coarsest: Patch, halo: Sequence[int], order: Sequence[int] = (0, 1, 2)
    ) -> Decomposition:
        """Divide a batch among ranks.

        Args:
            num_ranks: number of ranks that share the batch.
            frames: the frames of the batch.
            coarsest: the coarsest patch.
            halo: number of cells along ``z, y, x`` that a rank computes beyond a side of its box inside the domain.
            order: the axes ``z, y, x``, as 0, 1 and 2, from the slowest of the file on. Of equal ways, the slowest axis is
                divided, so that a rank reads from one place.
        """
        sizes = frames.grid_of(coarsest)

        def cost(ways: Sequence[int]) -> int:
            samples, *patches = (-(-size // parts) for size, parts in zip(sizes, ways, strict=True))
            sides = zip(patches, coarsest[1:], halo, ways[1:], strict=True)
            return samples * math.prod(n * cells + 2 * far * (parts > 1) for n, cells, far, parts in sides)

        ways = min(
            _factors(num_ranks), key=lambda ways: (cost(ways), *(-ways[at] for at in (0, *(1 + a for a in order))))
        )
        return cls(frames, coarsest, tuple(_ends(size, parts) for size, parts in zip(sizes, ways, strict=True)))

    @property
    def ways(self) -> tuple[int, ...]:
        """Number of parts of the samples and along ``z, y, x``."""
        return tuple(len(ends) - 1 for ends in self.ends)

    def box(self, rank: int) -> Box:
        """Return the box of a rank."""
        samples, *sides = (
            slice(ends[part], ends[part + 1])
            for ends, part in zip(self.ends, torch.unravel_index(torch.tensor(rank), self.ways), strict=True)
        )
        if any(side.start == side.stop for side in (samples, *sides)):
            samples, sides = slice(0, 0), [slice(0, 1)] * 3
        z, y, x = (
            slice(side.start * cells, min(side.stop * cells, length))
            for side, cells, length in zip(sides, self.coarsest[1:], self.frames.window[1:], strict=True)
        )
        return Box(samples, (z, y, x))

    def rank_of_coarsest(self) -> Tensor:
        """Return the rank that holds each of the coarsest patches, ``(b, Z, Y, X)``."""
        rank = torch.zeros((), dtype=torch.long)
        for ends, parts in zip(self.ends, self.ways, strict=True):
            sizes = torch.tensor(ends).diff()
            rank = rank[..., None] * parts + torch.arange(parts).repeat_interleave(sizes)
        return rank


@dataclass(frozen=True)
class Span:
    """The cells along one axis that a rank looks at to compute those of its box.

    Attributes:
        cells: the cells; the count goes on beyond the ends of a periodic axis.
        inside: whether the domain goes on before and after them, so that a part of them is a halo.
        length: number of cells of the axis.
        wraps: whether the axis is periodic.
    """

    cells: slice
    inside: tuple[bool, bool]
    length: int
    wraps: bool

    @classmethod
    def around(cls, own: slice, length: int, wraps: bool, reach: int) -> Span:
        """Return the span around a side of a box for layers that look ``reach`` cells far.

        Where it would hold a whole periodic axis, it is the axis itself, and it ends at a wall that lies within reach.
        """
        if wraps:
            if own.stop - own.start + 2 * reach >= length:
                return cls(slice(0, length), (False, False), length, wraps)
            return cls(slice(own.start - reach, own.stop + reach), (True, True), length, wraps)
        before, after = own.start > reach, own.stop + reach < length
        cells = slice(own.start - reach if before else 0, own.stop + reach if after else length)
        return cls(cells, (before, after), length, wraps)

    def within(self, lost: int) -> Span:
        """Return the span that is left after layers that look ``lost`` cells far."""
        before, after = self.inside
        return replace(self, cells=slice(self.cells.start + lost * before, self.cells.stop - lost * after))

    def index(self) -> Tensor:
        """Return the number of each of the cells in the domain."""
        found = torch.arange(self.cells.start, self.cells.stop)
        return found % self.length if self.wraps else found


def _ends(size: int, parts: int) -> tuple[int, ...]:
    """Divide a number of patches into parts that differ by at most one."""
    return tuple(size * part // parts for part in range(parts + 1))


def _factors(number: int) -> Iterator[tuple[int, ...]]:
    """Yield all ways to write a number as a product of four factors."""
    divisors = [each for each in range(1, number + 1) if number % each == 0]
    yield from (ways for ways in product(divisors, repeat=4) if math.prod(ways) == number)
