"""Forecasts into files by ranks that hold parts of the fields."""

import json

import pytest

from tests.evaluate.forecasts.parts_cases import CASES
from tests.support.programs import cases_of, start_ranks

QUICK = ("plane .nc", "space .zarr", "space and halos .h5", "whole .nc")


@pytest.mark.parametrize(
    ("num_ranks", "names"),
    [(3, QUICK), pytest.param(3, [name for name in CASES if name not in QUICK], marks=pytest.mark.slow)],
    ids=["some", "others"],
)
def test_ranks_write_their_parts_into_the_file_of_one_process(num_ranks, names, tmp_path):
    command = ("-m", "tests.evaluate.forecasts.parts_cases", tmp_path, json.dumps(names))
    cases = cases_of(start_ranks(num_ranks, *command, timeout=600))
    assert [name for name, *_ in cases] == [*names]
    for name, off, is_same_after_a_break, largest_share, written in cases:
        assert off < 1e-5 and is_same_after_a_break, (name, off)
        if "halos" not in name:  # which make up most of so small a field
            assert largest_share == 1 if "whole" in name else largest_share < 0.7, (name, largest_share)
        assert sum(written) == pytest.approx(1)
        assert max(written) == 1 if "whole" in name else max(written) < 1.6 / num_ranks, (name, written)
