"""Checkpoints of real engines on two ranks, made once for all tests of this folder."""

import json

import pytest

from tests.conftest import start_ranks


def run_cases(num_ranks, cases, root, timeout=600):
    """Run cases of engine_cases.py on real ranks; return what was seen, by name of what was saved or resumed."""
    result = start_ranks(
        num_ranks, "-m", "tests.checkpoints.engine_cases", json.dumps(cases), str(root), timeout=timeout
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [json.loads(line[5:]) for line in result.stdout.splitlines() if line.startswith("case ")]
    return {" ".join(map(str, (what, *arguments))): seen for what, arguments, seen in lines}


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory):
    """The folder that two ranks saved to, and what they saw, also of resuming there."""
    root = tmp_path_factory.mktemp("checkpoints")
    saves = [["save", kind] for kind in ("zero0", "zero3", "frozen3", "bf16_1")]
    resumes = [
        ["resume", "zero1", "zero3_universal", 2],
        ["resume", "zero1", "zero3", 1],
        ["resume", "zero3", "zero3", 1],
    ]
    return root, run_cases(2, [*saves, *resumes], root)
