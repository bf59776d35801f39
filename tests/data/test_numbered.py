"""Order of names by the numbers that tell them apart."""

import pytest

from matey.data.numbered import in_order, numbers_of

ORDERED = [
    ["step9", "step10", "step11"],
    ["run_3/t_0.25.npy", "run_3/t_0.5.npy", "run_3/t_10.0.npy"],
    ["t_1.0e-03.h5", "t_5.0e-03.h5", "t_1.0e-02.h5"],
    ["sim_2_9.npy", "sim_2_10.npy", "sim_10_1.npy"],
    ["2024-01-31.nc", "2024-02-01.nc"],
    ["0009/u.npy", "0010/u.npy"],
    ["only"],
]


@pytest.mark.parametrize("names", ORDERED)
def test_names_are_ordered_by_the_numbers_in_them(names):
    assert in_order(names[::-1]) == in_order(names) == names


def test_numbers_are_those_of_names_that_differ_in_one():
    assert numbers_of(["plt_00010.h5", "plt_00020.h5"]) == [10, 20]
    assert numbers_of(["a1_1", "a2_2"]) is None and numbers_of(["start", "end"]) is None
