"""What a rank finds around its own tokens, beside what arrays of places of whole frames say."""

import math
import random
from functools import cached_property
from itertools import pairwise, product

import numpy as np
import torch

from matey.tokens.coverage import halo_routes, holders, routes, tiles_around, tiles_of, tiles_reached, tokens_around
from matey.tokens.layout import layout_tokens
from matey.tokens.patches import cover, patch_grid
from matey.tokens.refinement import to_children
from matey.tokens.tiles import Frames
from tests.support.laws import law

PLANES = [[(1, 1, 8, 8), (1, 1, 4, 4)], [(2, 1, 12, 6), (1, 1, 6, 3)], [(1, 1, 8, 8), (1, 1, 4, 4), (1, 1, 2, 2)]]
SPACES = [[(1, 4, 4, 4), (1, 2, 2, 2)], [(2, 4, 8, 4)], [(1, 4, 4, 8), (1, 2, 4, 4), (1, 1, 2, 2)], [(1, 2, 2, 2)]]


def draw(draws):
    """A micro-batch at random: layout, frames, patches and the size of a tile."""
    is_space = draws.random() < 0.5
    patches = draws.choice(SPACES if is_space else PLANES)
    frames, splits = [], []
    for _ in range(draws.choice([1, 2])):
        numbers = [draws.randint(1, 4) if along > 1 else 1 for along in patches[0][1:]]
        cut = draws.random() < 0.4  # whether patches are to divide nothing
        cells = [n * p - (draws.randint(0, p - 1) if cut else 0) for n, p in zip(numbers, patches[0][1:], strict=True)]
        window = (2, *cells)
        covered = cover(window, patches[0])
        periodic = tuple(draws.random() < 0.5 for _ in range(3))
        frames.append(Frames(draws.choice([1, 2]), window, periodic, covered[1:]))
        of_batch = []
        for coarse, fine in zip([None, *patches], patches[:-1], strict=False):
            masks = torch.rand(frames[-1].num_samples, *patch_grid(covered, fine)[1:]) < 0.4
            of_batch.append(masks & to_children(of_batch[-1], coarse, fine) if of_batch else masks)
        splits.append(of_batch)
    shapes = [(each.num_samples, *each.window) for each in frames]
    layout = layout_tokens(shapes, splits, patches, keep_parents=draws.random() < 0.5)
    blocks = [[max(d for d in range(1, 5) if size % d == 0) for size in patch[1:]] for patch in patches]
    return layout, frames, patches, (1, *(math.lcm(*along) for along in zip(*blocks, strict=True)))


