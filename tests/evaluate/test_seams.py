"""Seams between patches."""

import pytest
import torch

from matey.evaluate.records import jumps, patches_of_cells
from matey.tokens.refinement import Refinement
from matey.tokens.tokenize import tokenize
from tests.support.models import make_batch

PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))


def test_an_error_that_is_constant_in_each_patch_jumps_at_borders_only():
    numbers = torch.arange(8).reshape(1, 1, 2, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)  # (b, z, y, x)
    across, inside = jumps(numbers[:, None].double(), numbers)
    assert inside.item() == 0
    # 3 borders of 8 cells where the error jumps by 1, one of 16 cells where it jumps by 4
    assert across.item() == pytest.approx((3 * 8 * 1 + 16 * 4) / (3 * 8 + 16))


def test_an_error_that_is_smooth_everywhere_shows_no_patches():
    batch = make_batch(num_samples=1, grid=(1, 64, 64))
    layout = tokenize([batch], PATCHES, Refinement("threshold", 0.3)).layout
    numbers = patches_of_cells(batch, PATCHES, layout)
    slope = torch.arange(64.0)[:, None] + 2 * torch.arange(64.0)
    across, inside = jumps(slope.expand(1, 1, 1, 64, 64), numbers)
    assert across.item() == pytest.approx(inside.item(), rel=0.1)


def test_cells_of_a_leaf_share_its_number_and_others_do_not():
    batch = make_batch(grid=(1, 20, 28))
    layout = tokenize([batch], PATCHES, Refinement("threshold", 0.3, keep_parents=True)).layout
    numbers = patches_of_cells(batch, PATCHES, layout)
    assert numbers.shape == (2, 1, 20, 28) and (numbers >= 0).all()
    sizes = numbers.unique(return_counts=True)[1]
    assert sizes.max() == 64 and (numbers.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).diff(dim=-1) == 0).all()
