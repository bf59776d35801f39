"""The local operator: beside the tokens, a learnt numerical scheme on the cells and on coarser and coarser means of them.

A token of width 96 cannot carry a rough 8 x 8 patch and its time derivative, so it cannot predict them either. A solver's
scheme computes changes within a few cells from a stencil, so they are learnt as such a scheme (`matey.model.stencil`). Some
changes travel further within a lead time, as a wave or with the flow. The same kind of scheme finds them on means of 2, 4 or 8
cells along each axis, as on the grids of a multigrid solver; together these cost a third of the finest. For every scale:

    cells of this rank and a halo --> means of s x s cells --> scheme --> linear interpolation to the cells --> added up

In a cascade the schemes follow each other instead, from the coarsest to the finest. Each sees the prediction of the one before
it, interpolated to its own means and as far as its window reaches, and predicts a correction to add:

    means, halo 6 --> scheme --> change, halo 4 --> scheme, which sees means as well --> change, halo 2 --> ... --> change

Two schemes on the cells, one after the other, form a two-stage scheme, as solvers use to reduce errors: near fronts, the second
corrects the first.

With layers of products after the windows (`matey.model.stage`), features go from the coarsest scale to the finest: the cascade
is a network on cells and means. No layer pads: the inputs continue beyond walls and periodic ends as far as all layers see, so
that a cell's change does not depend on the box in which it is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from matey.model.given import Rows
from matey.model.ladder import Ladder, box_of
from matey.model.module_list import ModuleList
from matey.model.one_tensor import unpacked
from matey.model.stage import Stage
from matey.model.stencil import Scheme
from matey.tokens.boxes import TilesInBoxes
from matey.tokens.patches import Patch
from matey.tokens.tiles import Tiles

MORE_ON_MEANS = 2
"""Features of a mean, in a network, for each feature of a cell: there are few means, so they may have more."""

DENSE = 2**20  # largest number of weights of one matrix of interpolation
MEANS_AT_ONCE = 128  # means that a piece of a longer axis is as long as


class LocalOperator(nn.Module):
    """Predict the change of every cell from those around it.

    It holds the schemes but is not called as a module, since it returns a tensor per batch, see `matey.model.one_tensor`.

    Args:
        patches: patch sizes of all levels; the windows extend along the axes that patches extend along.
        num_fields: rows of the vocabulary.
        width: width of a sample's conditions.
        channels: number of products per cell or, in a network, of features.
        scales: number of cells along each axis in the means of each scheme.
        cascade: whether each scheme is told the result of the one after it in ``scales``.
        layers: number of layers of products of each scheme, which make the cascade a network; empty: no network.
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
        layers: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.ladder = ladder = Ladder.for_patches(patches, scales, cascade=cascade, layers=layers)
        last = len(scales) - 1
        if layers:
            widths = [channels * (1 if max(factor) == 1 else MORE_ON_MEANS) for factor in ladder.factors] + [0]
            stages = [Stage(ladder, n, num_fields, width, widths[n], told=widths[n + 1]) for n in range(last + 1)]
            self.schemes: ModuleList[Stage | Scheme] = ModuleList(stages)
        else:
            follow = [cascade and n < last for n in range(last + 1)]
            schemes = [Scheme(ladder.halo, num_fields, width, channels, follows=follows) for follows in follow]
            self.schemes = ModuleList(schemes)

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
        found: list[Tensor] = []
        for number in reversed(range(len(self.schemes))):
            inputs = [of_box[number] for of_box in wide]
            found = self._with_scheme(number, found, inputs, boxes, asked, rows)
        if self.ladder.cascade:
            found = self._brought(found, 0, boxes, None)
        # A rank without cells has predicted one, see `box_of`: it is dropped here.
        sizes = [[side.stop - side.start for side in part.box] for part in tiles]
        return [
            part.place(change[:number, :z, :y, :x].movedim(-1, 1))
            for part, change, (number, z, y, x) in zip(tiles, found, sizes, strict=True)
        ]

    def _with_scheme(
        self,
        number: int,
        found: list[Tensor],
        inputs: Sequence[Tensor],
        boxes: Sequence[Sequence[slice]],
        conditions: Tensor,
        rows: Sequence[Rows],
    ) -> list[Tensor]:
        """Return a scheme's result in each batch ``(b, z, y, x, c)``, given what coarser schemes have found, if there are any.

        In a cascade the result is on the scheme's means; else it is changes of the boxes' cells, added to those found before.
        """
        scheme, cascade = self.schemes[number], self.ladder.cascade
        before = self._brought(found, number + 1, boxes, number) if cascade and found else []
        own = unpacked(scheme(inputs, before, conditions, rows), scheme.shapes(inputs, rows))
        if cascade:
            return own
        own = self._brought(own, number, boxes, None)
        return [mine + others for mine, others in zip(own, found, strict=True)] if found else own

    def _brought(
        self, found: Sequence[Tensor], number: int, boxes: Sequence[Sequence[slice]], to: int | None
    ) -> list[Tensor]:
        """Interpolate a scheme's result to the means for which scheme ``to`` is told of it, or to the cells of the boxes."""
        brought, factors = [], self.ladder.factors
        for values, (_, *cells) in zip(found, boxes, strict=True):
            predicted = self.ladder.predicted(cells)
            wanted = (cells, (1, 1, 1)) if to is None else (self.ladder.told(to, predicted[to]), factors[to])
            brought.append(interpolated(values, predicted[number], factors[number], *wanted))
        return brought


