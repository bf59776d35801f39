"""The ranks that forecast together: each holds some boxes of cells and writes them, so that none needs to hold a whole field.

Ranks write at the same time, except those whose boxes share a chunk of the file; these write in turn:

      chunks    |   0   |   1   |   2   |   3   |
      ranks      0 0 0 0 0 1 1 1 1 2 2 3 3 3 3 3      0 and 2 write first, since they share no chunk; then 1,
      turns      0 0 0 0 0 1 1 1 1 0 0 2 2 2 2 2      which shares chunks with both; then 3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matey.model.boxes import share_of
from matey.model.forecast import boxes_held
from matey.model.matey import MateyModel
from matey.model.sequence_group import SequenceGroup
from matey.samples import Box, Samples


@dataclass(frozen=True)
class Crew:
    """The ranks that forecast some trajectories together.

    Attributes:
        group: the sequence group of the model.
        boxes: boxes inside the domain that each rank writes, in the order of the ranks.
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
        boxes = boxes_held(samples, model.config, ranks.size)
        return cls(model.sequence_group, tuple(map(tuple, boxes)), is_in_parts=True)

    @property
    def own(self) -> tuple[Box, ...]:
        """The boxes that this rank writes."""
        return self.boxes[self.group.ranks.place]

    @property
    def held(self) -> tuple[Box, ...]:
        """The boxes whose values this rank holds; on all ranks those of whole fields, if these are not in parts."""
        return self.own if self.is_in_parts else self.boxes[0]

    def in_turn(self, layers: int | None) -> Iterator[None]:
        """Yield once, when it is this rank's turn to write, if it has boxes; all ranks must iterate to the end together.

        Args:
            layers: layers that are written together, see `matey.evaluate.forecasts.formats.Format`.
        """
        turns = turns_of(self.boxes, layers)
        for turn in range(max(turns) + 1):
            if turn == turns[self.group.ranks.place] and self.own:
                yield
            told_by_first(torch.zeros(1), self.group)  # all have written


def turns_of(boxes: Sequence[Sequence[Box]], layers: int | None) -> list[int]:
    """Return the turn in which each rank writes its boxes, from 0; ranks with the same turn share no layers.

    Args:
        boxes: the boxes of each rank.
        layers: layers that are written together along the slowest axis of the grid; None: all of the file.
    """
    axis = 0 if any(cells[0].stop > 1 for own in boxes for _, cells in own) else 1
    turns, written = list[int](), list[set[tuple[int, int]]]()  # what is written in each turn
    for own in boxes:
        of_rank = {
            (sample, layer) if layers else (0, 0)
            for sample, cells in own
            for layer in range(cells[axis].start // (layers or 1), -(-cells[axis].stop // (layers or 1)))
        }
        turn = next((turn for turn, before in enumerate(written) if before.isdisjoint(of_rank)), len(written))
        written += [set()] if turn == len(written) else []
        written[turn] |= of_rank
        turns.append(turn)
    return turns


def told_by_first(numbers: Tensor, group: SequenceGroup) -> Tensor:
    """Return the first rank's numbers on all ranks; the others give a tensor of the same size."""
    own = numbers if group.ranks.place == 0 else numbers[:0]
    return group.exchange.gather(own, [len(numbers), *[0] * (group.size - 1)])
