"""Order of names by the numbers that tell them apart."""

import re

import pytest

from matey.data.numbered import in_order, numbers_of, place_of_last

ORDERED = [
    ["step9", "step10", "step11"],
    ["run_3/t_0.25.npy", "run_3/t_0.5.npy", "run_3/t_10.0.npy"],
    ["t_1.0e-03.h5", "t_5.0e-03.h5", "t_1.0e-02.h5"],
    ["sim_2_9.npy", "sim_2_10.npy", "sim_10_1.npy"],
    ["2024-01-31.nc", "2024-02-01.nc"],
    ["0009/u.npy", "0010/u.npy"],
    ["only"],
    ["sim1.8.h5", "sim1.9.h5", "sim1.10.h5", "sim1.100.h5"],
    ["Sod.out1.00009.h5", "Sod.out1.00010.h5"],
]


@pytest.mark.parametrize("names", ORDERED)
def test_names_are_ordered_by_the_numbers_in_them(names):
    assert in_order(names[::-1]) == in_order(names) == names


def test_numbers_are_those_of_names_that_differ_in_one():
    assert numbers_of(["plt_00010.h5", "plt_00020.h5"]) == [10, 20]
    assert numbers_of(["Sod.out1.00010.h5", "Sod.out1.00020.h5"]) == [10, 20]
    assert numbers_of(["sim1.9", "sim1.10"]) == [9, 10] and numbers_of(["sim1.1", "sim1.10"]) == [1, 10]
    assert numbers_of(["a1_1", "a2_2"]) is None and numbers_of(["start", "end"]) is None


@pytest.mark.parametrize(
    "names",
    [
        ["0.05/u.h5", "0.10/u.h5", "0.15/u.h5"],
        ["vel0.0010.npy", "vel0.0020.npy"],
        ["t1.05.npy", "t1.10.npy"],
        ["u_1.05.npy", "u_1.10.npy"],
        ["sim1.05.npy", "sim1.5.npy", "sim1.25.npy"],
        ["vel1.50.npy", "vel1.75.npy"],
        ["vel0.95.npy", "vel1.05.npy"],
    ],
)
def test_fractions_stay_fractions(names):
    found = [float(re.search(r"\d+\.\d+", name)[0]) for name in names]
    assert numbers_of(names) == found


@pytest.mark.parametrize(
    ("name", "last"),
    [("Sod.out1.00010", "00010"), ("u_0.5", "0.5"), ("vel0.0010", "0.0010"), ("time1.0010", "1.0010"), ("a1_b", "1")],
)
def test_the_last_number_of_a_name_is_found(name, last):
    assert name[slice(*place_of_last(name))] == last
    assert place_of_last("none") is None
