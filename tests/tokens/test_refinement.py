"""Which patches are split."""

import pytest
import torch

from matey.tokens.criteria import patch_variance
from matey.tokens.layout import layout_tokens
from matey.tokens.normalisation import normalisation_of
from matey.tokens.refinement import Refinement, check_window, refine

COARSE, FINE = (1, 1, 8, 8), (1, 1, 4, 4)


def test_the_change_between_the_last_frames_refines_where_the_field_is_about_to_vary():
    fields = torch.zeros(1, 2, 1, 1, 32, 32)
    fields[:, :, :, :, 10:14, 20:23] = 1
    fields[:, 1, :, :, 24:, :8] = 0.3  # a whole patch rises: little variance beside its change
    splits = [
        refine(fields, [COARSE, FINE], Refinement("threshold", 0.9, change=change))[0].nonzero().tolist()
        for change in (0.0, 3.0)
    ]
    assert splits == [[[0, 0, 1, 2]], [[0, 0, 3, 0]]]
    alone = refine(fields[:, :1], [COARSE, FINE], Refinement("threshold", 0.9, change=1.0))[0]
    assert alone.nonzero().tolist() == [[0, 0, 1, 2]]


def test_a_constant_field_is_never_split():
    fields = normalisation_of(torch.full((1, 2, 1, 1, 16, 16), 7.3)).apply(torch.full((1, 2, 1, 1, 16, 16), 7.3))
    (refined,) = refine(fields, [COARSE, FINE], Refinement("threshold", 0.0))
    assert not refined.any()


def test_gamma_zero_splits_all_that_varies_and_gamma_one_nothing():
    fields = torch.randn(2, 1, 1, 1, 16, 16)
    assert refine(fields, [COARSE, FINE], Refinement("threshold", 0.0))[0].all()
    assert not refine(fields, [COARSE, FINE], Refinement("threshold", 1.0))[0].any()


def test_units_do_not_decide_what_is_split():
    fields = torch.randn(1, 2, 2, 1, 32, 32) * torch.rand(1, 1, 2, 1, 4, 4).repeat_interleave(8, 4).repeat_interleave(
        8, 5
    )
    scaled = fields * torch.tensor([1.0, 1e5])[None, None, :, None, None, None]
    split = [
        refine(normalisation_of(values).apply(values), [COARSE, FINE], Refinement("threshold", 0.4))[0]
        for values in (fields, scaled)
    ]
    assert torch.equal(*split) and 0 < split[0].sum() < split[0].numel()


def test_a_third_level_is_split_only_inside_split_patches():
    fields = torch.randn(1, 1, 1, 1, 32, 32) ** 3
    first, second = refine(fields, [(1, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4)], Refinement("threshold", 0.4))
    parents = first.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert second.any() and not (second & ~parents).any()


def test_a_fraction_splits_the_most_variable_share_of_every_sample():
    fields = torch.randn(3, 1, 1, 1, 32, 32) * torch.rand(3, 1, 1, 1, 4, 4).repeat_interleave(8, 4).repeat_interleave(
        8, 5
    )
    (split,) = refine(fields, [COARSE, FINE], Refinement("fraction", 0.25))
    variance = patch_variance(fields, (1, 1, 32, 32), COARSE)
    assert split.flatten(1).sum(dim=1).tolist() == [4, 4, 4]
    for sample in range(3):
        assert variance[sample][split[sample]].min() > variance[sample][~split[sample]].max()


LEVELS = [(1, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4)]


@pytest.mark.parametrize("splits", [0, 1, 5, 20])
@pytest.mark.parametrize("keep_parents", [False, True])
def test_a_budget_is_spent_to_the_token_on_every_sample_and_level(splits, keep_parents):
    budget = 8 + splits * (8 if keep_parents else 6)
    fields = torch.randn(3, 2, 1, 1, 32, 32) ** 3
    refined = refine(fields, LEVELS, Refinement("budget", budget, keep_parents=keep_parents))
    layout = layout_tokens([(3, 2, 1, 32, 32)], [refined], LEVELS, keep_parents=keep_parents)
    assert torch.bincount(layout.sample).tolist() == [budget] * 3


def test_a_budget_goes_to_the_most_variable_patches():
    fields = torch.zeros(1, 1, 1, 1, 32, 32)
    fields[..., 9:12, 17:20] = 3
    fields[..., 26, 4] = 1
    (split,) = refine(fields, [COARSE, FINE], Refinement("budget", 16 + 2 * 3))
    assert split.nonzero().tolist() == [[0, 0, 1, 2], [0, 0, 3, 0]]


@pytest.mark.parametrize(
    ("budget", "patches", "message"),
    [
        (20, [COARSE, FINE], "16 coarse tokens, 3 more for each patch .* the nearest is 19"),
        (1000, [COARSE, FINE], "64 at most; the nearest is 64"),
        (32, [(1, 1, 16, 16), (1, 1, 8, 8), (1, 1, 2, 2)], "the same number of tokens"),
        (32, [(1, 1, 12, 12), (1, 1, 4, 4)], r"\[1, 1, 12, 12\] do not divide 1x1x32x32"),
    ],
)
def test_a_budget_that_cannot_be_spent_exactly_names_what_can(budget, patches, message):
    with pytest.raises(ValueError, match=message):
        check_window((1, 1, 32, 32), patches, Refinement("budget", budget))


@pytest.mark.parametrize(("rule", "amount"), [("fraction", 0.5), ("budget", 16 + 8 * 3)])
def test_ties_are_broken_by_place_on_every_rank_alike(rule, amount):
    fields = torch.randn(1, 1, 1, 1, 8, 8).repeat(2, 1, 1, 1, 4, 4)
    (split,) = refine(fields, [COARSE, FINE], Refinement(rule, amount))
    assert torch.equal(split[0], split[1])
    assert split[0].flatten().tolist() == [True] * 8 + [False] * 8


def test_the_last_change_of_a_single_frame_is_refused_before_training():
    last_change = Refinement("fraction", 0.3, criterion="last_change")
    check_window((2, 1, 32, 32), [COARSE, FINE], last_change)
    check_window((1, 1, 32, 32), [COARSE], last_change)
    with pytest.raises(ValueError, match="compares the last two frames, but the history has one"):
        check_window((1, 1, 32, 32), [COARSE, FINE], last_change)
