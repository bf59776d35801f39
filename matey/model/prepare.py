"""Prepares all that a step needs to know of a micro-batch before it computes, on the host, ahead of the step.

    fields --> statistics, refinement, layout --> who embeds, attends to and decodes what: numbers of patches, tokens, blocks
                                              --> what this rank sees of the fields for that (`matey.model.seen`)

A host that asks a GPU for the number of tokens waits for all work that the GPU was given before. So all sizes that depend on
values are found here, and the network computes with known sizes. Nothing here needs another rank: all ranks of a group look at
the same fields. For ranks that have each read only a part, see `matey.model.shared_fields`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matey.fields import FieldBatch
from matey.model.blending import Blending
from matey.model.block_grid import BlockGrid, BlockSet, plan_blending
from matey.model.block_plan import BlockPlan
from matey.model.blocks import keys_of
from matey.model.boxes import PreparedBoxes, prepare_boxes
from matey.model.configuration import MateyConfig
from matey.model.decoding import BlockShape, block_shapes, reach_of, tile_of
from matey.model.given import Rows, given_of, parameters_of, rows_of, with_given
from matey.model.halo import HaloPlan, plan_halo
from matey.model.own_tokens import OwnTokens, bricks_of, own_tokens
from matey.model.scales import told
from matey.model.seen import Seen, see
from matey.model.sequence_group import HandOver, RankGroup
from matey.nested import with_tensors
from matey.samples import Samples
from matey.tokens.boxes import TilesInBoxes, in_boxes
from matey.tokens.bricks import by_batch, in_bricks
from matey.tokens.coverage import Holders, holders, routes, tiles_of, tiles_reached, tokens_around
from matey.tokens.layout import TokenLayout
from matey.tokens.normalisation import Normalisation
from matey.tokens.patches import Patch, Places, places
from matey.tokens.tiles import Frames, Tiles
from matey.tokens.tokenize import TokenBatch, tokenize


@dataclass(frozen=True)
class LevelToDecode:
    """The tokens of one level whose patches this rank decodes.

    Attributes:
        tokens: ``(m,)``, places of these tokens among this rank's tokens, box after box.
        blocks: places of the blocks to which these tokens are decoded, for each batch and each box of own patches.
    """

    tokens: Tensor
    blocks: tuple[tuple[Places, ...], ...]


@dataclass(frozen=True)
class Decoding:
    """Plan by which this rank's tokens of the last frame become the cells that it holds.

    Attributes:
        levels: the tokens to decode of each level.
        blendings: the plan by which the blocks of each batch become tiles.
        hand_over: the plan by which tiles come to the ranks that hold them.
        held: the tiles of each batch that hold cells of this rank's leaves.
        local: the same tiles, dealt out to the boxes in which the local operator predicts them.
        own: masks ``(k, z, y, x)`` of the cells of this rank's leaves in the tiles.
        holders: the ranks that hold cells in and around these tiles, for each batch; none on one process.
        halo: the plan by which a loss gets the cells around this rank's; None if it needs none, or is to plan it itself.
    """

    levels: tuple[LevelToDecode, ...]
    blendings: tuple[Blending, ...]
    hand_over: HandOver
    held: tuple[Tiles, ...]
    local: tuple[TilesInBoxes, ...]
    own: tuple[Tensor, ...]
    holders: tuple[Holders, ...]
    halo: HaloPlan | None = None


@dataclass(frozen=True)
class Prepared:
    """A micro-batch that a rank can compute with, without inspecting a value on the host.

    Attributes:
        samples: description of the samples of each batch.
        rows: the rows of each batch's fields in the vocabulary.
        normalisations: the statistics of each batch.
        scales: ``(b, f, 3)``, scales of each batch within their ranges: those of the history's fields, then of given fields.
        parameters: ``(b, p)``, the parameters of the samples, batch after batch; None if the model takes none.
        frames: the frames of each batch.
        seen: part of the fields of each batch that this rank sees.
        tokens: this rank's tokens.
        block_plan: the plan of every block.
        decoding: the plan by which tokens become cells.
    """

    samples: tuple[Samples, ...]
    rows: tuple[Rows, ...]
    normalisations: tuple[Normalisation, ...]
    scales: tuple[Tensor, ...]
    parameters: Tensor | None
    frames: tuple[Frames, ...]
    seen: tuple[Seen, ...]
    tokens: OwnTokens
    block_plan: BlockPlan
    decoding: Decoding

    def to(self, device: torch.device | str) -> Prepared:
        """Return the micro-batch with its tensors on ``device``."""
        return with_tensors(self, lambda tensor: tensor.to(device, non_blocking=not str(device).startswith("cpu")))

    def with_halos(self, halos: Sequence[Sequence[int]], ranks: RankGroup) -> Prepared:
        """Return the micro-batch with a plan for a loss that looks at cells ``z, y, x`` around a cell, for each batch."""
        decoding = self.decoding
        plan = plan_halo(decoding.held, decoding.holders, halos, ranks)
        return replace(self, decoding=replace(decoding, halo=plan))

    def at_lead(self, lead: int) -> Prepared:
        """Return the micro-batch for a prediction ``lead`` snapshots ahead; given fields must not change in time."""
        later = (replace(about, lead_time=torch.full_like(about.lead_time, lead)) for about in self.samples)
        return replace(self, samples=tuple(later))


Ready = Prepared | PreparedBoxes
"""A micro-batch that a rank can compute with, of either network."""


@torch.no_grad()
def prepare(
    batches: Sequence[FieldBatch],
    config: MateyConfig,
    ranks: RankGroup | None = None,
    token_batch: TokenBatch | None = None,
) -> Ready:
    """Prepare a micro-batch for one rank, on the device of the fields, which is best the host.

    Args:
        batches: the batches of a micro-batch; the same on all ranks of a group.
        config: the configuration of the model.
        ranks: the group of ranks that share the samples; by default one process.
        token_batch: the tokens of these batches, if they were found before.

    Raises:
        ValueError: a field is not in the vocabulary, a patch does not divide a batch's frames, or a budget cannot be spent.
    """
    ranks = ranks or RankGroup()
    if config.network != "operator":
        return prepare_boxes(batches, config, ranks, token_batch)
    given = [given_of(batch, config) for batch in batches]
    token_batch = token_batch or tokenize(batches, config.patches, config.refinement)
    # Blending weights are at least as precise as the fields.
    dtype = torch.promote_types(torch.float32, batches[0].history.dtype)
    plan = plan_of(token_batch, config, ranks, dtype)
    seen = []
    for number, (batch, normalisation, frames) in enumerate(
        zip(batches, token_batch.normalisations, token_batch.frames, strict=True)
    ):
        own = plan.bricks[number], plan.blocks_of(number), plan.decoding.local[number], plan.decoding.held[number]
        seen.append(see(batch, normalisation, given[number], frames, *own, config))
    statistics = [None if each is None else each.normalisation for each in given]
    return plan.prepared([batch.samples for batch in batches], token_batch, seen, config, statistics)


@dataclass(frozen=True)
class StepPlan:
    """A rank's plan for a micro-batch, without the values.

    Attributes:
        bricks: numbers ``(k,)`` along ``b Z Y X``, ascending, of the coarsest patches that hold own tokens, for each batch;
            None on one process, which sees whole samples.
        tokens: own tokens.
        block_plan: the plan of every block.
        decoding: the plan by which tokens become cells.
    """

    bricks: tuple[Tensor | None, ...]
    tokens: OwnTokens
    block_plan: BlockPlan
    decoding: Decoding

    def blocks_of(self, batch: int) -> list[tuple[Places, ...]]:
        """Return the places of the blocks of a batch that are decoded, for each box and level."""
        return list(zip(*(level.blocks[batch] for level in self.decoding.levels), strict=True))

    def prepared(
        self,
        samples: Sequence[Samples],
        token_batch: TokenBatch,
        seen: Sequence[Seen],
        config: MateyConfig,
        given: Sequence[Normalisation | None],
    ) -> Prepared:
        """Return the prepared micro-batch, from the fields that the rank sees and the statistics of given fields."""
        device, names = token_batch.layout.row.device, config.parameters
        rows = tuple(rows_of(batch, config, device) for batch in samples)
        inputs = map(with_given, token_batch.normalisations, given)
        return Prepared(
            samples=tuple(samples),
            rows=rows,
            normalisations=token_batch.normalisations,
            scales=told(inputs, [row.inputs for row in rows], config.fields, config.scales),
            parameters=torch.cat([parameters_of(batch, names, device) for batch in samples]) if names else None,
            frames=token_batch.frames,
            seen=tuple(seen),
            tokens=self.tokens,
            block_plan=self.block_plan,
            decoding=self.decoding,
        )


def plan_of(token_batch: TokenBatch, config: MateyConfig, ranks: RankGroup, dtype: torch.dtype) -> StepPlan:
    """Plan a micro-batch for one rank; ``dtype`` is the precision of the blending weights."""
    whole, frames = token_batch.layout, token_batch.frames
    own = ranks.shard(whole.num_tokens)
    mine = whole.select(own)
    bricks = bricks_of(mine, frames, config.patches) if ranks.size > 1 else [None] * len(frames)
    return StepPlan(
        bricks=tuple(bricks),
        tokens=own_tokens(mine, frames, config.patches, bricks),
        block_plan=ranks.plan_block(keys_of(whole, config.scheme, config.patches)),
        decoding=_decoding(whole, own, frames, config, ranks, dtype),
    )


def _decoding(
    whole: TokenLayout, own: slice, frames: Sequence[Frames], config: MateyConfig, ranks: RankGroup, dtype: torch.dtype
) -> Decoding:
    patches, shapes = config.patches, block_shapes(config)
    tile, reach = tile_of(shapes), reach_of(shapes)
    reached = tiles_reached(whole, own, frames, patches, reach, tile)
    held = tiles_of(whole, own, frames, patches, tile)
    boxes = torch.zeros_like(whole.row[own]), [1] * len(frames)
    near = tokens_around(whole, own, frames, patches, reach)
    beside, rank = whole.select(near), ranks.rank_of_tokens(whole.num_tokens).to(near.device)[near]
    found: list[Holders] = []
    if ranks.size > 1:
        boxes = _boxes_of_tokens(whole.select(own), frames, patches)
        found = holders(beside, rank, frames, patches, tile)
    levels, blocks = _levels_to_decode(beside, near, own, reached, patches, shapes, boxes)
    return Decoding(
        levels=tuple(levels),
        blendings=tuple(plan_blending(of_batch, dtype, add_levels=config.tokens.set == "mul") for of_batch in blocks),
        hand_over=ranks.plan_hand_over(
            [tiles.row for tiles in reached],
            [tiles.row for tiles in held],
            lambda: routes(beside, rank, found, ranks.place, frames, patches, reach),
        ),
        held=tuple(held),
        local=tuple(TilesInBoxes.dealt(tiles, patches[0]) for tiles in held),
        own=tuple(tiles.cells() for tiles in held),
        holders=tuple(found),
    )


def _boxes_of_tokens(own: TokenLayout, frames: Sequence[Frames], patches: Sequence[Patch]) -> tuple[Tensor, list[int]]:
    """Deal the patches of own tokens of the last frame out to boxes.

    Returns:
        The number of each token's box ``(n,)``, from 0 in every batch, and the number of boxes of each batch.
    """
    box, counts = torch.zeros(own.num_tokens, dtype=torch.long, device=own.row.device), []
    last = own.is_last.nonzero(as_tuple=True)[0]
    of_levels = [in_bricks(own.select(last), frames, patches, level) for level in range(len(patches))]
    for group, found in zip(frames, zip(*of_levels, strict=True), strict=True):
        index, brick = (torch.cat(column) for column in zip(*(each[:2] for each in found), strict=True))
        numbers = in_boxes(brick, group.grid_of(patches[0]), patches[0])
        box[last[index]] = numbers
        counts.append(int(numbers.max()) + 1 if len(numbers) else 1)
    return box, counts


def _levels_to_decode(
    layout: TokenLayout,
    number: Tensor,
    own: slice,
    reached: Sequence[Tiles],
    patches: Sequence[Patch],
    shapes: Sequence[BlockShape],
    boxes: tuple[Tensor, Sequence[int]],
) -> tuple[list[LevelToDecode], list[list[BlockSet]]]:
    """Return the tokens to decode of each level, and the blocks for each batch and level.

    The layout holds the tokens ``(m,)`` of `tokens_around`; for ``boxes`` see `_boxes_of_tokens`.
    """
    box, num_boxes = boxes
    levels: list[LevelToDecode] = []
    blocks: list[list[BlockSet]] = [[] for _ in reached]
    grids_of_size: dict[BlockShape, list[BlockGrid]] = {}
    for level, (patch, shape) in enumerate(zip(patches, shapes, strict=True)):
        if shape not in grids_of_size:
            grids_of_size[shape] = [BlockGrid.over(tiles, shape.cells[1:], shape.margin) for tiles in reached]
        tokens, of_batches = [], []
        by_batches = by_batch((layout.level == level).nonzero(as_tuple=True)[0], layout, len(reached))
        for of_batch, of_level, grid, count in zip(blocks, by_batches, grids_of_size[shape], num_boxes, strict=True):
            times = grid.tiles.frames.window[0] // patch[0]
            row, at = layout.row[of_level].long() // times, number[of_level]
            is_own = (at >= own.start) & (at < own.stop)
            mine, own_row = at[is_own] - own.start, row[is_own]
            of_boxes = [box[mine] == each for each in range(count)] if count > 1 else [slice(None)]
            numbers = [grid.numbers(patch, own_row[of_box]) for of_box in of_boxes]
            present = numbers[0] if count == 1 and len(mine) == len(at) else grid.numbers(patch, row)
            of_batch.append(BlockSet(torch.cat(numbers), present, grid))
            of_batches.append(tuple(places(each, grid.shape) for each in numbers))
            tokens += [mine[of_box] for of_box in of_boxes]
        levels.append(LevelToDecode(torch.cat(tokens), tuple(of_batches)))
    return levels, blocks
