"""The local operator: beside the tokens, a learnt numerical scheme on the cells and on coarser and coarser means of them.

A token of width 96 cannot carry a rough 8 x 8 patch and its time derivative, and what it cannot carry it cannot predict. What
happens within a few cells is what a solver's scheme computes from a stencil, so it is learnt as one (`matey.model.stencil`).
What travels further within a lead time, as a wave or with the flow, the same kind of scheme finds on the means of 2, 4 or 8
cells along each axis, as on the grids of a multigrid solver; together these cost a third of the finest. For every scale:

    cells of this rank and a halo --> means of s x s cells --> scheme --> linear interpolation to the cells --> added up

In a cascade the schemes follow each other instead, from the coarsest to the finest. Each sees what the one before it predicts,
interpolated to its own means and as far as its window reaches, and predicts what is to be added to that:

    means, halo 6 --> scheme --> change, halo 4 --> scheme, which sees means as well --> change, halo 2 --> ... --> change

Two on the cells, one after the other, are a scheme of two stages, as solvers have against the errors of one: near fronts, the
second corrects the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from matey.model.configuration import MateyConfig
from matey.model.given import Rows
from matey.model.module_list import ModuleList
from matey.model.one_tensor import unpacked
from matey.model.stencil import Scheme
from matey.tokens.boxes import TilesInBoxes
from matey.tokens.patches import Patch
from matey.tokens.region import Region
from matey.tokens.tiles import Tiles


class LocalOperator(nn.Module):
    """Predict the change of every cell from those around it.

    It holds the schemes, and is no module that is called: it returns a tensor for each batch, see `matey.model.one_tensor`.

    Args:
        patches: patch sizes of all levels; the windows extend along the axes that patches extend along.
        num_fields: rows of the vocabulary.
        width: width of a sample's conditions.
        channels: products per cell.
        scales: cells along each axis that a scheme takes the mean of, for each scheme.
        cascade: whether each scheme sees what the one after it in ``scales`` predicts.
    """

    def __init__(
        self,
        patches: Sequence[Patch],
        num_fields: int,
        width: int,
        channels: int,
        scales: Sequence[int] = (1,),
        *,
        cascade: bool = False,
    ) -> None:
        super().__init__()
        self.ladder = Ladder.of(patches, scales, cascade=cascade)
        follow = [cascade and number + 1 < len(scales) for number in range(len(scales))]
        self.schemes = ModuleList(
            [Scheme(self.ladder.halo, num_fields, width, channels, follows=follows) for follows in follow]
        )

    def changes(
        self,
        wide: Sequence[Sequence[Sequence[Tensor]]],
        tiles: Sequence[TilesInBoxes],
        conditions: Tensor,
        rows: Sequence[Rows],
    ) -> list[Tensor]:
        """Predict the changes in some tiles of every batch.

        Args:
            wide: inputs of each scheme, for each box of each batch, see `wide_inputs`.
            tiles: the tiles of each batch to predict; there may be none.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            One tensor ``(k, f, z, y, x)`` per batch, the changes in the cells of its tiles; zero beyond the grid.
        """
        of_batches = conditions.split([of_batch.boxes[0].frames.num_samples for of_batch in tiles])
        told, rows = zip(
            *(each for *each, of_batch in zip(of_batches, rows, tiles, strict=True) for _ in of_batch.boxes),
            strict=True,
        )
        parts = [part for of_batch in tiles for part in of_batch.boxes]
        changes = self._in_boxes([of_box for of_batch in wide for of_box in of_batch], parts, told, rows)
        of_batches = iter(changes)
        return [of_batch.together([next(of_batches) for _ in of_batch.boxes]) for of_batch in tiles]

    def _in_boxes(
        self, wide: Sequence[Sequence[Tensor]], tiles: Sequence[Tiles], told: Sequence[Tensor], rows: Sequence[Rows]
    ) -> list[Tensor]:
        """Predict the changes in the tiles of every box, as if it were a batch of its own."""
        boxes = [box_of(part) for part in tiles]
        asked = torch.cat([of_samples[samples] for of_samples, (samples, *_) in zip(told, boxes, strict=True)])
        changes: list[Tensor] = []
        for number in reversed(range(len(self.schemes))):
            inputs = [of_box[number] for of_box in wide]
            changes = self._with_scheme(number, changes, inputs, boxes, asked, rows)
        if self.ladder.cascade:
            changes = self._brought(changes, 0, boxes, None)
        # A rank without cells has predicted one, see `box_of`: it is dropped here.
        sizes = [[side.stop - side.start for side in part.box] for part in tiles]
        return [
            part.place(change[:number, :, :z, :y, :x])
            for part, change, (number, z, y, x) in zip(tiles, changes, sizes, strict=True)
        ]

    def _with_scheme(
        self,
        number: int,
        changes: list[Tensor],
        inputs: Sequence[Tensor],
        boxes: Sequence[Sequence[slice]],
        conditions: Tensor,
        rows: Sequence[Rows],
    ) -> list[Tensor]:
        """Add what a scheme predicts of each batch to the changes that coarser ones predict; there may be none yet.

        In a cascade what is returned are changes of the scheme's means, else of the cells of the boxes.
        """
        scheme, follows = self.schemes[number], self.ladder.cascade and bool(changes)
        before = self._brought(changes, number + 1, boxes, number) if follows else []
        of_scale = unpacked(scheme(inputs, before, conditions, rows), scheme.shapes(inputs, rows))
        if not self.ladder.cascade:
            of_scale = self._brought(of_scale, number, boxes, None)
        if follows:
            changes = [_inner(change, self.ladder.halo) for change in before]
        return [own + change for own, change in zip(of_scale, changes, strict=True)] if changes else of_scale

    def _brought(
        self, changes: Sequence[Tensor], number: int, boxes: Sequence[Sequence[slice]], to: int | None
    ) -> list[Tensor]:
        """Bring changes of a scheme's means to those that another sees, or to the cells of the boxes."""
        found, factors = [], self.ladder.factors
        for change, (_, *cells) in zip(changes, boxes, strict=True):
            predicted = self.ladder.predicted(cells)
            wanted = (cells, (1, 1, 1)) if to is None else (self.ladder.seen(predicted[to]), factors[to])
            found.append(_brought(change, predicted[number], factors[number], *wanted))
        return found


