"""The job scripts on a real Slurm, whose virtual nodes are this machine: what jobs start, how they end, and what goes on."""

import getpass
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.programs import preloaded, stand_in
from tests.support.runs import losses, write_run
from tests.support.slurm_cluster import start_slurm, what_is_missing
from tests.support.small_files import write_swe

SCRIPT = "launch/slurm/pretrain.sbatch"
SHAPE = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=30"]
ONE_NODE = ["--nodes=1", *SHAPE[1:]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return a private Slurm, which starts in a second, with data beside its folder."""
    if what_is_missing():
        pytest.skip(what_is_missing())
    folder = tmp_path_factory.mktemp("slurm")
    write_swe(folder / "swe" / "2D_rdb_NA_NA.h5", 10)
    with start_slurm(folder / "cluster") as cluster:
        venv = str(Path(sys.executable).parent.parent)
        cluster.variables |= {"DEEPSPEED_CONFIG": "ds_configs/zero1.json", "VENV": venv}
        yield cluster


@pytest.fixture(scope="module")
def forks(tmp_path_factory) -> dict[str, str]:
    """The variables of a job whose tasks, each on one core, are forked from `preloaded`: for those that no test looks up."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "bin").mkdir()
    (folder / "bin" / "activate").write_text(f"PATH={preloaded().bin}:$PATH\n")
    return {"VENV": str(folder)}


def run_in(cluster, name, num_ranks):
    """Write a run beside the cluster; return its YAML and its folder."""
    return write_run(cluster.folder.parent / name, num_ranks), cluster.folder.parent / name


def wait_for_step(folder, step, cluster, job):
    deadline = time.monotonic() + 120
    while not any(done >= step for done in losses(folder)):
        assert time.monotonic() < deadline, cluster.output(job)
        time.sleep(0.05)


def test_two_tasks_on_each_of_two_nodes_train_together(cluster, forks):
    config, folder = run_in(cluster, "together", 4)
    job = cluster.submit(*SHAPE, SCRIPT, "--set", "train.steps=3", CONFIG=str(config), **forks)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0", output
    assert "rank 0 of 4 by slurm; 0 of 2 on its node" in output
    assert list(losses(folder)) == [1, 2, 3]  # the flag reached the run


def test_a_job_from_a_fresh_clone_has_a_place_for_its_words(cluster, tmp_path):
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "clone"], check=True)
    del cluster.variables["SBATCH_OUTPUT"]
    try:
        job = cluster.submit(*ONE_NODE, SCRIPT, folder=tmp_path / "clone", CONFIG="nowhere.yaml")
    finally:
        cluster.variables["SBATCH_OUTPUT"] = f"{cluster.folder}/job-%j.out"
    cluster.wait(job)
    assert "error: Cannot read " in (tmp_path / "clone" / "logs" / f"matey-{job}.out").read_text()


def test_a_mistake_in_the_run_ends_the_chain_with_one_sentence_and_code_2(cluster):
    job = cluster.submit(*ONE_NODE, "--job-name=mistaken", SCRIPT, CONFIG="nowhere.yaml")
    state, output = cluster.wait(job)
    assert state == "FAILED 2:0" and output.count("error: Cannot read ") == 1, output
    assert cluster.jobs("mistaken")[-1] == job


FLAGS = ["adaptivity", "--seeds", "1", "--set", "train.steps=4", "--set", "train.warmup_steps=1"]


def submitted(cluster, command, *options, **environment):
    """Submit the jobs of a study, and return their numbers."""
    written = cluster.run(*command, "--slurm")
    assert written.returncode == 0, written.stderr
    line = next(line for line in written.stdout.splitlines() if ": bash " in line)
    path = line.partition(": bash ")[2].removesuffix(" -A PROJECT")
    said = cluster.run("bash", path, *options, **environment)
    assert said.returncode == 0, said.stderr
    return [int(line.split()[-1]) for line in said.stdout.splitlines()]


