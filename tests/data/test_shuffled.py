"""Permutations of which each place is found by itself."""

import numpy as np
import pytest

from matey.data.windows import shuffled


def places(size):
    return np.arange(size, dtype=np.uint64)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 17, 1000])
def test_it_is_a_permutation_of_any_number_of_places(size):
    for key in (0, 1, 2**62 + 1):
        assert sorted(shuffled(places(size), size, key)) == list(range(size))


def test_a_place_goes_where_it_goes_among_all():
    whole = shuffled(places(100), 100, key=7)
    assert shuffled(np.array([42, 3], dtype=np.uint64), 100, key=7).tolist() == whole[[42, 3]].tolist()
