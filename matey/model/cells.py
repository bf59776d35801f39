"""The network on the cells: features of every cell, from which tokens are made, and the change of every field, told by tokens.

    last frame, last change --> window --> residual layers --> features --> tokens, see `matey.model.blocks`
              |                                                   |            |
              |                                                   + <----------' what the leaf of each cell gives back
              |                                                   |
              |                                            residual layers --> window --> change of each field
              '--> what is linear in a window, scaled ----------------------------------> +

A sample's lead time, scales and parameters scale and shift the result of each convolution, channel by channel. At walls, layers
repeat the outermost values, and on a periodic axis they go on at the other end. Where a side of a rank's box lies inside the
domain, inputs reach further by a halo instead, and each layer uses up a part of it:

      .-----------------.
      | halo            |      inputs: the box and as far around it as all layers look
      |   .---------    |
      |   | box    #wall|      features for the layers after the tokens: the box and as far as these look
      |   |        #    |
      '-----------------'      change: the box
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd import Function

from matey.model.modules import Rows, WideLinear, chosen, packed, unpacked, wide
from matey.tokens.patches import Patch, long_axes

NUM_INPUTS = 2  # the last frame, and the change that led to it


@dataclass(frozen=True)
class Sides:
    """The sides of a box of cells along ``z, y, x``.

    Attributes:
        inside: whether the domain goes on before the first and after the last cell of each axis: values have a halo there.
        wraps: whether an axis without halos is periodic; else its ends are walls.
    """

    inside: tuple[tuple[bool, bool], ...]
    wraps: tuple[bool, ...]

    def padded(self, values: Tensor, reach: Sequence[int]) -> Tensor:
        """Extend values ``(b, c, z, y, x)`` by ``reach`` cells beyond the ends of the domain, but not where they have a halo.

        Values may also be planes ``(b, c, y, x)``.
        """
        walls, around = [0] * 6, [0] * 3
        for axis, (far, (before, after), wraps) in enumerate(zip(reach, self.inside, self.wraps, strict=True)):
            ends = [0 if inside else far for inside in (before, after)]
            if wraps:
                around[axis] = ends[0]
            else:
                walls[4 - 2 * axis : 6 - 2 * axis] = ends
        num_axes = values.ndim - 2
        if any(around):
            values = _Wrapped.apply(values, around[-num_axes:])
        return F.pad(values, walls[: 2 * num_axes], mode="replicate") if any(walls) else values

    def without_halo(self, values: Tensor, halo: Sequence[int]) -> Tensor:
        """Return values ``(..., z, y, x)`` without a halo, on the sides that have one."""
        for axis, (far, (before, after)) in enumerate(zip(halo, self.inside, strict=True), start=values.ndim - 3):
            if far == 0:
                continue
            first, end = far * before, values.shape[axis] - far * after
            values = values if (first, end) == (0, values.shape[axis]) else values.narrow(axis, first, end - first)
        return values


class _Wrapped(Function):
    """Continue values ``(b, c, ...)`` at the other end of periodic axes, in their order in memory, unlike PyTorch's padding."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, reach: Sequence[int]) -> Tensor:  # noqa: ANN401
        ctx.reach = reach
        sizes = [size + 2 * far for size, far in zip(values.shape[2:], reach, strict=True)]
        found = torch.empty(
            *values.shape[:2], *sizes, dtype=values.dtype, device=values.device, memory_format=order_of(values)
        )
        _inner(found, reach).copy_(values)
        for axis, far in enumerate(reach, start=2):
            for copy, original in _copies(found, axis, far):
                copy.copy_(original)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return _Folded.apply(gradient, ctx.reach), None


class _Folded(Function):
    """Add what `_Wrapped` continued to where it came from: its adjoint."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, reach: Sequence[int]) -> Tensor:  # noqa: ANN401
        ctx.reach, found = reach, values.clone()
        for axis, far in reversed([*enumerate(reach, start=2)]):
            for copy, original in reversed([*_copies(found, axis, far)]):
                original.add_(copy)
        return _inner(found, reach).contiguous(memory_format=order_of(values))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return _Wrapped.apply(gradient, ctx.reach), None


def _copies(values: Tensor, axis: int, far: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Name each stretch of a halo and what it repeats, from within; an axis shorter than its halo is repeated several times."""
    size = values.shape[axis] - 2 * far
    for left in range(far, 0, -size):
        length, end = min(size, left), size + 2 * far - left
        yield values.narrow(axis, left - length, length), values.narrow(axis, left - length + size, length)
        yield values.narrow(axis, end, length), values.narrow(axis, end - size, length)


