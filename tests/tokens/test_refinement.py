"""Which patches are split."""

import torch

from matey.tokens.normalisation import normalisation_of
from matey.tokens.refinement import patch_variance, refine_by_threshold

COARSE, FINE = (1, 1, 8, 8), (1, 1, 4, 4)


def test_the_variance_is_over_frames_and_cells_and_averaged_over_fields():
    fields = torch.randn(1, 3, 2, 1, 16, 16)
    patch = fields[0, :, :, 0, 8:16, 0:8]
    expected = (patch[:, 0].var(correction=0) + patch[:, 1].var(correction=0)) / 2
    assert torch.allclose(patch_variance(fields, COARSE)[0, 0, 1, 0], expected)


def test_only_the_patch_with_the_front_is_split():
    fields = torch.zeros(1, 2, 1, 1, 32, 32)
    fields[..., 10:14, 20:23] = 1
    (refined,) = refine_by_threshold(fields, [COARSE, FINE], gamma=0.5)
    assert refined.nonzero().tolist() == [[0, 0, 1, 2]]


def test_a_constant_field_is_never_split():
    fields = normalisation_of(torch.full((1, 2, 1, 1, 16, 16), 7.3)).apply(torch.full((1, 2, 1, 1, 16, 16), 7.3))
    (refined,) = refine_by_threshold(fields, [COARSE, FINE], gamma=0.0)
    assert not refined.any()


def test_gamma_zero_splits_all_that_varies_and_gamma_one_nothing():
    fields = torch.randn(2, 1, 1, 1, 16, 16)
    assert refine_by_threshold(fields, [COARSE, FINE], gamma=0.0)[0].all()
    assert not refine_by_threshold(fields, [COARSE, FINE], gamma=1.0)[0].any()


def test_units_do_not_decide_what_is_split():
    fields = torch.randn(1, 2, 2, 1, 32, 32) * torch.rand(1, 1, 2, 1, 4, 4).repeat_interleave(8, 4).repeat_interleave(
        8, 5
    )
    scaled = fields * torch.tensor([1.0, 1e5])[None, None, :, None, None, None]
    split = [
        refine_by_threshold(normalisation_of(values).apply(values), [COARSE, FINE], gamma=0.4)[0]
        for values in (fields, scaled)
    ]
    assert torch.equal(*split) and 0 < split[0].sum() < split[0].numel()


def test_a_third_level_is_split_only_inside_split_patches():
    fields = torch.randn(1, 1, 1, 1, 32, 32) ** 3
    first, second = refine_by_threshold(fields, [(1, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4)], gamma=0.4)
    parents = first.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert second.any() and not (second & ~parents).any()
