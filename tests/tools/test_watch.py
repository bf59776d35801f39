"""A run is watched while it trains and compared with another, in the terminal."""

import json
import sys
import time

from matey.report.progress import read_progress
from tests.support.programs import clean_environment, in_background, preloaded, start
from tests.support.runs import pretrain, succeed


def test_a_run_is_watched_to_its_last_step_and_compared_with_another(run_yaml, tmp_path):
    run, other = tmp_path / "run", written_run(tmp_path / "other", [0.4, 0.2])
    succeed(pretrain(run_yaml()))
    (run / "metrics.jsonl").rename(tmp_path / "all")
    (run / "matey.lock").write_text("{}")  # as of a run at work
    (run / "metrics.jsonl").write_text("".join((tmp_path / "all").open().readlines()[:1]))
    watching = [preloaded().python, "tools/watch.py", run, "--every", "1"]
    with in_background(watching, clean_environment() | {"COLUMNS": "90"}, stdout=-1) as process:
        time.sleep(2)
        assert process.poll() is None
        (tmp_path / "all").rename(run / "metrics.jsonl")
        (run / "matey.lock").write_text("")
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "4 of 4" in printed and "shallow_water" in printed
    result = start([sys.executable, "tools/watch.py", "--once", run, other])
    assert result.returncode == 0 and "4 of 4" in result.stdout and "2 of 2" in result.stdout, result.stderr


def test_a_run_that_writes_its_last_weights_is_watched(tmp_path):
    folder = written_run(tmp_path / "writes", [0.4, 0.2])
    assert read_progress(folder).is_over
    (folder / "matey.lock").write_text("{}")
    assert not read_progress(folder).is_over


def written_run(folder, errors):
    """A run's folder as far as it is read here, of a system whose persistence has an error of 0.4."""
    folder.mkdir()
    (folder / "config.yaml").write_text(f"train: {{steps: {len(errors)}}}\n")
    lines = []
    for step, error in enumerate(errors, start=1):
        lines.append({"step": step, "loss": 2 * error, "seconds": 0.5})
        by_system = {"valid_vrmse_by_system": {"waves": error}, "valid_persistence_by_system": {"waves": 0.4}}
        lines.append({"step": step, "valid_vrmse": error, **by_system})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