@pytest.mark.slow
def test_a_study_is_submitted_and_drawn_when_its_jobs_have_ended(cluster, tmp_path):
    command = [preloaded().python, "tools/reproduce.py", *FLAGS, "--out", str(tmp_path)]
    jobs = submitted(cluster, command, "--cpus-per-task=2", "--time=20")
    assert len(jobs) == 3
    for job in jobs:
        state, _ = cluster.wait(job)
        assert state == "COMPLETED 0:0", job
    assert submitted(cluster, command) == []
    before = {path: path.read_text() for path in tmp_path.glob("adaptivity-tiny/points/*/metrics.jsonl")}
    drawn = cluster.run(*command)
    assert drawn.returncode == 0 and "vit mix 16 to 8, 0.2" in drawn.stdout, drawn.stderr
    assert before == {path: path.read_text() for path in tmp_path.glob("adaptivity-tiny/points/*/metrics.jsonl")}
    assert (tmp_path / "adaptivity-tiny" / "results.png").stat().st_size > 10_000


# As Frontier gives whole nodes.
JOB = ["-A", "abc123", "-N", 1, "--exclusive"]
# The environment that a job unpacks on a node's disk; its Python is this one.
PROGRAMS = {"module": 'echo "called: module $*"', "conda-unpack": ":", "python": f'exec {sys.executable} "$@"'}


@pytest.fixture
def frontier(cluster, tmp_path):
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


@pytest.mark.slow
def test_eight_tasks_of_a_frontier_node_train_save_and_go_on_in_the_next_job(cluster, frontier):
    config, folder = run_in(cluster, "frontier", 1)
    flags = ["--set", "train.accumulation=1", "--set", "train.steps=24"]
    script = "launch/frontier/pretrain.sbatch"
    job = cluster.submit(*JOB, "-t", 30, script, *flags, CONFIG=str(config), **frontier)
    wait_for_step(folder, 2, cluster, job)
    cluster.run("scancel", "--signal=USR1", job)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0" and "rank 0 of 8 by slurm; 0 of 8 on its node; cpu" in output, output
    assert "called: module load craype-accel-amd-gfx90a" in output and "of 24 is saved" in output, output
    later = cluster.jobs("matey")[-1]
    state, output = cluster.wait(later)
    assert later != job and state == "COMPLETED 0:0" and "Going on after step" in output, output
    assert list(losses(folder)) == list(range(1, 25))
    modules = Path(frontier["DISK"]) / "matey_code" / "matey"
    assert any(modules.rglob("*.pyc")), "the tasks imported the package from elsewhere than the node's disk"


def ranks_of(cluster, job):
    """The processes that train in a job."""
    for process in psutil.process_iter():
        try:
            variables = process.environ()
            is_rank = "launch/pretrain.py" in process.cmdline() and "python" in process.name()
        except psutil.Error:
            continue
        if is_rank and variables.get("SLURM_JOB_ID") == str(job):
            assert variables["SLURM_CONF"] == cluster.variables["SLURM_CONF"]
            yield process


def start_soon(cluster, job):
    """Start a job that is to start again, for which Slurm would wait two minutes."""
    until = time.monotonic() + 120
    while cluster.fields(job)["JobState"] not in ("RUNNING", "COMPLETED"):
        assert time.monotonic() < until, cluster.output(job)
        cluster.run("scontrol", "update", f"jobid={job}", "starttime=now")
        time.sleep(1)


def wait_for_node(cluster, node, job):
    """Wait until a node has no step of a job left, as one that really failed: with one, it refuses the job and is drained."""
    until = time.monotonic() + 60
    while [*(cluster.folder / "spool" / node).glob(f"{node}_{job}.*")]:
        assert time.monotonic() < until, cluster.output(job)
        time.sleep(0.05)


MANY = ["--set", "train.steps=100000", "--set", "train.checkpoint_every=2"]


