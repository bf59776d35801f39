"""Prepares a micro-batch whose fields no rank holds whole: each rank has read a part, and receives the parts that it needs.

    own part --> sums over its patches --> gathered: statistics        --> normalised own part --> criteria of its patches
             --> gathered: refinement, layout, who does what, the same on all ranks
             --> bricks, the coarsest patches, go to the ranks whose tokens or halos lie in them, in one exchange

Only a few numbers for each patch are gathered. A rank gets a brick whole, with its target, if it has tokens there; around the
cells that it predicts, it gets the last two frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from matey.model.as_held import as_held
from matey.model.boxes import BoxShare, prepare_box_parts
from matey.model.configuration import MateyConfig
from matey.model.given import in_history, with_given, with_known
from matey.model.ladder import Ladder
from matey.model.moving import AT_ONCE, Whole, needs_of, swapped
from matey.model.prepare import Ready, StepPlan, plan_of
from matey.model.seen import Seen, Surroundings, last_around, wide_around, window_box
from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import BatchPart, Piece, Samples
from matey.tokens.by_brick import criteria_by_brick, refined_from, statistics_from, sums_by_brick, width_of_criteria
from matey.tokens.normalisation import Normalisation
from matey.tokens.parts import Around, BrickShare, Sharing
from matey.tokens.patches import Patch, parts_along
from matey.tokens.refinement import is_of_patches
from matey.tokens.region import Region
from matey.tokens.tiles import Tiles
from matey.tokens.tokenize import check_samples, lay_out


def share_of(config: MateyConfig, ranks: RankGroup) -> BrickShare | BoxShare | None:
    """Return the part of the fields that a rank reads; None where it reads all.

    One process reads all fields. So do ranks whose refinement has another package's criterion: it may look beyond one patch.
    """
    if ranks.size == 1 or not is_of_patches(config.refinement):
        return None
    if config.network != "operator":
        return BoxShare(config, ranks.place, ranks.size)
    return BrickShare(config.patches[0], ranks.place, ranks.size)


@torch.no_grad()
def prepare_parts(parts: list[BatchPart], config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Ready:
    """Prepare a micro-batch for one rank from the parts that the ranks have read; all ranks of the group call together.

    Args:
        parts: this rank's part of each batch, as it was read or as `as_held` gives it. The list is emptied once the
            values have been sent, so that they do not lie in memory twice.
        config: the configuration of the model; the criterion of the refinement has to look at one patch alone.
        ranks: the group of ranks that share the samples.
        exchange: exchange between the ranks.

    Raises:
        ValueError: see `matey.model.prepare.prepare`.
    """
    if config.network != "operator":
        return prepare_box_parts(parts, config, ranks, exchange)
    as_held(parts, config.patches[0], ranks, exchange)
    parts[:] = [with_known(part, config) for part in parts]
    samples = [part.samples for part in parts]
    check_samples(samples, config.patches, config.refinement)
    sharing = Sharing.share_out(samples, config.patches[0], ranks.size)
    pieces = [
        [each for piece in part.pieces for each in _in_slabs(piece, part.samples, sharing.brick)] for part in parts
    ]
    normalisations = _statistics(samples, pieces, sharing, exchange)
    of_given = _statistics_of_given(parts, sharing, exchange)
    of_inputs = [with_given(*each) for each in zip(normalisations, of_given, strict=True)]
    refined = _refinement(samples, pieces, normalisations, sharing, config, exchange)
    token_batch = lay_out(samples, normalisations, refined, config.patches, config.refinement)
    plan = plan_of(token_batch, config, ranks, torch.promote_types(torch.float32, samples[0].dtype))
    regions = [_regions(batch, plan, number, config) for number, batch in enumerate(samples)]
    needs = needs_of(token_batch, regions, sharing, config, ranks, exchange)
    moved = swapped(parts, needs, sharing, ranks.place, exchange)
    del pieces
    parts.clear()
    seen = []
    for number, (need, grid) in enumerate(zip(needs[ranks.place], sharing.grids, strict=True)):
        normalisation, num_last = of_inputs[number], len(plan.blocks_of(number))
        whole, *recent = moved.pop(0)
        held = _recents(recent, need.recent, regions[number], num_last, grid, samples[number], normalisation)
        around = _around(held, plan, number, config, normalisation)
        of_samples = normalisation.of(need.whole // math.prod(grid[1:]))
        tiles, num_fields = plan.decoding.held[number], len(samples[number].fields)
        seen.append(_seen(whole, around, need.whole, of_samples, tiles, config.patches[0], num_fields))
    return plan.prepared(samples, token_batch, seen, config, of_given)


def _in_slabs(piece: Piece, samples: Samples, brick: Patch) -> Iterator[tuple[int, Tensor]]:
    """Yield the sample of a piece and its history ``(1, t, f, z, y, x)`` in slabs, without the cells beyond the domain.

    Slabs hold the bricks in their order, and so few bricks that intermediate results are small.
    """
    z, y, x = (length - first for length, first in zip(samples.window[1:], piece.start, strict=True))
    inside = piece.history[None, ..., :z, :y, :x]
    layers = max(AT_ONCE // inside[:, :, :, : brick[1]].numel(), 1) * brick[1]
    for slab in inside.split(layers, dim=3):
        is_one_layer = slab.shape[3] <= brick[1]  # else rows would be cut across several layers of bricks
        rows = max(AT_ONCE // slab[..., : brick[2], :].numel(), 1) * brick[2] if is_one_layer else slab.shape[4]
        for part in slab.split(rows, dim=4):
            yield piece.sample, part


def _statistics(
    samples: Sequence[Samples],
    pieces: Sequence[Sequence[tuple[int, Tensor]]],
    sharing: Sharing,
    exchange: Exchange,
) -> list[Normalisation]:
    """Return the statistics of each batch; those of a batch without fields are empty."""
    rows = [[sums_by_brick(history, sharing.brick) for _, history in of_batch] for of_batch in pieces]
    gathered = _gathered(rows, [3 * len(batch.fields) for batch in samples], samples[0].dtype, sharing, exchange)
    batches = zip(gathered, samples, sharing.grids, strict=True)
    return [statistics_from(*of_batch, sharing.brick) for of_batch in batches]


def _statistics_of_given(
    parts: Sequence[BatchPart], sharing: Sharing, exchange: Exchange
) -> list[Normalisation | None]:
    """Return the statistics of the given fields of each batch, None for a batch without any."""
    if not any(part.num_given for part in parts):
        return [None] * len(parts)
    samples, pieces = [], []
    for part in parts:
        about = part.samples
        samples.append(replace(about, fields=about.given_fields, window=(max(part.num_given, 1), *about.window[1:])))
        given = [replace(piece, history=piece.given) for piece in part.pieces if piece.given is not None]
        pieces.append([each for piece in given for each in _in_slabs(piece, about, sharing.brick)])
    found = _statistics(samples, pieces, sharing, exchange)
    return [
        in_history(statistics, part.num_given, part.samples.window[0]) if part.num_given else None
        for statistics, part in zip(found, parts, strict=True)
    ]


def _refinement(
    samples: Sequence[Samples],
    pieces: Sequence[Sequence[tuple[int, Tensor]]],
    normalisations: Sequence[Normalisation],
    sharing: Sharing,
    config: MateyConfig,
    exchange: Exchange,
) -> list[list[Tensor]]:
    """Decide which patches are split, by the criteria of all ranks' patches."""
    how = config.patches, config.refinement
    if len(config.patches) == 1:
        return [[] for _ in samples]
    rows = [
        [criteria_by_brick(history, normalisation.of([sample]), *how) for sample, history in of_batch]
        for of_batch, normalisation in zip(pieces, normalisations, strict=True)
    ]
    widths = [width_of_criteria(config.patches)] * len(samples)
    gathered = _gathered(rows, widths, samples[0].dtype, sharing, exchange)
    return [refined_from(*of_batch, *how) for of_batch in zip(gathered, samples, sharing.grids, strict=True)]


