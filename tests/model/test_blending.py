"""Blocks that overlap become a part of the frame."""

import math
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from matey.model.blending import blend, ramp
from matey.model.block_grid import BlockGrid, BlockSet, plan_blending
from matey.model.decoding import BlockShape, reach_of, tile_of
from matey.tokens.coverage import tiles_reached, tokens_around
from matey.tokens.layout import layout_tokens
from matey.tokens.patches import cover, patch_grid, places
from matey.tokens.refinement import to_children
from matey.tokens.tiles import Frames, Tiles
from tests.support.laws import law
from tests.support.windows import surroundings

COVERED, PERIODIC, OPEN = (1, 16, 24), (False, True, False), (False, False, False)
COARSE, FINE = (1, 1, 8, 8), (1, 1, 4, 4)
CELLS = (1, 4, 4)


class Blocks(NamedTuple):
    """Decoded blocks of one level."""

    values: Tensor
    number: Tensor
    present: Tensor
    grid: BlockGrid


def blended(levels, *, add_levels):
    """Plan and blend."""
    plan = plan_blending([BlockSet(*blocks[1:]) for blocks in levels], levels[0].values.dtype, add_levels=add_levels)
    return blend([blocks.values for blocks in levels], plan)


def whole(num_samples=1, periodic=PERIODIC):
    """All tiles of the frames."""
    row = torch.arange(24 * num_samples)
    finest = torch.ones(len(row), 1, 1, 1, dtype=torch.bool)
    return Tiles(Frames(num_samples, (1, *COVERED), periodic, COVERED), FINE, row, finest)


def blocks_of(field, patch, row, tiles, margin=(0, 2, 2)):
    """Cut a field into the blocks of some patches, margins included."""
    grid = BlockGrid.over(tiles, CELLS, margin)
    number = grid.numbers(patch, row)
    windows = surroundings(field, CELLS, margin, tiles.frames.periodic, places(number, grid.shape))
    weight = ramp(CELLS, margin)
    values = (windows.reshape(*windows.shape[:2], *weight.shape) * weight).movedim(0, -1)
    return Blocks(values, number, number, grid)


def two_levels(field, tiles, **kwargs):
    splits = torch.zeros(len(field), 1, 2, 3, dtype=torch.bool)
    splits[0, 0, 0, 1] = splits[-1, 0, 1, 2] = True
    layout = layout_tokens([(len(field), 1, *COVERED)], [[splits]], [COARSE, FINE])
    rows = [layout.row[layout.level == level] for level in (0, 1)]
    return [blocks_of(field, patch, row, tiles, **kwargs) for patch, row in zip((COARSE, FINE), rows, strict=True)]


@pytest.mark.parametrize("margin", [(0, 0, 0), (0, 1, 2), (0, 2, 2)])
@pytest.mark.parametrize("periodic", [PERIODIC, OPEN])
def test_blocks_cut_out_of_a_field_blend_to_that_field(margin, periodic):
    field = torch.randn(2, 3, *COVERED, dtype=torch.float64)
    tiles = whole(2, periodic)
    field_again = tiles.put(blended(two_levels(field, tiles, margin=margin), add_levels=False))
    assert torch.allclose(field_again, field, atol=1e-12)


def cells_under(number, grid):
    """Where the cells ``z, y, x`` of a block and its margins lie, as an index of ``(b, z, y, x)``, and which lie anywhere."""
    sample, *place = (int(along) for along in torch.unravel_index(torch.tensor(number), grid.shape))
    frames, at, inside = grid.tiles.frames, [], []
    for first, cells, reach, length, wraps in zip(
        place, grid.cells, grid.margin, frames.covered, frames.wraps, strict=True
    ):
        along = first * cells + torch.arange(-reach, cells + reach)
        at.append(along % length)
        inside.append((along == along % length) | torch.tensor(wraps))
    z, y, x = torch.meshgrid(*inside, indexing="ij")
    return (torch.full_like(z, sample, dtype=torch.long), *torch.meshgrid(*at, indexing="ij")), (z & y & x)[..., None]


def blended_one_by_one(levels, *, add_levels):
    """Blend by a loop over blocks, each put where its cells are: ``(b, f, z, y, x)`` on what patches cover."""
    total = weight = 0
    for blocks in levels:
        frames = blocks.grid.tiles.frames
        ones = ramp(blocks.grid.cells, blocks.grid.margin).double()[..., None]
        field = torch.zeros(frames.num_samples, *frames.covered, len(blocks.values), dtype=torch.float64)
        weights = torch.zeros(*field.shape[:-1], 1, dtype=torch.float64)
        for place, number in enumerate(blocks.number.tolist()):
            where, counts = cells_under(number, blocks.grid)
            field = field.index_put(where, counts * blocks.values[..., place].movedim(0, -1), accumulate=True)
        for number in range(blocks.grid.num_blocks) if add_levels else blocks.number.tolist():
            where, counts = cells_under(number, blocks.grid)
            weights = weights.index_put(where, counts * ones, accumulate=True)
        total, weight = (total + field / weights, 1) if add_levels else (total + field, weight + weights)
    return (total / weight).movedim(-1, 1)


