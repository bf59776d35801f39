"""Reads Slurm's variables: the rank of this process, the number of ranks, its devices, and where rank 0 listens."""

from __future__ import annotations

import re
from collections.abc import Mapping

from matey.config import ConfigError
from matey.parallel.contact import whole_number

# Below the ports that Linux gives to outgoing connections (32768 on) and above those of services, Slurm's own among them.
FIRST_PORT, NUM_PORTS = 15_000, 10_000


def num_tasks(variables: Mapping[str, str]) -> tuple[str, int]:
    """Return the name of the variable with the number of tasks of the step, and that number."""
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in variables else "SLURM_NTASKS"
    return name, number(variables, name)


def tasks_on_this_node(variables: Mapping[str, str]) -> int:
    """Return the number of tasks of the step on this node."""
    of_nodes, node = tasks_per_node(variables), number(variables, "SLURM_NODEID")
    if not 0 <= node < len(of_nodes):
        raise ConfigError(f"SLURM_NODEID is {node}, but Slurm's list of tasks per node has {len(of_nodes)} nodes.")
    return of_nodes[node]


def tasks_per_node(variables: Mapping[str, str]) -> list[int]:
    """Return the number of tasks of the step on each of its nodes."""
    return expand_counts(variables.get("SLURM_STEP_TASKS_PER_NODE") or needed(variables, "SLURM_TASKS_PER_NODE"))


def address(variables: Mapping[str, str]) -> str:
    """Return the name of rank 0's node, the first of the step's list."""
    first = first_node(variables.get("SLURM_STEP_NODELIST") or needed(variables, "SLURM_JOB_NODELIST"))
    return first if len(tasks_per_node(variables)) > 1 else "127.0.0.1"


def port(variables: Mapping[str, str]) -> int:
    """Return the port of rank 0: the same on all ranks, different for each job and for each step of a job."""
    job, step = number(variables, "SLURM_JOB_ID"), number(variables, "SLURM_STEP_ID")
    return FIRST_PORT + (job + 1009 * step) % NUM_PORTS


def check_agreement(variables: Mapping[str, str]) -> None:
    """Raise ConfigError if WORLD_SIZE or RANK, set by hand, contradicts srun's number."""
    name, size = num_tasks(variables)
    for theirs, mine, value in (
        ("WORLD_SIZE", name, size),
        ("RANK", "SLURM_PROCID", number(variables, "SLURM_PROCID")),
    ):
        if whole_number(variables, theirs, str(value)) != value:
            raise ConfigError(
                f"{theirs} is {variables[theirs]} but {mine} is {value}: srun started other processes than the script "
                f"announces; do not set {theirs} in the job script, srun's own numbers are enough."
            )


def check_devices(variables: Mapping[str, str], num_devices: int) -> None:
    """Raise ConfigError if Slurm gave the step GPUs and this process can use none."""
    given = variables.get("SLURM_GPUS_ON_NODE", "0")
    if num_devices == 0 and given.isdigit() and int(given) > 0:
        raise ConfigError(
            f"SLURM_GPUS_ON_NODE is {given} but torch sees no device; install the torch of this machine (CUDA or ROCm), "
            "or set DS_ACCELERATOR=cpu to leave the devices idle."
        )


def has_device_of_its_own(variables: Mapping[str, str], num_devices: int, num_tasks: int) -> bool:
    """Whether Slurm shows each task only its own devices: by ``--gpus-per-task``, or one of enough devices on the node.

    Args:
        variables: environment variables of the process.
        num_devices: number of devices that this task sees. Where there is one for each task of the node,
            ``--gpu-bind=none`` shows all of them to every task.
        num_tasks: number of tasks on this node.
    """
    if num_devices >= num_tasks:
        return False
    if "SLURM_GPUS_PER_TASK" in variables or "gpu" in variables.get("SLURM_TRES_PER_TASK", ""):
        return True
    on_node = variables.get("SLURM_GPUS_ON_NODE", "")
    return num_devices == 1 and on_node.isdigit() and int(on_node) >= num_tasks


def first_node(text: str) -> str:
    """Return the first name in a node list such as ``frontier[00001-00092,00100],login1``."""
    first = re.match(r"(?:[^][,]|\[\d[-,\d]*\])+(?=,|$)", text)
    if first is None:
        raise ConfigError(f"Slurm's node list {text!r} is not like 'frontier[00001-00092,00100],login1'.")
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", first[0])


def expand_counts(text: str) -> list[int]:
    """Return the numbers in a list such as ``8(x91),4``: 91 times 8, then 4."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ConfigError(f"Slurm's list of tasks per node {text!r} is not like '8(x91),4'.")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def needed(variables: Mapping[str, str], name: str) -> str:
    """Return a variable that srun sets."""
    if name not in variables:
        raise ConfigError(
            f"{name} is not set, as srun does for each task; start with srun, or set MATEY_LAUNCHER=none for one process."
        )
    return variables[name]


def number(variables: Mapping[str, str], name: str) -> int:
    """Return the number in a variable that srun sets."""
    needed(variables, name)
    return whole_number(variables, name)
