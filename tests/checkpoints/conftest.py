"""Checkpoints of real engines on two ranks, made once for all tests of this folder."""

import fcntl
import json

import pytest

from tests.checkpoints.running import MORE, run_cases

SAVES = ("zero0", "zero3", "frozen3", "muon1", "bf16_1")


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory, worker_id):
    """The folder that two ranks saved to, and what they saw, also of resuming there."""
    resumes = [
        ["resume", "zero1", "zero3_universal", 2],
        ["resume", "zero1", "zero3", 1],
        *(["resume", kind, kind, 1] for kind in ("zero3", "bf16_1")),
    ]
    cases = [*(["save", kind] for kind in SAVES), *resumes]
    return _shared(tmp_path_factory, worker_id, lambda root: run_cases(2, cases, root / "two_ranks"), "two_ranks")


@pytest.fixture(scope="session")
def more_of_two_ranks(two_ranks, tmp_path_factory, worker_id):
    """The same of what only the slow tests look at."""
    root, seen = two_ranks
    cases = [[what, kind, *more] for kind in MORE for what, *more in (["save"], ["resume", kind, 1])]
    cases += [["resume", "muon1", "muon1", 1], ["resume", "muon3", "muon1_universal", 2]]
    return root, seen | _shared(tmp_path_factory, worker_id, lambda _: run_cases(2, cases, root), "more")[1]


def _shared(tmp_path_factory, worker_id, make, name):
    """A folder, and what is seen in it once, by whichever process of tests comes first."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "checkpoints"
    (root / "two_ranks").mkdir(parents=True, exist_ok=True)
    seen = root / f"{name}.json"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not seen.exists():
            seen.write_text(json.dumps(make(root)))
    return root / "two_ranks", json.loads(seen.read_text())
