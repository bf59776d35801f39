"""The data of the tiny runs, the same runs undisturbed, and the count of cases at the end."""

import functools
from collections import Counter

import pytest

from tests.campaign.moments import Whole, run_whole
from tests.support.laws import PROVED
from tests.support.small_files import write_swe


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_swe(folder / "2D_rdb_NA_NA.h5", 10, num_frames=8)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory, data):
    """A function that returns the undisturbed run of a kind, which is made once."""

    @functools.cache
    def of(kind) -> Whole:
        return run_whole(tmp_path_factory.mktemp("whole") / "undisturbed", data, kind)

    return of


@pytest.fixture(scope="module")
def held(request):
    """What held, counted by what the test module calls it; said at the end of all tests."""
    counts = Counter()
    yield counts
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    PROVED.append(f"{request.module.HELD.format(count=counts.total())} ({kinds})")
