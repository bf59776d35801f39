"""Checkpoints of real engines on two ranks, made once for all tests of this folder."""

import fcntl
import json

import pytest

from tests.checkpoints.running import run_cases

SAME = ("bf16_1", "bf16_2", "bf16_3")  # of which shards have names of one kind


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory, worker_id):
    """The folder that two ranks saved to, and what they saw, also of resuming there."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "checkpoints"  # processes of tests share the latter
    seen = root / "seen.json"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not seen.exists():
            seen.write_text(json.dumps(_save_and_resume(root)))
    return root, json.loads(seen.read_text())


def _save_and_resume(root):
    saves = [["save", kind] for kind in ("zero0", "zero3", "frozen3", "muon1", *SAME)]
    resumes = [
        ["resume", "zero1", "zero3_universal", 2],
        ["resume", "zero1", "zero3", 1],
        ["resume", "zero3", "zero3", 1],
        ["resume", "muon3", "muon1_universal", 2],
        *(["resume", kind, kind, 1] for kind in ("muon1", *SAME)),
    ]
    return run_cases(2, [*saves, *resumes], root)
