"""The cells that a rank holds of a batch, and those around them that it looks at: one box, the same for the whole run.

.-----------------.
| looked at       |      A rank reads and receives the values in and around its box, computes features there, and
|   .---------.   |      predicts the cells of its box. At a wall and on a whole periodic axis it looks at no others.
|   |  box    |   |
|   '---------'   |
'-----------------'
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from matey.fields import Box as BoxToRead
from matey.fields import FieldBatch, Samples, has_gaps, without_gaps
from matey.model.cells import Reach, Sides, cell_inputs
from matey.model.configuration import MateyConfig
from matey.model.given import Given, with_given
from matey.model.modules import joined
from matey.model.sequence_group import CellRoute, RankGroup
from matey.tokens.decomposition import Box, Decomposition, Frames, Span
from matey.tokens.normalisation import Normalisation
from matey.tokens.patches import Patch, cover, extend, factor_stages
from matey.tokens.refinement import is_of_patches


@dataclass(frozen=True)
class HeldCells:
    """The place of a rank's box in a batch.

    Attributes:
        decomposition: the division of the batch among ranks.
        box: the box.
    """

    decomposition: Decomposition
    box: Box

    @property
    def frames(self) -> Frames:
        """The frames of the batch."""
        return self.decomposition.frames

    @property
    def sample(self) -> slice:
        """The samples of the box."""
        return self.box.samples

    def put(self, values: Tensor) -> Tensor:
        """Put the box's values ``(k, f, z, y, x)`` where they belong in ``(b, f, z, y, x)``, zero elsewhere."""
        whole = values.new_zeros(self.frames.num_samples, values.shape[1], *self.frames.window[1:])
        # Values of an empty box are put as well, so that the loss depends on the weights on every rank.
        whole[self.box.samples, :, *self.box.cells] = values
        return whole

    def around(self, halo: Sequence[int], ranks: RankGroup) -> CellRoute:
        """Plan the route of the cells in the box and in a halo around it, ``z, y, x`` cells wide on all sides.

        Beyond the domain, the cells of its other side follow where it is periodic, else those of its edge.
        """

        def seen(side: slice, far: int, length: int, wraps: bool) -> Tensor:
            cells = torch.arange(side.start - far, side.stop + far)
            return cells % length if wraps else cells.clamp(0, length - 1)

        boxes, frames = [self.decomposition.box(rank) for rank in range(ranks.size)], self.frames
        axes = [zip(box.cells, halo, frames.window[1:], frames.periodic, strict=True) for box in boxes]
        return CellRoute.planned(boxes, [[seen(*axis) for axis in of_box] for of_box in axes], ranks.place)


@dataclass(frozen=True)
class Grains:
    """The grains of leaves in and around a rank's box, and the cells that they give features to, see `matey.model.blocks`.

    Attributes:
        numbers: ``(l, k, Z, Y, X)``, the number of each grain in the list of all that leaves give; several are added up where
            parents keep their tokens.
        first: first grain along ``z, y, x``, counted from the domain's.
        cells: the cells ``z, y, x`` to which grains are interpolated, counted from the domain's first.
        chosen: numbers of these cells along ``z, y, x`` whose features are computed; None for all.
    """

    numbers: Tensor
    first: tuple[int, ...]
    cells: tuple[slice, ...]
    chosen: tuple[Tensor | None, ...]

    def to_cells(self, grains: Tensor, grain: Patch) -> Tensor:
        """Return what all grains ``(g, c)`` that leaves give add to the features of the cells, ``(k, c, z, y, x)``."""
        values = on_cells(grains, self.numbers, self.first, grain, self.cells)
        for axis, index in enumerate(self.chosen, start=2):
            values = values if index is None else values.index_select(axis, index)
        return values


