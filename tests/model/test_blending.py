"""Blocks that overlap become a part of the frame."""

from itertools import pairwise

import pytest
import torch

from matey.model.blending import BlockGrid, Blocks, blend, ramp
from matey.tokens.coverage import Frames, Part, parts_of, tokens_to_decode
from matey.tokens.layout import layout_tokens
from matey.tokens.patches import cover, factor_stages, patch_grid, surroundings
from matey.tokens.refinement import to_children

COVERED, PERIODIC, OPEN = (1, 16, 24), (False, True, False), (False, False, False)
COARSE, FINE = (1, 1, 8, 8), (1, 1, 4, 4)
CELLS = (1, 4, 4)


def whole(num_samples=1, periodic=PERIODIC):
    """All cells of the frames."""
    return Part(
        Frames(num_samples, (1, *COVERED), periodic),
        COARSE,
        torch.arange(6 * num_samples),
        torch.ones(6 * num_samples, *COARSE[1:], dtype=torch.bool),
    )


def blocks_of(field, patch, row, part, margin=(0, 2, 2)):
    """Cut a field into those blocks of some patches that reach into a part, margins included."""
    grid = BlockGrid.over(part, CELLS, margin)
    number = grid.to_decode(patch, row)[1]
    windows = surroundings(field, COVERED, CELLS, margin, part.frames.periodic, number)
    weight = ramp(CELLS, margin)
    return Blocks((windows.reshape(*windows.shape[:2], *weight.shape) * weight).movedim(0, -1), number, grid)


def two_level_layout(num_samples):
    splits = torch.zeros(num_samples, 1, 2, 3, dtype=torch.bool)
    splits[0, 0, 0, 1] = splits[-1, 0, 1, 2] = True
    return layout_tokens([(num_samples, 1, *COVERED)], [[splits]], [COARSE, FINE])


def two_levels(field, part, **kwargs):
    layout = two_level_layout(len(field))
    rows = [layout.row[layout.level == level] for level in (0, 1)]
    return [blocks_of(field, patch, row, part, **kwargs) for patch, row in zip((COARSE, FINE), rows, strict=True)]


@pytest.mark.parametrize("margin", [(0, 0, 0), (0, 1, 2), (0, 2, 2)])
@pytest.mark.parametrize("periodic", [PERIODIC, OPEN])
def test_blocks_cut_out_of_a_field_blend_to_that_field(margin, periodic):
    field = torch.randn(2, 3, *COVERED, dtype=torch.float64)
    part = whole(2, periodic)
    blended = part.put(blend(two_levels(field, part, margin=margin), add_levels=False))
    assert torch.allclose(blended, field, atol=1e-12)


