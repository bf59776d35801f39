"""Divides fields that no rank holds whole among ranks, in bricks (the coarsest patches) in the order of their numbers.

Bricks are numbered along ``b Z Y X``, batch after batch, and each rank reads a run of them. A run is a few boxes, for instance

      0 0 0 0 0 0      rank 0 reads a box of two layers and one of half a layer,
      0 0 0 0 0 0      rank 1 one of half a layer and one of two
      0 0 0 1 1 1
      1 1 1 1 1 1
      1 1 1 1 1 1
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from matey.samples import IN_ORDER, Box, Samples
from matey.tokens.patches import Patch, cover, patch_grid

Item = TypeVar("Item")

ROUNDED = 0.05
"""Share by which a rank may read more or less than its part, so that its run ends with a whole layer or row of bricks."""

MOST_AT_CHUNKS = 1.15
"""Largest number of parts that one rank may read, so that no chunk of a file is read by two ranks."""


@dataclass(frozen=True)
class Sharing:
    """The bricks of a micro-batch and the ranks that read them.

    Attributes:
        brick: size ``t, z, y, x`` of the coarsest patch; only its spatial extent counts.
        grids: number of samples and of bricks along ``z, y, x``, for each batch.
        bounds: first brick of each rank's run, and the end of the last one, for each batch.
    """

    brick: Patch
    grids: tuple[tuple[int, int, int, int], ...]
    bounds: tuple[tuple[int, ...], ...]

    @classmethod
    def share_out(cls, samples: Sequence[Samples], brick: Patch, ways: int) -> Sharing:
        """Divide the bricks of a micro-batch among ``ways`` ranks, so that each reads about as many values.

        Runs end where compressed chunks end, if no rank then has more than `MOST_AT_CHUNKS` parts; else with layers or rows.
        """
        grids = []
        for batch in samples:
            covered = cover((brick[0], *batch.window[1:]), brick)  # only the extent in space counts
            grids.append((batch.number, *patch_grid(covered, brick)[1:]))
        weights = [(batch.window[0] + 1) * len(batch.fields) for batch in samples]
        numbers = [math.prod(grid) for grid in grids]
        total = sum(weight * number for weight, number in zip(weights, numbers, strict=True))
        starts, before = [], 0
        for weight, number in zip(weights, numbers, strict=True):
            of_batch = ((rank * total - ways * before) // (ways * weight) for rank in range(ways + 1))
            starts.append([min(max(start, 0), number) for start in of_batch])
            before += weight * number
        rows = [_rows(grid, ways) for grid in grids]
        chunks = [
            _chunks(batch.chunk, brick, grid, plain) for batch, grid, plain in zip(samples, grids, rows, strict=True)
        ]
        bounds = [[_nearest(start, *step) for start in of_batch] for of_batch, step in zip(starts, chunks, strict=True)]
        of_ranks = (
            sum(weight * (end - first) for weight, (first, end) in zip(weights, ends, strict=True))
            for ends in zip(*(pairwise(of_batch) for of_batch in bounds), strict=True)
        )
        if chunks != rows and max(of_ranks) * ways > MOST_AT_CHUNKS * total:
            bounds = [
                [_nearest(start, *step) for start in of_batch] for of_batch, step in zip(starts, rows, strict=True)
            ]
        return cls(brick, tuple(grids), tuple(map(tuple, bounds)))

    def number_of(self, batch: int, rank: int) -> int:
        """Return how many bricks of a batch a rank reads."""
        return self.bounds[batch][rank + 1] - self.bounds[batch][rank]

    def boxes(self, samples: Sequence[Samples], rank: int) -> list[list[Box]]:
        """Return the boxes of each batch that a rank reads, in the order of their bricks."""
        return [
            [
                (sample, _cells(box, batch, self.brick))
                for samples_of_box, *box in _boxes(bounds[rank], bounds[rank + 1], grid)
                for sample in range(samples_of_box.start, samples_of_box.stop)
            ]
            for batch, bounds, grid in zip(samples, self.bounds, self.grids, strict=True)
        ]


def _rows(grid: Sequence[int], ways: int) -> tuple[int, int]:
    """Return the number of bricks in a layer or row, if runs may end with whole ones; and that after which they start again."""
    number, (_, _, rows, places) = math.prod(grid), grid
    return next(n for n in (rows * places, places, 1) if n == 1 or n * ways <= ROUNDED * number), number


def _chunks(chunk: Sequence[int] | None, brick: Patch, grid: Sequence[int], rows: tuple[int, int]) -> tuple[int, int]:
    """Return the number of bricks after which a compressed chunk ends, and that after which chunks start again.

    These are ``rows``, see `_rows`, where bricks, or these rows and layers, hold whole chunks.
    """
    for axis, (cells, size) in enumerate(zip(chunk or (), brick[1:], strict=False), start=1):
        if size % cells:
            inner = math.prod(grid[axis + 1 :])
            step, period = math.lcm(size, cells) // size * inner, grid[axis] * inner
            return rows if rows[0] % step == 0 or rows[0] % period == 0 else (min(step, period), period)
    return rows


def _nearest(place: int, step: int, period: int) -> int:
    """Round to a multiple of a step within a period, or to the period's end."""
    turn, within = divmod(place, period)
    return turn * period + min((within + step // 2) // step * step, period)


@dataclass(frozen=True)
class BrickShare:
    """Says which boxes of a micro-batch one rank reads: those that it holds, see `Sharing`, or others as large.

    A layer of bricks may be scattered over the whole file, as where ``x`` is its slowest axis. Then ranks read layers along
    that axis, and send each other what they hold, see `matey.model.as_held`.

    Attributes:
        brick: the coarsest patch.
        rank: number of the rank among those that share the samples.
        ways: number of ranks that share the samples.
    """

    brick: Patch
    rank: int
    ways: int

    def __call__(self, samples: Sequence[Samples]) -> list[list[Box]]:
        """Return the boxes of each batch, in the order of their bricks."""
        held = Sharing.share_out(samples, self.brick, self.ways).boxes(samples, self.rank)
        return [self._as_stored(batch) if batch.is_scattered else own for batch, own in zip(samples, held, strict=True)]

    def _as_stored(self, batch: Samples) -> list[Box]:
        """Return boxes of a batch whose bricks are numbered in the order of the file's axes."""
        turned, brick = (_permuted(sizes, batch.order) for sizes in (batch.window[1:], self.brick[1:]))
        periodic = _permuted(batch.periodic, batch.order)
        about = replace(batch, window=(batch.window[0], *turned), periodic=periodic, order=IN_ORDER)
        (boxes,) = Sharing.share_out([about], (self.brick[0], *brick), self.ways).boxes([about], self.rank)
        z, y, x = (batch.order.index(axis) for axis in IN_ORDER)
        return [(sample, _permuted(cells, (z, y, x))) for sample, cells in boxes]


def _permuted(items: Sequence[Item], order: Sequence[int]) -> tuple[Item, Item, Item]:
    first, second, third = (items[axis] for axis in order)
    return first, second, third


def boxes_in_turn(samples: Samples, brick: Patch, most: int) -> Iterator[Box]:
    """Yield boxes of at most ``most`` bricks that together hold all bricks of a batch, in the order of their numbers."""
    (grid,) = Sharing.share_out([samples], brick, 1).grids
    for first in range(0, math.prod(grid), most):
        for samples_of_box, *box in _boxes(first, min(first + most, math.prod(grid)), grid):
            for sample in range(samples_of_box.start, samples_of_box.stop):
                yield sample, _cells(box, samples, brick)


def _boxes(first: int, end: int, shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Cut the numbers from ``first`` to ``end`` of a grid into boxes, each of which holds consecutive numbers."""
    if first >= end:
        return
    inner = math.prod(shape[1:])
    start, stop = -(-first // inner), end // inner  # the layers along the first axis that are whole
    if len(shape) == 1 or start < stop:
        if first < start * inner:
            yield from _boxes(first, start * inner, shape)
        yield (slice(start, stop), *(slice(0, size) for size in shape[1:]))
        yield from _boxes(stop * inner, end, shape)
    elif start * inner < end and first < start * inner:  # the end of one layer and the beginning of the next
        yield from _boxes(first, start * inner, shape)
        yield from _boxes(start * inner, end, shape)
    else:
        place = first // inner
        for box in _boxes(first - place * inner, end - place * inner, shape[1:]):
            yield (slice(place, place + 1), *box)


def _cells(box: Sequence[slice], samples: Samples, brick: Patch) -> tuple[slice, slice, slice]:
    z, y, x = (
        slice(side.start * size, side.stop * size if wraps else min(side.stop * size, length))
        for side, size, length, wraps in zip(box, brick[1:], samples.window[1:], samples.periodic, strict=True)
    )
    return z, y, x


@dataclass(frozen=True)
class Around:
    """A box of bricks that holds the cells that a rank predicts and their halos; it may be empty.

    Attributes:
        samples: the first sample that it holds, and the end.
        start: first brick along ``z, y, x``; negative on the other side of a periodic axis.
        size: number of bricks along ``z, y, x``.
        begin: first cell ``z, y, x`` in it that is looked at, counted from the start of the domain.
        end: the cell after the last such one.
    """

    samples: tuple[int, int]
    start: tuple[int, int, int]
    size: tuple[int, int, int]
    begin: tuple[int, int, int]
    end: tuple[int, int, int]

    @classmethod
    def of_cells(
        cls,
        spans: Sequence[tuple[slice, Sequence[int], Sequence[int]]],
        samples: Samples,
        brick: Patch,
        multiples: Sequence[int],
    ) -> Around:
        """Return the box of bricks around some boxes of cells.

        Args:
            spans: samples, first cell and end along ``z, y, x`` of each box, which may be empty; the count of cells goes on
                beyond the ends of the domain.
            samples: the samples of the batch.
            brick: the coarsest patch.
            multiples: numbers of cells along ``z, y, x`` that divide the first cell's number.
        """
        spans = [span for span in spans if span[0].stop > span[0].start]
        if not spans:
            return cls.from_numbers([0] * 14)
        start, size, looked_at = [], [], []
        axes = zip(samples.window[1:], brick[1:], multiples, samples.periodic, strict=True)
        for axis, (length, cells, multiple, wraps) in enumerate(axes):
            step = math.lcm(cells, multiple)
            begins, ends = min(begin[axis] for _, begin, _ in spans), max(end[axis] for *_, end in spans)
            first, last = begins // step * step, -(-ends // step) * step
            covered = -(-length // cells) * cells
            goes_round = wraps and (begins < 0 or ends > length)
            # Steps that do not divide the axis would be at other cells when they are counted on beyond its ends.
            if goes_round and (length % step or last - first >= length):
                first, last, begins, ends = 0, covered, 0, length
            elif not goes_round:
                # Further cells beyond the ends repeat the outermost ones.
                first, last, begins, ends = max(first, 0), min(last, covered), max(begins, 0), min(ends, length)
            start.append(first // cells)
            size.append((last - first) // cells)
            looked_at.append((begins, ends))
        of_samples = min(span[0].start for span in spans), max(span[0].stop for span in spans)
        begin, end = zip(*looked_at, strict=True)
        return cls.from_numbers([*of_samples, *start, *size, *begin, *end])

    def bricks(self, grid: Sequence[int]) -> Tensor:
        """Return the number in a grid ``b Z Y X`` of each brick of the box, ``(b, Z, Y, X)``."""
        number = torch.arange(*self.samples)
        for start, size, length in zip(self.start, self.size, grid[1:], strict=True):
            number = number[..., None] * length + torch.arange(start, start + size) % length
        return number

    def cells_of(self, brick: Patch) -> Tensor:
        """Return the cells in each brick that are looked at, ``(b, Z, Y, X, 3, 2)``: first cell ``z, y, x``, and end."""
        found = torch.empty(self.samples[1] - self.samples[0], *self.size, 3, 2, dtype=torch.long)
        sides = zip(self.begin, self.end, self.start, self.size, brick[1:], strict=True)
        for axis, (begin, end, start, size, cells) in enumerate(sides):
            first = torch.arange(start, start + size) * cells
            ends = torch.stack([begin - first, end - first], dim=1).clamp_(0, cells)
            found[..., axis, :] = ends.view(*(size if at == axis else 1 for at in range(3)), 2)
        return found

    def numbers(self) -> list[int]:
        """Return the box as fourteen integers, see `from_numbers`."""
        return [*self.samples, *self.start, *self.size, *self.begin, *self.end]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> Around:
        """Return the box that `numbers` describe."""
        of_samples, *of_axes = numbers[:2], numbers[2:5], numbers[5:8], numbers[8:11], numbers[11:]
        start, size, begin, end = ((z, y, x) for z, y, x in of_axes)
        return cls((of_samples[0], of_samples[1]), start, size, begin, end)
