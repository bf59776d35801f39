"""Shares of a field in boxes that fit them."""

import math

import pytest
import torch

from matey.tokens.boxes import in_boxes

GRID, PATCH = (2, 4, 4, 4), (1, 16, 16, 16)


def boxes_of(patch, grid=GRID, size=PATCH):
    """The patches of each box, by their positions."""
    box = in_boxes(patch, grid, size)
    place = torch.stack(torch.unravel_index(patch, grid), dim=1)
    return [place[box == number] for number in range(int(box.max()) + 1)]


def num_patches(boxes):
    """Patches of all boxes, others in them among these."""
    return sum(math.prod((box.amax(dim=0) - box.amin(dim=0) + 1).tolist()) for box in boxes)


@pytest.mark.parametrize("seed", range(4))
def test_every_patch_is_in_one_box_and_what_lies_in_one_patch_together(seed):
    patch = torch.randint(0, math.prod(GRID), (60,), generator=torch.Generator().manual_seed(seed))
    box = in_boxes(patch, GRID, PATCH)
    assert sorted(box.unique().tolist()) == list(range(int(box.max()) + 1))
    assert all(len(box[patch == each].unique()) == 1 for each in patch.unique())


@pytest.mark.parametrize("ways", [2, 3, 4, 5, 7])
def test_runs_of_patches_are_a_few_boxes_that_hold_little_else(ways):
    bounds = [rank * math.prod(GRID) // ways for rank in range(ways + 1)]
    for first, end in zip(bounds, bounds[1:], strict=False):
        boxes = boxes_of(torch.arange(first, end))
        assert num_patches(boxes) <= 1.4 * (end - first) and len(boxes) <= 8


def test_a_box_is_not_cut_and_neither_is_what_lacks_a_corner_of_many():
    assert len(boxes_of(torch.arange(32))) == 1
    assert len(boxes_of(torch.arange(1, 64))) == 1


def test_patches_far_apart_are_apart_and_nothing_is_a_box_without_any():
    assert len(boxes_of(torch.tensor([0, 15, 48, 63]))) == 4
    assert in_boxes(torch.tensor([], dtype=torch.long), GRID, PATCH).tolist() == []


def test_planes_are_cut_along_the_plane():
    (upper, lower) = boxes_of(torch.tensor([0, 1, 2, 3, 12]), (1, 1, 4, 4), (1, 1, 16, 16))
    assert {len(upper), len(lower)} == {4, 1}
