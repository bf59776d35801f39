"""The parts of the fields that a rank's network sees, cut out ahead of the step; nothing else goes to the device.

The parts, and by which part of the network they are seen:

    history  --> normalised --> patches of own tokens                        by the embedding
                     |--------> last frame around own blocks                 by the decoder's windows
                     '--------> last frames and means of them, around        by the local operator
    history, target ----------> tiles with own cells, in physical units      by forecast and loss
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from matey.fields import FieldBatch
from matey.model.configuration import MateyConfig
from matey.model.decoding import block_shapes
from matey.model.given import Given, with_given
from matey.model.ladder import ENDS, Ladder, wide_inputs
from matey.model.local import local_inputs
from matey.tokens.boxes import TilesInBoxes
from matey.tokens.normalisation import Normalisation
from matey.tokens.patches import Patch, Places, extend
from matey.tokens.region import Region
from matey.tokens.tiles import Frames, Tiles


@dataclass(frozen=True)
class Surroundings:
    """The normalised last frames of a batch around the cells that a rank predicts.

    Attributes:
        last: ``(b, f, z, y, x)``, the last frame around each box of own blocks, see `window_box`.
        starts: first sample, and first cell ``z, y, x``, of each of these boxes.
        wide: inputs ``(b, 2, f, z, y, x)`` of each scheme of the local operator, see `matey.model.ladder.wide_inputs`, for each
            box of own tiles.
    """

    last: tuple[Tensor, ...]
    starts: tuple[tuple[int, ...], ...]
    wide: tuple[tuple[Tensor, ...], ...]

    @classmethod
    def from_boxes(
        cls, last: Sequence[tuple[Tensor, tuple[int, ...]]], wide: Sequence[tuple[Tensor, ...]]
    ) -> Surroundings:
        """Combine the results of `last_around` and `wide_around` for each box."""
        return cls(tuple(frame for frame, _ in last), tuple(start for _, start in last), tuple(wide))


@dataclass(frozen=True)
class Seen:
    """The part of one batch's fields that a rank sees.

    Attributes:
        history: ``(k, t, f, z, y, x)``, the normalised history in the region that the coarsest patches cover: on one process
            ``b`` whole samples, else the coarsest patches that hold own tokens.
        around: the last frames around the cells that the rank predicts.
        base: tiles ``(k, f, z, y, x)`` of the last frame in physical units.
        target: tiles ``(k, f, z, y, x)`` of the target in physical units, if there is one.
    """

    history: Tensor
    around: Surroundings
    base: Tensor
    target: Tensor | None


def see(
    batch: FieldBatch,
    normalisation: Normalisation,
    given: Given | None,
    frames: Frames,
    bricks: Tensor | None,
    blocks: Sequence[Sequence[Places]],
    local: TilesInBoxes,
    tiles: Tiles,
    config: MateyConfig,
) -> Seen:
    """Cut the part that a rank sees out of a whole batch.

    Args:
        batch: the fields.
        normalisation: statistics of the samples.
        given: given fields, if there are any that the model knows.
        frames: frames of the batches.
        bricks: ``(k,)``, the coarsest patches of own tokens, numbered along ``b Z Y X``; None: whole samples.
        blocks: places of the blocks that are decoded, for each box and level.
        local: tiles in the boxes of the local operator.
        tiles: tiles that hold own cells.
        config: the configuration of the model.
    """
    normalised = normalisation.apply(batch.history)
    statistics = with_given(normalisation, None if given is None else given.normalisation)
    if given is not None:
        normalised = given.beside(normalised)
    extended = extend(normalised, frames.covered, frames.periodic)
    recent = Region.whole(normalised[:, -2:], frames.periodic)
    return Seen(
        history=extended if bricks is None else bricks_at(extended, config.patches[0], bricks),
        around=Surroundings.from_boxes(
            [last_around(recent, of_box, config) for of_box in blocks],
            wide_around(recent, local.boxes, statistics, config),
        ),
        base=tiles.cut(batch.last),
        target=None if batch.target is None else tiles.cut(batch.target),
    )


def last_around(recent: Region, blocks: Sequence[Places], config: MateyConfig) -> tuple[Tensor, tuple[int, ...]]:
    """Cut the last frame around a box of blocks of all levels out of the last normalised frames ``(b, t, f, z, y, x)``.

    Returns:
        The values ``(b, f, z, y, x)``, and the sample and the cell ``z, y, x`` at which they begin.
    """
    samples, begin, end = window_box(blocks, config)
    return replace(recent, values=recent.values[:, -1]).around(samples, begin, end), (samples.start, *begin)


def wide_around(
    recent: Region, boxes: Sequence[Tiles], normalisation: Normalisation, config: MateyConfig
) -> list[tuple[Tensor, ...]]:
    """Return the inputs of the local operator for each box of tiles, by scheme, from the last normalised frames."""
    if not config.local:
        return [()] * len(boxes)
    change = (normalisation.change / normalisation.std)[recent.samples]
    inputs = replace(recent, values=local_inputs(recent.values, change))
    del recent  # its memory is free from here on unless a caller holds it
    return wide_inputs(inputs, boxes, Ladder.for_config(config))


def window_box(blocks: Sequence[Places], config: MateyConfig) -> tuple[slice, list[int], list[int]]:
    """Return the box around the windows of some blocks of each level: samples, first cell and end along ``z, y, x``.

    The box is empty where there are no blocks.
    """
    boxes = []
    for shape, places in zip(block_shapes(config), blocks, strict=True):
        samples, *sides = places.box
        axes = list(zip(sides, shape.cells[1:], shape.halo, strict=True))
        if places.number:
            begin, end = ([getattr(s, at) * size + sign * reach for s, size, reach in axes] for at, sign in ENDS)
            boxes.append(([samples.start, *begin], [samples.stop, *end]))
    first = [min(along) for along in zip(*(begin for begin, _ in boxes), strict=True)] or [0] * 4
    last = [max(along) for along in zip(*(end for _, end in boxes), strict=True)] or [0] * 4
    return slice(first[0], last[0]), first[1:], last[1:]


def bricks_at(fields: Tensor, patch: Patch, row: Tensor) -> Tensor:
    """Cut patches ``(k, t, f, pz, py, px)`` out of fields ``(b, t, f, z, y, x)``, by their numbers along ``b Z Y X``."""
    _, pz, py, px = patch
    bricks = rearrange(fields, "b t f (Z pz) (Y py) (X px) -> b Z Y X t f pz py px", pz=pz, py=py, px=px)
    return bricks[*torch.unravel_index(row, bricks.shape[:4])]
