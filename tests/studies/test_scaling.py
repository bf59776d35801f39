"""Scaling studies: what stays the same from point to point, what is measured, and their jobs."""

import json
import os
import statistics
import subprocess
import sys

import pytest

from matey.config import ConfigError, load_config
from matey.studies.cases import StudyError
from matey.studies.engine import run_study, write_jobs
from matey.studies.scaling import COUNTED_STEPS, Point, ScalingStudy, batch_of, points_of
from tests.support.paths import ROOT
from tests.support.programs import stand_in


def study_of(config, out, sizes=(1, 2), on_nodes=False, **how):
    how = {
        "mode": "weak",
        "deepspeed_config": str(ROOT / "ds_configs/zero1.json"),
        "warm_up": 1,
        "timed_steps": 3,
    } | how
    points = points_of(sizes, 8 if on_nodes else None)
    return ScalingStudy(work=ROOT, out=out, config=str(config), points=points, **how)


@pytest.fixture
def run(run_yaml):
    return load_config(run_yaml(train={"micro_batch": 6, "accumulation": 2}))


def test_weak_keeps_the_samples_of_a_rank_and_strong_the_global_batch(run):
    points = points_of([4, 1, 2, 3, 2], None)
    assert [point.name for point in points] == ["ranks_1", "ranks_2", "ranks_3", "ranks_4"]
    assert [batch_of("weak", run, point, points[0]) for point in points] == [(1, 6, 2)] * 4
    # In micro-batches no larger than the run's.
    assert [batch_of("strong", run, point, points[0]) for point in points] == [
        (1, 6, 2),
        (1, 6, 1),
        (1, 4, 1),
        (1, 3, 1),
    ]
    assert batch_of("sequence", run, points[-1], points[0]) == (4, 1, 1)


def test_a_batch_or_group_that_cannot_be_shared_out_is_refused(run, run_yaml):
    first, last = points_of([1, 92], 8)
    with pytest.raises(ConfigError, match="96 samples cannot be divided evenly among the 736 groups.*multiple of 736"):
        batch_of("strong", run, last, first)
    for size in (4, "auto"):
        own = load_config(run_yaml(parallel={"sequence_parallel_size": size, "memory_limit": 1}))
        with pytest.raises(
            ConfigError, match=f"sequence_parallel_size is {size}: in a study it must be a number that d"
        ):
            batch_of("weak", own, Point(6), Point(4))


@pytest.mark.processes
@pytest.mark.usefixtures("forked")
def test_a_study_measures_each_point_once_beside_what_is_planned(run_yaml, tmp_path):
    study = study_of(run_yaml(), tmp_path / "out")
    text = run_study(study)
    lines = [
        json.loads(line) for line in (study.folder(study.points[1]) / "run/metrics.jsonl").read_text().splitlines()
    ]
    steps = [line for line in lines if "seconds" in line]
    assert ["traffic" in line for line in steps] == 4 * [False] + COUNTED_STEPS * [True]
    (measured, planned) = json.loads((study.folder(study.points[1]) / "rows.json").read_text())["rows"]
    assert measured["step_seconds"] == statistics.median(line["seconds"] for line in steps[1:4])
    assert measured["samples"] == planned["samples"] == 2 * study.run_config(study.points[0]).train.micro_batch
    assert 0 < measured["communication"] < 1 and measured["memory"] <= measured["total_memory"]
    assert "measured, 2 ranks" in text and "planned, 1 rank" in text
    run_study(study)
    assert len((study.folder(study.points[1]) / "run/metrics.jsonl").read_text().splitlines()) == len(lines)


@pytest.mark.processes
def test_on_nodes_the_sites_script_runs_the_points_configuration(run_yaml, tmp_path, monkeypatch):
    site = tmp_path / "site.sbatch"
    site.write_text("#!/usr/bin/env bash\n#SBATCH -q debug\n")
    study = study_of(run_yaml(), tmp_path / "a study", (1, 4), True, machine="frontier", site=site)
    stand_in(tmp_path / "bin" / "sbatch", 'printf "%s|" "$@"; echo')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    path = write_jobs(study, [])
    said = subprocess.run(["bash", path, "-AX"], capture_output=True, text=True, check=True).stdout
    _, second = (line.split("|")[:-1] for line in said.splitlines())
    assert second[-4:-2] == ["-AX", "--nodes=4"] and second[-1] == str(site)
    yaml, engine = study.folder(study.points[1]) / "run.yaml", study.deepspeed_config
    venv = os.environ.get("VENV", sys.prefix)
    assert second[-2] == f"--export=ALL,CONFIG={yaml},DEEPSPEED_CONFIG={engine},MAX_JOBS=1,VENV={venv}"
    assert load_config(yaml).output.dir == str(study.folder(study.points[1]) / "run")
    with pytest.raises(StudyError, match="nodes_1 is not measured yet: --slurm writes its job"):
        run_study(study)
