"""The jobs of a study's points: made from the repository's scripts, and handed to a stand-in for sbatch."""

import os
import shlex
import subprocess
import sys

import pytest

from matey.config import ConfigError
from matey.studies.scaling.jobs import slurm_job, tasks_per_node
from matey.studies.scaling.running import submit
from matey.studies.scaling.study import Study, make_points
from tests.support.paths import ROOT
from tests.support.programs import stand_in

SCRIPTS = [ROOT / "launch" / "frontier" / "pretrain.sbatch", ROOT / "launch" / "slurm" / "pretrain.sbatch"]


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


@pytest.mark.processes
def test_without_slurm_submitting_is_one_sentence(study, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="There is no sbatch here"):
        submit(study, ROOT, [], print)