@dataclass(frozen=True)
class Held:
    """The part of one batch that a rank holds.

    Attributes:
        cells: the place of its box.
        sides: the sides of the cells that it looks at.
        crop: the cells of its box among those that are left after all layers, along ``z, y, x``.
        own_features: the cells of its box among those whose features are computed.
        history: ``(k, t, f, z, y, x)``, the normalised history of the box, continued to whole coarsest patches.
        inputs: ``(k, 2, f, z, y, x)``, the last frame and the last change in the box and around it, for a network on cells.
        base: ``(k, f, z, y, x)``, the last frame of the box in physical units.
        target: ``(k, f, z, y, x)``, the target of the box in physical units, if there is one.
        has_gaps: whether some cells of the box hold no data; they are NaN in base and target, and zero in history and inputs.
        grains: grains that tokens give to the network on cells.
    """

    cells: HeldCells
    sides: Sides
    crop: tuple[slice, ...]
    own_features: tuple[slice, ...]
    history: Tensor
    inputs: Tensor | None
    base: Tensor
    target: Tensor | None
    has_gaps: bool
    grains: Grains | None

    def of_own(self, features: Tensor) -> Tensor:
        """Return the features of the box's own cells, from all whose features are computed ``(k, c, z, y, x)``."""
        z, y, x = self.own_features
        return features[..., z, y, x]

    def of_box(self, changes: Tensor) -> Tensor:
        """Return the changes of the box's own cells, from all that are left after the layers ``(k, f, z, y, x)``."""
        z, y, x = self.crop
        return changes[..., z, y, x]


@dataclass(frozen=True)
class Wide:
    """The values of one batch in a rank's box and around it.

    Attributes:
        history: ``(k, t, f, z, y, x)``, the past frames in physical units.
        target: ``(k, f, z, y, x)``, or None.
        given: ``(k, t, f, z, y, x)``, given fields in as many frames or in one, or None.
    """

    history: Tensor
    target: Tensor | None
    given: Tensor | None


@dataclass(frozen=True)
class Cut:
    """The division of one batch among ranks, and the part of one of them.

    Attributes:
        decomposition: the division.
        box: the rank's box.
        spans: the cells that it looks at along each axis.
    """

    decomposition: Decomposition
    box: Box
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, about: Samples, config: MateyConfig, ranks: RankGroup) -> Cut:
        """Return the part of a batch that this rank holds."""
        return cls.of_rank(about, config, ranks.place, ranks.size)

    @classmethod
    def of_rank(cls, about: Samples, config: MateyConfig, rank: int, num_ranks: int) -> Cut:
        """Return the part of a batch that a rank holds."""
        coarsest, reach = config.patches[0], reach_of(config).inputs
        covered = cover((coarsest[0], *about.window[1:]), coarsest)[1:]  # only the extent in space counts
        frames = Frames(about.number, about.window, about.periodic, covered)
        decomposition = Decomposition.among(num_ranks, frames, coarsest, reach, about.order)
        box = decomposition.box(rank)
        axes = zip(box.cells, about.window[1:], about.periodic, reach, strict=True)
        return cls(decomposition, box, tuple(Span.around(*axis) for axis in axes))

    def to_read(self) -> list[BoxToRead]:
        """Return what the rank reads: for each of its samples, the cells that it looks at."""
        z, y, x = (
            slice(span.cells.start % span.length, span.cells.start % span.length + span.cells.stop - span.cells.start)
            for span in self.spans
        )
        return [(sample, (z, y, x)) for sample in range(self.box.samples.start, self.box.samples.stop)]

    def wide_of(self, batch: FieldBatch, given: Tensor | None) -> Wide:
        """Cut the rank's values out of a batch."""
        index = [span.index().to(batch.history.device) for span in self.spans]

        def cut(values: Tensor) -> Tensor:
            values = values[self.box.samples]
            for axis, cells, span in zip((-3, -2, -1), index, self.spans, strict=True):
                if len(cells) != span.length:
                    values = values.index_select(axis, cells)
            return values

        target = None if batch.target is None else cut(batch.target)
        return Wide(cut(batch.history), target, None if given is None else cut(given))

    @property
    def own_cells(self) -> tuple[slice, ...]:
        """The cells of the box among those that the rank looks at, along ``z, y, x``."""
        return _inside(self.spans, self.box.cells)

    def own(self, values: Tensor) -> Tensor:
        """Return the values of the box from those of all cells that the rank looks at, ``(..., z, y, x)``."""
        z, y, x = self.own_cells
        return values[..., z, y, x]


