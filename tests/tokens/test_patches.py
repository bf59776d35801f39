"""From fields to tokens: statistics of a sample, and cutting fields into patches."""

import math

import pytest
import torch

from matey.fields import FieldBatch
from matey.tokens.normalisation import SMALLEST_CHANGE, normalisation_of
from matey.tokens.patches import (
    cover,
    extend,
    factor_stages,
    holds_cells,
    pad,
    patch_grid,
    patches_at,
    patchify,
    unpatchify,
    unravelled,
)
from matey.tokens.refinement import Refinement
from matey.tokens.tokenize import tokenize


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


def history(*shape, seed=0):
    return 5 + 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_normalised_fields_have_mean_zero_and_variance_one():
    values = history(2, 4, 3, 1, 8, 8)
    normalised = normalisation_of(values).apply(values)
    assert normalised.mean(dim=(1, 3, 4, 5)).abs().max() < 1e-12
    assert torch.allclose(normalised.square().mean(dim=(1, 3, 4, 5)), torch.ones(2, 3).double())


def test_the_change_is_the_root_mean_square_between_the_last_two_frames():
    values = history(2, 4, 3, 1, 8, 8)
    expected = (values[:, 3] - values[:, 2]).square().mean(dim=(2, 3, 4)).sqrt()
    assert torch.allclose(normalisation_of(values).change, expected)


def test_a_field_that_rests_has_no_change_of_rounding_blown_up():
    values = history(1, 1, 1, 1, 8, 8).repeat(1, 3, 1, 1, 1, 1)
    found = normalisation_of(values)
    assert torch.equal(found.change, SMALLEST_CHANGE * found.std) and (found.change > 0).all()


@pytest.mark.parametrize("name", ["std", "change"])
def test_scales_go_with_the_unit_and_not_with_its_zero(name):
    values = history(2, 3, 2, 1, 8, 8)
    one, other = normalisation_of(values), normalisation_of(1000 * values + 7)
    assert torch.allclose(getattr(other, name), 1000 * getattr(one, name), rtol=1e-10)


PATCHES = ((1, 1, 8, 8), (1, 1, 4, 4))


def test_raw_values_decide_what_is_refined_and_tokens_are_normalised_all_the_same():
    history = torch.zeros(1, 2, 2, 1, 32, 32)
    history[:, :, 0, :, 2:6, 2:6] = 1
    history[:, :, 1, :, 18:22, 18:22] = 1e5
    batch = FieldBatch("gas", ("density", "pressure"), history, torch.tensor([1]), history[:, -1])
    split = {}
    for values in ("normalised", "raw"):
        tokens = tokenize([batch], PATCHES, Refinement("threshold", 0.5, values=values))
        fine = tokens.layout.place[tokens.layout.level == 1] // 2
        split[values] = fine.unique(dim=0).tolist()
        normalised = tokens.normalisations[0].apply(history)
        assert torch.allclose(normalised.var(dim=(1, 3, 4, 5), correction=0), torch.ones(1, 2))
    assert split == {"normalised": [[0, 0, 0], [0, 2, 2]], "raw": [[0, 2, 2]]}
