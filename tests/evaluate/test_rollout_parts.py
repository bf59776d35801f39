"""Rollouts of fields of which each rank holds a part, on real ranks."""

import json
import math

import pytest

from tests.evaluate.rollout_parts_cases import CASES
from tests.support.programs import cases_of, start_ranks


@pytest.mark.parametrize(
    ("num_ranks", "names", "network"),
    [
        (3, [*CASES][::2], "matey"),
        pytest.param(3, [*CASES][1::2], "matey", marks=pytest.mark.slow),
        pytest.param(2, [*CASES], "matey", marks=pytest.mark.slow),
        (3, [*CASES][1::2], "paper"),
        pytest.param(4, [*CASES][::2], "paper", marks=pytest.mark.slow),
        pytest.param(2, [*CASES], "paper", marks=pytest.mark.slow),
    ],
    ids=["three", "three_others", "two_all", "three_paper", "four_paper", "two_all_paper"],
)
def test_ranks_that_hold_parts_of_fields_roll_out_as_one_process(num_ranks, names, network):
    command = ("-m", "tests.evaluate.rollout_parts_cases", json.dumps(names), network)
    cases = dict(cases_of(start_ranks(num_ranks, *command, timeout=600)))
    assert [*cases] == names and all(map(math.isfinite, cases.values())), cases
    assert max(cases.values()) < 1e-10, cases