def _inner(values: Tensor, reach: Sequence[int]) -> Tensor:
    for axis, far in enumerate(reach, start=2):
        values = values.narrow(axis, far, values.shape[axis] - 2 * far)
    return values


@dataclass(frozen=True)
class Reach:
    """The reach of layers along ``z, y, x``.

    Attributes:
        window: cells by which the window on the inputs reaches around its central cell.
        step: cells by which every further window does.
        before: number of layers before the tokens.
        after: number of layers after them.
    """

    window: tuple[int, ...]
    step: tuple[int, ...]
    before: int
    after: int

    @classmethod
    def along(cls, patches: Sequence[Patch], before: int, after: int) -> Reach:
        """Return the reach of windows along the axes that patches extend along."""
        axes = long_axes(patches)
        # In three dimensions a window five cells wide would hold 125 cells.
        window = tuple((1 if 1 in axes else 2) if axis in axes else 0 for axis in (1, 2, 3))
        return cls(window, tuple(min(far, 1) for far in window), before, after)

    @property
    def features(self) -> list[int]:
        """The reach of the layers after the tokens, their last window included."""
        return [far * (2 * self.after + 1) for far in self.step]

    @property
    def inputs(self) -> list[int]:
        """The reach of all layers."""
        of_features = zip(self.window, self.step, self.features, strict=True)
        return [wide + far * 2 * self.before + further for wide, far, further in of_features]


