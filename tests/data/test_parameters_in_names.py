"""Parameters of trajectories that stand in the names of files, folders and groups, or in attributes."""

import h5py
import numpy as np
import pytest

from matey.data import open_dataset
from matey.data.dates import number_in
from tests.support.described_files import describe, flow


def described(folder, **keys):
    describe(folder, flow() | keys)
    return [about.parameters for about in open_dataset(folder).trajectories]


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.zeros((4, 8, 8), "f4"))


def test_numbers_are_read_from_the_names_of_folders_and_files(tmp_path):
    for name in ("Re100/u_nu0.01.npy", "Re100/u_nu1e-3.npy", "Re2.5e+3/u_nu-1.npy"):
        write(tmp_path / name)
    parameters = {"Re": {"in_name": "Re{}"}, "nu": {"in_name": "nu{}"}}
    found = described(tmp_path, files="Re*/u_*.npy", fields={"u": {}}, parameters=parameters)
    assert found == [{"Re": 100, "nu": 0.01}, {"Re": 100, "nu": 0.001}, {"Re": 2500, "nu": -1}]


@pytest.mark.parametrize(
    ("name", "form", "number"),
    [
        ("/data/Re7/Re100/u.h5", "Re{}", 100),
        ("PreRe7_Re8", "Re{}", 8),
        ("nu0.01Re100.h5", "nu{}", 0.01),
        ("100K_run", "{}K", 100),
        ("100Kelvin", "{}K", None),
    ],
)
def test_the_number_is_the_last_one_in_that_text(name, form, number):
    assert number_in(name, form) == number


def attributed(path, values):
    with h5py.File(path, "w") as file:
        file["u"] = np.zeros((2, 4, 8, 8), "f4")
        for (where, name), value in values.items():
            (file[where] if where else file).attrs[name] = value


RUNS = {"axes": ["trajectory", "time", "y", "x"], "fields": {"u": "u"}, "parameters": {"nu": {"attribute": "nu"}}}


def test_an_attribute_may_have_a_number_for_each_trajectory_or_be_that_of_the_array(tmp_path):
    attributed(tmp_path / "a.h5", {("", "nu"): [0.1, 0.2]})
    attributed(tmp_path / "b.h5", {("u", "nu"): 0.3})
    attributed(tmp_path / "c.h5", {("u", "nu"): 0.3, ("", "nu"): 0.4})
    attributed(tmp_path / "d.h5", {})
    numbers = [{"nu": 0.1}, {"nu": 0.2}, *[{"nu": 0.3}] * 2, *[{"nu": 0.4}] * 2, {}, {}]
    assert described(tmp_path, **RUNS) == numbers
