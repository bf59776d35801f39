"""Where ranks are, under srun's block and cyclic distributions."""

import os
import sys

import pytest

from tests.support.programs import cases_of, start


@pytest.fixture(scope="module")
def two_ranks():
    """How many cores there are, and what each of two real ranks makes of its cores and of placements."""
    result = start(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2, "-m", "tests.parallel.placement_cases"]
    )
    return cases_of(result, "rank")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds ranks to cores")
def test_ranks_share_the_cores_that_several_may_run_on_and_keep_those_of_their_own(two_ranks):
    for num_cores, seen in two_ranks:
        assert (seen["one for both"], seen["all for both"], seen["one each"]) == (0.5, num_cores / 2, 1.0)
