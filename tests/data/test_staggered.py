"""Fields between the cells of others, as WRF writes them."""

import h5py
import numpy as np
import pytest

from matey.data import DataError, open_dataset
from tests.support.described_files import flow, guessed


def test_a_description_of_fields_and_what_lies_between_them_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"], file["u"] = np.zeros((5, 8, 12), "f4"), np.zeros((5, 8, 13), "f4")
    for fields in ({"p": "p", "u": "u"}, {"u": "u", "p": "p"}):
        with pytest.raises(
            DataError, match=r"lies between the cells along x, .* averaged .* first: docs/data.md shows how"
        ):
            open_dataset(tmp_path / "a.h5", flow(fields=fields))


def test_without_names_of_axes_a_staggered_grid_is_known_by_its_sizes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["p"], file["u"], file["v"] = (np.zeros((5, 8 + y, 12 + x), "f4") for y, x in ((0, 0), (0, 1), (1, 0)))
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    guess = guessed(tmp_path / "a.h5")
    assert guess.tree["fields"] == {"pressure": "p"} and guess.tree["axes"] == ["time", "y", "x"]
    assert "Average what lies between the cells to them first" in guess.text


def test_components_one_more_than_others_are_no_staggered_grid(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["velocity"], file["b"] = np.zeros((5, 8, 12, 3), "f4"), np.zeros((5, 8, 12, 2), "f4")
        file["t"], file["y"], file["x"] = np.arange(5.0), np.arange(8.0), np.arange(12.0)
    vectors = {"velocity_x", "velocity_y", "velocity_z", "magnetic_x", "magnetic_y"}
    assert guessed(tmp_path / "a.h5").tree["fields"].keys() == vectors
