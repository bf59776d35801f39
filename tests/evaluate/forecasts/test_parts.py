"""Forecasts into files by ranks that hold parts of the fields."""

import pytest

from tests.evaluate.forecasts.parts_cases import CASES
from tests.support.programs import cases_of, start_ranks


@pytest.mark.parametrize("num_ranks", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_that_hold_parts_write_the_file_of_one_process(num_ranks, tmp_path):
    cases = cases_of(start_ranks(num_ranks, "-m", "tests.evaluate.forecasts.parts_cases", tmp_path, timeout=600))
    assert [name for name, *_ in cases] == [*CASES]
    for name, off, is_same_after_a_break, largest_share in cases:
        assert off < 1e-5 and is_same_after_a_break, (name, off)
        assert largest_share == 1 if "whole" in name else largest_share < 0.7, (name, largest_share)
