"""Blocks that overlap become a part of the frame."""

import pytest
import torch

from matey.model.blending import BlockGrid, Blocks, blend, ramp
from matey.tokens.coverage import Frames, Part, parts_of
from matey.tokens.layout import layout_tokens
from matey.tokens.patches import surroundings

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


@pytest.mark.parametrize("margin", [(0, 0, 0), (0, 1, 2), (0, 2, 2)])
@pytest.mark.parametrize("periodic", [PERIODIC, OPEN])
def test_the_parts_of_slices_of_the_tokens_blend_to_what_the_whole_does_from_the_blocks_around_them(margin, periodic):
    field, part = torch.randn(2, 3, *COVERED, dtype=torch.float64), whole(2, periodic)
    levels = [
        Blocks(torch.randn_like(blocks.values), blocks.number, blocks.grid)
        for blocks in two_levels(field, part, margin=margin)
    ]
    expected = part.put(blend(levels, add_levels=False))
    layout, total = two_level_layout(2), 0
    for own in (slice(0, 3), slice(3, 4), slice(4, 4), slice(4, layout.num_tokens)):
        (piece,) = parts_of(layout, own, [part.frames], [COARSE, FINE])
        some = []
        for level, patch, blocks in zip((0, 1), (COARSE, FINE), levels, strict=True):
            grid = BlockGrid.over(piece, CELLS, margin)
            number = grid.to_decode(patch, layout.row[layout.level == level])[1]
            place = (blocks.number == number[:, None]).nonzero()[:, 1]
            assert len(place) == len(number)
            some.append(Blocks(blocks.values[..., place], number, grid))
        total = total + piece.put(blend(some, add_levels=False))
    assert torch.allclose(total, expected, atol=1e-12)


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


@pytest.mark.parametrize("periodic", [PERIODIC, OPEN])
def test_the_gradient_of_blended_blocks_is_that_of_finite_differences(periodic):
    part = whole(1, periodic)
    grid = BlockGrid.over(part, CELLS, (0, 1, 2))
    number = grid.to_decode(COARSE, torch.tensor([0, 1, 4]))[1]
    values = torch.randn(1, 1, 6, 8, len(number), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: blend([Blocks(v, number, grid)], add_levels=False), values)


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
