"""Fingerprints: what of a set is read for them, and what has none."""

import math

import h5py
import numpy as np
import pytest

from matey.data import open_dataset
from matey.data import splits as reading
from matey.data.splits import fingerprints
from matey.data.trajectories import TrajectorySet
from tests.support.small_files import write_swe


@pytest.fixture
def folder(tmp_path):
    return write_swe(tmp_path / "2D_rdb_NA_NA.h5", 8, num_frames=3, resolution=8).parent


def test_a_set_of_large_frames_is_read_as_far_as_bytes_allow(folder, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 3 * 2 * 4 * 8 * 8)  # three times two frames of a field
    assert list(fingerprints(open_dataset(folder), range(8))) == [0, 2, 5]


def test_first_frames_that_are_not_finite_have_no_fingerprint(folder):
    with h5py.File(folder / "2D_rdb_NA_NA.h5", "r+") as file:
        file["0001/data"][0, 0, 0, 0] = np.nan
    assert list(fingerprints(open_dataset(folder), range(3))) == [0, 2]


def test_trajectories_that_part_after_two_frames_have_one_fingerprint(folder):
    with h5py.File(folder / "2D_rdb_NA_NA.h5", "r+") as file:
        file["0001/data"][:2] = file["0000/data"][:2]
        file["0002/data"][:1] = file["0000/data"][:1]
    prints = fingerprints(open_dataset(folder), range(3))
    assert prints[0] == prints[1] != prints[2]


def test_of_frames_that_are_too_large_boxes_are_read(monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 2 * 4 * 2 * 32 * 8 * 8 - 1)
    monkeypatch.setattr(reading, "OF_LARGE_FRAMES", 2 * 4 * 2 * 4 * 8 * 8)  # four layers
    monkeypatch.setattr(reading, "MOST_BOXES", 2)
    values = np.random.default_rng(0).random((4, 3, 32, 8, 8), dtype=np.float32)
    values[1] = values[0]
    values[1, :, 3:7] += 1  # no box reaches it
    values[2] = values[0]
    values[2, 1, 24, 7, 7] += 1
    values[3] = values[0]
    values[3, 0, 0, 0, 0] = np.nan
    data = TrajectorySet.from_arrays(
        "gas", {"density": values, "pressure": -values}, spacing=(1, 1, 1), boundary=("open",) * 3
    )
    most, read = 0, data.read

    def counted(*args):
        nonlocal most
        frames = read(*args)
        most = max(most, frames.nbytes)
        return frames

    monkeypatch.setattr(data, "read", counted)
    prints = fingerprints(data, range(4))
    assert prints[0] == prints[1] == prints[3] != prints[2] and most == reading.OF_LARGE_FRAMES // 2


@pytest.mark.parametrize("grid", [(2048, 2048, 2048), (1, 70000, 70000), (4, 4, 2**28), (1, 1, 2**29), (9, 2**20, 3)])
def test_boxes_lie_in_the_grid_and_hold_no_more_than_they_may(grid):
    boxes, most = list(reading.spread_boxes(grid, 2**22)), 0
    ends = [(side.start, side.stop) for box in boxes for side in box]
    assert all(0 <= first < end <= size for (first, end), size in zip(ends, grid * len(boxes), strict=True))
    most = sum(math.prod(side.stop - side.start for side in box) for box in boxes)
    assert 2**21 < most <= 2**22 and len(boxes) <= reading.MOST_BOXES