def interpolated(
    values: Tensor, box: Sequence[slice], coarse: Sequence[int], to: Sequence[slice], fine: Sequence[int]
) -> Tensor:
    """Interpolate values ``(b, z, y, x, c)`` of means in one box to finer means in another."""
    for axis, along in enumerate(zip(box, coarse, to, fine, strict=True), start=1):
        values = _along(values, axis, *along)
    return values


def _along(values: Tensor, axis: int, box: slice, coarse: int, to: slice, fine: int) -> Tensor:
    """Interpolate along an axis by a dense matrix, or by several along a long one, where most of it would be zero.

    This is many times as fast as gathering neighbours, and has the same gradient on every run.
    """
    if coarse == fine:
        # Narrowing to the whole axis would cost the backward pass a copy.
        return values if to == box else values.narrow(axis, to.start - box.start, to.stop - to.start)
    sizes, start = (values.shape[axis], to.stop - to.start), to.start * fine - box.start * coarse
    # Pieces of a whole number of means have the same weights.
    rows = sizes[1] if math.prod(sizes) <= DENSE else MEANS_AT_ONCE * coarse
    found = []
    for first in range(0, sizes[1], rows):
        last = min(first + rows, sizes[1])
        # A mean reaches as far as the middles of its neighbours; twice the distances, so that they are whole numbers.
        low, high = (((2 * row + 1) * fine + 2 * start - coarse) // (2 * coarse) for row in (first, last - 1))
        low, high = (max(0, low), min(sizes[0], high + 2)) if rows < sizes[1] else (0, sizes[0])
        own_start = start + first * fine - low * coarse
        weights = _weights_along(high - low, last - first, own_start, fine, coarse, values.dtype, values.device)
        means = values if high - low == sizes[0] else values.narrow(axis, low, high - low)
        found.append(weights @ means.flatten(axis + 1))
    return (torch.cat(found, dim=axis) if len(found) > 1 else found[0]).unflatten(-1, values.shape[axis + 1 :])


@lru_cache(maxsize=32)
def _weights_along(
    num: int, num_fine: int, start: int, fine: int, coarse: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the matrix that interpolates means along a side of a box to finer ones; most steps repeat the last ones.

    Args:
        num: number of means.
        num_fine: number of finer means.
        start: number of cells from the start of the means to the start of the finer means.
        fine: number of cells along the side in a finer mean.
        coarse: number of cells along the side in a mean.
        dtype: type of the weights.
        device: device of the weights.
    """
    with torch.inference_mode(False):  # it may be used in training later
        # In whole numbers, so that boxes in the same relative position have the same weights to the last bit.
        middle = (2 * torch.arange(num_fine, device=device) + 1) * fine + 2 * start - coarse
        number = torch.arange(num, device=device) * (2 * coarse)
        return (1 - (middle[:, None] - number).abs().to(dtype) / (2 * coarse)).clamp_min(0)


def local_inputs(normalised: Tensor, change: Tensor) -> Tensor:
    """Return the local operator's inputs: the last frame, and the change since the one before, divided by its size.

    Args:
        normalised: ``(b, t, f, z, y, x)``; with one frame there is no change, which is then zero.
        change: ``(b, f)``, the size of the change in units of the normalised fields.

    Returns:
        ``(b, 2, f, z, y, x)``.
    """
    last = normalised[:, -1]
    found = last.new_empty(len(last), 2, *last.shape[1:])
    found[:, 0] = last
    torch.sub(last, normalised[:, -2] if normalised.shape[1] > 1 else last, out=found[:, 1])
    found[:, 1] /= change[..., None, None, None]
    return found