@pytest.mark.slow
def test_a_run_saves_at_its_time_limit_and_its_next_job_when_cancelled(cluster):
    config, folder = run_in(cluster, "limited", 2)
    shape = ["--nodes=1", *SHAPE[1:-1], "--time=2", "--job-name=limited"]
    # Slurm looks every 30 s, and so sends it between 30 and 60 s after the start; a busy machine has a minute to save.
    job = cluster.submit(*shape, SCRIPT, *MANY, CONFIG=str(config), SBATCH_SIGNAL="USR1@60")
    state, output = cluster.wait(job)
    saved = saved_step(folder)
    assert state == "COMPLETED 0:0" and f"step {saved} of 100000 is saved" in output, output
    _, later = cluster.jobs("limited")
    wait_for_step(folder, saved + 3, cluster, later)
    ranks = [*ranks_of(cluster, later)]
    assert len(ranks) == 2 and cluster.run("scancel", later).returncode == 0
    state, output = cluster.wait(later)
    assert state.startswith("CANCELLED") and f"Going on after step {saved}" in output, output
    assert psutil.wait_procs(ranks, timeout=60)[1] == []
    assert saved_step(folder) == max(losses(folder)) and cluster.jobs("limited") == [job, later], output


def saved_step(folder):
    return int((folder / "run" / "checkpoints" / "latest").read_text().removeprefix("step_"))


@pytest.mark.slow
def test_a_job_whose_node_fails_starts_again_and_a_killed_rank_ends_job_and_chain(cluster, forks):
    config, folder = run_in(cluster, "broken", 2)
    shape = ["--nodes=2", "--ntasks-per-node=1", *SHAPE[2:], "--job-name=broken"]
    job = cluster.submit(*shape, SCRIPT, *MANY, CONFIG=str(config), SBATCH_OPEN_MODE="append", **forks)
    wait_for_step(folder, 5, cluster, job)
    for state in ("down", "resume"):
        cluster.run("scontrol", "update", "nodename=n1", f"state={state}", "reason=test")
    wait_for_node(cluster, "n1", job)
    start_soon(cluster, job)
    step = max(losses(folder))
    wait_for_step(folder, step + 3, cluster, job)
    assert cluster.fields(job)["Restarts"] == "1" and "Going on after step" in cluster.output(job)
    next(ranks_of(cluster, job)).kill()
    state, output = cluster.wait(job, seconds=60)
    assert state.startswith("FAILED") and cluster.jobs("broken") == [job], output


@pytest.mark.slow
def test_a_preempted_job_saves_and_its_next_one_alone_goes_on(cluster):
    config, folder = run_in(cluster, "preempted", 2)
    shape = ["--nodes=2", "--ntasks-per-node=1", *SHAPE[2:], "--exclusive", "--job-name=preempted"]
    job = cluster.submit(*shape, SCRIPT, CONFIG=str(config))
    wait_for_step(folder, 3, cluster, job)
    urgent = cluster.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap=sleep 1")
    assert cluster.wait(urgent)[0] == "COMPLETED 0:0"
    start_soon(cluster, job)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0" and "is saved" in output, (state, output)
    assert "had submitted the next one, which goes on" in output and cluster.fields(job)["Restarts"] == "1", output
    _, following = cluster.jobs("preempted")
    state, output = cluster.wait(following)
    assert state == "COMPLETED 0:0" and "Going on after step" in output, output


LEAVES = 75  # the exit code of a run that has saved and asks for another job


@pytest.fixture
def site(cluster, tmp_path):
    """The variables of a job whose programs are stand-ins, and whose site has modules."""
    programs = tmp_path / "bin"
    for name, body in (("python", f'echo "called: python $*"; exit {LEAVES}'), ("module", 'echo "called: module $*"')):
        stand_in(programs / name, body)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    return {
        "PATH": f"{programs}:{cluster.variables['PATH']}",
        "VENV": str(tmp_path),
        "MODULES": "gcc/13.2 cuda/12.6",
        "CONFIG": "some.yaml",
        "MAX_JOBS": "2",
    }


@pytest.fixture
def reservation(cluster):
    """The name of a reservation of one node."""
    made = cluster.run(
        *("scontrol", "create", "reservation", "ReservationName=ours", "StartTime=now", "Duration=10", "Nodes=n2"),
        f"Users={getpass.getuser()}",
    )
    assert made.returncode == 0, made.stderr
    yield "ours"
    cluster.run("scontrol", "delete", "ReservationName=ours")


