"""The scales that the local operator works on, and the boxes that each of its schemes must see to predict a box of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from matey.model.configuration import MateyConfig
from matey.tokens.patches import Patch
from matey.tokens.region import Region
from matey.tokens.tiles import Tiles

ENDS = (("start", -1), ("stop", 1))
"""The ends of a slice, and the direction in which a halo lies beyond each."""


@dataclass(frozen=True)
class Ladder:
    """The scales of the schemes, and the boxes in which each must predict.

    Attributes:
        halo: halo of each scheme's window along ``z, y, x``.
        factors: number of cells along ``z, y, x`` in the means of each scheme.
        cascade: whether each scheme is told the result of the next coarser one.
        layers: number of layers of products after each scheme's window, which make the schemes a network; empty: no network.
    """

    halo: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]
    cascade: bool
    layers: tuple[int, ...] = ()

    @classmethod
    def for_patches(
        cls, patches: Sequence[Patch], scales: Sequence[int], *, cascade: bool, layers: Sequence[int] = ()
    ) -> Ladder:
        """Return the ladder of a network with these patches; its windows extend along the axes that patches extend along."""
        along = [any(patch[axis] > 1 for patch in patches) for axis in (1, 2, 3)]
        # In three dimensions a window five cells wide would hold 125 cells.
        halo = tuple((1 if along[0] else 2) if goes else 0 for goes in along)
        factors = tuple(tuple(scale if goes else 1 for goes in along) for scale in scales)
        return cls(halo, factors, cascade, tuple(layers))

    @classmethod
    def for_config(cls, config: MateyConfig) -> Ladder:
        """Return the ladder of a network; it has no scales where there is no local operator."""
        scales = config.local_scales if config.local else ()
        layers = config.local_layers if config.local else ()
        return cls.for_patches(config.patches, scales, cascade=config.local_cascade, layers=layers)

    @property
    def step(self) -> tuple[int, ...]:
        """Number of cells by which a layer's window reaches along ``z, y, x``."""
        return tuple(min(reach, 1) for reach in self.halo)

    def beyond(self, number: int) -> list[int]:
        """Return how far a scheme's layers reach beyond its prediction, along ``z, y, x``, without its window on the inputs."""
        # The last stage has a window on its features as well.
        layers = self.layers[number] + (number == 0) if self.layers else 0
        return [layers * reach for reach in self.step]

    def reach(self, number: int) -> list[int]:
        """Return how far a scheme sees beyond its prediction, along ``z, y, x``."""
        return [reach + far for reach, far in zip(self.halo, self.beyond(number), strict=True)]

    def predicted(self, cells: Sequence[slice]) -> list[list[slice]]:
        """Return the box of means ``z, y, x`` that each scheme must predict to give a box of cells."""
        found: list[list[slice]] = []
        wanted, fine = list(cells), (1,) * len(cells)
        for number, factor in enumerate(self.factors):
            found.append([_taken(*along) for along in zip(wanted, fine, factor, strict=True)])
            if self.cascade:
                wanted, fine = self.told(number, found[-1]), factor
        return found

    def told(self, number: int, predicted: Sequence[slice]) -> list[slice]:
        """Return the box of means for which a scheme is told the result of the one before it."""
        # A network adds that result to its features; other schemes see the result through their windows.
        return _around(predicted, self.beyond(number) if self.layers else self.halo)

    def seen(self, number: int, predicted: Sequence[slice]) -> list[slice]:
        """Return the box of means that a scheme sees."""
        return _around(predicted, self.reach(number))

    def boxes(self, tiles: Tiles) -> list[tuple[slice, list[int], list[int]]]:
        """Return the box that each scheme sees to predict some tiles: samples, first mean ``z, y, x``, and its end."""
        samples, *cells = box_of(tiles)
        seen = [self.seen(number, predicted) for number, predicted in enumerate(self.predicted(cells))]
        return [(samples, [side.start for side in sides], [side.stop for side in sides]) for sides in seen]


def wide_inputs(inputs: Region, boxes: Sequence[Tiles], ladder: Ladder) -> list[tuple[Tensor, ...]]:
    """Return the means that each scheme sees to predict some tiles, box by box.

    Args:
        inputs: inputs ``(b, 2, f, z, y, x)`` of a batch, whole or around the tiles, see `matey.model.local.local_inputs`.
        boxes: tiles of the batch to predict, in one or more boxes; a box may be empty.
        ladder: the scales.
    """
    of_boxes, of_scales = [ladder.boxes(tiles) for tiles in boxes], []
    for number, factor in enumerate(ladder.factors):
        means = inputs.means(factor)
        of_scales.append([means.around(*of_box[number]) for of_box in of_boxes])
    return list(zip(*of_scales, strict=True))


def box_of(tiles: Tiles) -> list[slice]:
    """Return the box around some tiles, or a cell where there are none.

    A rank without cells predicts one cell and drops it: ZeRO waits for a gradient of every weight, which is zero then.
    """
    lengths = (tiles.frames.num_samples, *tiles.frames.window[1:])
    return [_not_empty(side, length) for side, length in zip(tiles.box, lengths, strict=True)]


def _not_empty(side: slice, length: int) -> slice:
    start = min(side.start, length - 1)
    return slice(start, max(side.stop, start + 1))


def _around(sides: Sequence[slice], reach: Sequence[int]) -> list[slice]:
    return [slice(side.start - far, side.stop + far) for side, far in zip(sides, reach, strict=True)]


def _taken(side: slice, fine: int, coarse: int) -> slice:
    """Return the means of ``coarse`` cells that linear interpolation to those of ``fine`` cells takes, along one axis."""
    if fine == coarse:
        return side
    first, last = (((2 * at + 1) * fine - coarse) // (2 * coarse) for at in (side.start, side.stop - 1))
    return slice(first, last + 2)
