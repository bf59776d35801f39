"""Blocks that overlap become a field."""

import pytest
import torch

from matey.model.blending import Blocks, blend, ramp
from matey.tokens.layout import layout_tokens
from matey.tokens.patches import surroundings

COVERED, PERIODIC, OPEN = (1, 16, 24), (False, True, False), (False, False, False)


def blocks_of(field, patch, row, margin=(0, 2, 2), cells=(1, 4, 4), periodic=PERIODIC):
    """Cut a field into the blocks of some patches, margins included."""
    f = field.shape[1]
    windows = surroundings(field, COVERED, patch[1:], cells, margin, periodic, row)
    weight = ramp(cells, margin)
    return Blocks(windows.reshape(len(windows), -1, f, *weight.shape) * weight, row, patch, cells, margin)


def two_levels(field, **kwargs):
    splits = torch.zeros(len(field), 1, 2, 3, dtype=torch.bool)
    splits[0, 0, 0, 1] = splits[-1, 0, 1, 2] = True
    patches = [(1, 1, 8, 8), (1, 1, 4, 4)]
    layout = layout_tokens([(len(field), 1, *COVERED)], [[splits]], patches)
    return [blocks_of(field, patch, layout.row[layout.level == level], **kwargs) for level, patch in enumerate(patches)]


@pytest.mark.parametrize("margin", [(0, 0, 0), (0, 1, 2), (0, 2, 2)])
@pytest.mark.parametrize("periodic", [PERIODIC, OPEN])
def test_blocks_cut_out_of_a_field_blend_to_that_field(margin, periodic):
    field = torch.randn(2, 3, *COVERED, dtype=torch.float64)
    levels = two_levels(field, margin=margin, periodic=periodic)
    assert torch.allclose(blend(levels, 2, COVERED, periodic, add_levels=False), field, atol=1e-12)


def test_between_two_patches_that_disagree_there_is_a_ramp_instead_of_a_step():
    left = torch.zeros(1, 1, *COVERED, dtype=torch.float64)
    left[..., 8:] = 1
    flat = blocks_of(left, (1, 1, 8, 8), torch.arange(6), margin=(0, 0, 0), periodic=OPEN)
    values = flat.values[..., :1, :1, :1] * ramp((1, 4, 4), (0, 2, 2))
    blended = blend([Blocks(values, flat.row, flat.patch, flat.cells, (0, 2, 2))], 1, COVERED, OPEN, add_levels=False)
    step = torch.tensor([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1], dtype=torch.float64)
    assert torch.allclose(blended[0, 0, 0, :, 4:12], step.expand(16, 8), atol=1e-12)


def test_what_is_added_fades_out_beyond_the_patches_that_are_split():
    ones = torch.ones(1, 1, *COVERED, dtype=torch.float64)
    coarse, fine = two_levels(ones)
    whole = blocks_of(ones, (1, 1, 8, 8), torch.arange(6))
    total = blend([whole, fine], 1, COVERED, PERIODIC, add_levels=True)
    assert torch.allclose(total[0, 0, 0, 2:6, 10:14], torch.full((4, 4), 2.0, dtype=torch.float64))
    assert torch.allclose(
        total[0, 0, 0, 2:6, 16:20], torch.tensor([11, 9, 8, 8], dtype=torch.float64).div(8).expand(4, 4)
    )


def test_cells_without_a_block_are_zero():
    field = torch.randn(1, 2, *COVERED)
    row = torch.tensor([0])
    blended = blend([blocks_of(field, (1, 1, 8, 8), row, periodic=OPEN)], 1, COVERED, OPEN, add_levels=False)
    assert torch.allclose(blended[..., :8, :8], field[..., :8, :8], atol=1e-5)
    assert (blended[..., 11:, :] == 0).all() and (blended[..., 11:] == 0).all()
