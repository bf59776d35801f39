"""Cells, the tokens that stand for them, and those that reach into them."""

from itertools import pairwise

import pytest
import torch

from matey.tokens.coverage import holders, routes, tiles_of, tiles_reached, tokens_around
from matey.tokens.layout import layout_tokens
from matey.tokens.tiles import Frames, Tiles

PATCHES = [(1, 1, 8, 8), (1, 1, 4, 4)]
TILE = (1, 1, 4, 4)
FRAMES = [
    Frames(2, (2, 1, 20, 24), (False, False, False), (1, 24, 24)),
    Frames(1, (2, 1, 16, 16), (False, True, True), (1, 16, 16)),
]


def layout(keep_parents):
    random = torch.Generator().manual_seed(0)
    splits = [[torch.rand(2, 1, 3, 3, generator=random) < 0.4], [torch.rand(1, 1, 2, 2, generator=random) < 0.5]]
    shapes = [(frames.num_samples, *frames.window) for frames in FRAMES]
    return layout_tokens(shapes, splits, PATCHES, keep_parents=keep_parents)


def held(tokens, own, tile=TILE):
    """Per group the tiles and cells of leaves among some tokens."""
    return [(tiles, tiles.cells()) for tiles in tiles_of(tokens, own, FRAMES, PATCHES, tile)]


def all_routes(tokens, rank, frames, patches, reach, tile):
    """Per group the routes of each rank, who is one end of all of them, joined."""
    of_ranks = []
    for me in rank.unique().tolist():
        own = (rank == me).nonzero()[:, 0]
        near = tokens_around(tokens, slice(own[0], own[-1] + 1), frames, patches, reach)
        around, there = tokens.select(near), rank[near]
        held = holders(around, there, frames, patches, tile)
        of_ranks.append(routes(around, there, held, me, frames, patches, reach))
        assert all((columns[:2] == me).any(dim=0).all() for columns in of_ranks[-1])
    return [torch.cat(of_group, dim=1).unique(dim=1) for of_group in zip(*of_ranks, strict=True)]


@pytest.mark.parametrize("tile", [TILE, (1, 1, 8, 8)])
@pytest.mark.parametrize("keep_parents", [False, True])
def test_the_cells_of_consecutive_slices_cover_each_cell_once(keep_parents, tile):
    tokens = layout(keep_parents)
    edges = [0, 5, 6, 31, tokens.num_tokens]
    parts = [held(tokens, slice(a, b), tile) for a, b in zip(edges, edges[1:], strict=False)]
    for group, frames in enumerate(FRAMES):
        total = sum(tiles.put(cells[:, None].float()) for tiles, cells in (part[group] for part in parts))
        assert total.shape == (frames.num_samples, 1, *frames.window[1:]) and (total == 1).all()


@pytest.mark.parametrize("tile", [TILE, (1, 1, 8, 8)])
def test_tokens_have_only_tiles_with_their_cells_and_no_cells_beyond_the_grid(tile):
    tokens = layout(keep_parents=False)
    ((tiles, cells), (others, other_cells)) = held(tokens, slice(tokens.num_tokens - 1, tokens.num_tokens), tile)
    assert len(tiles.row) == len(cells) == 0 and len(others.row) > 0 and other_cells.any(dim=(1, 2, 3)).all()
    (_, (others, other_cells)) = held(tokens, slice(0, tokens.num_tokens), tile)
    assert other_cells.all() and len(others.row) == 256 // (tile[2] * tile[3])
    ((tiles, cells), _) = held(tokens, slice(0, tokens.num_tokens), tile)
    assert cells.sum() == 2 * 20 * 24 and tiles.sample.unique().tolist() == [0, 1]


def test_tiles_cut_out_of_a_field_are_put_back_where_they_were():
    ((tiles, _), _) = held(layout(keep_parents=True), slice(0, 1000), (1, 1, 8, 8))
    field = torch.randn(2, 3, 1, 20, 24)
    assert torch.equal(tiles.put(tiles.cut(field)), field)
    some = Tiles(FRAMES[0], (1, 1, 8, 8), torch.tensor([4, 7, 17]), torch.ones(3, 1, 2, 2, dtype=torch.bool))
    assert torch.equal(some.cut(field), tiles.cut(field)[some.row])
    assert some.cut(field)[2, :, :, :4].abs().sum() > 0 and (some.cut(field)[2, :, :, 4:] == 0).all()


def test_tiles_are_placed_from_the_box_around_them_alone_also_where_it_has_no_cells():
    frames, tile = Frames(2, (2, 1, 9, 24), (False, False, False), (1, 16, 24)), TILE
    field = torch.randn(2, 3, 1, 9, 24)
    places = torch.ones(48, 1, 1, 1, dtype=torch.bool)
    everything = Tiles(frames, tile, torch.arange(48), places)
    assert everything.box == (slice(0, 2), slice(0, 1), slice(0, 9), slice(0, 24))
    for row, box in (
        ([3, 8, 9, 10], (slice(0, 1), slice(0, 1), slice(0, 8), slice(8, 20))),
        ([18, 19, 40, 41], (slice(0, 2), slice(0, 1), slice(8, 9), slice(0, 24))),
        ([42, 43], (slice(1, 2), slice(0, 1), slice(9, 9), slice(0, 8))),
        ([], (slice(0, 0),) * 4),
    ):
        some = Tiles(frames, tile, torch.tensor(row, dtype=torch.long), places[: len(row)])
        samples, *cells = some.box
        assert (samples, *cells) == box
        assert torch.equal(some.place(field[samples, :, *cells]), everything.cut(field)[some.row])