def cells_under(number, grid):
    """Where the cells ``z, y, x`` of a block and its margins lie, as an index of ``(b, z, y, x)``, and which lie anywhere."""
    part, at, inside = grid.part, [], []
    shape = (part.frames.num_samples, *(size // cells for size, cells in zip(part.covered, grid.cells, strict=True)))
    sample, *place = (int(along) for along in torch.unravel_index(torch.tensor(number), shape))
    for first, cells, reach, length, wraps in zip(
        place, grid.cells, grid.margin, part.covered, part.wraps, strict=True
    ):
        along = first * cells + torch.arange(-reach, cells + reach)
        at.append(along % length)
        inside.append((along == along % length) | torch.tensor(wraps))
    z, y, x = torch.meshgrid(*inside, indexing="ij")
    return (torch.full_like(z, sample, dtype=torch.long), *torch.meshgrid(*at, indexing="ij")), (z & y & x)[..., None]


def blended_one_by_one(levels, part, *, add_levels):
    """Blend by a loop over blocks, each put where its cells are: ``(b, f, z, y, x)`` on what tiles cover."""
    total = weight = 0
    for blocks in levels:
        ones = ramp(blocks.grid.cells, blocks.grid.margin).double()[..., None]
        field = torch.zeros(part.frames.num_samples, *part.covered, len(blocks.values), dtype=torch.float64)
        weights = torch.zeros(*field.shape[:-1], 1, dtype=torch.float64)
        for place, number in enumerate(blocks.number.tolist()):
            where, counts = cells_under(number, blocks.grid)
            field = field.index_put(where, counts * blocks.values[..., place].movedim(0, -1), accumulate=True)
        for number in range(blocks.grid.num_blocks) if add_levels else blocks.number.tolist():
            where, counts = cells_under(number, blocks.grid)
            weights = weights.index_put(where, counts * ones, accumulate=True)
        total, weight = (total + field / weights, 1) if add_levels else (total + field, weight + weights)
    return (total / weight).movedim(-1, 1)


@pytest.mark.parametrize("add_levels", [False, True])
@pytest.mark.parametrize(
    ("patches", "grid", "periodic", "overlap"),
    [
        ([(1, 1, 12, 6), (1, 1, 6, 3)], (1, 24, 18), (False, True, False), 2),
        ([(1, 1, 12, 6), (1, 1, 6, 3)], (1, 22, 6), (False, True, True), 1),
        ([(1, 4, 4, 4), (1, 2, 2, 2)], (8, 4, 12), (True, True, False), 2),
        ([(1, 4, 4, 4), (1, 2, 2, 2)], (4, 8, 7), (True, False, True), 1),
        ([(2, 1, 4, 4), (1, 1, 2, 2), (1, 1, 1, 1)], (1, 8, 8), (True, True, True), 2),
    ],
)
def test_the_blended_parts_of_all_slices_add_up_to_what_a_loop_over_blocks_gives(
    patches, grid, periodic, overlap, add_levels
):
    torch.manual_seed(0)
    frames = Frames(2, (2, *grid), periodic)
    first = patch_grid(cover(frames.window, patches[0]), patches[0])[1:]
    splits = [torch.rand(2, *first) < 0.5]
    for coarse, fine in pairwise(patches[:-1]):
        children = to_children(splits[-1], coarse, fine)
        splits.append(children & (torch.rand(children.shape) < 0.5))
    layout = layout_tokens([(2, *frames.window)], [splits], patches, keep_parents=add_levels)
    cells = [factor_stages(patch)[0][1:] for patch in patches]
    margins = [tuple(min(overlap, size // 2) for size in of_level) for of_level in cells]
    reach = [max(of_axis) for of_axis in zip(*margins, strict=True)]

    def blended(own, values):
        part = parts_of(layout, own, [frames], patches)[0]
        near = layout.select(tokens_to_decode(layout, own, [frames], patches, reach))
        levels = []
        for level, (patch, of_level, margin) in enumerate(zip(patches, cells, margins, strict=True)):
            blocks = BlockGrid.over(part, of_level, margin)
            rows = near.row[near.level == level] // (2 // patch[0])
            number = blocks.to_decode(patch, rows)[1]
            levels.append(Blocks(values[level][..., number] if values else None, number, blocks))
        return part, levels

    everything = slice(0, layout.num_tokens)
    part, levels = blended(everything, None)
    values = [
        torch.randn(3, *(c + 2 * m for c, m in zip(*sizes, strict=True)), blocks.grid.num_blocks, dtype=torch.float64)
        for sizes, blocks in zip(zip(cells, margins, strict=True), levels, strict=True)
    ]
    for of_level in values:
        of_level.requires_grad_()
    z, y, x = grid
    expected = blended_one_by_one(blended(everything, values)[1], part, add_levels=add_levels)[..., :z, :y, :x]
    total = 0
    for own in (slice(0, 3), slice(3, 4), slice(4, 4), slice(4, layout.num_tokens)):
        piece, levels = blended(own, values)
        total = total + piece.put(blend(levels, add_levels=add_levels))
    assert torch.allclose(total, expected, atol=1e-12)
    weights = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((field * weights).sum(), values) for field in (total, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    ("periodic", "margin", "expected"),
    [
        (OPEN, (0, 0, 0), [0, 1, 6, 7]),
        (OPEN, (0, 2, 2), [0, 1, 2, 6, 7, 8, 12, 13, 14]),
        (PERIODIC, (0, 2, 2), [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]),
        (PERIODIC, (0, 0, 2), [0, 1, 2, 6, 7, 8]),
    ],
)
def test_only_blocks_that_reach_into_the_part_are_decoded(periodic, margin, expected):
    everything = whole(periodic=periodic)
    part = Part(everything.frames, COARSE, everything.row[:1], everything.own[:1])
    place, number = BlockGrid.over(part, CELLS, margin).to_decode(COARSE, torch.arange(6))
    assert sorted(number.tolist()) == expected
    assert len(place) == len(expected) and torch.equal(place[number <= 1], torch.tensor([0, 1]))


def test_a_tile_that_is_own_in_part_brings_the_blocks_around_that_part():
    own = torch.zeros(1, *COARSE[1:], dtype=torch.bool)
    own[..., :4, :4] = True
    part = Part(Frames(1, (1, *COVERED), OPEN), COARSE, torch.tensor([0]), own)
    number = BlockGrid.over(part, CELLS, (0, 2, 2)).to_decode(COARSE, torch.arange(6))[1]
    assert sorted(number.tolist()) == [0, 1, 6, 7]


def test_between_two_patches_that_disagree_there_is_a_ramp_instead_of_a_step():
    left = torch.zeros(1, 1, *COVERED, dtype=torch.float64)
    left[..., 8:] = 1
    part = whole(periodic=OPEN)
    flat = blocks_of(left, COARSE, torch.arange(6), part, margin=(0, 0, 0))
    values = flat.values[:, :1, :1, :1] * ramp(CELLS, (0, 2, 2))[..., None]
    grid = BlockGrid.over(part, CELLS, (0, 2, 2))
    blended = part.put(blend([Blocks(values, flat.number, grid)], add_levels=False))
    step = torch.tensor([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1], dtype=torch.float64)
    assert torch.allclose(blended[0, 0, 0, :, 4:12], step.expand(16, 8), atol=1e-12)


def test_what_is_added_fades_out_beyond_the_patches_that_are_split():
    ones = torch.ones(1, 1, *COVERED, dtype=torch.float64)
    part = whole()
    everywhere = blocks_of(ones, COARSE, torch.arange(6), part)
    total = part.put(blend([everywhere, two_levels(ones, part)[1]], add_levels=True))
    assert torch.allclose(total[0, 0, 0, 2:6, 10:14], torch.full((4, 4), 2.0, dtype=torch.float64))
    assert torch.allclose(
        total[0, 0, 0, 2:6, 16:20], torch.tensor([11, 9, 8, 8], dtype=torch.float64).div(8).expand(4, 4)
    )


def test_cells_without_a_block_are_zero():
    field = torch.randn(1, 2, *COVERED)
    part = whole(periodic=OPEN)
    blended = part.put(blend([blocks_of(field, COARSE, torch.tensor([0]), part)], add_levels=False))
    assert torch.allclose(blended[..., :8, :8], field[..., :8, :8], atol=1e-5)
    assert (blended[..., 11:, :] == 0).all() and (blended[..., 11:] == 0).all()
