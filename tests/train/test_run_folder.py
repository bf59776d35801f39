"""What a run leaves alone in its folder, and what it finds again after a kill."""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from matey.checkpoints.source import find_damage, open_checkpoint
from matey.config import load_config
from matey.model.matey import MateyModel
from matey.train.checkpoint import RunFolder, replace_model
from tests.support.models import make_model
from tests.support.runs import pretrain, succeed


def test_pruning_leaves_what_is_not_named_as_a_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    others = ["step_000004_1", "step_000004.bak", "step_4", "mine"]
    for name in ("step_000002", "step_000004", "step_000006", "step_000008", *others):
        (folder.checkpoints / name).mkdir(parents=True)
    (folder.checkpoints / "step_000001").write_text("a file")
    folder._prune(6, 2)
    left = sorted(path.name for path in folder.checkpoints.iterdir())
    assert left == sorted(["step_000001", "step_000004", "step_000006", *others])


@contextmanager
def unremovable(folder):
    """Keep a folder from being removed, as a file server keeps one whose files are open."""
    folder.mkdir(parents=True)
    source = f"unremovable_{os.getpid()}_{time.monotonic_ns()}"
    if subprocess.run(["mount", "-t", "tmpfs", source, folder], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:  # a folder above it may have got another name
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        subprocess.run(["umount", *(place for name, place, *_ in mounts if name == source)], check=True)


def test_a_checkpoint_that_cannot_be_removed_costs_room_and_no_run(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        (folder.checkpoints / f"step_{step:06d}").mkdir(parents=True)
    with unremovable(folder.checkpoints / "step_000001" / "mp"):
        folder._prune(3, 1)
        assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step_000001", "step_000003"]
    assert capsys.readouterr().err.count("step_000001 is no longer needed and cannot be removed") == 1


def test_a_step_that_cannot_be_removed_gives_its_name_to_the_one_saved_again(run_yaml, tmp_path):
    checkpoints = tmp_path / "run" / "checkpoints"
    succeed(pretrain(run_yaml()))
    (checkpoints / "latest").write_text("step_000002")
    with unremovable(checkpoints / "step_000004" / "mp"):
        result = succeed(pretrain(run_yaml(), "--resume"))
        assert "step_000004.1 is no longer needed and cannot be removed" in result.stderr
    assert find_damage(open_checkpoint(checkpoints / "step_000004")) == []
    assert (checkpoints / "latest").read_text() == "step_000004"


def test_weights_that_another_program_reads_do_not_keep_new_ones_from_their_place(tmp_path):
    model = make_model()
    replace_model(tmp_path / "model", tmp_path / "model.old", model, model.state_dict())
    with unremovable(tmp_path / "model.old" / "open"):
        replace_model(tmp_path / "model", tmp_path / "model.old", model, model.state_dict())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.old.1"]
        (tmp_path / "model.old.1").rename(tmp_path / "model.old")
    replace_model(tmp_path / "model", tmp_path / "model.old", model, model.state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and MateyModel.from_pretrained(tmp_path / "model")


def test_damaged_metrics_are_dropped_and_counted_when_a_run_goes_on(run_yaml):
    run = load_config(run_yaml())
    folder = RunFolder(run.output.dir)
    folder.start(run, {})
    corrupt = [
        b"[1]",
        b"null",
        b'{"step": "two"}',
        b'{"loss": 1}',
        '{"step": 1, "a": "ä"}'.encode("latin-1"),
        b"[" * 50_000,
    ]
    lines = [
        b'{"step": 1, "loss": 1}',
        *corrupt,
        b'{"step": 2, "loss": 1}',
        b'{"step": 3, "loss": 1}',
        b'{"step": 4, "lo',
    ]
    folder.metrics.write_bytes(b"\n".join(lines))
    assert folder.go_on(run, {}, 2) == f"{folder.metrics}: {len(corrupt) + 1} corrupt lines are skipped."
    assert folder.metrics.read_text() == '{"step": 1, "loss": 1}\n{"step": 2, "loss": 1}\n'
    assert folder.go_on(run, {}, 2) == "", "said once"
