"""Cutting fields into patches."""

import math

import pytest
import torch

from matey.tokens.patches import (
    cover,
    extend,
    factor_stages,
    holds_cells,
    pad,
    padding_note,
    patch_grid,
    patches_at,
    patchify,
    unpatchify,
    unravelled,
)


@pytest.mark.parametrize("patch", [(1, 1, 4, 8), (2, 1, 8, 2), (2, 3, 1, 4), (4, 3, 16, 24)])
def test_unpatchify_after_patchify_is_the_identity(patch):
    fields = torch.randn(2, 4, 3, 3, 16, 24)
    patches = patchify(fields, patch)
    assert patches.shape[1:] == (3, *patch)
    assert torch.equal(unpatchify(patches, patch_grid((4, 3, 16, 24), patch)), fields)


def test_rows_of_patches_go_by_sample_then_place_then_time():
    fields = torch.arange(2 * 2 * 4 * 4).reshape(2, 2, 1, 1, 4, 4)
    patches = patchify(fields, (1, 1, 2, 2))
    sample, y, x, time = 1, 0, 1, 1
    row = ((sample * 2 + y) * 2 + x) * 2 + time
    assert torch.equal(patches[row, 0, 0, 0], fields[sample, time, 0, 0, 0:2, 2:4])


def test_some_patches_are_the_rows_of_all():
    fields, patch = torch.randn(2, 4, 3, 2, 8, 12), (2, 1, 4, 4)
    row = torch.randperm(2 * 2 * 2 * 3 * 2)[:9]
    assert torch.equal(patches_at(fields, patch, row), patchify(fields, patch)[row])


def test_positions_in_a_grid_are_those_of_torch():
    row, shape = torch.arange(60, dtype=torch.int32), (5, 3, 4)
    for ours, theirs in zip(unravelled(row, shape), torch.unravel_index(row, shape), strict=True):
        assert torch.equal(ours, theirs)


def test_patches_cover_a_grid_that_they_do_not_divide():
    assert cover((4, 1, 100, 64), (2, 1, 16, 16)) == (4, 1, 112, 64)
    assert patch_grid((4, 1, 112, 64), (2, 1, 16, 16)) == (2, 1, 7, 4)


def test_padding_is_said_where_there_is_any():
    assert padding_note((1, 64, 64), (2, 1, 16, 16)) == ""
    assert "1x100x64 (z y x) is padded to 1x112x64" in padding_note((1, 100, 64), (2, 1, 16, 16))


def test_a_patch_that_does_not_divide_the_history_names_the_sizes_that_do():
    with pytest.raises(ValueError, match=r"Patch t=4 does not divide the t=6 frames of the history; .* 1, 2, 3, 6"):
        cover((6, 1, 64, 64), (4, 1, 16, 16))


def test_fields_go_on_beyond_the_far_edge_periodically_or_with_the_outermost_value():
    field = torch.arange(12.0).reshape(1, 3, 4)
    longer = extend(field, (1, 5, 6), (False, False, True))
    assert torch.equal(longer[0, 4], torch.tensor([8.0, 9, 10, 11, 8, 9]))
    assert torch.equal(longer[:, :3, :4], field)
    assert torch.equal(pad(field, (1, 5, 6))[0, :, 4:], torch.zeros(5, 2))


def test_patches_wholly_beyond_the_grid_hold_no_cells():
    held = holds_cells((1, 20, 9), (1, 1, 32, 16), (1, 1, 8, 8), None)
    assert held.tolist() == [[[True, True], [True, True], [True, True], [False, False]]]


@pytest.mark.parametrize("patch", [(1, 1, 16, 16), (1, 1, 32, 8), (2, 1, 5, 25), (1, 1, 1, 1), (1, 1, 6, 20)])
def test_the_stages_of_a_stem_multiply_to_its_patch(patch):
    stages = factor_stages(patch)
    assert tuple(math.prod(stage[axis] for stage in stages) for axis in range(4)) == patch
    assert all(cells <= 4 for cells in stages[0])
