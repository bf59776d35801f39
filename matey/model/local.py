"""The local operator: beside the tokens, a learnt numerical scheme on the cells and on coarser and coarser means of them.

A token of width 96 cannot carry a rough 8 x 8 patch and its time derivative, and what it cannot carry it cannot predict. What
happens within a few cells is what a solver's scheme computes from a stencil, so it is learnt as one (`matey.model.stencil`).
What travels further within a lead time, as a wave or with the flow, the same kind of scheme finds on the means of 2, 4 or 8
cells along each axis, as on the grids of a multigrid solver; together these cost a third of the finest. For every scale:

    cells of this rank and a halo --> means of s x s cells --> scheme --> linear interpolation to the cells --> added up
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from matey.model.given import Rows
from matey.model.groups import unpacked
from matey.model.module_list import ModuleList
from matey.model.stencil import Scheme
from matey.tokens.patches import Patch
from matey.tokens.region import Region
from matey.tokens.tiles import Tiles


class LocalOperator(nn.Module):
    """Predict the change of every cell from those around it.

    It holds the schemes, and is no module that is called: what it returns is a tensor for each group, see `matey.model.groups`.

    Args:
        patches: patch sizes of all levels; the windows extend along the axes that patches extend along.
        num_fields: rows of the vocabulary.
        width: width of a sample's conditions.
        channels: products per cell.
        scales: cells along each axis that a scheme takes the mean of, for each scheme.
    """

    def __init__(
        self, patches: Sequence[Patch], num_fields: int, width: int, channels: int, scales: Sequence[int] = (1,)
    ) -> None:
        super().__init__()
        self.halo, self.factors = scales_of(patches, scales)
        self.schemes = ModuleList([Scheme(self.halo, num_fields, width, channels) for _ in scales])

    def changes(
        self,
        wide: Sequence[Sequence[Tensor]],
        tiles: Sequence[Tiles],
        conditions: Tensor,
        rows: Sequence[Rows],
    ) -> list[Tensor]:
        """Predict the changes in some tiles of every group.

        Args:
            wide: inputs of each scheme, for each batch, see `wide_inputs`.
            tiles: the tiles of each batch to predict; there may be none.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            One tensor ``(k, f, z, y, x)`` per batch, the changes in the cells of its tiles; zero beyond the grid.
        """
        boxes = [box_of(part) for part in tiles]
        of_samples = conditions.split([part.frames.num_samples for part in tiles])
        asked = torch.cat([told[samples] for told, (samples, *_) in zip(of_samples, boxes, strict=True)])
        changes = [asked.new_zeros(())] * len(boxes)
        for number, (scheme, factor) in enumerate(zip(self.schemes, self.factors, strict=True)):
            inputs = [of_batch[number] for of_batch in wide]
            of_scale = unpacked(scheme(inputs, asked, rows), scheme.shapes(inputs, rows))
            changes = [
                change + _refined(values, box, factor)
                for change, values, box in zip(changes, of_scale, boxes, strict=True)
            ]
        # A rank without cells has predicted one, see `box_of`: it is dropped here.
        sizes = [[side.stop - side.start for side in part.box] for part in tiles]
        return [
            part.place(change[:number, :, :z, :y, :x])
            for part, change, (number, z, y, x) in zip(tiles, changes, sizes, strict=True)
        ]


def scales_of(patches: Sequence[Patch], scales: Sequence[int]) -> tuple[tuple[int, ...], list[list[int]]]:
    """Return the halo of each scheme's window along ``z, y, x``, and the cells along each axis that each takes the mean of."""
    along = [any(patch[axis] > 1 for patch in patches) for axis in (1, 2, 3)]
    # In space a window of five cells would be 125 of them.
    halo = tuple((1 if along[0] else 2) if goes else 0 for goes in along)
    return halo, [[scale if goes else 1 for goes in along] for scale in scales]


def wide_inputs(inputs: Region, tiles: Tiles, halo: Sequence[int], factor: Sequence[int]) -> Tensor:
    """Return the means that a scheme takes to predict those of some tiles and, where these are interpolated, around them.

    Args:
        inputs: the inputs ``(b, 2, f, z, y, x)`` of a batch, see `local_inputs`, all of them or around the tiles.
        tiles: the tiles of the batch to predict; there may be none.
        halo: cells ``z, y, x`` of the halo of the scheme's window, see `scales_of`.
        factor: cells ``z, y, x`` that the scheme takes the mean of.
    """
    samples, begin, end = wide_box(tiles, halo, factor)
    return inputs.means(factor).around(samples, begin, end)


def wide_box(tiles: Tiles, halo: Sequence[int], factor: Sequence[int]) -> tuple[slice, list[int], list[int]]:
    """Return the box of means that `wide_inputs` returns: samples, the first mean ``z, y, x``, and the one after the last."""
    samples, *cells = box_of(tiles)
    sides = [side if s == 1 else _coarse(side, s) for side, s in zip(cells, factor, strict=True)]
    begin, end = ([getattr(s, at) + sign * r for s, r in zip(sides, halo, strict=True)] for at, sign in ENDS)
    return samples, begin, end


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


def _coarse(side: slice, scale: int) -> slice:
    """Return the means that linear interpolation to the cells of one side of a box takes."""
    return slice(side.start // scale - 1, -(-side.stop // scale) + 1)


def _refined(means: Tensor, box: Sequence[slice], factor: Sequence[int]) -> Tensor:
    """Bring changes ``(b, f, z, y, x)`` of means to the cells of a box."""
    for axis, (s, side) in enumerate(zip(factor, box[1:], strict=True), start=2):
        means = means if s == 1 else _interpolated(means, axis, s, side)
    return means


def _interpolated(means: Tensor, axis: int, scale: int, side: slice) -> Tensor:
    """Interpolate along an axis from the means `_coarse` to the cells of ``side``.

    As a dense matrix, which is many times as fast as to gather neighbours, and has the same gradient on every run.
    """
    cells = torch.arange(side.start, side.stop, dtype=means.dtype, device=means.device)
    place = (cells + 0.5) / scale - 0.5 - _coarse(side, scale).start
    number = torch.arange(means.shape[axis], dtype=means.dtype, device=means.device)
    weights = (1 - (place[:, None] - number).abs()).clamp_min(0)
    if axis == means.ndim - 1:
        return means @ weights.T
    return (weights @ means.flatten(axis + 1)).unflatten(-1, means.shape[axis + 1 :])


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
