"""The job scripts and containers: linted, and scripts run with stand-ins for Slurm's own commands where Frontier has others."""

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.paths import BIN, ROOT
from tests.support.programs import clean_environment, preloaded, stand_in
from tests.support.runs import write_run
from tests.support.small_files import write_swe

SCRIPTS = ["launch/local.sh", "launch/slurm/pretrain.sbatch", "launch/frontier/pretrain.sbatch"]
FINETUNE = "launch/frontier/finetune.sbatch"
SHARED = ["launch/frontier/job.sh", "launch/slurm/job.sh", "launch/slurm/finetune.sbatch", "launch/next_job.sh"]
# Each prints what it was called with; srun runs the program that follows its options.
STAND_INS = {
    "srun": "env | grep -E '^(NCCL_NET|FI_CXI|MIOPEN|MATEY_LAUNCHER|LD_LIBRARY|TORCH_EXT|TRITON)' | sed 's/^/set: /'\n"
    'while [[ "$1" == -* ]]; do case "$1" in -N | -c) shift 2 ;; *) shift ;; esac; done; exec "$@"',
    "sbatch": "env | grep -E '^(MAX_JOBS|CONFIG|DEEPSPEED_CONFIG|PRETRAINED|TRAIN)='",
    "sbcast": 'shift; cp "$1" "$2"',
    "module": ":",
}


