"""Cells and the tokens that bear on them."""

import pytest
import torch

from matey.tokens.coverage import Frames, parts_of, tokens_to_decode
from matey.tokens.layout import layout_tokens

PATCHES = [(1, 1, 8, 8), (1, 1, 4, 4)]
FRAMES = [Frames(2, (2, 1, 20, 24), (False, False, False)), Frames(1, (2, 1, 16, 16), (False, True, True))]


def layout(keep_parents):
    random = torch.Generator().manual_seed(0)
    splits = [[torch.rand(2, 1, 3, 3, generator=random) < 0.4], [torch.rand(1, 1, 2, 2, generator=random) < 0.5]]
    shapes = [(frames.num_samples, *frames.window) for frames in FRAMES]
    return layout_tokens(shapes, splits, PATCHES, keep_parents=keep_parents)


@pytest.mark.parametrize("keep_parents", [False, True])
def test_the_cells_of_consecutive_slices_cover_each_cell_once(keep_parents):
    tokens = layout(keep_parents)
    edges = [0, 5, 6, 31, tokens.num_tokens]
    parts = [parts_of(tokens, slice(a, b), FRAMES, PATCHES) for a, b in zip(edges, edges[1:], strict=False)]
    for group, frames in enumerate(FRAMES):
        total = sum(part[group].put(torch.ones(len(part[group].row), 1, 1, 8, 8)) for part in parts)
        assert total.shape == (frames.num_samples, 1, *frames.window[1:]) and (total == 1).all()


def test_a_part_holds_no_tile_without_a_cell_of_its_own_and_knows_the_samples_of_those_it_holds():
    tokens = layout(keep_parents=False)
    (part, other) = parts_of(tokens, slice(tokens.num_tokens - 1, tokens.num_tokens), FRAMES, PATCHES)
    assert len(part.row) == 0 and len(other.row) == 1
    (part, other) = parts_of(tokens, slice(0, tokens.num_tokens), FRAMES, PATCHES)
    assert part.own.any(dim=(1, 2, 3)).all() and part.sample.tolist() == [0] * 9 + [1] * 9


def test_tiles_cut_out_of_a_field_are_put_back_where_they_were():
    (part, _) = parts_of(layout(keep_parents=True), slice(0, 1000), FRAMES, PATCHES)
    field = torch.randn(2, 3, 1, 20, 24)
    assert torch.equal(part.put(part.cut(field)), field)


def test_tiles_go_on_at_the_other_end_of_a_periodic_axis_only_where_they_fit():
    (part,) = parts_of(
        layout(keep_parents=False), slice(0, 0), [Frames(2, (2, 1, 20, 24), (False, True, True))], PATCHES
    )
    assert part.covered == (1, 24, 24) and part.wraps == (False, False, True)


@pytest.mark.parametrize("keep_parents", [False, True])
def test_what_bears_on_the_cells_of_all_tokens_is_the_last_frame(keep_parents):
    tokens = layout(keep_parents)
    wanted = tokens_to_decode(tokens, slice(0, tokens.num_tokens), FRAMES, PATCHES, (0, 2, 2))
    assert torch.equal(wanted, tokens.is_last.nonzero()[:, 0])


def test_neighbours_within_reach_bear_on_a_leaf_also_around_a_periodic_domain():
    plain = layout_tokens([(1, 1, 1, 16, 32)], [[torch.zeros(1, 1, 2, 4, dtype=torch.bool)]], PATCHES)
    corner = slice(0, 1)
    for periodic, expected in ((False, [0, 1, 4, 5]), (True, [0, 1, 3, 4, 5, 7])):
        frames = [Frames(1, (1, 1, 16, 32), (False, periodic, periodic))]
        assert tokens_to_decode(plain, corner, frames, PATCHES, (0, 2, 2)).tolist() == expected
        assert tokens_to_decode(plain, corner, frames, PATCHES, (0, 0, 0)).tolist() == [0]


def test_a_child_brings_its_parent():
    split = torch.tensor([[[[True, False]]]])
    tokens = layout_tokens([(1, 1, 1, 8, 16)], [[split]], PATCHES, keep_parents=True)
    frames = [Frames(1, (1, 1, 8, 16), (False, False, False))]
    assert tokens_to_decode(tokens, slice(2, 3), frames, PATCHES, (0, 0, 0)).tolist() == [0, 2]
