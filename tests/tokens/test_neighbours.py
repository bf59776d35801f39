"""Which tokens stand around each token, against convolutions, and against means over cells that are painted one by one."""

import pytest
import torch
import torch.nn.functional as F

from matey.tokens.decomposition import Frames
from matey.tokens.layout import joined, layout_tokens
from matey.tokens.neighbours import neighbours_of, places_around
from matey.tokens.patches import cover

LEVELS = [(2, 1, 8, 8), (2, 1, 4, 4), (1, 1, 2, 2)]
WALLS, AROUND, ALONG_Y = (False,) * 3, (False, True, True), (False, True, False)


def frames_of(shape, patches, periodic):
    return Frames(shape[0], shape[1:], periodic, cover(shape[1:], patches[0])[1:])


def random_splits(shape, patches, seed=0):
    """Patches of each level but the finest that are split, about half of those that may be."""
    random, splits = torch.Generator().manual_seed(seed), []
    covered = cover(shape[1:], patches[0])
    for level, patch in enumerate(patches[:-1]):
        sizes = [size // cells for size, cells in zip(covered[1:], patch[1:], strict=True)]
        split = torch.rand(shape[0], *sizes, generator=random) < 0.5
        if splits:
            parent = splits[-1]
            for axis, (coarse, fine) in enumerate(zip(patches[level - 1][1:], patch[1:], strict=True), start=1):
                parent = parent.repeat_interleave(coarse // fine, dim=axis)
            split = split & parent
        splits.append(split)
    return splits


def laid_out(shape, patches, periodic, *, keep_parents=False, seed=0):
    layout = layout_tokens([shape], [random_splits(shape, patches, seed)], patches, keep_parents=keep_parents)
    return layout, neighbours_of(layout, [frames_of(shape, patches, periodic)], patches)


def on_grid(layout, values, sizes):
    """Values of the tokens of one level on their grid, ``(b, z, y, x, c)``."""
    grid = torch.empty(*sizes, values.shape[-1], dtype=values.dtype)
    grid[layout.sample, *layout.place.unbind(1)] = values
    return grid


@pytest.mark.parametrize("periodic", [WALLS, AROUND, ALONG_Y])
def test_on_a_uniform_mesh_they_are_those_of_a_convolution(periodic):
    layout, found = laid_out((2, 2, 1, 16, 24), [(2, 1, 4, 4)], periodic)
    values, kernel = (
        torch.randn(layout.num_tokens, 5, dtype=torch.float64),
        torch.randn(3, 5, 3, 3, dtype=torch.float64),
    )
    plane = on_grid(layout, values, (2, 1, 4, 6))[:, 0].permute(0, 3, 1, 2)
    for wraps, around in zip(periodic[1:], ((0, 0, 1, 1), (1, 1, 0, 0)), strict=True):
        plane = F.pad(plane, around, mode="circular" if wraps else "replicate")
    expected = F.conv2d(plane, kernel).permute(0, 2, 3, 1)[layout.sample, *layout.place[:, 1:].unbind(1)]
    mapped = torch.einsum("n s c, o c s -> n o", found.around(values), kernel.flatten(2))
    torch.testing.assert_close(mapped, expected)


def test_in_three_dimensions_they_are_those_of_a_convolution():
    layout, found = laid_out((1, 1, 8, 8, 12), [(1, 4, 4, 4)], (True, False, True))
    values, kernel = (
        torch.randn(layout.num_tokens, 2, dtype=torch.float64),
        torch.randn(2, 2, 3, 3, 3, dtype=torch.float64),
    )
    volume = on_grid(layout, values, (1, 2, 2, 3)).permute(0, 4, 1, 2, 3)
    volume = F.pad(F.pad(volume, (1, 1, 0, 0, 1, 1), mode="circular"), (0, 0, 1, 1, 0, 0), mode="replicate")
    expected = F.conv3d(volume, kernel).permute(0, 2, 3, 4, 1)[layout.sample, *layout.place.unbind(1)]
    torch.testing.assert_close(torch.einsum("n s c, o c s -> n o", found.around(values), kernel.flatten(2)), expected)


@pytest.mark.parametrize("periodic", [WALLS, AROUND, ALONG_Y])
def test_on_an_adaptive_mesh_each_is_the_mean_over_the_cells_of_its_place(periodic):
    shape = (2, 2, 1, 24, 32)
    layout, found = laid_out(shape, LEVELS, periodic)
    assert set(layout.level.tolist()) == {0, 1, 2}
    values = torch.randn(layout.num_tokens, dtype=torch.float64)
    painted, size = torch.empty(2, 2, 24, 32, dtype=torch.float64), torch.tensor(LEVELS)[layout.level]
    begin = layout.position * size
    ends = (begin + size).tolist()
    boxes = [tuple(map(slice, *each)) for each in zip(begin.tolist(), ends, strict=True)]
    for sample, (t, _, y, x), value in zip(layout.sample, boxes, values, strict=True):
        painted[sample, t, y, x] = value
    around = found.around(values[:, None])[..., 0]
    for token, (sample, (t, _, y, x)) in enumerate(zip(layout.sample, boxes, strict=True)):
        for place, (_, dy, dx) in enumerate(places_around(LEVELS)):
            rows, columns = (
                shifted(side, by, length, wraps)
                for side, by, length, wraps in zip((y, x), (dy, dx), (24, 32), periodic[1:], strict=True)
            )
            torch.testing.assert_close(around[token, place], painted[sample, t][:, rows][:, :, columns].mean())


def shifted(side, by, length, wraps):
    """Cells of a side moved by its own length; at a wall it stays."""
    size = side.stop - side.start
    first = side.start + by * size
    first = first % length if wraps else min(max(first, 0), length - size)
    return list(range(first, first + size))


def test_where_parents_keep_their_tokens_no_finer_one_is_a_neighbour():
    layout, found = laid_out((1, 2, 1, 24, 32), LEVELS, AROUND, keep_parents=True)
    assert not found.children
    assert (layout.level[found.index] <= layout.level[:, None]).all()
    # The place in the middle is the token itself.
    assert torch.equal(found.index[:, 4], torch.arange(layout.num_tokens))


def test_patches_beyond_the_grid_are_nobodys_neighbours():
    layout, found = laid_out((2, 2, 1, 13, 21), LEVELS, WALLS)
    assert found.index.min() >= 0 and found.index.max() < layout.num_tokens + sum(map(len, found.children))
    torch.testing.assert_close(found.around(torch.ones(layout.num_tokens, 1)), torch.ones(layout.num_tokens, 9, 1))


def test_batches_of_other_grids_do_not_meet():
    shapes, patches = [(2, 2, 1, 16, 16), (1, 2, 1, 24, 8)], LEVELS
    layouts, alone = zip(
        *(laid_out(shape, patches, AROUND, seed=number) for number, shape in enumerate(shapes)), strict=True
    )
    together = joined(layouts, [2, 1])
    found = neighbours_of(together, [frames_of(shape, patches, AROUND) for shape in shapes], patches)
    values = torch.randn(together.num_tokens, 3)
    parts = values.split([layout.num_tokens for layout in layouts])
    expected = [each.around(part) for each, part in zip(alone, parts, strict=True)]
    assert torch.equal(found.around(values), torch.cat(expected))


def test_gradients_reach_finer_and_coarser_tokens():
    layout, found = laid_out((1, 2, 1, 16, 16), LEVELS, AROUND)
    values = torch.randn(layout.num_tokens, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(found.around, values)
