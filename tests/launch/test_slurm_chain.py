"""What a job hands to the next one of its chain, on a real Slurm; its program is a stand-in that asks for another at once."""

import getpass

import pytest

from tests.support.programs import stand_in
from tests.support.slurm_cluster import SHAPE

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