@dataclass(frozen=True)
class Ladder:
    """The scales of the schemes, and where each has to predict.

    Attributes:
        halo: halo of each scheme's window along ``z, y, x``.
        factors: cells along ``z, y, x`` that each scheme takes the mean of.
        cascade: whether each scheme sees what the next one predicts.
    """

    halo: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]
    cascade: bool

    @classmethod
    def of(cls, patches: Sequence[Patch], scales: Sequence[int], *, cascade: bool) -> Ladder:
        """Return it for patches, along the axes of which the windows extend."""
        along = [any(patch[axis] > 1 for patch in patches) for axis in (1, 2, 3)]
        # In space a window of five cells would be 125 of them.
        halo = tuple((1 if along[0] else 2) if goes else 0 for goes in along)
        return cls(halo, tuple(tuple(scale if goes else 1 for goes in along) for scale in scales), cascade)

    @classmethod
    def of_config(cls, config: MateyConfig) -> Ladder:
        """Return that of a network; it has no scales where there is no local operator."""
        return cls.of(config.patches, config.local_scales if config.local else (), cascade=config.local_cascade)

    def predicted(self, cells: Sequence[slice]) -> list[list[slice]]:
        """Return the means ``z, y, x`` that each scheme predicts so that a box of cells can be had."""
        found: list[list[slice]] = []
        wanted, fine = list(cells), (1,) * len(cells)
        for factor in self.factors:
            found.append([_taken(*along) for along in zip(wanted, fine, factor, strict=True)])
            if self.cascade:
                wanted, fine = self.seen(found[-1]), factor
        return found

    def seen(self, predicted: Sequence[slice]) -> list[slice]:
        """Return the means that windows reach to."""
        return [slice(side.start - reach, side.stop + reach) for side, reach in zip(predicted, self.halo, strict=True)]

    def boxes(self, tiles: Tiles) -> list[tuple[slice, list[int], list[int]]]:
        """Return what each scheme takes to predict some tiles: samples, first mean ``z, y, x``, and the one after the last."""
        samples, *cells = box_of(tiles)
        seen = [self.seen(predicted) for predicted in self.predicted(cells)]
        return [(samples, [side.start for side in sides], [side.stop for side in sides]) for sides in seen]


