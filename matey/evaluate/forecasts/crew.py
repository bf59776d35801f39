"""The ranks that forecast together: each holds some boxes of cells, and the first writes the file.

The ranks send their boxes to the first one after another, so that no rank ever holds a whole field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.data.trajectories import Cells
from matey.model.matey import MateyModel
from matey.model.sequence_group import SequenceGroup
from matey.model.shared_fields import share_of
from matey.samples import Box, Samples
from matey.tokens.parts import BrickShare


@dataclass(frozen=True)
class Crew:
    """The ranks that forecast some trajectories together.

    Attributes:
        group: the sequence group of the model.
        boxes: boxes inside the domain that each rank holds, in the order of the ranks.
        is_in_parts: whether each rank reads only its boxes; otherwise all ranks hold whole fields and the first writes them.
    """

    group: SequenceGroup
    boxes: tuple[tuple[Box, ...], ...]
    is_in_parts: bool

    @classmethod
    def sharing(cls, model: MateyModel, samples: Samples) -> Crew:
        """Return the ranks of a model with the boxes of the samples that each holds."""
        ranks, (_, *grid) = model.sequence_group.ranks, samples.window
        if share_of(model.config, ranks) is None:
            z, y, x = (slice(0, length) for length in grid)
            whole = tuple((sample, (z, y, x)) for sample in range(samples.number))
            return cls(model.sequence_group, (whole, *[()] * (ranks.size - 1)), is_in_parts=False)
        shares = (BrickShare(model.config.patches[0], rank, ranks.size) for rank in range(ranks.size))
        boxes = (tuple((sample, _within(cells, grid)) for sample, cells in share([samples])[0]) for share in shares)
        return cls(model.sequence_group, tuple(boxes), is_in_parts=True)

    @property
    def own(self) -> tuple[Box, ...]:
        """The boxes that this rank holds."""
        return self.boxes[self.group.ranks.place]

    def to_first(self, frames: Sequence[Tensor], leading: Sequence[int]) -> Iterator[tuple[Box, Tensor]]:
        """Yield all boxes and their values on the first rank, and nothing on the others; all ranks must iterate to the end.

        Args:
            frames: values ``(*leading, z, y, x)`` in this rank's boxes, float32 on the host.
            leading: lengths of the axes before those of the grid.
        """
        place = self.group.ranks.place
        yield from zip(self.own, frames, strict=True) if place == 0 else ()
        flat = torch.cat([torch.empty(0), *(values.flatten() for values in frames)])
        for rank, boxes in list(enumerate(self.boxes))[1:]:
            came = self._moved(flat if rank == place else flat[:0], rank, 0, _sizes(boxes, leading))
            if place == 0:
                yield from zip(boxes, _boxed(came, boxes, leading), strict=True)

    def from_first(self, read: Callable[[Box], Tensor], leading: Sequence[int]) -> list[Tensor]:
        """Return values ``(*leading, z, y, x)`` in this rank's boxes, or in all for whole fields; the first rank reads them."""
        boxes_of = self.boxes if self.is_in_parts else [self.boxes[0]] * len(self.boxes)
        place = self.group.ranks.place
        own = [read(box) for box in boxes_of[0]] if place == 0 else []
        for rank, boxes in list(enumerate(boxes_of))[1:]:
            flat = torch.cat([torch.empty(0), *(read(box).flatten() for box in boxes if place == 0)])
            came = self._moved(flat, 0, rank, _sizes(boxes, leading))
            own = _boxed(came, boxes, leading) if rank == place else own
        return own

    def _moved(self, values: Tensor, sender: int, receiver: int, sizes: Sequence[int]) -> Tensor:
        """Move values from one rank to another."""
        ranks, total = self.group.ranks, sum(sizes)
        send = [total if (ranks.place, to) == (sender, receiver) else 0 for to in range(ranks.size)]
        receive = [total if (of, ranks.place) == (sender, receiver) else 0 for of in range(ranks.size)]
        return self.group.exchange.swap(values, send, receive)


def told_by_first(numbers: Tensor, group: SequenceGroup) -> Tensor:
    """Return the first rank's numbers on all ranks; the others give a tensor of the same size."""
    own = numbers if group.ranks.place == 0 else numbers[:0]
    return group.exchange.gather(own, [len(numbers), *[0] * (group.size - 1)])


def _within(cells: Cells, grid: Sequence[int]) -> Cells:
    """Return the part of a box inside the domain."""
    z, y, x = (slice(side.start, min(side.stop, length)) for side, length in zip(cells, grid, strict=True))
    return z, y, x


def _sizes(boxes: Sequence[Box], leading: Sequence[int]) -> list[int]:
    return [math.prod(leading) * math.prod(side.stop - side.start for side in cells) for _, cells in boxes]


def _boxed(flat: Tensor, boxes: Sequence[Box], leading: Sequence[int]) -> list[Tensor]:
    """View flat values as values ``(*leading, z, y, x)`` of some boxes."""
    return [
        values.view(*leading, *(side.stop - side.start for side in cells))
        for values, (_, cells) in zip(flat.split(_sizes(boxes, leading)), boxes, strict=True)
    ]
