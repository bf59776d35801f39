"""Where tokens lie, how the cells of a batch are divided among ranks, and segments of equal keys."""

import pytest
import torch

from matey.parallel.exchange import shares
from matey.tokens.decomposition import Decomposition, Frames
from matey.tokens.layout import layout_tokens
from matey.tokens.segments import segment

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
    assert torch.equal(after.place, parents.place * torch.tensor([1, 2, 2]))
    assert (after.level == parents.level + 1).all()
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


def frames_of(num_samples, grid, patch):
    covered = tuple(-(-size // cells) * cells for size, cells in zip(grid, patch[1:], strict=True))
    return Frames(num_samples, (2, *grid), (False, True, False), covered)


CASES = [(1, (1, 64, 64)), (3, (1, 50, 70)), (2, (24, 16, 40)), (5, (1, 16, 16))]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7, 8, 12])
@pytest.mark.parametrize(("num_samples", "grid"), CASES)
def test_each_cell_is_held_by_one_rank(num_samples, grid, num_ranks):
    patch = (1, 8 if grid[0] > 1 else 1, 8, 8)
    cut = Decomposition.among(num_ranks, frames_of(num_samples, grid, patch), patch, (4, 4, 4))
    held = torch.zeros(num_samples, *grid, dtype=torch.long)
    of_patches = cut.rank_of_coarsest()
    for axis, cells in enumerate(patch[1:], start=1):
        of_patches = of_patches.repeat_interleave(cells, dim=axis)
    for rank in range(num_ranks):
        box = cut.box(rank)
        held[box.samples, *box.cells] += 1
        assert (of_patches[:, : grid[0], : grid[1], : grid[2]][box.samples, *box.cells] == rank).all()
    assert (held == 1).all()


def test_samples_are_divided_before_the_domain_and_long_sides_before_short_ones():
    patch, halo = (1, 1, 8, 8), (0, 4, 4)
    assert Decomposition.among(4, frames_of(4, (1, 64, 64), patch), patch, halo).ways == (4, 1, 1, 1)
    assert Decomposition.among(2, frames_of(1, (1, 32, 128), patch), patch, halo).ways == (1, 1, 1, 2)
    assert Decomposition.among(16, frames_of(1, (1, 256, 256), patch), patch, halo).ways == (1, 1, 4, 4)
    assert Decomposition.among(8, frames_of(2, (1, 128, 32), patch), patch, halo).ways == (2, 1, 4, 1)


def test_of_ways_that_are_as_good_the_slowest_axis_of_the_file_is_divided():
    patch, halo = (1, 1, 8, 8), (0, 4, 4)
    ways = (
        Decomposition.among(2, frames_of(1, (1, 64, 64), patch), patch, halo, *order).ways
        for order in ((), ((2, 1, 0),))
    )
    assert [*ways] == [(1, 1, 2, 1), (1, 1, 1, 2)]


def test_736_ranks_share_one_large_sample_evenly():
    patch = (1, 1, 16, 16)
    cut = Decomposition.among(736, frames_of(1, (1, 4096, 4096), patch), patch, (0, 8, 8))
    counts = torch.bincount(cut.rank_of_coarsest().flatten(), minlength=736)
    assert counts.min() > 0 and counts.max() / counts.float().mean() < 1.1


def test_keys_that_lie_together_need_no_order():
    segmentation = segment(torch.tensor([0, 0, 1, 1, 5, 5]))
    assert segmentation.queries is None and segmentation.keys is None and segmentation.inverse is None
    assert segmentation.runs == ((3, 2, 2),)


def test_offsets_are_where_segments_begin():
    segmentation = segment(torch.tensor([0, 0, 1, 2, 2, 2]), slice(1, 5))
    assert segmentation.runs == ((1, 1, 2), (1, 1, 1), (1, 2, 3))
    assert segmentation.offsets.tolist() == [[0, 1, 2, 4], [0, 2, 3, 6]]
