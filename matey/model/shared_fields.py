"""Prepares a micro-batch whose fields no rank holds whole: each has read a part, and sees in the end what it needs.

    own part --> sums over its patches --> gathered: statistics        --> normalised own part --> criteria of its patches
             --> gathered: refinement, layout, who does what, the same on all ranks
             --> bricks, the coarsest patches, go to the ranks whose tokens or halos lie in them, in one exchange

What is gathered is a few numbers for each patch. A rank gets a brick whole, with its target, where it has tokens; around what
it predicts, it gets the last two frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from torch import Tensor

from matey.model.configuration import MateyConfig
from matey.model.ladder import Ladder
from matey.model.moving import needs_of, swapped
from matey.model.prepare import Prepared, StepPlan, plan_of
from matey.model.seen import Seen, Surroundings, last_around, wide_around, window_box
from matey.model.sequence_group import Exchange, RankGroup
from matey.samples import BatchPart, Piece, Samples
from matey.tokens.normalisation import Normalisation, normalisation_from, patch_sums
from matey.tokens.parts import Around, BrickShare, Sharing
from matey.tokens.patches import Patch
from matey.tokens.refinement import from_all_patches, is_of_patches, of_each_patch, split_by
from matey.tokens.region import Region
from matey.tokens.tiles import Tiles
from matey.tokens.tokenize import check_samples, lay_out


def share_of(config: MateyConfig, ranks: RankGroup) -> BrickShare | None:
    """Return which part of the fields a rank reads; None where it reads all.

    One process reads all, as do ranks whose model is given fields besides the histories, or has a package's criterion, which
    may look at more than one patch.
    """
    if ranks.size == 1 or not is_of_patches(config.refinement) or config.given:
        return None
    return BrickShare(config.patches[0], ranks.place, ranks.size)


@torch.no_grad()
def prepare_parts(parts: Sequence[BatchPart], config: MateyConfig, ranks: RankGroup, exchange: Exchange) -> Prepared:
    """Prepare a micro-batch for one rank from the parts that the ranks have read; all of them call together.

    Args:
        parts: this rank's part of each batch, of the boxes that `matey.tokens.parts.BrickShare` says.
        config: the configuration of the model; the criterion of the refinement has to look at one patch alone.
        ranks: the group of ranks that share the samples.
        exchange: exchange between the ranks.

    Raises:
        ValueError: see `matey.model.prepare.prepare`.
    """
    samples = [part.samples for part in parts]
    check_samples(samples, config.patches, config.refinement)
    sharing = Sharing.share_out(samples, config.patches[0], ranks.size)
    pieces = [[_inside(piece, part.samples) for piece in part.pieces] for part in parts]
    normalisations = _statistics(samples, pieces, sharing, exchange)
    refined = _refinement(samples, pieces, normalisations, sharing, config, exchange)
    token_batch = lay_out(samples, normalisations, refined, config.patches, config.refinement)
    plan = plan_of(token_batch, config, ranks, torch.promote_types(torch.float32, samples[0].dtype))
    regions = [_regions(batch, plan, number, config) for number, batch in enumerate(samples)]
    needs = needs_of(token_batch, regions, sharing, config, ranks, exchange)
    moved = swapped(parts, needs, sharing, ranks.place, exchange)
    seen = []
    for number, (bricks, recent) in enumerate(moved):
        need, grid, about = needs[ranks.place][number], sharing.grids[number], (samples[number], normalisations[number])
        around = _around(
            (_recent(recent, need.recent, region, grid, *about) for region in regions[number]),
            plan,
            number,
            config,
            about[1],
        )
        whole, held = (need.whole, math.prod(grid[1:]), about[1]), plan.decoding.held[number]
        seen.append(_seen(bricks, around, *whole, held, config.patches[0], samples[number].window[0]))
    return plan.prepared(samples, token_batch, seen, config, [None] * len(samples))


def _inside(piece: Piece, samples: Samples) -> tuple[int, Tensor]:
    """Return the sample of a piece and its history ``(1, t, f, z, y, x)``, without what lies beyond the domain."""
    z, y, x = (length - first for length, first in zip(samples.window[1:], piece.start, strict=True))
    return piece.sample, piece.history[None, ..., :z, :y, :x]


def _statistics(
    samples: Sequence[Samples],
    pieces: Sequence[Sequence[tuple[int, Tensor]]],
    sharing: Sharing,
    exchange: Exchange,
) -> list[Normalisation]:
    rows = [
        [rearrange(patch_sums(history, sharing.brick), "1 s f Z Y X -> (Z Y X) (s f)") for _, history in of_batch]
        for of_batch in pieces
    ]
    gathered = _gathered(rows, [3 * len(batch.fields) for batch in samples], samples[0].dtype, sharing, exchange)
    found = []
    for batch, (number, Z, Y, X), sums in zip(samples, sharing.grids, gathered, strict=True):
        of_batch = rearrange(sums, "(b Z Y X) (s f) -> b s f Z Y X", b=number, Z=Z, Y=Y, X=X, s=3)
        found.append(normalisation_from(of_batch, batch.window[0], batch.window[1:], sharing.brick))
    return found


def _refinement(
    samples: Sequence[Samples],
    pieces: Sequence[Sequence[tuple[int, Tensor]]],
    normalisations: Sequence[Normalisation],
    sharing: Sharing,
    config: MateyConfig,
    exchange: Exchange,
) -> list[list[Tensor]]:
    """Decide which patches are split, by the criteria of all ranks' patches."""
    patches, refinement = config.patches, config.refinement
    if len(patches) == 1:
        return [[] for _ in samples]
    ratios = [
        [coarse // fine for coarse, fine in zip(patches[0][1:], patch[1:], strict=True)] for patch in patches[:-1]
    ]
    rows = []
    for of_batch, normalisation in zip(pieces, normalisations, strict=True):
        of_pieces = []
        for sample, history in of_batch:
            is_raw = refinement.values == "raw"
            values = history if is_raw else _of_samples(normalisation, [sample]).apply(history)
            levels = [
                rearrange(criterion, "1 (Z z) (Y y) (X x) -> (Z Y X) (z y x)", z=z, y=y, x=x)
                for criterion, (z, y, x) in zip(of_each_patch(values, patches, refinement), ratios, strict=True)
            ]
            of_pieces.append(torch.cat(levels, dim=1))
        rows.append(of_pieces)
    widths = [z * y * x for z, y, x in ratios]
    refined = []
    gathered = _gathered(rows, [sum(widths)] * len(samples), samples[0].dtype, sharing, exchange)
    for batch, (number, Z, Y, X), of_all in zip(samples, sharing.grids, gathered, strict=True):
        criteria = [
            rearrange(values, "(b Z Y X) (z y x) -> b (Z z) (Y y) (X x)", b=number, Z=Z, Y=Y, X=X, z=z, y=y, x=x)
            for values, (z, y, x) in zip(of_all.split(widths, dim=1), ratios, strict=True)
        ]
        criteria = from_all_patches(criteria, batch.window, patches, refinement)
        refined.append(split_by(criteria, batch.window, patches, refinement))
    return refined


def _of_samples(normalisation: Normalisation, chosen: Sequence[int] | Tensor | slice) -> Normalisation:
    return Normalisation(normalisation.mean[chosen], normalisation.std[chosen], normalisation.change[chosen])


def _gathered(
    rows: Sequence[Sequence[Tensor]], widths: Sequence[int], dtype: torch.dtype, sharing: Sharing, exchange: Exchange
) -> list[Tensor]:
    """Return rows ``(bricks, width)`` of each batch of all ranks, from the rows of this rank's pieces."""
    ways = len(sharing.bounds[0]) - 1
    sizes = [[sharing.number_of(batch, rank) * width for batch, width in enumerate(widths)] for rank in range(ways)]
    parts = [row.flatten() for of_batch in rows for row in of_batch]
    own = torch.cat([torch.empty(0, dtype=dtype), *parts])
    of_ranks = exchange.gather(own, [sum(of_rank) for of_rank in sizes]).split(
        [n for of_rank in sizes for n in of_rank]
    )
    return [torch.cat(of_ranks[batch :: len(widths)]).view(-1, width) for batch, width in enumerate(widths)]


def _regions(samples: Samples, plan: StepPlan, batch: int, config: MateyConfig) -> list[Around]:
    """Return the bricks around each box in which this rank predicts a batch: boxes of blocks, then those of tiles."""
    brick, cells = config.patches[0], [1, 1, 1]
    regions = [Around.of_cells([window_box(blocks, config)], samples, brick, cells) for blocks in plan.blocks_of(batch)]
    ladder = Ladder.for_config(config)
    multiples = [math.lcm(*along) for along in zip(cells, *ladder.factors, strict=True)]
    for tiles in plan.decoding.local[batch].boxes if config.local else ():
        spans = []
        for factor, (of_samples, *ends) in zip(ladder.factors, ladder.boxes(tiles), strict=True):
            begin, end = ([place * s for place, s in zip(side, factor, strict=True)] for side in ends)
            spans.append((of_samples, begin, end))
        regions.append(Around.of_cells(spans, samples, brick, multiples))
    return regions


def _around(
    regions: Iterator[Region], plan: StepPlan, batch: int, config: MateyConfig, normalisation: Normalisation
) -> Surroundings:
    """Return the last frames around what this rank predicts, from the regions around each box, see `_regions`."""
    last = [last_around(next(regions), blocks, config) for blocks in plan.blocks_of(batch)]
    boxes = plan.decoding.local[batch].boxes
    wide: list[tuple[Tensor, ...]] = [()] * len(boxes)
    if config.local:
        wide = [wide_around(next(regions), [tiles], normalisation, config)[0] for tiles in boxes]
    return Surroundings.from_boxes(last, wide)


def _seen(
    bricks: Tensor,
    around: Surroundings,
    of_tokens: Tensor,
    bricks_of_sample: int,
    normalisation: Normalisation,
    tiles: Tiles,
    brick: Patch,
    num_frames: int,
) -> Seen:
    """Return what this rank sees of a batch.

    Args:
        bricks: ``(k, t, f, z, y, x)``, the bricks in which it has tokens, a target as their last frame.
        around: the last frames around what it predicts.
        of_tokens: numbers ``(k,)`` of these bricks.
        bricks_of_sample: number of bricks of a sample.
        normalisation: statistics of the batch.
        tiles: tiles that hold own cells.
        brick: the coarsest patch.
        num_frames: number of frames of a history.
    """
    ratio = [coarse // fine for coarse, fine in zip(brick[1:], tiles.tile[1:], strict=True)]
    places = torch.unravel_index(tiles.row, tiles.grid)[1:]
    z, y, x = tiles.tile[1:]
    by_tile = rearrange(bricks[:, num_frames - 1 :], "k t f (Z z) (Y y) (X x) -> k Z Y X t f z y x", z=z, y=y, x=x)
    inside = (place % r for place, r in zip(places, ratio, strict=True))
    base, *target = by_tile[torch.searchsorted(of_tokens, tiles.in_patches(brick)), *inside].unbind(1)
    history = _of_samples(normalisation, of_tokens // bricks_of_sample).apply(bricks[:, :num_frames])
    return Seen(history, around, base, target[0] if target else None)


def _recent(
    bricks: Tensor, numbers: Tensor, region: Around, grid: Sequence[int], samples: Samples, normalisation: Normalisation
) -> Region:
    """Put bricks ``(m, t, f, z, y, x)`` of the last frames, which are numbered ``(m,)``, together to a normalised region."""
    place = torch.searchsorted(numbers, region.bricks(grid))
    fields = rearrange(bricks[place], "b Z Y X t f z y x -> b t f (Z z) (Y y) (X x)")
    start, wraps = [], []
    axes = zip(
        region.start, region.size, grid[1:], bricks.shape[-3:], samples.window[1:], samples.periodic, strict=True
    )
    for axis, (first, size, num_bricks, cells, length, periodic) in enumerate(axes, start=3):
        is_whole = size == num_bricks
        if is_whole or not periodic:  # without what lies beyond the domain
            fields = fields.narrow(axis, 0, min(fields.shape[axis], length - first * cells))
        start.append(first * cells)
        wraps.append(periodic and is_whole)
    held = slice(*region.samples)
    return Region(_of_samples(normalisation, held).apply(fields), held, tuple(start), tuple(wraps))
