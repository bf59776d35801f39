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
from tests.support.runs import losses, write_run

NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "sinfo")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")
SCRIPT = "launch/slurm/pretrain.sbatch"
SHAPE = ["--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=30"]
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def what_is_missing() -> str:
    """The sentence that skips a test, or nothing."""
    missing = [name for name in NEEDED if shutil.which(name, path=SEARCHED) is None]
    return f"needs Slurm ({', '.join(missing)}): apt-get install slurmctld slurmd slurm-client" if missing else ""


class Cluster:
    """Slurm's commands against the private daemons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        self.variables = {
            **clean_environment(),
            "SLURM_CONF": str(folder / "slurm.conf"),
            "SBATCH_OUTPUT": f"{folder}/job-%j.out",
            "MASTER_ADDR": "127.0.0.1",
        }

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
    def node_down(self, name: str, processes: list[int]) -> Iterator[None]:
        """Take a node down, as by a loss of power: its daemons and some processes are killed; it comes back after the block."""
        for step in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if step.name() == "slurmstepd" and set(processes) & {
                    child.pid for child in step.children(recursive=True)
                }:
                    step.kill()
        for number in processes:
            psutil.Process(number).kill()
        self.daemons[name].kill()
        self.daemons[name].wait()
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=test")
        try:
            yield
        finally:
            self.daemons[name] = _start(self, name, "slurmd", "-D", "-N", name)
            self.run("scontrol", "update", f"nodename={name}", "state=resume")


def run_in(cluster: Cluster, name: str, num_ranks: int) -> tuple[Path, Path]:
    """Write a run beside the cluster; return its YAML and its folder."""
    return write_run(cluster.folder.parent / name, num_ranks), cluster.folder.parent / name


def wait_for_step(folder: Path, step: int, cluster: Cluster, job: int) -> None:
    deadline = time.monotonic() + 120
    while not any(done >= step for done in losses(folder)):
        assert time.monotonic() < deadline, cluster.output(job)
        time.sleep(0.05)


@contextmanager
def start_slurm(folder: Path, num_nodes: int = 2, cpus: int = 64, gpus: int = 8) -> Iterator[Cluster]:
    """Start the daemons of a cluster, and stop them.

    Its GPUs are empty files, its cores are as many as Frontier's. Jobs in the partition ``urgent`` preempt those in ``batch``.
    """
    host, user, ports = socket.gethostname().split(".")[0], getpass.getuser(), _free_ports(num_nodes + 1)
    for name in ("state", "spool", "log"):
        (folder / name).mkdir(parents=True)
    (folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    devices = [folder / f"gpu{number}" for number in range(gpus)]
    for device in devices:
        device.touch()
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
    nodes = [
        f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=4000 "
        f"Gres=gpu:{gpus} Feature=nvme,none"
        for number, port in enumerate(ports[1:], start=1)
    ]
    lines = [
        "ClusterName=test",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={ports[0]}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/none",
        "CredType=cred/none",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool/%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "ReturnToService=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "SlurmdParameters=config_overrides",
        "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0",
        "MinJobAge=3600",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "GresTypes=gpu",
        *nodes,
        "PartitionName=batch Nodes=ALL Default=YES MaxTime=24:00:00 PriorityTier=1 GraceTime=60",
        "PartitionName=urgent Nodes=ALL MaxTime=24:00:00 PriorityTier=10 PreemptMode=OFF",
    ]
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    cluster = Cluster(folder)
    daemons = {"slurmctld": _start(cluster, "slurmctld", "slurmctld", "-D")}
    for node in (f"n{number}" for number in range(1, num_nodes + 1)):
        daemons[node] = _start(cluster, node, "slurmd", "-D", "-N", node)
    cluster.daemons |= daemons
    try:
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
        for daemon in daemons.values():
            daemon.wait()


def _start(cluster: Cluster, name: str, *command: str) -> subprocess.Popen:
    program = shutil.which(command[0], path=SEARCHED)
    with (cluster.folder / "log" / name).open("w") as log:
        return subprocess.Popen(
            [program, *command[1:]],
            env=cluster.variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
