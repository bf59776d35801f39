"""Rollouts of fields of which each rank holds a part, on real ranks."""

import math

import pytest

from tests.evaluate.rollout_parts_cases import CASES
from tests.support.programs import cases_of, start_ranks


@pytest.mark.parametrize("num_ranks", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_that_hold_parts_of_fields_roll_out_as_one_process(num_ranks):
    cases = dict(cases_of(start_ranks(num_ranks, "-m", "tests.evaluate.rollout_parts_cases", timeout=600)))
    assert cases.keys() == CASES.keys() and all(map(math.isfinite, cases.values())), cases
    assert max(cases.values()) < 1e-10, cases