def _gathered(
    rows: Sequence[Sequence[Tensor]], widths: Sequence[int], dtype: torch.dtype, sharing: Sharing, exchange: Exchange
) -> list[Tensor]:
    """Gather the rows ``(bricks, width)`` of each batch from all ranks; ``rows`` are those of this rank's pieces."""
    ways = len(sharing.bounds[0]) - 1
    sizes = [[sharing.number_of(batch, rank) * width for batch, width in enumerate(widths)] for rank in range(ways)]
    parts = [row.flatten() for of_batch in rows for row in of_batch]
    own = torch.cat([torch.empty(0, dtype=dtype), *parts])
    of_ranks = exchange.gather(own, [sum(of_rank) for of_rank in sizes]).split(
        [n for of_rank in sizes for n in of_rank]
    )
    numbers = [math.prod(grid) for grid in sharing.grids]
    return [torch.cat(of_ranks[batch :: len(widths)]).view(numbers[batch], w) for batch, w in enumerate(widths)]


def _regions(samples: Samples, plan: StepPlan, batch: int, config: MateyConfig) -> list[Around]:
    """Return the bricks around each box in which this rank predicts a batch: boxes of blocks, then those of tiles."""
    brick, cells = config.patches[0], [1, 1, 1]
    regions = [Around.of_cells([window_box(blocks, config)], samples, brick, cells) for blocks in plan.blocks_of(batch)]
    boxes = plan.decoding.local[batch].boxes if config.local else ()
    return regions + [around_tiles(tiles, samples, config) for tiles in boxes]


def around_tiles(tiles: Tiles, samples: Samples, config: MateyConfig) -> Around:
    """Return the bricks around tiles that the local operator looks at to predict them."""
    ladder, spans = Ladder.for_config(config), []
    for factor, (of_samples, *ends) in zip(ladder.factors, ladder.boxes(tiles), strict=True):
        begin, end = ([place * s for place, s in zip(side, factor, strict=True)] for side in ends)
        spans.append((of_samples, begin, end))
    multiples = [math.lcm(*along) for along in zip(*ladder.factors, strict=True)]
    return Around.of_cells(spans, samples, config.patches[0], multiples)


