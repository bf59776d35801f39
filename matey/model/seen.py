"""What a rank's network sees of the fields: cut out ahead of the step; nothing else goes to the device.

What is seen:

    history  --> normalised --> patches of own tokens                        by the embedding
                     |--------> last frame around own blocks                 by the decoder's windows
                     '--------> last frames and means of them, around        by the local operator
    history, target ----------> tiles with own cells, in physical units      by forecast and loss
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from matey.fields import FieldBatch
from matey.model.configuration import MateyConfig
from matey.model.decoding import block_shapes
from matey.model.given import Given
from matey.model.local import ENDS, Ladder, local_inputs, wide_inputs
from matey.tokens.normalisation import Normalisation
from matey.tokens.patches import Patch, Places, extend
from matey.tokens.region import Region
from matey.tokens.tiles import Frames, Tiles


@dataclass(frozen=True)
class Surroundings:
    """The last frames of a batch around what a rank predicts, normalised.

    Attributes:
        last: ``(b, f, z, y, x)``, the last frame in the box around own blocks, see `window_box`.
        start: sample, and cell ``z, y, x``, at which that box begins.
        wide: inputs ``(b, 2, f, z, y, x)`` of each scheme of the local operator, see `matey.model.local.wide_inputs`.
    """

    last: Tensor
    start: tuple[int, ...]
    wide: tuple[Tensor, ...]


@dataclass(frozen=True)
class Seen:
    """What a rank sees of the fields of one batch.

    Attributes:
        history: ``(k, t, f, z, y, x)``, the normalised history in what the coarsest patches cover: of the ``b`` samples on one
            process, else of the coarsest patches that hold own tokens.
        around: the last frames around what it predicts.
        base: tiles ``(k, f, z, y, x)`` of the last frame in physical units.
        target: tiles of the target likewise, if there is one.
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
    blocks: Sequence[Places],
    tiles: Tiles,
    config: MateyConfig,
) -> Seen:
    """Cut out of a whole batch what a rank sees of it.

    Args:
        batch: the fields.
        normalisation: their statistics.
        given: given fields, if there are any that the model knows.
        frames: their frames.
        bricks: ``(k,)``, the coarsest patches of own tokens, numbered along ``b Z Y X``; None where all samples are.
        blocks: places of the blocks of each level that are decoded.
        tiles: tiles that hold own cells.
        config: the configuration of the model.
    """
    normalised, statistics = normalisation.apply(batch.history), normalisation
    if given is not None:
        normalised, statistics = given.beside(normalised), given.statistics_beside(normalisation)
    extended = extend(normalised, frames.covered, frames.periodic)
    return Seen(
        history=extended if bricks is None else bricks_at(extended, config.patches[0], bricks),
        around=surroundings_in(Region.whole(normalised[:, -2:], frames.periodic), statistics, blocks, tiles, config),
        base=tiles.cut(batch.last),
        target=None if batch.target is None else tiles.cut(batch.target),
    )


def surroundings_in(
    recent: Region, normalisation: Normalisation, blocks: Sequence[Places], tiles: Tiles, config: MateyConfig
) -> Surroundings:
    """Cut them out of the last normalised frames ``(b, t, f, z, y, x)``."""
    samples, begin, end = window_box(blocks, config)
    frame = Region(recent.values[:, -1], recent.samples, recent.start, recent.wraps)
    wide: tuple[Tensor, ...] = ()
    if config.local:
        change = (normalisation.change / normalisation.std)[recent.samples]
        inputs = Region(local_inputs(recent.values, change), recent.samples, recent.start, recent.wraps)
        wide = wide_inputs(inputs, tiles, Ladder.of_config(config))
    return Surroundings(frame.around(samples, begin, end), (samples.start, *begin), wide)


def window_box(blocks: Sequence[Places], config: MateyConfig) -> tuple[slice, list[int], list[int]]:
    """Return the box around the windows of some blocks of each level: samples, first cell and end along ``z, y, x``.

    It is empty where there are no blocks.
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