@dataclass(frozen=True)
class BoxShare:
    """Says which cells of a micro-batch one rank reads: its box of each batch and the halo around it.

    Attributes:
        config: the configuration of the model.
        rank: number of the rank among those that share the samples.
        num_ranks: number of ranks that share the samples.
    """

    config: MateyConfig
    rank: int
    num_ranks: int

    def __call__(self, samples: Sequence[Samples]) -> list[list[BoxToRead]]:
        """Return the boxes of each batch."""
        return [Cut.of_rank(about, self.config, self.rank, self.num_ranks).to_read() for about in samples]


def share_of(config: MateyConfig, ranks: RankGroup) -> BoxShare | None:
    """Return the part of the fields that a rank reads; None where it reads all.

    One process reads all fields. So do ranks whose refinement has another package's criterion: it may look beyond one patch.
    """
    return BoxShare(config, ranks.place, ranks.size) if ranks.size > 1 and is_of_patches(config.refinement) else None


def reach_of(config: MateyConfig) -> Reach:
    """Return how far the layers on the cells look."""
    return Reach.along(config.patches, *config.layers) if config.has_cells else Reach((0, 0, 0), (0, 0, 0), 0, 0)


def interpolated_cells(span: Span, size: int) -> slice:
    """Return the cells along an axis to which grains are interpolated.

    Where grains do not divide a periodic axis, they are not interpolated across its ends, but on the whole axis.
    """
    goes_round = span.cells.start < 0 or span.cells.stop > span.length
    return slice(0, span.length) if goes_round and span.length % size else span.cells


