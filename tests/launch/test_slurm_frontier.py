"""The job scripts for Frontier on a real Slurm, whose node has eight GPUs in name only, with its own srun and sbcast."""

import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.programs import stand_in
from tests.support.runs import losses
from tests.support.slurm_cluster import run_in, wait_for_step

pytestmark = pytest.mark.slow

# As Frontier gives whole nodes.
JOB = ["-A", "abc123", "-N", 1, "--exclusive"]
# The environment that a job unpacks on a node's disk; its Python is this one.
PROGRAMS = {"module": 'echo "called: module $*"', "conda-unpack": ":", "python": f'exec {sys.executable} "$@"'}


@pytest.fixture
def site(cluster, tmp_path):
    """The variables of a job on Frontier, without MPI and without a GPU."""
    programs = tmp_path / "bin"
    for name, body in PROGRAMS.items():
        stand_in(programs / name, body)
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as packed:
        packed.add(programs, "bin")
    (tmp_path / "disk").mkdir()
    return {
        "PATH": f"{programs}:{cluster.variables['PATH']}",
        "PACKED": str(tmp_path / "packed.tar.gz"),
        "DISK": str(tmp_path / "disk"),
        "LAUNCHER": "slurm",
        "DS_ACCELERATOR": "cpu",
        "PYTHONDONTWRITEBYTECODE": "",  # by what they write, one sees which modules were imported
    }


def test_eight_tasks_of_a_frontier_node_train_save_and_go_on_in_the_next_job(cluster, site):
    config, folder = run_in(cluster, "frontier", 1)
    flags = ["--set", "train.accumulation=1", "--set", "train.steps=24"]
    script = "launch/frontier/pretrain.sbatch"
    job = cluster.submit(*JOB, "-t", 30, script, *flags, CONFIG=str(config), **site)
    wait_for_step(folder, 2, cluster, job)
    cluster.run("scancel", "--signal=USR1", job)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0" and "rank 0 of 8 by slurm; 0 of 8 on its node; cpu" in output, output
    assert "called: module load craype-accel-amd-gfx90a" in output and "of 24 is saved" in output, output
    later = cluster.jobs("matey")[-1]
    state, output = cluster.wait(later)
    assert later != job and state == "COMPLETED 0:0" and "Going on after step" in output, output
    assert list(losses(folder)) == list(range(1, 25))
    modules = Path(site["DISK"]) / "matey_code" / "matey"
    assert any(modules.rglob("*.pyc")), "the tasks imported the package from elsewhere than the node's disk"
