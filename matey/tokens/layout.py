"""The place of every token of a micro-batch, stored as a few integers, from which its other properties are computed on demand.

Token sets: in ``mix`` the tokens are the leaves of the refinement, in ``mul`` a split patch keeps its tokens beside those of
its children. In ``mul`` the coarsest tokens of a sample are one family, the children of each split patch another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from matey.tokens.patches import Patch, cover, holds_cells, parts_along, patch_grid, unravelled
from matey.tokens.refinement import to_children


@dataclass(frozen=True)
class Kinds:
    """Values shared by the tokens of one batch and level; the ``k`` kinds are ordered by batch, then by level, coarse to fine.

    Attributes:
        batch: ``(k,)`` index of the `FieldBatch` in the micro-batch.
        level: ``(k,)`` level of refinement, 0 is the coarsest.
        first_sample: ``(k,)`` index of the batch's first sample in the whole micro-batch.
        of_sample: ``(k,)`` number of patches of a sample.
        grid: ``(k, 4)`` number of patches along ``t, z, y, x``.
        stride: ``(k, 4)`` number of rows from a patch to the next one along ``t, z, y, x``.
        in_band: ``(k, 4)`` number of patches along ``t, z, y, x`` in a patch of the grid of `TokenLayout.band`.
        in_family: ``(k, 4)`` number of patches along ``t, z, y, x`` of a family.
        to_family: ``(k, 4)`` difference in number from a family to the next one along ``t, z, y, x``.
        first_family: ``(k,)`` number of the first family.
        extent: ``(k, 4)`` size t, z, y, x of a patch in the unit domain.
    """

    batch: Tensor
    level: Tensor
    first_sample: Tensor
    of_sample: Tensor
    grid: Tensor
    stride: Tensor
    in_band: Tensor
    in_family: Tensor
    to_family: Tensor
    first_family: Tensor
    extent: Tensor


@dataclass(frozen=True)
class TokenLayout:
    """The packed tokens of a micro-batch by sample, then by place (a parent's children together), then by time.

    A parent that is kept comes right before its children, so that a run of tokens lies in a run of the coarsest patches, and
    has its share of each level. Seven bytes a token are kept.

    Attributes:
        kinds: the kinds of tokens.
        kind: ``(n,)`` int16, kind of each token.
        row: ``(n,)`` int32, row of the token's patch in ``patchify(history, patches[level])`` of its batch; int64 if needed.
        is_leaf: ``(n,)`` whether the token's patch is not split.
    """

    kinds: Kinds
    kind: Tensor
    row: Tensor
    is_leaf: Tensor

    @property
    def num_tokens(self) -> int:
        """Number of tokens ``n``."""
        return self.row.shape[0]

    @property
    def batch(self) -> Tensor:
        """Index of the `FieldBatch` in the micro-batch, ``(n,)``."""
        return self._of_kinds(self.kinds.batch)

    @property
    def level(self) -> Tensor:
        """Level of refinement, 0 is the coarsest, ``(n,)``."""
        return self._of_kinds(self.kinds.level)

    @property
    def sample(self) -> Tensor:
        """Index of the sample in the whole micro-batch, ``(n,)``."""
        return self._of_kinds(self.kinds.first_sample) + self.row // self._of_kinds(self.kinds.of_sample)

    @property
    def position(self) -> Tensor:
        """Position t, z, y, x in the patch grid of the token's level, ``(n, 4)``."""
        return self.row[:, None] // self._of_kinds(self.kinds.stride) % self._of_kinds(self.kinds.grid)

    @property
    def place(self) -> Tensor:
        """Position z, y, x in the patch grid of the token's level, ``(n, 3)``."""
        return self.position[:, 1:]

    @property
    def time(self) -> Tensor:
        """Position in time, in patches of the token's level, ``(n,)``."""
        return self.row % self._of_kinds(self.kinds.grid[:, 0])

    @property
    def family(self) -> Tensor:
        """Number of the token's family within its sample, ``(n,)``; 0 for the coarsest tokens, and for all in ``mix``."""
        number = self.position // self._of_kinds(self.kinds.in_family) * self._of_kinds(self.kinds.to_family)
        return self._of_kinds(self.kinds.first_family) + number.sum(dim=1)

    @property
    def band(self) -> Tensor:
        """Position t, z, y, x, ``(n, 4)``, on the grid that defines the times and lines of the token's family.

        This is the grid of the coarsest patches, or of the token's own level where parents are kept.
        """
        return self.position // self._of_kinds(self.kinds.in_band)

    @property
    def is_last(self) -> Tensor:
        """Whether the token holds the last frame, and so carries the prediction, ``(n,)``."""
        return self.time == self._of_kinds(self.kinds.grid[:, 0]) - 1

    @property
    def centre(self) -> Tensor:
        """Centre t, z, y, x in the unit domain, ``(n, 4)``."""
        return (self.position + 0.5) * self.extent

    @property
    def extent(self) -> Tensor:
        """Size t, z, y, x in the unit domain, ``(n, 4)``."""
        return self._of_kinds(self.kinds.extent)

    def select(self, index: Tensor | slice) -> TokenLayout:
        """Return the layout of some of the tokens, in the order of ``index``."""
        return replace(self, kind=self.kind[index], row=self.row[index], is_leaf=self.is_leaf[index])

    def _of_kinds(self, column: Tensor) -> Tensor:
        return column.index_select(0, self.kind.int())


def layout_tokens(
    shapes: Sequence[tuple[int, ...]],
    refined: Sequence[Sequence[Tensor]],
    patches: Sequence[Patch],
    device: torch.device | str | None = None,
    *,
    keep_parents: bool = False,
) -> TokenLayout:
    """Lay out every sample's refinement as one packed list; patches without a cell of the grid have no tokens.

    Args:
        shapes: shape ``(b, t, z, y, x)`` of the fields of each batch.
        refined: masks ``(b, Z, Y, X)`` of the patches that are split, one per batch and level; the finest level has
            none.
        patches: levels from coarse to fine.
        device: the device of the layout's tensors; it must be that of ``refined``.
        keep_parents: whether a patch that is split keeps its tokens.

    Raises:
        ValueError: a patch does not divide the number of frames.
    """
    parts = []
    for (num_samples, *window), splits in zip(shapes, refined, strict=True):
        cut = _Cut(num_samples, tuple(window), tuple(patches), keep_parents)
        parts.append(cut.layout(splits, device))
    return joined(parts, [shape[0] for shape in shapes])


@dataclass(frozen=True)
class _Cut:
    """Samples of one window ``t, z, y, x``, and the patches into which they are cut."""

    num_samples: int
    window: tuple[int, ...]
    patches: tuple[Patch, ...]
    keep_parents: bool

    @property
    def grids(self) -> list[tuple[int, int, int, int]]:
        """Number of patches along ``t, z, y, x`` at each level."""
        covered = cover(self.window, self.patches[0])
        return [patch_grid(covered, patch) for patch in self.patches]

    def kinds(self, device: torch.device | str | None) -> Kinds:
        """Return the kinds of the tokens of a single batch."""
        grids, nothing = self.grids, [0] * len(self.patches)
        ratios = [[c // p for c, p in zip(self.patches[0], patch, strict=True)] for patch in self.patches]
        first, families, steps = list(nothing), grids, [(0, 0, 0, 0)] * len(grids)
        if self.keep_parents:  # the parents of all levels are numbered from 1
            of_level = [math.prod(grid[1:]) for grid in grids]
            first = [1 + sum(of_level[: level - 1]) if level else 0 for level in range(len(grids))]
            families = [
                grids[0],
                *(
                    (t, *parts_along(coarse, fine))
                    for coarse, fine, (t, *_) in zip(self.patches[:-1], self.patches[1:], grids[1:], strict=True)
                ),
            ]
            steps[1:] = [(0, grid[2] * grid[3], grid[3], 1) for grid in grids[:-1]]
            ratios = [[1] * 4 for _ in grids]
        columns: list[Sequence[object]] = [
            nothing,
            list(range(len(grids))),
            nothing,
            [math.prod(grid) for grid in grids],
            grids,
            [(1, y * x * t, x * t, t) for t, _, y, x in grids],
            ratios,
            families,
            steps,
            first,
        ]
        extents = [[cells / size for cells, size in zip(patch, self.window, strict=True)] for patch in self.patches]
        tensors = [torch.tensor(column, device=device) for column in (*columns, extents)]
        return Kinds(**dict(zip((column.name for column in fields(Kinds)), tensors, strict=True)))

    def layout(self, splits: Sequence[Tensor], device: torch.device | str | None) -> TokenLayout:
        """Lay out the tokens of the samples."""
        covered, grids = cover(self.window, self.patches[0]), self.grids
        exists = torch.ones((self.num_samples, *grids[0][1:]), dtype=torch.bool, device=device)
        kinds, rows, leaves, keys = [], [], [], []
        for level, patch in enumerate(self.patches):
            exists = exists & holds_cells(self.window[1:], covered, patch, device)
            split = splits[level] & exists if level < len(splits) else torch.zeros_like(exists)
            row = (exists if self.keep_parents else exists & ~split).flatten().nonzero(as_tuple=True)[0]
            keys.append(self._tree_key(row, level))
            rows.append(row)
            leaves.append(~split.flatten()[row])
            kinds.append(torch.full_like(row, level, dtype=torch.int16))
            if level < len(splits):
                exists = to_children(split, patch, self.patches[level + 1])
        # Patches come level by level; sorting their keys puts them in the order of a depth-first walk through the tree, parents
        # before their first child, which has the same key.
        order = torch.argsort(torch.cat(keys), stable=True)
        kind, row, is_leaf = (torch.cat(column)[order] for column in (kinds, rows, leaves))
        return self._in_time(kind, row, is_leaf, self.kinds(device))

    def _in_time(self, kind: Tensor, row: Tensor, is_leaf: Tensor, kinds: Kinds) -> TokenLayout:
        """Repeat patches ``(m,)``, numbered in space alone, over time."""
        times = kinds.grid[kind.int(), 0]
        first = times.cumsum(0) - times
        most = max(self.num_samples * math.prod(grid) for grid in self.grids)
        kind, row, is_leaf, first = (
            each.repeat_interleave(times) for each in (kind, row * times, is_leaf, row * times - first)
        )
        row = first + torch.arange(len(row), device=row.device)
        return TokenLayout(kinds, kind, row.to(torch.int32 if most < 2**31 else torch.int64), is_leaf)

    def _tree_key(self, row: Tensor, level: int) -> Tensor:
        """Return keys that sort patches ``(m,)`` by sample, coarsest ancestor, then number among siblings from coarse to fine.

        A patch has the number of its first child.
        """
        sample, *places = unravelled(row, (self.num_samples, *self.grids[level][1:]))
        key, radix = sample, self.grids[0][1:]
        for depth, patch in enumerate(self.patches):
            number = torch.zeros_like(key)
            if depth <= level:
                own_patch = self.patches[level][1:]
                for p, cells, own, size in zip(places, patch[1:], own_patch, radix, strict=True):
                    number = number * size + (p // (cells // own)) % size
            key = key * math.prod(radix) + number
            if depth + 1 < len(self.patches):
                radix = parts_along(patch, self.patches[depth + 1])
        return key


def joined(parts: Sequence[TokenLayout], num_samples: Sequence[int]) -> TokenLayout:
    """Return the joint layout of batches, one after the other, from the layout and the number of samples of each."""
    kinds, first_sample, first_kind, shifted = [], 0, 0, []
    for number, (part, samples) in enumerate(zip(parts, num_samples, strict=True)):
        own = part.kinds
        kinds.append(replace(own, batch=own.batch + number, first_sample=own.first_sample + first_sample))
        shifted.append(part.kind + first_kind)
        first_sample, first_kind = first_sample + samples, first_kind + len(own.batch)
    columns = {field.name: torch.cat([getattr(part, field.name) for part in kinds]) for field in fields(Kinds)}
    row, is_leaf = (torch.cat([getattr(part, name) for part in parts]) for name in ("row", "is_leaf"))
    return TokenLayout(Kinds(**columns), torch.cat(shifted), row, is_leaf)


def stacked(parts: Sequence[TokenLayout]) -> TokenLayout:
    """Return the layout of a batch from the layouts of its samples, all of one window."""
    of_sample = parts[0].kinds.of_sample
    rows = [part.row + number * of_sample[part.kind.int()].to(part.row.dtype) for number, part in enumerate(parts)]
    kind, is_leaf = (torch.cat([getattr(part, name) for part in parts]) for name in ("kind", "is_leaf"))
    return TokenLayout(parts[0].kinds, kind, torch.cat(rows), is_leaf)