def test_a_domain_goes_on_at_its_other_end_only_where_patches_fit():
    frames = Frames(2, (2, 1, 20, 24), (False, True, True), (1, 24, 24))
    assert frames.wraps == (False, False, True)


def test_what_a_patch_decodes_reaches_its_neighbours_also_around_a_periodic_domain():
    plain = layout_tokens([(1, 1, 1, 16, 32)], [[torch.zeros(1, 1, 2, 4, dtype=torch.bool)]], PATCHES)
    for periodic, expected in ((False, [0, 1, 4, 5]), (True, [0, 1, 3, 4, 5, 7])):
        frames = [Frames(1, (1, 1, 16, 32), (False, periodic, periodic), (1, 16, 32))]
        for reach, rows in (((0, 2, 2), expected), ((0, 0, 0), [0])):
            (tiles,) = tiles_reached(plain, slice(0, 1), frames, PATCHES, reach, (1, 1, 8, 8))
            assert tiles.row.tolist() == rows


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ((1, 16, 32), [0, 1, 2, 7, 8, 9, 10, 15, 16, 17, 18, 23, 24, 25, 26, 31]),
        ((1, 14, 32), [0, 1, 2, 7, 8, 9, 10, 15, 16, 17, 18, 23]),
    ],
)
def test_a_patch_reaches_the_tiles_around_it_but_not_across_padding(grid, expected):
    plain = layout_tokens([(1, 1, *grid)], [[torch.zeros(1, 1, 2, 4, dtype=torch.bool)]], PATCHES)
    frames = [Frames(1, (1, *grid), (False, True, True), (1, 16, 32))]
    (tiles,) = tiles_reached(plain, slice(0, 1), frames, PATCHES, (0, 2, 2), TILE)
    assert tiles.row.tolist() == expected


@pytest.mark.parametrize("keep_parents", [False, True])
def test_routes_lead_from_what_a_rank_decodes_to_the_tiles_that_others_hold(keep_parents):
    tokens, reach = layout(keep_parents), (0, 2, 2)
    edges = [0, 5, 6, 6, 31, tokens.num_tokens - 3, tokens.num_tokens]
    slices = [slice(*ends) for ends in pairwise(edges)]
    rank = torch.cat([torch.full((own.stop - own.start,), number) for number, own in enumerate(slices)])
    found = all_routes(tokens, rank, FRAMES, PATCHES, reach, TILE)
    reached = [tiles_reached(tokens, own, FRAMES, PATCHES, reach, TILE) for own in slices]
    held_by = [tiles_of(tokens, own, FRAMES, PATCHES, TILE) for own in slices]
    for group, of_group in enumerate(found):
        expected = [
            (sender, holder, row)
            for sender, there in enumerate(reached)
            for holder, theirs in enumerate(held_by)
            for row in sorted(set(there[group].row.tolist()) & set(theirs[group].row.tolist()))
            if sender != holder
        ]
        assert expected and of_group.T.tolist() == [list(route) for route in expected]


def test_a_tile_of_several_holders_is_sent_to_those_whose_cells_are_reached():
    patches = [(1, 1, 12, 12), (1, 1, 6, 6)]
    split = torch.tensor([[[[True, False]]]])
    tokens = layout_tokens([(1, 1, 1, 12, 24)], [[split]], patches)  # 4 fine patches, then a coarse one
    frames = [Frames(1, (1, 1, 12, 24), (False, False, False), (1, 12, 24))]
    (found,) = all_routes(tokens, torch.arange(5), frames, patches, (0, 2, 2), (1, 1, 12, 12))
    among_fine = [(a, b, 0) for a in range(4) for b in range(4) if a != b]
    beside_coarse = [(1, 4, 1), (3, 4, 1), (4, 1, 0), (4, 3, 0)]
    assert found.T.tolist() == [list(route) for route in sorted(among_fine + beside_coarse)]


def test_a_parent_reaches_the_cells_of_its_children_and_holds_none():
    split = torch.tensor([[[[True, False]]]])
    tokens = layout_tokens([(1, 1, 1, 8, 16)], [[split]], PATCHES, keep_parents=True)
    frames = [Frames(1, (1, 1, 8, 16), (False, False, False), (1, 8, 16))]
    (tiles,) = tiles_reached(tokens, slice(0, 1), frames, PATCHES, (0, 0, 0), TILE)
    assert tiles.row.tolist() == [0, 1, 4, 5]
    (tiles,) = tiles_of(tokens, slice(0, 1), frames, PATCHES, TILE)
    assert tiles.row.tolist() == []


def test_tokens_of_earlier_frames_neither_hold_cells_nor_reach_any():
    tokens = layout(keep_parents=False)
    first = tokens.is_last.logical_not().nonzero()[0].item()
    own = slice(first, first + 1)
    assert all(len(tiles.row) == 0 for tiles in tiles_of(tokens, own, FRAMES, PATCHES, TILE))
    assert all(len(tiles.row) == 0 for tiles in tiles_reached(tokens, own, FRAMES, PATCHES, (0, 2, 2), TILE))