def _around(
    regions: Iterator[Region], plan: StepPlan, batch: int, config: MateyConfig, normalisation: Normalisation
) -> Surroundings:
    """Return the last frames around the cells that this rank predicts, from the regions around each box, see `_regions`."""
    last = [last_around(next(regions), blocks, config) for blocks in plan.blocks_of(batch)]
    boxes = plan.decoding.local[batch].boxes
    wide: list[tuple[Tensor, ...]] = [()] * len(boxes)
    if config.local:
        wide = [wide_around(next(regions), [tiles], normalisation, config)[0] for tiles in boxes]
    return Surroundings.from_boxes(last, wide)


def _seen(
    moved: Whole,
    around: Surroundings,
    of_tokens: Tensor,
    normalisation: Normalisation,
    tiles: Tiles,
    brick: Patch,
    num_fields: int,
) -> Seen:
    """Return the part of a batch that this rank sees; the history is normalised in place.

    Args:
        moved: the bricks in which this rank has tokens.
        around: the last frames around the cells that this rank predicts.
        of_tokens: numbers ``(k,)`` of these bricks.
        normalisation: statistics of the sample of each brick.
        tiles: tiles that hold own cells.
        brick: the coarsest patch.
        num_fields: number of predicted fields; given fields come after them.
    """
    ratio = parts_along(brick, tiles.tile)
    places = torch.unravel_index(tiles.row, tiles.grid)[1:]
    inside = [place % r for place, r in zip(places, ratio, strict=True)]
    of_tile = torch.searchsorted(of_tokens, tiles.in_patches(brick))
    z, y, x = tiles.tile[1:]

    def cut(frame: Tensor) -> Tensor:
        return rearrange(frame, "k f (Z z) (Y y) (X x) -> k Z Y X f z y x", z=z, y=y, x=x)[of_tile, *inside]

    base = cut(moved.history[:, -1, :num_fields])
    target = None if moved.target is None else cut(moved.target[:, :num_fields])
    return Seen(normalisation.apply_(moved.history), around, base, target)


def _recents(
    recent: list[Tensor],
    numbers: Tensor,
    regions: Sequence[Around],
    num_last: int,
    grid: Sequence[int],
    samples: Samples,
    normalisation: Normalisation,
) -> Iterator[Region]:
    """Yield the region around each box, with the last frame alone for the first ``num_last``; free the bricks at the end.

    Args:
        recent: list of one tensor, the bricks ``(m, t, f, z, y, x)``; it is emptied.
        numbers: the numbers ``(m,)`` of these bricks.
        regions: the boxes.
        num_last: number of boxes that need the last frame alone.
        grid: number of samples and of bricks along ``z, y, x``.
        samples: the samples.
        normalisation: statistics of the samples.
    """
    for at, region in enumerate(regions):
        frames, is_last = slice(-1 if at < num_last else 0, None), at + 1 == len(regions)
        yield _recent(
            (recent.pop() if is_last else recent[0])[:, frames], numbers, region, grid, samples, normalisation
        )


def _recent(
    bricks: Tensor, numbers: Tensor, region: Around, grid: Sequence[int], samples: Samples, normalisation: Normalisation
) -> Region:
    """Assemble bricks ``(m, t, f, z, y, x)`` of the last frames, with numbers ``(m,)``, to a normalised region."""
    place = torch.searchsorted(numbers, region.bricks(grid))
    _, num_frames, num_fields, *cells = bricks.shape
    sizes = [number * size for number, size in zip(place.shape[1:], cells, strict=True)]
    fields = bricks.new_empty(len(place), num_frames, num_fields, *sizes)
    by_brick = rearrange(fields, "b t f (Z z) (Y y) (X x) -> b Z Y X t f z y x", **dict(zip("zyx", cells, strict=True)))
    for some in torch.arange(place.numel()).split(max(AT_ONCE // max(bricks[:1].numel(), 1), 1)):
        by_brick[*torch.unravel_index(some, place.shape)] = bricks[place.flatten()[some]]
    start, wraps = [], []
    axes = zip(
        region.start, region.size, grid[1:], bricks.shape[-3:], samples.window[1:], samples.periodic, strict=True
    )
    for axis, (first, size, num_bricks, cells, length, periodic) in enumerate(axes, start=3):
        is_whole = size == num_bricks
        if 0 <= first <= num_bricks - size:  # no wrap: cells beyond the domain are cut off
            fields = fields.narrow(axis, 0, min(fields.shape[axis], length - first * cells))
        start.append(first * cells)
        wraps.append(periodic and is_whole)
    held = slice(*region.samples)
    return Region(normalisation.of(held).apply_(fields), held, tuple(start), tuple(wraps))
