"""What a run leaves alone in its folder, and what it finds again after a kill."""

import pytest

from matey.config import ConfigError, load_config
from matey.train.checkpoint import RunFolder
from matey.train.run_data import open_data, validation_windows


def test_pruning_leaves_what_is_not_named_as_a_checkpoint(tmp_path):
    folder = RunFolder(tmp_path)
    others = ["step_000004_1", "step_000004.bak", "step_4", "mine"]
    for name in ("step_000002", "step_000004", "step_000006", "step_000008", *others):
        (folder.checkpoints / name).mkdir(parents=True)
    (folder.checkpoints / "step_000001").write_text("a file")
    folder._prune(6, 2)
    left = sorted(path.name for path in folder.checkpoints.iterdir())
    assert left == sorted(["step_000001", "step_000004", "step_000006", *others])


def test_a_split_without_anything_to_validate_on_is_refused_before_training(run_yaml):
    run = load_config(run_yaml(data={"split": [1, 0, 0]}))
    with pytest.raises(ConfigError, match="leaves no trajectory of shallow_water to validate on"):
        validation_windows(run, open_data(run))


def test_another_seed_draws_samples_that_skip_otherwise(run_yaml):
    draws = []
    for seed in (0, 1):
        data = open_data(load_config(run_yaml(train={"seed": seed})))
        draws.append([window.draw for window in data.mixture.global_batch(3, 4)])
    assert draws[0] == [12, 13, 14, 15] and not set(draws[0]) & set(draws[1])


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
