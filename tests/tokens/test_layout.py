"""Where tokens lie."""

import pytest
import torch

from matey.parallel.topology import shares
from matey.tokens.layout import layout_tokens

LEVELS = [(1, 1, 16, 16), (1, 1, 8, 8), (1, 1, 4, 4)]


def random_refinement(seed=0, num_samples=3):
    random = torch.Generator().manual_seed(seed)
    first = torch.rand(num_samples, 1, 2, 3, generator=random) < 0.5
    inside = first.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    return [first, inside & (torch.rand(num_samples, 1, 4, 6, generator=random) < 0.5)]


def test_the_leaves_of_every_frame_cover_each_cell_once():
    layout = layout_tokens([(3, 2, 1, 32, 48)], [random_refinement()], LEVELS)
    covered = torch.zeros(3, 2, 32, 48)
    for token in range(layout.num_tokens):
        size = LEVELS[layout.level[token]][2]
        y, x = (layout.place[token, 1:] * size).tolist()
        covered[layout.sample[token], layout.time[token], y : y + size, x : x + size] += 1
    assert torch.equal(covered, torch.ones_like(covered))


def test_a_grid_that_patches_do_not_divide_is_covered_without_tokens_beyond_it():
    layout = layout_tokens([(1, 1, 1, 20, 20)], [[torch.ones(1, 1, 2, 2, dtype=torch.bool)]], LEVELS[:2])
    assert layout.place.tolist() == [
        [0, y, x] for y, x in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2))
    ]


def test_split_patches_keep_their_tokens_and_their_children_are_a_family():
    splits = random_refinement()
    leaves = layout_tokens([(3, 2, 1, 32, 48)], [splits], LEVELS)
    layout = layout_tokens([(3, 2, 1, 32, 48)], [splits], LEVELS, keep_parents=True)
    assert layout.num_tokens == leaves.num_tokens + 2 * sum(int(split.sum()) for split in splits)
    assert layout.is_leaf.sum() == leaves.num_tokens and leaves.is_leaf.all()
    for sample in range(3):
        for family in layout.family[layout.sample == sample].unique():
            members = (layout.sample == sample) & (layout.family == family)
            (level,) = layout.level[members].unique()
            if level == 0:
                assert members.sum() == 2 * 2 * 3
            else:
                (parent,) = (layout.place[members] // torch.tensor([1, 2, 2])).unique(dim=0)
                assert members.sum() == 2 * 4 and splits[level - 1][sample, *parent]
    assert torch.equal(leaves.family, torch.zeros_like(leaves.family))


def test_no_refinement_gives_the_coarse_grid_and_full_refinement_the_fine_one():
    shape = (2, 2, 1, 32, 32)
    nothing = layout_tokens([shape], [[torch.zeros(2, 1, 2, 2, dtype=torch.bool)]], LEVELS[:2])
    everything = layout_tokens([shape], [[torch.ones(2, 1, 2, 2, dtype=torch.bool)]], LEVELS[:2])
    assert nothing.num_tokens == 2 * 2 * 4 and (nothing.level == 0).all()
    assert everything.num_tokens == 2 * 2 * 16 and (everything.level == 1).all()
    fine = layout_tokens([shape], [[]], LEVELS[1:2])
    assert torch.equal(everything.row.sort().values, fine.row.sort().values)


@pytest.mark.parametrize("keep_parents", [False, True])
def test_tokens_are_packed_by_sample_then_place_then_time_with_siblings_together(keep_parents):
    refined = random_refinement(num_samples=2)
    layout = layout_tokens([(2, 3, 1, 32, 48)], [refined], LEVELS, keep_parents=keep_parents)
    assert (layout.sample.diff() >= 0).all()
    ancestor = layout.place[:, 1] // (2**layout.level) * 3 + layout.place[:, 2] // (2**layout.level)
    assert (ancestor[layout.sample == 0].diff() >= 0).all()
    assert torch.equal(layout.time, torch.arange(3).repeat(layout.num_tokens // 3))
    # What comes right before the first child of a patch that is kept is its last time.
    parents = layout.select(~layout.is_leaf & layout.is_last)
    after = layout.select((~layout.is_leaf & layout.is_last).nonzero(as_tuple=True)[0] + 1)
    assert (
        torch.equal(after.place, parents.place * torch.tensor([1, 2, 2])) and (after.level == parents.level + 1).all()
    )
    assert (parents.num_tokens > 0) == keep_parents


def test_where_parents_are_kept_equal_slices_have_equal_numbers_of_each_level():
    split = (torch.arange(64) % 4 == 0).view(1, 1, 8, 8)
    layout = layout_tokens([(1, 2, 1, 128, 128)], [[split]], LEVELS[:2], keep_parents=True)
    levels = [torch.bincount(layout.level[own]).tolist() for own in shares(layout.num_tokens, 4)]
    assert levels == [[32, 32]] * 4


def test_groups_of_other_grids_follow_each_other_and_number_their_samples_on():
    layout = layout_tokens([(2, 1, 1, 16, 16), (3, 2, 1, 16, 32)], [[], []], LEVELS[:1])
    assert layout.sample.tolist() == [0, 1] + [2] * 4 + [3] * 4 + [4] * 4
    assert layout.batch.tolist() == [0] * 2 + [1] * 12


def test_centres_and_extents_are_in_the_unit_domain():
    layout = layout_tokens([(1, 2, 1, 16, 32)], [[torch.tensor([[[[True, False]]]])]], LEVELS[:2])
    assert torch.allclose(layout.extent[layout.is_last].prod(dim=1).sum() * 2, torch.tensor(1.0))
    coarse = layout.level == 0
    assert torch.allclose(layout.centre[coarse], torch.tensor([[0.25, 0.5, 0.5, 0.75], [0.75, 0.5, 0.5, 0.75]]))
