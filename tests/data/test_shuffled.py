"""Permutations of which each place is found by itself."""

from collections import Counter

import numpy as np
import pytest

from matey.data.shuffled import shuffled


def places(size):
    return np.arange(size, dtype=np.uint64)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 17, 1000])
def test_it_is_a_permutation_of_any_number_of_places(size):
    for key in (0, 1, 2**62 + 1):
        assert sorted(shuffled(places(size), size, key)) == list(range(size))


def test_a_place_goes_where_it_goes_among_all():
    whole = shuffled(places(100), 100, key=7)
    assert shuffled(np.array([42, 3], dtype=np.uint64), 100, key=7).tolist() == whole[[42, 3]].tolist()


def test_all_orders_of_a_few_places_are_equally_likely():
    keys = np.random.default_rng(0).integers(2**63, size=2400)
    counts = Counter(tuple(shuffled(places(4), 4, int(key))) for key in keys)
    assert len(counts) == 24
    assert (
        sum((count - 100) ** 2 / 100 for count in counts.values()) < 53
    )  # chi squared, 23 degrees of freedom, p = 4e-4
