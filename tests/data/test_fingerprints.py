"""Fingerprints: what of a set is read for them, and what has none."""

import h5py
import numpy as np
import pytest

from matey.data import fingerprints as reading
from matey.data import open_dataset
from matey.data.fingerprints import fingerprints
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
