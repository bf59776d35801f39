"""A private Slurm with virtual nodes on this machine: the real daemons, so that job scripts meet the real thing."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support.paths import ROOT
from tests.support.programs import clean_environment

NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "sinfo")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def what_is_missing() -> str:
    """The sentence that skips a test, or nothing."""
    missing = [name for name in NEEDED if shutil.which(name, path=SEARCHED) is None]
    return f"needs Slurm ({', '.join(missing)}): apt-get install slurmctld slurmd slurm-client" if missing else ""


class Cluster:
    """Slurm's commands against the private daemons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[subprocess.Popen] = []
        self.variables = {
            **clean_environment(),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "SBATCH_OUTPUT": f"{folder}/job-%j.out",
            "MASTER_ADDR": "127.0.0.1",
        }

    def start(self, name: str) -> None:
        """Start the daemon of a node, or the one that controls them."""
        command = ["slurmctld", "-D"] if name == "slurmctld" else ["slurmd", "-D", "-N", name]
        command[0] = shutil.which(command[0], path=SEARCHED)
        with (self.folder / "log" / name).open("w") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            self.daemons.append(subprocess.Popen(command, env=self.variables, start_new_session=True, **streams))

    def run(self, *command, folder=ROOT, **variables) -> subprocess.CompletedProcess:
        environment = {**self.variables, **variables}
        return subprocess.run(
            [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )

    def submit(self, *options, folder=ROOT, **variables) -> int:
        result = self.run("sbatch", "--parsable", *options, folder=folder, **variables)
        assert result.returncode == 0, result.stderr
        return int(result.stdout)

    def wait(self, job: int, seconds: float = 300) -> tuple[str, str]:
        """Wait for a job's end; return its state with its exit code, and what it printed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            fields = self.fields(job)
            if fields["JobState"] in ENDED:
                return f"{fields['JobState']} {fields['ExitCode']}", self.output(job)
            time.sleep(0.2)
        raise AssertionError(f"job {job} has not ended after {seconds} s:\n{self.output(job)}")

    def fields(self, job: int) -> dict[str, str]:
        words = self.run("scontrol", "--oneliner", "show", "job", job).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def output(self, job: int) -> str:
        path = self.folder / f"job-{job}.out"
        return path.read_text() if path.exists() else ""

    def jobs(self, name: str) -> list[int]:
        """The jobs of a name, in the order in which they were submitted."""
        jobs = self.run("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%A")
        return sorted(int(line) for line in jobs.stdout.split())


@contextmanager
def start_slurm(folder: Path) -> Iterator[Cluster]:
    """Start the daemons of a cluster, and stop them.

    Its GPUs are empty files, its cores are as many as Frontier's. Jobs in the partition ``urgent`` preempt those in ``batch``.
    """
    host, user = socket.gethostname().split(".")[0], getpass.getuser()
    daemons = {name: _free_port() for name in ("slurmctld", "n1", "n2")}
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True)
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    for number in range(8):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
    on_this = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs=64 RealMemory=4000 Gres=gpu:8 Feature=nvme,none"
    (folder / "slurm.conf").write_text(f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={daemons["slurmctld"]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n1 Port={daemons["n1"]} {on_this}
NodeName=n2 Port={daemons["n2"]} {on_this}
PartitionName=batch Nodes=ALL Default=YES MaxTime=24:00:00 PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL MaxTime=24:00:00 PriorityTier=10 PreemptMode=OFF
""")
    cluster = Cluster(folder)
    try:
        for name in daemons:
            cluster.start(name)
        deadline = time.monotonic() + 60
        while cluster.run("sinfo", "--noheader", "--partition=batch", "--format=%T").stdout.strip() != "idle":
            if time.monotonic() > deadline:
                raise AssertionError("\n".join(path.read_text() for path in sorted((folder / "log").iterdir())))
            time.sleep(0.1)
        yield cluster
    finally:
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get("SLURM_CONF") == cluster.variables["SLURM_CONF"]:
                    process.kill()
        for daemon in cluster.daemons:
            daemon.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