def grains_around(span: Span, size: int) -> range:
    """Return the grains along an axis, counted from the domain's first, from which values of cells are interpolated."""
    cells = interpolated_cells(span, size)
    # Linear interpolation takes the grains whose middles lie around that of a cell.
    begin, end = ((2 * cell + 1 - size) // (2 * size) for cell in (cells.start, cells.stop - 1))
    return range(begin, end + 2)


def features_of(spans: Sequence[Span], reach: Reach) -> list[Span]:
    """Return the cells along each axis whose features a rank computes, of those that it looks at."""
    lost = [all_ - kept for all_, kept in zip(reach.inputs, reach.features, strict=True)]
    return [span.within(far) for span, far in zip(spans, lost, strict=True)]


def held_of(
    cut: Cut,
    wide: Wide,
    normalisation: Normalisation,
    given: Normalisation | None,
    grains: Grains | None,
    config: MateyConfig,
) -> Held:
    """Return what a rank holds of one batch.

    Args:
        cut: the rank's part.
        wide: the values in and around its box.
        normalisation: statistics of the samples.
        given: statistics of given fields, if there are any that the model knows.
        grains: grains that tokens give to the cells.
        config: the configuration of the model.
    """
    samples, reach, box = cut.box.samples, reach_of(config), cut.box.cells
    normalised, of_samples = normalisation.of(samples).apply(wide.history), normalisation.of(samples)
    if given is not None and wide.given is not None:
        normalised = Given(wide.given, given.of(samples)).beside(normalised)
        of_samples = with_given(of_samples, given.of(samples))
    normalised = without_gaps(normalised)
    own = cut.own(normalised)
    covered = [-(-size // cells) * cells for size, cells in zip(own.shape[-3:], config.patches[0][1:], strict=True)]
    left = [span.within(far) for span, far in zip(cut.spans, reach.inputs, strict=True)]
    change = of_samples.change / of_samples.std
    base = cut.own(wide.history[:, -1]).clone()  # a view would keep all frames
    return Held(
        cells=HeldCells(cut.decomposition, cut.box),
        sides=Sides(tuple(span.inside for span in cut.spans), tuple(span.wraps for span in cut.spans)),
        crop=_inside(left, box),
        own_features=_inside(features_of(cut.spans, reach), box),
        history=extend(own, covered, (False, False, False)).contiguous(),
        inputs=cell_inputs(normalised[:, -2:], change) if config.has_cells else None,
        base=base,
        target=None if wide.target is None else cut.own(wide.target).contiguous(),
        has_gaps=has_gaps(base),
        grains=grains,
    )


def _inside(spans: Sequence[Span], box: Sequence[slice]) -> tuple[slice, ...]:
    """Return where the sides of a box lie in spans."""
    return tuple(
        slice(side.start - span.cells.start, side.stop - span.cells.start)
        for span, side in zip(spans, box, strict=True)
    )


DENSE = 2**20  # largest number of weights of one matrix of interpolation


GRAINS_AT_ONCE = 128  # grains that a piece of a longer axis is as long as


def grain_of(patches: Sequence[Patch]) -> Patch:
    """Return the size of a grain, of one frame: the largest divisor up to 4 of the finest patch, along each axis."""
    z, y, x = factor_stages((1, *patches[-1][1:]))[0][1:]
    return 1, z, y, x


def on_cells(grains: Tensor, numbers: Tensor, first: Sequence[int], grain: Patch, cells: Sequence[slice]) -> Tensor:
    """Return what grains give to some cells, ``(b, c, z, y, x)``, interpolated linearly.

    Args:
        grains: ``(g, c)``, all grains that leaves give.
        numbers: ``(l, b, Z, Y, X)``, the number of each grain around the cells; several are added up. ``g`` stands for none.
        first: the first of them along ``z, y, x``, counted from the domain's.
        grain: size of a grain.
        cells: the cells ``z, y, x``, counted from the domain's.
    """
    values = F.embedding(numbers.flatten(), torch.cat([grains, grains.new_zeros(1, grains.shape[1])]))
    values = values.view(*numbers.shape, grains.shape[1]).sum(dim=0)  # (b, Z, Y, X, c)
    box = [slice(begin, begin + size) for begin, size in zip(first, values.shape[1:-1], strict=True)]
    for axis, along in enumerate(zip(box, grain[1:], cells, strict=True), start=1):
        values = _interpolated(values, axis, *along)
    return values.movedim(-1, 1)


def _interpolated(values: Tensor, axis: int, box: slice, grain: int, to: slice) -> Tensor:
    """Interpolate along an axis to cells by a dense matrix, or by several along a long one, where most of it would be zero.

    This is many times as fast as gathering neighbours, and has the same gradient on every run.
    """
    if grain == 1:
        # Narrowing to the whole axis would cost the backward pass a copy.
        return values if to == box else values.narrow(axis, to.start - box.start, to.stop - to.start)
    sizes, start = (values.shape[axis], to.stop - to.start), to.start - box.start * grain
    # Pieces of a whole number of grains have the same weights.
    rows = sizes[1] if math.prod(sizes) <= DENSE else GRAINS_AT_ONCE * grain
    found = []
    for first in range(0, sizes[1], rows):
        last = min(first + rows, sizes[1])
        # A grain reaches as far as the middles of its neighbours; twice the distances, so that they are whole numbers.
        low, high = ((2 * row + 1 + 2 * start - grain) // (2 * grain) for row in (first, last - 1))
        low, high = (max(0, low), min(sizes[0], high + 2)) if rows < sizes[1] else (0, sizes[0])
        weights = _weights(high - low, last - first, start + first - low * grain, grain, values.dtype, values.device)
        grains = values if high - low == sizes[0] else values.narrow(axis, low, high - low)
        found.append(weights @ grains.flatten(axis + 1))
    return joined(found, dim=axis).unflatten(-1, values.shape[axis + 1 :])


@lru_cache(maxsize=32)
def _weights(num: int, num_cells: int, start: int, grain: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix that interpolates grains along a side of a box to cells; most steps repeat the last ones.

    Args:
        num: number of grains.
        num_cells: number of cells.
        start: number of cells from the start of the grains to the first cell.
        grain: number of cells along the side in a grain.
        dtype: type of the weights.
        device: device of the weights.
    """
    with torch.inference_mode(False):  # it may be used in training later
        # In whole numbers, so that boxes in the same relative position have the same weights to the last bit.
        middle = 2 * torch.arange(num_cells, device=device) + 1 + 2 * start - grain
        number = torch.arange(num, device=device) * (2 * grain)
        return (1 - (middle[:, None] - number).abs().to(dtype) / (2 * grain)).clamp_min(0)