class Places:
    """Places of the whole frames of a batch: who decodes there, at each level, and who holds them; -1 is nobody."""

    def __init__(self, layout, rank, number, frames, patches, tile):
        self.frames, self.tile = frames, tile
        self.size = [math.gcd(*along) for along in zip(patches[-1][1:], tile[1:], strict=True)]
        self.shape = [frames.num_samples, *(c // s for c, s in zip(frames.covered, self.size, strict=True))]
        self.decoder = np.full((len(patches), *self.shape), -1)
        self.holder = np.full(self.shape, -1)
        first = int(layout.sample[layout.batch == number].min())
        columns = (layout.batch, layout.level, layout.sample, layout.place, layout.is_last, layout.is_leaf, rank)
        for batch, level, sample, place, is_last, is_leaf, of in zip(*(c.tolist() for c in columns), strict=True):
            if batch == number and is_last:
                box = [sample - first]
                for at, cells, size in zip(place, patches[level][1:], self.size, strict=True):
                    box.append(slice(at * cells // size, (at + 1) * cells // size))
                self.decoder[level, *box] = of
                if is_leaf:
                    self.holder[tuple(box)] = of

    def shifted(self, values, reach):
        """The values that lie each step of a reach in cells from each place, -1 beyond the ends."""
        radius = [-(-cells // size) for cells, size in zip(reach, self.size, strict=True)]
        for steps in product(*(range(-r, r + 1) for r in radius)):
            moved = values
            for axis, (step, wraps) in enumerate(zip(steps, self.frames.wraps, strict=True), start=1):
                at = np.arange(self.shape[axis]) + step
                beyond = (at < 0) | (at >= self.shape[axis])
                moved = np.take(moved, at % self.shape[axis], axis=axis)
                if not wraps:
                    moved[(slice(None),) * axis + (beyond,)] = -1
            yield moved

    @cached_property
    def rows(self):
        """The row of the tile of each place."""
        counts = [c // t for c, t in zip(self.frames.covered, self.tile[1:], strict=True)]
        at = np.indices(self.shape)
        z, y, x = (a // (t // s) for a, t, s in zip(at[1:], self.tile[1:], self.size, strict=True))
        return ((at[0] * counts[0] + z) * counts[1] + y) * counts[2] + x

    def near(self, values, reach):
        """Who is near what another holds, who holds it, and the row of the tile there."""
        found = set()
        for there in self.shifted(values, reach):
            apart = (there != self.holder) & (there >= 0) & (self.holder >= 0)
            found |= {*zip(*(who[apart].tolist() for who in (there, self.holder, self.rows)), strict=True)}
        return found

    def rows_within(self, mask, reach):
        """The rows of the tiles within reach of a mask."""
        where = np.where(mask, 1, -1)
        return sorted({row for there in self.shifted(where, reach) for row in self.rows[there == 1].tolist()})


def columns_of(routes):
    return [tuple(column) for column in routes.T.tolist()]


# In the plane and in space, of one to three levels and one or two batches, on 1 to 13 ranks.
@law("seed", range(40), quick=(7, 13, 18, 19, 22, 23, 31, 35))
def test_what_is_found_around_own_tokens_is_what_whole_frames_say(seed):
    draws = random.Random(seed)
    torch.manual_seed(seed)
    layout, frames, patches, tile = draw(draws)
    ways = draws.choice([1, 2, 3, 5, 8, 13])
    edges = sorted(draws.randint(0, layout.num_tokens) for _ in range(ways - 1))
    parts = [slice(*ends) for ends in pairwise([0, *edges, layout.num_tokens])]
    rank = torch.cat([torch.full((own.stop - own.start,), number) for number, own in enumerate(parts)])
    reach = [draws.choice([0, 1, 2]) if size > 1 else 0 for size in patches[0][1:]]
    halo = [draws.randint(1, size) if size > 1 else 0 for size in patches[0][1:]]
    whole = [Places(layout, rank, number, of_batch, patches, tile) for number, of_batch in enumerate(frames)]
    for me, own in enumerate(parts):
        held = tiles_of(layout, own, frames, patches, tile)
        reached = tiles_reached(layout, own, frames, patches, reach, tile)
        near = tokens_around(layout, own, frames, patches, reach)
        beside, of_beside = layout.select(near), rank[near]
        held_around = holders(beside, of_beside, frames, patches, tile)
        found = routes(beside, of_beside, held_around, me, frames, patches, reach)
        halos = halo_routes(held_around, me, [halo] * len(frames))
        for number, places in enumerate(whole):
            is_held = places.holder == me
            assert held[number].row.tolist() == places.rows_within(is_held, [0, 0, 0])
            z, y, x = places.size
            cells = is_held.repeat(z, 1).repeat(y, 2).repeat(x, 3)
            inside = cells[:, *(slice(0, length) for length in frames[number].window[1:])]
            assert np.array_equal(held[number].put(held[number].cells()[:, None].float())[:, 0].numpy() == 1, inside)
            decoded = (places.decoder == me).any(axis=0)
            assert reached[number].row.tolist() == places.rows_within(decoded, reach)
            assert tiles_around(held[number], halo).row.tolist() == places.rows_within(is_held, halo)
            expected = set().union(*(places.near(of_level, reach) for of_level in places.decoder))
            assert columns_of(found[number]) == sorted(c for c in expected if me in c[:2])
            expected = {(holder, near, row) for near, holder, row in places.near(places.holder, halo)}
            assert columns_of(halos[number]) == sorted(c for c in expected if me in c[:2])