@law("add_levels", [False, True], quick=[True])
@pytest.mark.parametrize(
    ("patches", "grid", "periodic", "overlap"),
    [
        pytest.param([(1, 1, 12, 6), (1, 1, 6, 3)], (1, 24, 18), (False, True, False), 2, marks=pytest.mark.whole),
        ([(1, 1, 12, 6), (1, 1, 6, 3)], (1, 22, 6), (False, True, True), 1),
        pytest.param([(1, 4, 4, 4), (1, 2, 2, 2)], (8, 4, 12), (True, True, False), 2, marks=pytest.mark.whole),
        ([(1, 4, 4, 4), (1, 2, 2, 2)], (4, 8, 7), (True, False, True), 1),
        ([(2, 1, 4, 4), (1, 1, 2, 2), (1, 1, 1, 1)], (1, 8, 8), (True, True, True), 2),
        pytest.param(
            [(1, 1, 12, 12), (1, 1, 6, 6), (1, 1, 2, 2)], (1, 12, 24), (False, True, False), 2, marks=pytest.mark.whole
        ),
    ],
)
def test_what_slices_of_the_tokens_blend_adds_up_to_what_a_loop_over_blocks_gives(
    patches, grid, periodic, overlap, add_levels
):
    torch.manual_seed(0)
    covered = cover((2, *grid), patches[0])
    frames = Frames(2, (2, *grid), periodic, covered[1:])
    splits = [torch.rand(2, *patch_grid(covered, patches[0])[1:]) < 0.5]
    for coarse, fine in pairwise(patches[:-1]):
        children = to_children(splits[-1], coarse, fine)
        splits.append(children & (torch.rand(children.shape) < 0.5))
    layout = layout_tokens([(2, *frames.window)], [splits], patches, keep_parents=add_levels)
    shapes = [BlockShape.from_patch(patch, 0, overlap) for patch in patches]
    tile, reach = tile_of(shapes), reach_of(shapes)

    def rows(own, level):
        index = layout.select(own)
        return index.row[index.is_last & (index.level == level)] // (2 // patches[level][0])

    def blocks_of_slice(own, values):
        (tiles,) = tiles_reached(layout, own, [frames], patches, reach, tile)
        beside = tokens_around(layout, own, [frames], patches, reach)
        levels = []
        for level, (patch, shape) in enumerate(zip(patches, shapes, strict=True)):
            of_level = BlockGrid.over(tiles, shape.cells[1:], shape.margin)
            number, present = (of_level.numbers(patch, rows(part, level)) for part in (own, beside))
            levels.append(Blocks(values[level][..., number], number, present, of_level))
        return tiles, levels

    values = []
    for shape in shapes:
        size = [cells + 2 * reach for cells, reach in zip(shape.cells[1:], shape.margin, strict=True)]
        num_blocks = 2 * math.prod(c // cells for c, cells in zip(covered[1:], shape.cells[1:], strict=True))
        values.append(torch.randn(3, *size, num_blocks, dtype=torch.float64, requires_grad=True))
    z, y, x = grid
    levels = blocks_of_slice(slice(0, layout.num_tokens), values)[1]
    expected = blended_one_by_one(levels, add_levels=add_levels)[..., :z, :y, :x]
    total = 0
    for own in (slice(0, 6), slice(6, 7), slice(7, 8), slice(8, 8), slice(8, layout.num_tokens)):
        tiles, levels = blocks_of_slice(own, values)
        total = total + tiles.put(blended(levels, add_levels=add_levels))
    assert torch.allclose(total, expected, atol=1e-12)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((field * weights).sum(), values) for field in (total, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_between_two_patches_that_disagree_there_is_a_ramp_instead_of_a_step():
    left = torch.zeros(1, 1, *COVERED, dtype=torch.float64)
    left[..., 8:] = 1
    tiles = whole(periodic=OPEN)
    flat = blocks_of(left, COARSE, torch.arange(6), tiles, margin=(0, 0, 0))
    values = flat.values[:, :1, :1, :1] * ramp(CELLS, (0, 2, 2))[..., None]
    grid = BlockGrid.over(tiles, CELLS, (0, 2, 2))
    field_again = tiles.put(blended([Blocks(values, flat.number, flat.number, grid)], add_levels=False))
    step = torch.tensor([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1], dtype=torch.float64)
    assert torch.allclose(field_again[0, 0, 0, :, 4:12], step.expand(16, 8), atol=1e-12)


def test_what_is_added_fades_out_beyond_the_patches_that_are_split():
    ones = torch.ones(1, 1, *COVERED, dtype=torch.float64)
    tiles = whole()
    everywhere = blocks_of(ones, COARSE, torch.arange(6), tiles)
    total = tiles.put(blended([everywhere, two_levels(ones, tiles)[1]], add_levels=True))
    assert torch.allclose(total[0, 0, 0, 2:6, 10:14], torch.full((4, 4), 2.0, dtype=torch.float64))
    assert torch.allclose(
        total[0, 0, 0, 2:6, 16:20], torch.tensor([11, 9, 8, 8], dtype=torch.float64).div(8).expand(4, 4)
    )


def test_cells_without_a_block_are_zero():
    field = torch.randn(1, 2, *COVERED)
    tiles = whole(periodic=OPEN)
    field_again = tiles.put(blended([blocks_of(field, COARSE, torch.tensor([0]), tiles)], add_levels=False))
    assert torch.allclose(field_again[..., :8, :8], field[..., :8, :8], atol=1e-5)
    assert (field_again[..., 11:, :] == 0).all() and (field_again[..., 11:] == 0).all()
