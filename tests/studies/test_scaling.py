"""Scaling studies: what stays the same from point to point, and their jobs."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from matey.benchmark.sequence_speed import longer
from matey.benchmark.speed_cases import Case
from matey.config import ConfigError, load_config
from matey.model.configuration import SIZES
from matey.studies.scaling import (
    COUNTED_STEPS,
    Lengths,
    Study,
    lengths_of,
    load_study,
    make_points,
    runs_of,
    slurm_job,
    submit,
    tasks_per_node,
    timed,
)
from tests.support.paths import ROOT
from tests.support.programs import stand_in

SCRIPTS = [ROOT / "launch" / "frontier" / "pretrain.sbatch", ROOT / "launch" / "slurm" / "pretrain.sbatch"]


@pytest.fixture
def run(run_yaml):
    return load_config(run_yaml(train={"micro_batch": 6, "accumulation": 2}))


def batch(run, point):
    groups = point.ranks // run.parallel.sequence_parallel_size
    return run.train.micro_batch * run.train.accumulation * groups


def test_weak_keeps_the_samples_of_a_rank(run):
    points = make_points([4, 1, 2, 2], None)
    assert [point.name for point in points] == ["ranks_1", "ranks_2", "ranks_4"]
    assert [batch(own, point) for own, point in zip(runs_of("weak", run, points), points, strict=True)] == [12, 24, 48]


def test_strong_keeps_the_global_batch_in_micro_batches_no_larger_than_the_runs(run):
    points = make_points([1, 2, 3, 4], None)
    runs = runs_of("strong", run, points)
    assert [batch(own, point) for own, point in zip(runs, points, strict=True)] == [12] * 4
    assert [(own.train.micro_batch, own.train.accumulation) for own in runs] == [(6, 2), (6, 1), (4, 1), (3, 1)]


def test_a_global_batch_that_cannot_be_shared_out_names_the_nearest_that_can(run):
    with pytest.raises(ConfigError, match="96 samples cannot be divided evenly among the 736 groups.*multiple of 736"):
        runs_of("strong", run, make_points([1, 92], 8))


def test_sequence_groups_must_divide_every_point(run_yaml):
    points = make_points([2, 4, 6], None)
    with pytest.raises(ConfigError, match="is 4, which does not divide the 2 ranks of a point"):
        runs_of("weak", load_config(run_yaml(parallel={"sequence_parallel_size": 4})), points)
    auto = load_config(run_yaml(parallel={"sequence_parallel_size": "auto", "memory_limit": 1}))
    with pytest.raises(ConfigError, match="'auto'"):
        runs_of("weak", auto, points)


def test_a_run_of_a_point_takes_few_steps_and_stays_in_the_points_folder(run, tmp_path):
    own = timed(run, tmp_path / "ranks_2", warm_up=3, timed_steps=10, threads=1)
    assert own.train.steps == 13 + COUNTED_STEPS == own.train.checkpoint_every == own.train.validate_every
    assert own.train.count_traffic == COUNTED_STEPS
    assert own.output.dir == str(tmp_path / "ranks_2" / "run")
    assert own.model == run.model and own.tokens == run.tokens and own.train.seed == run.train.seed


def test_lengths_are_those_of_the_runs_own_network(run_yaml):
    patches = [[1, 1, 16, 32], [1, 1, 8, 8]]
    own = load_config(
        run_yaml(
            model={"channels": 12, "layers": [2, 1], "maps": 1, "rotary": True},
            tokens={"set": "mul", "patches": patches, "rule": "threshold", "refine": 0.3, "criterion": "gradient"},
        )
    )
    case = Case.from_json(json.loads(json.dumps(lengths_of(own, (64, 64), None, "float32", can_measure=True).case)))
    config = case.make_config()
    for key in ("scheme", "network", "channels", "layers", "maps", "rotary"):
        assert getattr(config, key) == getattr(own.model, key)
    assert (config.num_heads, config.width, config.num_blocks) == SIZES[own.model.size]
    assert config.tokens == own.tokens.model_copy(update={"rule": "fraction", "refine": 0.25})
    assert longer(case, 2).grid == (128, 64) and case.coarse_cells == 16
    assert case.make_model()(case.make_batch()).loss.isfinite()


def test_a_study_is_read_as_it_was_written(tmp_path):
    lengths = Lengths({"grid": [64, 64], "patches": [16, 8]}, 64, 1000, None)
    study = Study(tmp_path, "sequence", "cpu", 3, 16, tuple(make_points([1, 2], 8)), lengths)
    study.write()
    assert load_study(tmp_path) == study


@pytest.fixture
def study(tmp_path):
    made = Study(tmp_path / "a study", "weak", "frontier", 3, 16, tuple(make_points([1, 4, 92], 8)))
    for point in made.points:
        made.folder_of(point).mkdir(parents=True)
        (made.folder_of(point) / "job.sbatch").write_text(slurm_job(made, point, SCRIPTS[0], 20))
    return made


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_job_has_the_sites_options_and_the_points_own_size_once_each(study, script):
    text = slurm_job(study, study.points[-1], script, 20)
    options = [line.split()[1].split("=")[0] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert len(options) == len(set(options)) and not {"-N", "-t", "-o", "-J", "--signal"} & set(options)
    assert "#SBATCH --nodes=92\n" in text and "#SBATCH --time=20\n" in text
    (output,) = [line for line in text.splitlines() if "--output" in line]
    assert shlex.split(output) == ["#SBATCH", f"--output={study.folder / 'logs' / 'nodes_92.txt'}"]
    site = "-C nvme" if "frontier" in str(script) else "--gpus-per-node=8"
    assert f"#SBATCH {site}" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    assert tasks_per_node(script) == (None if "frontier" in str(script) else 8)


def test_a_job_runs_the_script_with_the_points_configuration(study, tmp_path):
    script = tmp_path / "site.sbatch"
    script.write_text('#!/usr/bin/env bash\n#SBATCH -q debug\necho "$CONFIG|$DEEPSPEED_CONFIG|$MAX_JOBS|$VENV"\n')
    job = slurm_job(study, study.points[0], script, 20)
    output = subprocess.run(["bash"], input=job, text=True, capture_output=True, check=True).stdout.strip()
    place = study.folder_of(study.points[0])
    assert output == f"{place / 'run.yaml'}|{place / 'ds_config.json'}|1|{sys.prefix}"


def test_a_file_that_is_no_job_script_is_one_sentence(study, tmp_path):
    with pytest.raises(ConfigError, match=r"has no #SBATCH lines; take launch/slurm/pretrain\.sbatch"):
        slurm_job(study, study.points[0], ROOT / "launch" / "local.sh", 20)
    with pytest.raises(ConfigError, match="Cannot read the job script"):
        slurm_job(study, study.points[0], tmp_path / "nowhere.sbatch", 20)


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A stand-in for sbatch that notes how it was called and gives numbers from 101 on; it refuses jobs of 92 nodes."""
    commands, log = tmp_path / "bin", tmp_path / "calls"
    stand_in(
        commands / "sbatch",
        f'echo "$PWD $*" >> {log}\n'
        'if grep -q -- --nodes=92 "${@: -1}"; then echo "too many nodes" >&2; exit 1; fi\n'
        f'echo "$((100 + $(wc -l < {log})));cluster"',
    )
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    return lambda: log.read_text().splitlines()


@pytest.mark.processes
def test_each_job_waits_for_the_one_before_and_none_is_submitted_twice(study, calls):
    said = []
    with pytest.raises(ConfigError, match="sbatch did not take .*nodes_92.*too many nodes"):
        submit(study, ROOT, ["-AABC123"], said.append)
    assert said == ["nodes_01: job 101", "nodes_04: job 102"]
    first, second, third = calls()
    assert first == f"{ROOT} --parsable -AABC123 {study.folder_of(study.points[0]) / 'job.sbatch'}"
    assert "--dependency=afterany:101" in second and "--dependency=afterany:102" in third
    (study.folder_of(study.points[1]) / "job_id").unlink()
    with pytest.raises(ConfigError):
        submit(study, ROOT, [], said.append)
    assert said[2].startswith("nodes_01: submitted before as job 101") and said[3] == "nodes_04: job 104"
    assert "--dependency=afterany:101" in calls()[3]
