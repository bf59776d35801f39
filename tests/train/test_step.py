"""Validation by ranks that each read a part of every window, beside one process."""

import pytest

from tests.support.programs import cases_of, start_ranks


def test_ranks_that_read_parts_of_windows_validate_as_one_process():
    one, *others = (
        cases_of(start_ranks(size, "-m", "tests.train.validation_cases", timeout=600))[0] for size in (1, 2, 3)
    )
    (expected, all_read) = one
    assert all_read == 1 and set(expected["valid_persistence_by_system"]) == {"shallow_water", "diffusion_reaction"}
    for size, (found, read) in zip((2, 3), others, strict=True):
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-5), (size, name)
        assert read < 1.4 / size  # whole patches, and what lies beyond a periodic axis
