"""Checkpoints of real engines on two ranks, made once for all tests of this folder."""

import pytest

from tests.checkpoints.running import run_cases

SAME = ("bf16_1", "bf16_2", "bf16_3")  # of which shards have names of one kind


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory):
    """The folder that two ranks saved to, and what they saw, also of resuming there."""
    root = tmp_path_factory.mktemp("checkpoints")
    saves = [["save", kind] for kind in ("zero0", "zero3", "frozen3", *SAME)]
    resumes = [
        ["resume", "zero1", "zero3_universal", 2],
        ["resume", "zero1", "zero3", 1],
        ["resume", "zero3", "zero3", 1],
        *(["resume", kind, kind, 1] for kind in SAME),
    ]
    return root, run_cases(2, [*saves, *resumes], root)