class Cells(nn.Module):
    """The layers of either half of the network, and their response to the conditions.

    Args:
        reach: the reach of the layers.
        width: width of a sample's conditions.
        channels: number of features of a cell.
        num_layers: number of layers.
        num_scaled: number of values of a sample besides those of the layers.
    """

    field_weight: nn.Parameter

    def __init__(self, reach: Reach, width: int, channels: int, num_layers: int, num_scaled: int) -> None:
        super().__init__()
        self.reach, self.channels = reach, channels
        near = [2 * far + 1 for far in reach.step]
        self.kernels = nn.Parameter(torch.empty(num_layers, 2, channels, channels, *near))
        self.expand = WideLinear(width, width // 2)
        # Zero at first: nothing is scaled or shifted.
        self.modulate = WideLinear(width // 2, 4 * channels * num_layers + num_scaled)

    def _told(self, conditions: Tensor) -> Tensor:
        return self.modulate(F.gelu(self.expand(conditions)))

    @property
    def is_plane(self) -> bool:
        """Whether no window extends along ``z``, so that each plane is computed separately."""
        return self.reach.window[0] == 0

    def _planes(self, values: Tensor) -> Tensor:
        """Return values ``(b, c, z, y, x)`` plane by plane, ``(b z, c, y, x)``, where planes are computed separately."""
        return values.transpose(1, 2).flatten(0, 1) if self.is_plane else values

    def _volume(self, values: Tensor, num_samples: int) -> Tensor:
        """Invert `_planes`."""
        return values.unflatten(0, (num_samples, -1)).transpose(1, 2) if self.is_plane and num_samples else values

    def _layers(self, values: Tensor, told: Tensor, sides: Sides) -> Tensor:
        """Return the features after all layers; ``told`` ``(b, 4 c l)`` scales and shifts them."""
        pairs = told.unflatten(1, (len(self.kernels), 2, 2, self.channels)).to(values.dtype)
        for kernels, of_layer in zip(self.kernels, pairs.unbind(1), strict=True):
            found = values
            for kernel, of_kernel in zip(kernels, of_layer.unbind(1), strict=True):
                found = scaled(convolved(sides.padded(F.gelu(found), self.reach.step), kernel), of_kernel)
            values = sides.without_halo(values, [2 * far for far in self.reach.step]) + found
        return values


class CellsBefore(Cells):
    """Compute the features of every cell from the last frame and the last change."""

    def __init__(self, reach: Reach, num_fields: int, width: int, channels: int) -> None:
        super().__init__(reach, width, channels, reach.before, 2 * channels)
        self.field_weight = nn.Parameter(torch.empty(num_fields, window_of(reach), NUM_INPUTS, channels))

    def forward(
        self, inputs: Sequence[Tensor], conditions: Tensor, rows: Sequence[Rows], sides: Sequence[Sides]
    ) -> Tensor:
        """Compute the features of every batch; the result is one tensor, see `matey.model.modules`.

        Args:
            inputs: each batch's inputs ``(b, 2, f, z, y, x)``, see `cell_inputs`, with their halo.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.
            sides: the sides of each batch's box.

        Returns:
            What `features` tells apart: the features of each batch, with the halo of the layers after the tokens.
        """
        told = self._told(conditions).split([len(of_batch) for of_batch in inputs])
        found = [self._of_batch(*batch) for batch in zip(inputs, told, rows, sides, strict=True)]
        return packed([each.movedim(1, -1) for each in found])

    def features(self, values: Tensor, inputs: Sequence[Tensor], sides: Sequence[Sides]) -> list[Tensor]:
        """Return the features ``(b, c, z, y, x)`` of each batch from what `forward` returns; channels lie side by side."""
        lost = [all_ - kept for all_, kept in zip(self.reach.inputs, self.reach.features, strict=True)]
        shapes = [
            (len(each), *of_batch.without_halo(each, lost).shape[-3:], self.channels)
            for each, of_batch in zip(inputs, sides, strict=True)
        ]
        return [each.movedim(-1, 1) for each in unpacked(values, shapes)]

    def _of_batch(self, inputs: Tensor, told: Tensor, row: Rows, sides: Sides) -> Tensor:
        # Inputs are rounded to the type of the weights only once they are summed up, as in `weighted_sums`.
        inputs = wide(inputs)
        of_window, of_layers = told.tensor_split([2 * self.channels], dim=1)
        kernel = rearrange(window_weight(self.field_weight, row, inputs.dtype), "f w i c -> c (i f) w")
        cells = sides.padded(self._planes(inputs.flatten(1, 2)), self.reach.window)
        values = convolved(cells, kernel.unflatten(2, sides_of(self.reach.window)))
        values = scaled(values, of_window.unflatten(1, (2, -1)).to(values.dtype)).to(self.kernels.dtype)
        return self._volume(self._layers(values, of_layers, sides), len(inputs))


class CellsAfter(Cells):
    """Compute the change of every field from the features of every cell and what tokens add to them."""

    def __init__(self, reach: Reach, num_fields: int, width: int, channels: int) -> None:
        super().__init__(reach, width, channels, reach.after, 1)
        window = window_of(reach)
        # Zero, so that an untrained model predicts no change.
        self.field_out = nn.Parameter(torch.zeros(num_fields, channels, math.prod(sides_of(reach.step))))
        self.field_bias = nn.Parameter(torch.zeros(num_fields))
        self.field_stencil = nn.Parameter(torch.zeros(num_fields, window, NUM_INPUTS))
        self.field_mix = nn.Parameter(torch.zeros(num_fields, channels))
        self.field_weight = nn.Parameter(torch.empty(num_fields, window, NUM_INPUTS, channels))

    def forward(
        self,
        inputs: Sequence[Tensor],
        features: Sequence[Tensor],
        conditions: Tensor,
        rows: Sequence[Rows],
        sides: Sequence[Sides],
    ) -> Tensor:
        """Compute the changes of every batch; the result is one tensor, see `matey.model.modules`.

        Args:
            inputs: each batch's inputs ``(b, 2, f, z, y, x)``, as for `CellsBefore`.
            features: features ``(b, c, z, y, x)`` of each batch with their halo.
            conditions: ``(b, e)``, the conditions of the samples, batch after batch.
            rows: the rows of each batch's fields in the vocabulary.
            sides: the sides of each batch's box.

        Returns:
            Changes ``(b, f, z, y, x)`` of each batch, without halo, see `shapes`.
        """
        told = self._told(conditions).split([len(of_batch) for of_batch in inputs])
        return packed([self._of_batch(*batch) for batch in zip(inputs, features, told, rows, sides, strict=True)])

    def shapes(self, inputs: Sequence[Tensor], sides: Sequence[Sides], rows: Sequence[Rows]) -> list[tuple[int, ...]]:
        """Return the shape of each batch's changes."""
        return [
            (len(each), len(row.predicted), *of_batch.without_halo(each, self.reach.inputs).shape[-3:])
            for each, of_batch, row in zip(inputs, sides, rows, strict=True)
        ]

    def _of_batch(self, inputs: Tensor, features: Tensor, told: Tensor, row: Rows, sides: Sides) -> Tensor:
        inputs = wide(inputs)
        of_linear, of_layers = told.tensor_split([1], dim=1)
        values = F.gelu(self._layers(self._planes(features), of_layers, sides))
        out, bias = (
            chosen(weight.flatten(1), row.predicted).to(values.dtype)
            for weight in (self.field_out, self.field_bias[:, None])
        )
        kernel = out.unflatten(1, (self.channels, *sides_of(self.reach.step)))
        found = convolved(sides.padded(values, self.reach.step), kernel, bias[:, 0])
        beyond = [all_ - own for all_, own in zip(self.reach.inputs, self.reach.window, strict=True)]
        cells = sides.padded(self._planes(sides.without_halo(inputs, beyond).flatten(1, 2)), self.reach.window)
        linear = convolved(cells, self._linear(row, inputs.dtype).unflatten(2, sides_of(self.reach.window)))
        factor = per_plane(1 + of_linear.to(linear.dtype), values)
        return self._volume(torch.addcmul(found.to(linear.dtype), linear, factor), len(inputs))

    def _linear(self, row: Rows, dtype: torch.dtype) -> Tensor:
        """Return the window ``(g, i f, w)`` from the inputs to the changes: that of each field on itself, and mixed ones."""
        of_fields = (self.field_mix, self.field_stencil)
        mix, stencil = (chosen(weight, row.predicted).to(dtype) for weight in of_fields)
        weight = window_weight(self.field_weight, row, dtype)
        # Rows are inputs, columns predicted fields: a given field has no stencil on itself.
        same = torch.eye(len(row.inputs), len(row.predicted), dtype=dtype, device=weight.device)
        across = torch.einsum("g c, f w i c -> g i f w", mix, weight)
        return (across + torch.einsum("g w i, f g -> g i f w", stencil, same)).flatten(1, 2)


def window_weight(weight: Tensor, row: Rows, dtype: torch.dtype) -> Tensor:
    """Return the weights ``(f, w, i, c)`` of a batch's inputs, divided so that many fields do not outweigh few."""
    return chosen(weight, row.inputs).to(dtype) / math.sqrt(len(row.predicted))


def window_of(reach: Reach) -> int:
    """Return the number of cells in the window on the inputs."""
    return math.prod(sides_of(reach.window))


def sides_of(reach: Sequence[int]) -> list[int]:
    """Return the sides ``z, y, x`` of a window."""
    return [2 * far + 1 for far in reach]


def convolved(values: Tensor, kernel: Tensor, offset: Tensor | None = None) -> Tensor:
    """Convolve values ``(b, c, z, y, x)``, or planes ``(b, c, y, x)``, with a kernel ``(o, c, z, y, x)`` without padding.

    The result has its channels side by side in memory, with which few of them take down to half the time on CPUs.
    """
    if values.ndim == 4:
        order = torch.channels_last
        return F.conv2d(values.contiguous(memory_format=order), kernel[:, :, 0].contiguous(memory_format=order), offset)
    kernel = kernel.contiguous(memory_format=torch.channels_last_3d)
    if len(values) != 1 or values.device.type != "cpu":
        return F.conv3d(values.contiguous(memory_format=torch.channels_last_3d), kernel, offset)
    # On CPUs PyTorch convolves a single volume, unless it is large, the slow way: all windows lie side by side in memory, 27
    # times the volume. It never does so for two volumes at once, hence two halves, which share a layer if their number is odd.
    length = values.shape[2] - kernel.shape[2] + 1
    half = -(-length // 2)
    halves = torch.cat([values[:, :, : values.shape[2] - length + half], values[:, :, length - half :]])
    first, second = F.conv3d(halves.contiguous(memory_format=torch.channels_last_3d), kernel, offset).split(1)
    return torch.cat([first, second[:, :, 2 * half - length :]], dim=2)


def order_of(values: Tensor) -> torch.memory_format:
    """Return how values of cells lie in memory."""
    side_by_side = torch.channels_last if values.ndim == 4 else torch.channels_last_3d
    return side_by_side if values.is_contiguous(memory_format=side_by_side) else torch.contiguous_format


def scaled(values: Tensor, told: Tensor) -> Tensor:
    """Scale and shift values ``(b, c, z, y, x)``, or planes, by those of their sample ``(b, 2, c)``."""
    scale, offset = (per_plane(each, values) for each in told.unbind(1))
    return torch.addcmul(offset, values, 1 + scale)


def per_plane(of_samples: Tensor, values: Tensor) -> Tensor:
    """Return values of samples ``(b, c)`` so that they broadcast over those of cells, or of planes, several for each sample."""
    if len(of_samples) and len(values) != len(of_samples):
        of_samples = of_samples.repeat_interleave(len(values) // len(of_samples), dim=0)
    return of_samples[(..., *[None] * (values.ndim - 2))]


def cell_inputs(normalised: Tensor, change: Tensor) -> Tensor:
    """Return the inputs of the network on cells: the last frame, and the change since the one before, divided by its size.

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
