"""The scales that the local operator works on, and what each of its schemes has to see so that a box of cells can be had."""

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
    """The scales of the schemes, and where each has to predict.

    Attributes:
        halo: halo of each scheme's window along ``z, y, x``.
        factors: cells along ``z, y, x`` that each scheme takes the mean of.
        cascade: whether each scheme is told what the next one finds.
        layers: layers of products after the window of each scheme, which are then the stages of a network; empty: they are not.
    """

    halo: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]
    cascade: bool
    layers: tuple[int, ...] = ()

    @classmethod
    def for_patches(
        cls, patches: Sequence[Patch], scales: Sequence[int], *, cascade: bool, layers: Sequence[int] = ()
    ) -> Ladder:
        """Return the ladder of a network with these patches, along the axes of which its windows extend."""
        along = [any(patch[axis] > 1 for patch in patches) for axis in (1, 2, 3)]
        # In space a window of five cells would be 125 of them.
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
        """The cells by which windows of a layer reach along ``z, y, x``."""
        return tuple(min(reach, 1) for reach in self.halo)

    def beyond(self, number: int) -> list[int]:
        """Return how far the layers of a scheme reach beyond what it predicts, along ``z, y, x``; their windows not counted."""
        # The last one has a window on its features as well.
        layers = self.layers[number] + (number == 0) if self.layers else 0
        return [layers * reach for reach in self.step]

    def reach(self, number: int) -> list[int]:
        """Return how far a scheme sees beyond what it predicts, along ``z, y, x``."""
        return [reach + far for reach, far in zip(self.halo, self.beyond(number), strict=True)]

    def predicted(self, cells: Sequence[slice]) -> list[list[slice]]:
        """Return the means ``z, y, x`` that each scheme predicts so that a box of cells can be had."""
        found: list[list[slice]] = []
        wanted, fine = list(cells), (1,) * len(cells)
        for number, factor in enumerate(self.factors):
            found.append([_taken(*along) for along in zip(wanted, fine, factor, strict=True)])
            if self.cascade:
                wanted, fine = self.told(number, found[-1]), factor
        return found

    def told(self, number: int, predicted: Sequence[slice]) -> list[slice]:
        """Return the means about which a scheme is told what the one before it finds."""
        # A network adds it to what its windows find; other schemes look at it through their windows.
        return _around(predicted, self.beyond(number) if self.layers else self.halo)

    def seen(self, number: int, predicted: Sequence[slice]) -> list[slice]:
        """Return the means that a scheme looks at."""
        return _around(predicted, self.reach(number))

    def boxes(self, tiles: Tiles) -> list[tuple[slice, list[int], list[int]]]:
        """Return what each scheme takes to predict some tiles: samples, first mean ``z, y, x``, and the one after the last."""
        samples, *cells = box_of(tiles)
        seen = [self.seen(number, predicted) for number, predicted in enumerate(self.predicted(cells))]
        return [(samples, [side.start for side in sides], [side.stop for side in sides]) for sides in seen]


def wide_inputs(inputs: Region, boxes: Sequence[Tiles], ladder: Ladder) -> list[tuple[Tensor, ...]]:
    """Return the means that each scheme takes to predict some tiles and, where it has to, around them, box by box.

    Args:
        inputs: the inputs ``(b, 2, f, z, y, x)`` of a batch, see `matey.model.local.local_inputs`, all of them or around the
            tiles.
        boxes: tiles of the batch to predict, in one or more boxes; there may be none in one.
        ladder: the scales.
    """
    of_boxes, of_scales = [ladder.boxes(tiles) for tiles in boxes], []
    for number, factor in enumerate(ladder.factors):
        means = inputs.means(factor)
        of_scales.append([means.around(*of_box[number]) for of_box in of_boxes])
    return list(zip(*of_scales, strict=True))


def box_of(tiles: Tiles) -> list[slice]:
    """Return the box around some tiles, or a cell where there are none.

    A rank without cells predicts one and drops it: it has a gradient of zero for every weight, which ZeRO waits for.
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
