"""How the cells of a batch are divided among ranks."""

import pytest
import torch

from matey.tokens.decomposition import Decomposition, Frames


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