@pytest.mark.parametrize("gpus", [["--gpus-per-node=2"], ["--gpus-per-node=0", "--gres=gpu:2"]])
def test_the_next_job_has_reservation_constraint_and_resources_of_its_first(cluster, site, reservation, gpus):
    name = f"handed-{gpus[-1].strip('-')}"
    shape = ["--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", "--time=30", *gpus]
    given = [
        f"--job-name={name}",
        f"--reservation={reservation}",
        "--constraint=nvme|none",
        "--mem=1000",
        "--exclude=n1",
    ]
    site["SBATCH_EXPORT"] = "NONE"  # as some centres have it for jobs that say nothing of variables
    site |= {
        "SLURM_GPUS": "7",
        "SLURM_MEM_PER_CPU": "10",
        "SLURM_MEM_PER_GPU": "10",
    }  # of a job in which it is submitted
    script = ["--export=ALL", "launch/slurm/pretrain.sbatch"]
    job = cluster.submit(*shape, *given, *script, "--set", "train.steps=9", **site)
    state, output = cluster.wait(job)
    assert state == "COMPLETED 0:0", output
    first, last = cluster.jobs(name)
    state, output = cluster.wait(last)
    assert state == f"FAILED {LEAVES}:0" and "no job is left in the chain" in output, output
    before, now = cluster.fields(first), cluster.fields(last)
    for key in ("Reservation", "Features", "TresPerNode", "MinMemoryNode", "TimeLimit", "NumTasks", "ExcNodeList"):
        assert now.get(key) == before.get(key), key
    assert (now["Reservation"], now["Features"], now["ExcNodeList"]) == (reservation, "nvme|none", "n1")
    assert "gpu:2" in now["TresPerNode"]
    assert not {"TresPerJob", "MinMemoryCPU", "MemPerTres"} & now.keys()
    # Modules come before the environment, in the chain's later jobs too.
    calls = [line.removeprefix("called: ") for line in output.splitlines() if line.startswith("called: ")]
    assert calls[:2] == ["module load gcc/13.2", "module load cuda/12.6"]
    assert calls[2].endswith("--config some.yaml --resume --set train.steps=9")


def test_fine_tuning_goes_on_from_the_same_model_in_the_next_job(cluster, site):
    site |= {"PRETRAINED": "runs/old", "TRAIN": "lora"}
    shape = [*SHAPE[1:], "--nodes=1", "--ntasks-per-node=1", "--job-name=tuned"]
    cluster.wait(cluster.submit(*shape, "launch/slurm/finetune.sbatch", "--trajectories", "6", **site))
    _, last = cluster.jobs("tuned")
    state, output = cluster.wait(last)
    assert state == f"FAILED {LEAVES}:0", output
    (call,) = (line for line in output.splitlines() if line.startswith("called: python"))
    assert "launch/finetune.py --deepspeed_config" in call
    assert call.endswith("--config some.yaml --resume --pretrained runs/old --train lora --trajectories 6")


def test_the_last_job_of_a_chain_alone_starts_what_then_says(cluster, site, tmp_path):
    body = f"echo >> {tmp_path}/runs; exit $(( $(wc -l < {tmp_path}/runs) < 3 ? {LEAVES} : 0 ))"
    stand_in(tmp_path / "bin" / "python", body)
    site |= {"MAX_JOBS": "9", "THEN": "sbatch --job-name=later --wrap='echo evaluated ${THEN-alone}' && echo submitted"}
    shape = [*SHAPE[1:-1], "--nodes=1", "--ntasks-per-node=1", "--job-name=first", "--time=30"]
    cluster.wait(cluster.submit(*shape, "launch/slurm/pretrain.sbatch", **site))
    for number in range(2):
        cluster.wait(cluster.jobs("first")[number])
    jobs = cluster.jobs("first")
    *before, last = [cluster.wait(job) for job in jobs]
    assert last[0] == "COMPLETED 0:0" and last[1].endswith("submitted\n"), last
    assert not any("submitted\n" in output for _, output in before)
    (later,) = cluster.jobs("later")
    assert cluster.wait(later) == ("COMPLETED 0:0", "evaluated alone\n")
