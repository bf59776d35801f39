"""Boxes out of many, continued by those around them."""

import math

import pytest
import torch

from matey.tokens.bricks import Bricks
from matey.tokens.patches import extend, patchify
from matey.tokens.tiles import Frames

SIZE, GRID = (1, 2, 3, 4), (4, 9, 12)
PERIODIC = [(False, False, False), (True, True, True), (False, True, False)]


def bricks(periodic, number):
    return Bricks(Frames(2, (1, *GRID), periodic, GRID), SIZE, number)


@pytest.mark.parametrize("periodic", PERIODIC)
@pytest.mark.parametrize("radius", [(1, 0, 2), (2, 3, 4), (5, 4, 0), (0, 7, 9)])
def test_boxes_are_continued_as_the_whole_field_is(periodic, radius):
    field = torch.randn(2, 3, *GRID)
    every = bricks(periodic, torch.arange(2 * 2 * 3 * 3))
    boxes = patchify(field[:, None], SIZE)[:, :, 0]
    found = every.with_ring(boxes, radius)
    ends = [size + more for size, more in zip(GRID, radius, strict=True)]
    wide = extend(field, ends, periodic, before=radius)
    for axis, (size, reach) in enumerate(zip(SIZE[1:], radius, strict=True), start=2):
        wide = wide.unfold(axis, size + 2 * reach, size)
    assert torch.equal(found, wide.movedim(1, 4).flatten(0, 3))


@pytest.mark.parametrize("periodic", PERIODIC)
def test_boxes_whose_surroundings_are_there_do_not_need_the_others(periodic):
    radius, own = (1, 2, 1), torch.tensor([0, 1])
    near, every = bricks(periodic, own).around(radius), bricks(periodic, torch.arange(36))
    values = torch.rand(36, 1, *SIZE[1:])
    place, is_there = near.find(own)
    assert is_there.all() and len(near.number) < 36
    assert torch.equal(near.with_ring(values[near.number], radius)[place], every.with_ring(values, radius)[own])


def test_zero_lies_where_a_box_is_not_there():
    boxes = torch.ones(2, *SIZE[1:])
    found = bricks((False, False, False), torch.tensor([1, 2])).with_ring(boxes, (0, 1, 1))
    expected = torch.zeros(2, 2, 5, 6)
    expected[:, :, :4, 1:] = 1  # before the first row of boxes lie the outermost values
    expected[1, :, :4, 0] = 1
    assert torch.equal(found, expected)


@pytest.mark.parametrize("periodic", PERIODIC)
@pytest.mark.parametrize("reach", [(0, 0, 0), (1, 0, 4), (2, 4, 5), (9, 9, 12)])
def test_boxes_within_reach_are_those_that_a_loop_finds(periodic, reach):
    number, shape = torch.tensor([0, 7, 35]), (2, 2, 3, 3)
    steps = [math.ceil(cells / size) for cells, size in zip(reach, SIZE[1:], strict=True)]
    expected = set()
    for sample, *place in zip(*(at.tolist() for at in torch.unravel_index(number, shape)), strict=True):
        for other in range(math.prod(shape)):
            of, *there = (int(at) for at in torch.unravel_index(torch.tensor(other), shape))
            apart = [abs(a - b) for a, b in zip(place, there, strict=True)]
            apart = [min(d, n - d) if w else d for d, n, w in zip(apart, shape[1:], periodic, strict=True)]
            if of == sample and all(d <= most for d, most in zip(apart, steps, strict=True)):
                expected.add(other)
    assert bricks(periodic, number).around(reach).number.tolist() == sorted(expected)
