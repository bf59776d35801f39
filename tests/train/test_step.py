"""Validation by ranks that each read a part of every window, beside one process.

What a step logs of the systems in it.
"""

import pytest
import torch

from matey.train.loop import Tally
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


def totals(**errors):
    tally = Tally(errors, torch.device("cpu"))
    for system, values in errors.items():
        if values:
            tally.add_errors(system, torch.tensor(values))
    return tally.reduce().read()


def test_a_system_that_dominates_the_loss_is_named_with_its_share():
    step = totals(gas=[0.5, 0.5], water=[8.0], plasma=[1.0])
    assert step.by_system == {"gas": 0.5, "water": 8, "plasma": 1}
    assert step.share_by_system == {"gas": 0.1, "water": 0.8, "plasma": 0.1}
    assert str(step) == "2.5000 (80% water)"
