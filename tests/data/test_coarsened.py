"""Coarser views of a set: every so-many-th frame and means of cells, from whatever part is read."""

from itertools import product

import numpy as np
import pytest

from matey.data import DataError, TrajectorySet, read_windows
from matey.data.views import CoarsenedTrajectories
from matey.data.windows import Window


def noise(shape=(2, 7, 8, 12), boundary=("wall", "periodic"), **more):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    spacing = [0.25, 0.5, 1.0][: len(shape) - 2]
    return values, TrajectorySet.from_arrays("noise", {"a": values}, spacing=spacing, boundary=boundary, **more)


def test_frames_and_means_are_those_of_the_data():
    values, source = noise(time_step=0.1)
    coarse = CoarsenedTrajectories(source, frames=3, cells=2)
    about = coarse.trajectories[1]
    assert (about.num_frames, about.grid, about.spacing) == (3, (1, 4, 6), (1.0, 0.5, 1.0))
    assert about.time_step == pytest.approx(0.3) and about.boundary == source.trajectories[1].boundary
    expected = np.empty((3, 4, 6))
    for frame in range(3):
        for y in range(4):
            for x in range(6):
                expected[frame, y, x] = values[1, 3 * frame, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
    np.testing.assert_allclose(coarse.read(1, 0, 3)[:, 0, 0], expected, rtol=1e-5, atol=1e-7)
    cells = (slice(0, 1), slice(1, 3), slice(4, 6))
    np.testing.assert_array_equal(coarse.read(1, 1, 3, cells), coarse.read(1, 0, 3)[1:, :, *cells])
    assert about.label == "memory, trajectory 1 (every 3 frames, means of 2 cells along each axis)"
    assert coarse.fields == ("a",)


@pytest.mark.parametrize(("shape", "cells"), [((1, 2, 32, 64), 8), ((1, 2, 8, 16, 16), 4), ((1, 2, 24, 24, 24), 2)])
def test_means_in_a_box_are_those_of_the_whole_grid_to_the_last_bit(shape, cells):
    _, source = noise(shape, boundary=["periodic"] * (len(shape) - 2))
    coarse = CoarsenedTrajectories(source, cells=cells)
    whole = coarse.read(0, 0, 2)
    sides = [(slice(0, size), slice(size - 1, size), slice(size // 2, size)) for size in coarse.trajectories[0].grid]
    for box in product(*sides):
        np.testing.assert_array_equal(coarse.read(0, 0, 2, box), whole[:, :, *box])


def test_what_is_given_is_coarsened_likewise():
    constant, varying = (np.random.default_rng(1).normal(size=shape) for shape in ((2, 8, 12), (2, 7, 8, 12)))
    _, source = noise(given={"depth": constant, "wind": varying})
    coarse = CoarsenedTrajectories(source, frames=2, cells=4)
    (batch,) = read_windows([coarse], [Window(0, 1, 1, 1)], num_frames=2)
    blocks = varying[1].reshape(7, 2, 4, 3, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(batch.given[0, :, 1, 0], blocks[[2, 4, 6]], rtol=1e-5, atol=1e-6)
    depth = constant[1].reshape(2, 4, 3, 4).mean(axis=(1, 3))
    np.testing.assert_allclose(batch.given[0, :, 0, 0], [depth] * 3, rtol=1e-5, atol=1e-6)
    assert batch.grid == (1, 2, 3)


def test_a_grid_that_does_not_divide_is_refused():
    _, source = noise((1, 3, 6, 8))
    with pytest.raises(DataError, match=r"divides into blocks of 4 cells along each axis, got 1 x 6 x 8;"):
        CoarsenedTrajectories(source, cells=4)