def wide_inputs(inputs: Region, boxes: Sequence[Tiles], ladder: Ladder) -> list[tuple[Tensor, ...]]:
    """Return the means that each scheme takes to predict some tiles and, where it has to, around them, box by box.

    Args:
        inputs: the inputs ``(b, 2, f, z, y, x)`` of a batch, see `local_inputs`, all of them or around the tiles.
        boxes: tiles of the batch to predict, in one or more boxes; there may be none in one.
        ladder: the scales.
    """
    of_boxes, of_scales = [ladder.boxes(tiles) for tiles in boxes], []
    for number, factor in enumerate(ladder.factors):
        means = inputs.means(factor)
        of_scales.append([means.around(*of_box[number]) for of_box in of_boxes])
    return list(zip(*of_scales, strict=True))


ENDS = (("start", -1), ("stop", 1))
"""The ends of a slice, and the direction in which a halo lies beyond each."""


def box_of(tiles: Tiles) -> list[slice]:
    """Return the box around some tiles, or a cell where there are none.

    A rank without cells predicts one and drops it: it has a gradient of zero for every weight, which ZeRO waits for.
    """
    lengths = (tiles.frames.num_samples, *tiles.frames.window[1:])
    return [_not_empty(side, length) for side, length in zip(tiles.box, lengths, strict=True)]


def _not_empty(side: slice, length: int) -> slice:
    start = min(side.start, length - 1)
    return slice(start, max(side.stop, start + 1))


def _taken(side: slice, fine: int, coarse: int) -> slice:
    """Return the means of ``coarse`` cells that linear interpolation to those of ``fine`` cells takes, along one axis."""
    if fine == coarse:
        return side
    first, last = (((2 * at + 1) * fine - coarse) // (2 * coarse) for at in (side.start, side.stop - 1))
    return slice(first, last + 2)


def _brought(
    values: Tensor, box: Sequence[slice], coarse: Sequence[int], to: Sequence[slice], fine: Sequence[int]
) -> Tensor:
    """Bring changes ``(b, f, z, y, x)`` of means in a box to finer means in another."""
    for axis, along in enumerate(zip(box, coarse, to, fine, strict=True), start=2):
        values = _along(values, axis, *along)
    return values


def _inner(values: Tensor, halo: Sequence[int]) -> Tensor:
    """Return values ``(b, f, z, y, x)`` without a halo."""
    for axis, reach in enumerate(halo, start=2):
        values = values.narrow(axis, reach, values.shape[axis] - 2 * reach)
    return values


def _along(values: Tensor, axis: int, box: slice, coarse: int, to: slice, fine: int) -> Tensor:
    """Interpolate along an axis.

    As a dense matrix, which is many times as fast as to gather neighbours, and has the same gradient on every run.
    """
    if coarse == fine:
        return values.narrow(axis, to.start - box.start, to.stop - to.start)
    means = torch.arange(to.start, to.stop, dtype=values.dtype, device=values.device)
    place = (means + 0.5) * (fine / coarse) - 0.5 - box.start
    number = torch.arange(values.shape[axis], dtype=values.dtype, device=values.device)
    weights = (1 - (place[:, None] - number).abs()).clamp_min(0)
    if axis == values.ndim - 1:
        return values @ weights.T
    return (weights @ values.flatten(axis + 1)).unflatten(-1, values.shape[axis + 1 :])


def local_inputs(normalised: Tensor, change: Tensor) -> Tensor:
    """Return what the local operator sees: the last frame, and the change since the one before in units of its size.

    Args:
        normalised: ``(b, t, f, z, y, x)``; with one frame there is no change, which is then zero.
        change: ``(b, f)``, the size of the change in units of the normalised fields.

    Returns:
        ``(b, 2, f, z, y, x)``.
    """
    last = normalised[:, -1]
    before = normalised[:, -2] if normalised.shape[1] > 1 else last
    return torch.stack([last, (last - before) / change[..., None, None, None]], dim=1)
