"""Scaling studies from the command line, with runs that are real but short."""

import csv
import json
import statistics
import sys

import pytest

from matey.config import load_config
from matey.studies.scaling import load_study, run_here
from tests.support.paths import ROOT
from tests.support.programs import start


def study(*arguments, **kwargs):
    return start([sys.executable, "tools/scaling_study.py", *arguments], **kwargs)


def plan(config, out, *more, mode="weak", sizes=("--ranks", "1,2")):
    common = ["--config", config, "--deepspeed_config", "ds_configs/zero1.json", "--out", out]
    return study("plan", "--mode", mode, *sizes, *common, *more)


def steps_of(out, point):
    lines = [json.loads(line) for line in (out / point / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "seconds" in line]


def rows_of(out, kind="measured"):
    with (out / "points.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["kind"] == kind]


@pytest.mark.usefixtures("forked")
def test_a_study_is_planned_run_once_and_reported_from_what_its_runs_logged(run_yaml, tmp_path):
    out = tmp_path / "study"
    assert plan(run_yaml(), out, "--steps", 3, "--warm_up", 1).returncode == 0
    said = []
    assert run_here(load_study(out), ROOT, 240, said.append) == []
    assert said == ["ranks_1: 1 rank", "ranks_2: 2 ranks"]
    steps = steps_of(out, "ranks_2")
    assert [("traffic" in line) for line in steps] == 4 * [False] + 3 * [True]
    assert all(line["traffic"]["all_reduce"]["seconds"] < line["seconds"] for line in steps[4:])
    assert run_here(load_study(out), ROOT, 240, said.append) == []
    assert said[2:] == ["ranks_1: finished before", "ranks_2: finished before"] and steps_of(out, "ranks_2") == steps

    result = study("report", "--out", out)
    assert result.returncode == 0, result.stderr
    one, two = rows_of(out)
    assert float(two["seconds"]) == statistics.median(line["seconds"] for line in steps[1:4])
    assert int(two["samples"]) == 2 * int(one["samples"]) and float(one["efficiency"]) == 1
    assert float(two["efficiency"]) == pytest.approx(
        float(two["tokens_per_second"]) / float(one["tokens_per_second"]) / 2
    )
    modelled = rows_of(out, "modelled")
    assert [row["ranks"] for row in modelled] == ["1", "2"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and '"http' not in page


@pytest.mark.slow
def test_mistakes_are_one_sentence_each(run_yaml, tmp_path):
    out = tmp_path / "study"
    nodes = plan(run_yaml(), out, "--machine", "frontier", mode="strong", sizes=("--nodes", "1,92"))
    assert nodes.returncode == 2 and "give a multiple of 736 as --global_batch" in nodes.stderr
    early = study("report", "--out", out)
    assert early.returncode == 2 and "holds no study" in early.stderr
    assert plan(run_yaml(), out).returncode == 0
    again = plan(run_yaml(), out)
    assert again.returncode == 2 and "holds a study already" in again.stderr
    early = study("report", "--out", out)
    assert early.returncode == 2 and "beyond the warm-up of 3" in early.stderr
    submitted = study("run", "--submit", "--out", out)
    assert submitted.returncode == 2 and "use --local, or plan with --nodes" in submitted.stderr


@pytest.mark.slow
def test_a_point_out_of_time_goes_on_later_and_one_that_fails_does_not_stop_others(run_yaml, tmp_path):
    out = tmp_path / "study"
    assert plan(run_yaml(), out, "--steps", 4000, sizes=("--ranks", "1")).returncode == 0
    stopped = study("run", "--out", out, "--limit", 0.3)
    assert stopped.returncode == 1 and "ranks_1 was not finished in 0.3 minutes" in stopped.stderr
    done = len(steps_of(out, "ranks_1"))
    assert 0 < done < 4006
    study("run", "--out", out, "--limit", 0.3)
    steps = [line["step"] for line in steps_of(out, "ranks_1")]
    assert len(steps) > done and steps == list(range(1, len(steps) + 1))

    broken = tmp_path / "broken"
    assert plan(run_yaml(), broken, "--steps", 2).returncode == 0
    (broken / "ranks_1" / "ds_config.json").write_text('{"zero_optimisation": {}}')
    failed = study("run", "--out", broken)
    assert failed.returncode == 1 and "ranks_1 ended with code" in failed.stderr
    assert "Did you mean 'zero_optimization'" in failed.stderr and "Traceback" not in failed.stderr
    assert len(steps_of(broken, "ranks_2")) == 8


@pytest.mark.slow
def test_two_ranks_hold_a_longer_sequence_than_one(run_yaml, tmp_path):
    out = tmp_path / "study"
    config = run_yaml(tokens={"set": "uniform", "patches": [[1, 1, 8, 8]]})
    result = plan(config, out, "--grid", "256,256", "--steps", 2, mode="sequence")
    assert result.returncode == 0, result.stderr
    assert load_config(out / "ranks_2" / "run.yaml").parallel.sequence_parallel_size == 2
    result = study("run", "--out", out, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    assert study("report", "--out", out).returncode == 0
    one, two = (float(row["longest_tokens"]) for row in rows_of(out))
    num_tokens = json.loads((out / "study.json").read_text())["lengths"]["num_tokens"]
    assert one == pytest.approx(num_tokens, rel=0.05) and 1.4 < two / one < 2.1