@pytest.mark.parametrize(
    ("linter", "files"), [("shellcheck", [*SCRIPTS, FINETUNE, *SHARED]), ("hadolint", ["containers/Dockerfile"])]
)
def test_linters_find_nothing(linter, files):
    if (found := shutil.which(linter, path=f"{BIN}:{os.environ['PATH']}")) is None:
        pytest.skip(f"needs {linter}, of the extra 'test'")
    result = subprocess.run([found, *files], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_what_containers_copy_is_there_and_not_ignored():
    folder = ROOT / "containers"
    copied = re.findall(r"^COPY (.+) \S+$", (folder / "Dockerfile").read_text(), re.M)
    names = {name for line in copied for name in line.split()}
    allowed = {line[1:] for line in (folder / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert names == allowed and all((ROOT / name).exists() for name in names)
    files = re.search(r"^%files$(.*?)^%", (folder / "apptainer.def").read_text(), re.M | re.S)[1].split()
    assert set(files[::2]) == names and files[1::2] == [f"/opt/matey/{name}" for name in files[::2]]


@pytest.fixture
def site(tmp_path):
    """A folder with stand-ins, data and a run; returns the variables of a job there."""
    commands = tmp_path / "bin"
    bodies = {name: f'echo "called: {name} $*"\n{body}' for name, body in STAND_INS.items()}
    told = {
        "squeue": "printf '02:00:00\\tnvme\\tNO\\tn7.\\tgres/gpu:8,gres/disk:2\\t(null)\\n'",
        "sacct": "echo sbatch --signal USR1@300 --time=2:00:00 x",
    }
    for name, body in {**bodies, **told}.items():
        stand_in(commands / name, body)
    environment = tmp_path / "environment" / "bin"
    stand_in(environment / "conda-unpack", "kill -USR1 $$ # which goes to all steps of a job")
    (environment / "activate").write_text("")
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as packed:
        packed.add(environment, "bin")
    write_swe(tmp_path / "swe" / "2D_rdb_NA_NA.h5", 10)
    (tmp_path / "disk").mkdir()
    return {
        **clean_environment(),
        "PATH": f"{commands}:{preloaded().bin}:{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "1234567",
        "SLURM_JOB_ACCOUNT": "abc123",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_JOB_PARTITION": "batch",
        "SLURM_JOB_QOS": "high",
        "SLURM_CPUS_PER_TASK": "1",
        "CONFIG": str(write_run(tmp_path / "job", 1)),
        "DEEPSPEED_CONFIG": "ds_configs/zero1.json",
        "SLURM_JOB_NAME": "matey",
        "VENV": str(tmp_path / "environment"),
        "PACKED": str(tmp_path / "packed.tar.gz"),
        "DISK": str(tmp_path / "disk"),
        "MAX_JOBS": "3",
    }


def run(script, site, **programs):
    """Run a script with other programs in the place of some, such as one that ends where only what is started is looked at."""
    for name, body in programs.items():
        stand_in(Path(site["PATH"].partition(":")[0]) / name, body)
    return subprocess.run(["bash", script], cwd=ROOT, env=site, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_a_job_from_another_folder_says_where_to_submit_it(site, tmp_path, script):
    site["SLURM_SUBMIT_DIR"] = str(tmp_path)
    result = run(script, site)
    assert result.returncode == 2 and f"{tmp_path} is not MATEY's repository" in result.stderr


def test_the_frontier_job_prepares_every_node_and_binds_each_task_to_a_die(site):
    site["CONFIG"] = "nowhere.yaml"
    output = run(SCRIPTS[2], site).stdout
    calls = [line.removeprefix("called: ") for line in output.splitlines() if line.startswith("called: ")]
    assert [line.split()[-1] for line in calls if "module load" in line][-2:] == [
        "rccl-net-plugin",
        "craype-accel-amd-gfx90a",
    ]
    steps = [line for line in calls if line.startswith(("sbcast", "srun"))]
    assert [line.split()[0] for line in steps] == ["srun", "sbcast", "sbcast", "srun", "srun", "srun", "srun"]
    assert all("-c 56" in line for line in steps[:-1] if line.startswith("srun"))
    assert "--ntasks-per-node=8 -c 7 --gpus-per-task=1 --gpu-bind=closest --kill-on-bad-exit=1" in steps[-1]


@pytest.mark.parametrize(
    ("nodes", "network", "launcher"), [(1, "Socket", "mpi"), (2, "OFI", "slurm"), (2, "AWS Libfabric", "mpi")]
)
def test_the_tasks_of_frontier_have_its_network_and_a_kernel_cache_on_the_nodes_disk(site, nodes, network, launcher):
    site |= {"SLURM_JOB_NUM_NODES": str(nodes), "LAUNCHER": launcher, "CRAY_LD_LIBRARY_PATH": "/opt/cray"}
    site |= {"NETWORK": network} if network == "AWS Libfabric" else {}
    site.pop("LD_LIBRARY_PATH", None)
    output = run(SCRIPTS[2], site, python="exit 1").stdout
    task = output[output.rindex("called: srun") :]
    assert dict(line.split(": ")[1].split("=") for line in task.splitlines() if line.startswith("set: ")) == {
        "NCCL_NET": network,
        "FI_CXI_RDZV_PROTO": "alt_read",
        "MIOPEN_USER_DB_PATH": f"{site['DISK']}/miopen",
        "MIOPEN_CUSTOM_CACHE_DIR": f"{site['DISK']}/miopen",
        "MIOPEN_FIND_MODE": "FAST",
        "TORCH_EXTENSIONS_DIR": f"{site['DISK']}/extensions",
        "TRITON_CACHE_DIR": f"{site['DISK']}/triton",
        "LD_LIBRARY_PATH": "/opt/cray",
        "MATEY_LAUNCHER": launcher,
    }
    assert (Path(site["DISK"]) / "miopen").is_dir()
    # mpi4py comes before torch, where it counts.
    imported = "mpi4py.MPI; import os" if launcher == "mpi" else "os"
    assert f"python -P -u -c from matey.process.start import hold; hold(); import {imported}" in task


def test_the_fine_tuning_job_names_the_model_to_start_from(site):
    assert "PRETRAINED: give the folder of a run or a model" in run(FINETUNE, site).stderr
    output = run(FINETUNE, {**site, "PRETRAINED": "runs/old"}, python="exit 1").stdout
    assert "launch/finetune.py --pretrained runs/old --train prepost --deepspeed_config" in output


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_a_task_of_an_array_goes_on_as_that_task_alone(site, script):
    site |= {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "2"}
    output = run(script, site, python="exit 75").stdout
    (submitted,) = [line for line in output.splitlines() if line.startswith("called: sbatch")]
    assert {"--array=2", "--dependency=afterany:77_2"} <= set(submitted.split()), submitted


@pytest.mark.parametrize("script", SCRIPTS[1:])
def test_a_signal_while_a_job_prepares_reaches_its_run_and_the_chain_goes_on(site, script):
    site |= {"TASKS_START": "1", "MODULES": "some"}
    waits = "trap 'exit 75' USR1; for _ in {1..300}; do sleep 0.1; done"
    result = run(script, site, module="kill -USR1 $PPID", python=waits)
    assert result.returncode == 0 and "called: sbatch" in result.stdout, result.stdout + result.stderr
