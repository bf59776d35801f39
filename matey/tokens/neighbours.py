"""Which tokens lie around each token on an adaptive mesh, found once per micro-batch, by integers.

A place beside a token is as large as the token's own patch. What stands there is one node of the tree of patches:

      +-------+-------+      around A, to its right, lies a patch that is split: the mean of b, c, d and e stands for it;
      |       | b | c |      around b, to its left, lies A, which is coarser; below A is a wall: A itself stands there;
      |   A   |---+---|      beside c, where the domain is periodic, stands A.
      |       | d | e |
      +-------+-------+

So a finer neighbour counts by its area, as ghost cells do in adaptive mesh refinement. On a uniform mesh these are the
neighbours of a convolution that repeats the outermost values at walls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor

from matey.tokens.decomposition import Frames
from matey.tokens.layout import TokenLayout
from matey.tokens.patches import Patch, long_axes, patch_grid


@dataclass(frozen=True)
class Neighbours:
    """The nodes around every token: the tokens, then the means of the patches that are split and have no token.

    Attributes:
        children: nodes ``(m, k)`` whose mean each further node is, for runs of nodes from fine to coarse; a run's nodes follow
            those of the run before it.
        index: ``(n, s)``, the node at each of the ``s`` places around each token, see `places_around`.
    """

    children: tuple[Tensor, ...]
    index: Tensor

    def nodes(self, values: Tensor) -> Tensor:
        """Return the values of all nodes ``(m, ...)`` from those of the tokens ``(n, ...)``."""
        for of_run in self.children:
            values = torch.cat([values, values[of_run].mean(dim=1)])
        return values

    def around(self, values: Tensor) -> Tensor:
        """Return the values around each token ``(n, s, e)`` from those of the tokens ``(n, e)``."""
        # A lookup adds up its gradient in a fixed order; the order in an index's gradient depends on the timing of threads.
        return torch.nn.functional.embedding(self.index, self.nodes(values))

    def seen_by(self, own: Tensor) -> tuple[Neighbours, Tensor]:
        """Return the neighbours of some ``(m,)`` of all tokens, and the ``k`` tokens, ascending, from whose values they come.

        The result's nodes begin with these ``k`` tokens.
        """
        index = self.index[own]
        starts = [len(self.index)]
        for of_run in self.children:
            starts.append(starts[-1] + len(of_run))
        nodes, runs = index.unique(), list[tuple[Tensor, Tensor]]()
        for first, end, of_run in reversed(list(zip(starts, starts[1:], self.children, strict=False))):
            split = nodes[(nodes >= first) & (nodes < end)]
            runs.insert(0, (split, of_run[split - first]))
            nodes = torch.cat([nodes, runs[0][1].flatten()]).unique()
        tokens = nodes[nodes < starts[0]]
        number = torch.empty(starts[-1], dtype=torch.long, device=index.device)
        kept = torch.cat([tokens, *(split for split, _ in runs)])
        number[kept] = torch.arange(len(kept), device=index.device)
        return Neighbours(tuple(number[of_run] for split, of_run in runs if len(split)), number[index]), tokens

    def renumbered(self, order: Tensor, place: Tensor) -> Neighbours:
        """Return the neighbours of tokens that lie in another order.

        Args:
            order: ``(n,)``, the earlier place of the token at each place.
            place: ``(n,)``, the place of the token from each earlier place.
        """

        def now(node: Tensor) -> Tensor:
            return torch.where(node < len(place), place[node.clamp_max(len(place) - 1)], node)

        return Neighbours(tuple(map(now, self.children)), now(self.index)[order])


def places_around(patches: Sequence[Patch]) -> list[tuple[int, int, int]]:
    """Return the steps ``z, y, x`` from a patch to those around it and to itself; none along axes of patches of one cell."""
    along = long_axes(patches)
    z, y, x = ((-1, 0, 1) if axis in along else (0,) for axis in (1, 2, 3))
    return list(product(z, y, x))


def neighbours_of(layout: TokenLayout, frames: Sequence[Frames], patches: Sequence[Patch]) -> Neighbours:
    """Find the nodes around all tokens of a micro-batch."""
    steps, num_nodes = places_around(patches), layout.num_tokens
    index = torch.empty(num_nodes, len(steps), dtype=torch.long, device=layout.row.device)
    trees = []
    batch, level = layout.batch, layout.level
    for number, of_batch in enumerate(frames):
        own = [((batch == number) & (level == each)).nonzero(as_tuple=True)[0] for each in range(len(patches))]
        trees.append((own, _Tree.grown(own, [layout.row[of_level] for of_level in own], of_batch, patches)))
    children: list[list[Tensor]] = [[] for _ in patches[1:]]
    for at in reversed(range(len(patches) - 1)):  # from fine to coarse, so that a mean's children stand before it
        for _, tree in trees:
            num_nodes += tree.number_split(at, num_nodes)
    for own, tree in trees:
        tree.fill()
        for at, of_level in enumerate(children):
            of_level.append(tree.children_of_split(at))
        for at, tokens in enumerate(own):
            index[tokens] = tree.around(at, layout.row[tokens].long(), steps)
    runs = [torch.cat(of_level) for of_level in reversed(children)]
    return Neighbours(tuple(run for run in runs if len(run)), index)


class _Tree:
    """The patches of one batch: for each level the node ``(b, Z, Y, X, T)`` of each patch.

    A patch that is not of the mesh has the node of the coarser one that holds it.
    """

    def __init__(self, node: list[Tensor], is_split: list[Tensor], frames: Frames, patches: Sequence[Patch]) -> None:
        self.node, self.is_split, self.frames, self.patches = node, is_split, frames, patches

    @classmethod
    def grown(cls, tokens: Sequence[Tensor], rows: Sequence[Tensor], frames: Frames, patches: Sequence[Patch]) -> _Tree:
        """Return the tree of a batch from the numbers of the tokens of each level, and their rows, see `TokenLayout.row`."""
        covered, node = (frames.window[0], *frames.covered), []
        for of_level, row, patch in zip(tokens, rows, patches, strict=True):
            t, z, y, x = patch_grid(covered, patch)
            grid = torch.full((frames.num_samples * z * y * x * t,), -1, device=row.device)
            node.append(grid.index_copy(0, row.long(), of_level).view(frames.num_samples, z, y, x, t))
        is_split = [torch.zeros_like(of_level, dtype=torch.bool) for of_level in node]
        exists = node[-1] >= 0
        for at in reversed(range(len(patches) - 1)):
            exists = _in_parents(exists, _ratio(patches[at], patches[at + 1])).any(dim=-1)
            is_split[at] = exists & (node[at] < 0)  # a split patch whose token is kept is its own node
            exists = exists | (node[at] >= 0)
        return cls(node, is_split, frames, patches)

    def number_split(self, level: int, first: int) -> int:
        """Number the split patches of a level from ``first`` on, and return how many there are."""
        split = self.is_split[level]
        number = int(split.sum())
        self.node[level][split] = torch.arange(first, first + number, device=split.device)
        return number

    def fill(self) -> None:
        """Give patches that are not of the mesh the node of the coarser one that holds them."""
        for at, (coarse, fine) in enumerate(pairwise(self.patches), start=1):
            ratio = _ratio(coarse, fine)
            held = self.node[at - 1]
            for axis, count in enumerate(ratio, start=1):
                held = held.repeat_interleave(count, dim=axis)
            self.node[at] = torch.where(self.node[at] < 0, held, self.node[at])

    def children_of_split(self, level: int) -> Tensor:
        """Return the nodes ``(m, k)`` of the children of the split patches of a level; those beyond the grid repeat others."""
        finer = self.node[level + 1]
        for axis, size in enumerate(self.held(level + 1), start=1):
            places = torch.arange(finer.shape[axis], device=finer.device).clamp_max(size - 1)
            finer = finer.index_select(axis, places)
        return _in_parents(finer, _ratio(self.patches[level], self.patches[level + 1]))[self.is_split[level]]

    def around(self, level: int, row: Tensor, steps: Sequence[tuple[int, int, int]]) -> Tensor:
        """Return the nodes ``(m, s)`` around some patches of a level, by their rows ``(m,)``."""
        sample, *place, time = torch.unravel_index(row, self.node[level].shape)
        found = []
        for step in steps:
            there = []
            for at, by, size, wraps in zip(place, step, self.held(level), self.frames.wraps, strict=True):
                there.append((at + by) % size if wraps else (at + by).clamp(0, size - 1))
            found.append(self.node[level][sample, *there, time])
        return torch.stack(found, dim=1)

    def held(self, level: int) -> list[int]:
        """Return how many patches of a level along ``z, y, x`` hold cells of the grid."""
        return [-(-size // cells) for size, cells in zip(self.frames.window[1:], self.patches[level][1:], strict=True)]


def _ratio(coarse: Patch, fine: Patch) -> tuple[int, int, int, int]:
    t, z, y, x = (size // part for size, part in zip(coarse, fine, strict=True))
    return z, y, x, t


def _in_parents(finer: Tensor, ratio: Sequence[int]) -> Tensor:
    """Bring values of patches ``(b, Z, Y, X, T)`` together by the coarser patch that holds them, ``(b, Z, Y, X, T, k)``."""
    for axis, count in enumerate(ratio):
        finer = finer.unflatten(1 + axis, (-1, count)).movedim(2 + axis, -1)
    return finer.flatten(5)
