"""A run is watched while it trains and compared with another, in the terminal and as a page."""

import json
import sys
import time

from matey.report.progress import read_progress, run_rows
from tests.support.programs import clean_environment, in_background, preloaded, start
from tests.support.runs import pretrain, succeed


def test_a_run_is_watched_to_its_last_step_and_compared_with_another(run_yaml, tmp_path):
    run, page = tmp_path / "run", tmp_path / "watched.html"
    other = written_run(tmp_path / "other", [0.4, 0.2])
    succeed(pretrain(run_yaml()))
    (run / "metrics.jsonl").rename(tmp_path / "all")
    (run / "matey.lock").write_text("{}")  # as of a run at work
    watching = [preloaded().python, "tools/watch.py", run, "--html", page, "--every", "1"]
    (run / "metrics.jsonl").write_text("".join((tmp_path / "all").open().readlines()[:1]))
    with in_background(watching, clean_environment() | {"COLUMNS": "90"}, stdout=-1) as process:
        until = time.monotonic() + 60
        while not page.exists():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        assert '<meta http-equiv="refresh" content="1">' in page.read_text()
        (tmp_path / "all").rename(run / "metrics.jsonl")
        (run / "matey.lock").write_text("")
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "4 of 4" in printed and "shallow_water" in printed
    assert "refresh" not in page.read_text() and "data:image/png" in page.read_text()
    result = start([sys.executable, "tools/watch.py", "--once", run, other, "--html", tmp_path / "both.html"])
    assert result.returncode == 0 and "4 of 4" in result.stdout and "2 of 2" in result.stdout, result.stderr
    assert "<td>0.5</td>" in (tmp_path / "both.html").read_text()


def test_a_run_that_ended_early_is_watched_no_longer(tmp_path, run_here):
    folder = written_run(tmp_path / "run", [0.4, 0.2, 0.2], "steps: 100, patience: 1")
    (folder / "matey.lock").touch()
    status, printed, _ = run_here("tools/watch.py", folder, "--every", 3600)
    assert status == 0 and "3 of 100" in printed and "ended" in printed


def test_a_run_that_waits_for_its_next_job_or_writes_its_last_weights_is_watched(tmp_path):
    waits = written_run(tmp_path / "waits", [0.4, 0.2, 0.2], "steps: 100, patience: 2")
    (waits / "matey.lock").touch()
    run = read_progress(waits)
    assert not run.is_over and run_rows([run])[1][0][-1] == "ended"
    writes = written_run(tmp_path / "writes", [0.4, 0.2])
    assert read_progress(writes).is_over
    (writes / "matey.lock").write_text("{}")
    assert not read_progress(writes).is_over


def test_a_folder_that_is_no_run_is_refused_in_a_sentence(tmp_path):
    result = start([sys.executable, "tools/watch.py", tmp_path])
    assert result.returncode == 2 and "is not the folder of a run: it holds no config.yaml" in result.stderr


def written_run(folder, errors, train=None):
    """A run's folder as far as it is read here, of a system whose persistence has an error of 0.4."""
    folder.mkdir()
    (folder / "config.yaml").write_text(f"train: {{{train or f'steps: {len(errors)}'}}}\n")
    lines = []
    for step, error in enumerate(errors, start=1):
        lines.append({"step": step, "loss": 2 * error, "seconds": 0.5})
        by_system = {"valid_nrmse_by_system": {"waves": error}, "valid_persistence_by_system": {"waves": 0.4}}
        lines.append({"step": step, "valid_nrmse": error, **by_system})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
