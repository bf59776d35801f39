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
import torch.nn.functional as F
from torch import Tensor, nn

from matey.model.given import Rows
from matey.model.groups import unpacked
from matey.model.module_list import ModuleList
from matey.model.stencil import Scheme
from matey.tokens.patches import Patch, extend
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
        along = [any(patch[axis] > 1 for patch in patches) for axis in (1, 2, 3)]
        # In space a window of five cells would be 125 of them.
        self.halo = tuple((1 if along[0] else 2) if goes else 0 for goes in along)
        self.factors = [[scale if goes else 1 for goes in along] for scale in scales]
        self.schemes = ModuleList([Scheme(self.halo, num_fields, width, channels) for _ in scales])

    def changes(
        self,
        frames: Sequence[Tensor],
        tiles: Sequence[Tiles],
        conditions: Tensor,
        rows: Sequence[Rows],
    ) -> list[Tensor]:
        """Predict the changes in some tiles of every group.

        Args:
            frames: inputs ``(b, 2, f, z, y, x)`` of each batch, see `local_inputs`.
            tiles: the tiles of each batch to predict; there may be none.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.

        Returns:
            One tensor ``(k, f, z, y, x)`` per batch, the changes in the cells of its tiles; zero beyond the grid.
        """
        boxes = [_box(inputs, part) for inputs, part in zip(frames, tiles, strict=True)]
        of_samples = conditions.split([len(inputs) for inputs in frames])
        asked = torch.cat([told[samples] for told, (samples, *_) in zip(of_samples, boxes, strict=True)])
        changes = [inputs.new_zeros(()) for inputs in frames]
        for scheme, factor in zip(self.schemes, self.factors, strict=True):
            wide = [
                self._wide(inputs, box, factor, part.frames.periodic)
                for inputs, box, part in zip(frames, boxes, tiles, strict=True)
            ]
            of_scale = unpacked(scheme(wide, asked, rows), scheme.shapes(wide, rows))
            changes = [
                change + _refined(values, box, factor)
                for change, values, box in zip(changes, of_scale, boxes, strict=True)
            ]
        # A rank without cells has predicted one, see `_box`: it is dropped here.
        sizes = [[side.stop - side.start for side in part.box] for part in tiles]
        return [
            part.place(change[:number, :, :z, :y, :x])
            for part, change, (number, z, y, x) in zip(tiles, changes, sizes, strict=True)
        ]

    def _wide(self, inputs: Tensor, box: Sequence[slice], factor: Sequence[int], periodic: Sequence[bool]) -> Tensor:
        """Return the means that a scheme takes to predict those of a box and, where these are interpolated, around it."""
        samples, *cells = box
        sides = [side if s == 1 else _coarse(side, s) for side, s in zip(cells, factor, strict=True)]
        return extend(
            _means(inputs[samples], factor),
            [side.stop + reach for side, reach in zip(sides, self.halo, strict=True)],
            periodic,
            before=[reach - side.start for side, reach in zip(sides, self.halo, strict=True)],
        )


def _box(inputs: Tensor, tiles: Tiles) -> list[slice]:
    """Return the box around some tiles, or a cell where there are none.

    A rank without cells predicts one and drops it: it has a gradient of zero for every weight, which ZeRO waits for.
    """
    lengths = (len(inputs), *inputs.shape[3:])
    return [_not_empty(side, length) for side, length in zip(tiles.box, lengths, strict=True)]


def _not_empty(side: slice, length: int) -> slice:
    start = min(side.start, length - 1)
    return slice(start, max(side.stop, start + 1))


def _coarse(side: slice, scale: int) -> slice:
    """Return the means that linear interpolation to the cells of one side of a box takes."""
    return slice(side.start // scale - 1, -(-side.stop // scale) + 1)


def _means(inputs: Tensor, factor: Sequence[int]) -> Tensor:
    """Take the means of ``factor`` cells of ``(b, i, f, z, y, x)``; at the far edge, of those that there are."""
    if all(s == 1 for s in factor):
        return inputs
    window = [min(s, size) for s, size in zip(factor, inputs.shape[3:], strict=True)]
    means = F.avg_pool3d(inputs.flatten(0, 2), window, ceil_mode=True, count_include_pad=False)
    return means.unflatten(0, inputs.shape[:3])


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
