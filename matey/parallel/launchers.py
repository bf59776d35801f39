"""What Slurm, MPI or a person says of ranks and devices, and the checks of it before torch uses the numbers and addresses.

MPI through mpi4py tells rank 0's address and port to processes that were started with MPI; training never uses it.
"""

from __future__ import annotations

import errno
import re
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matey.config import ConfigError

if TYPE_CHECKING:
    from mpi4py import MPI


LARGEST_PORT = 65_535
# A name server that does not answer at once may be busy with the other ranks.
RESOLVE_SECONDS = 5.0


def whole_number(variables: Mapping[str, str], name: str, default: str | None = None) -> int:
    """Return the number in a variable; without a default, the variable must be set.

    Raises:
        ConfigError: the variable holds no whole number.
    """
    text = variables[name] if default is None else variables.get(name) or default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name} is {text!r}, not a whole number; correct or unset it.") from None


def check_numbers(rank: int, world_size: int, local_rank: int, local_world_size: int, port: int) -> None:
    """Raise ConfigError if a rank or a local rank is out of range, or a port number is impossible."""
    places = (
        ("rank (RANK)", rank, "WORLD_SIZE", world_size),
        ("local rank (LOCAL_RANK)", local_rank, "LOCAL_WORLD_SIZE", local_world_size),
    )
    for what, number, of, size in places:
        if not 0 <= number < size:
            raise ConfigError(
                f"The {what} is {number} and {of} is {size}, but ranks count from 0 to {of} - 1; correct what the launcher "
                "or the job script sets."
            )
    if not 0 < port <= LARGEST_PORT:
        raise ConfigError(
            f"MASTER_PORT is {port}, but ports lie between 1 and {LARGEST_PORT}; choose one, or unset it."
        )


def check_address(address: str) -> None:
    """Raise ConfigError if the name of rank 0's node cannot be resolved: torch would try it until its timeout."""
    deadline = time.monotonic() + RESOLVE_SECONDS
    while True:
        try:
            socket.getaddrinfo(address, None)
            return
        except (OSError, UnicodeError) as error:
            is_busy = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            if not is_busy or time.monotonic() > deadline:
                raise ConfigError(
                    f"The address of rank 0, {address!r}, cannot be resolved on {socket.gethostname()} ({error}); set "
                    "MASTER_ADDR to a name or number at which every node reaches that of rank 0."
                ) from None
        time.sleep(0.5)


def check_port_is_free(port: int) -> None:
    """Raise ConfigError if rank 0 cannot listen on its port; only rank 0 must call."""
    with socket.socket() as listener:
        # As torch does: a port whose last connections are still winding down is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
            listener.listen()
        except OSError as error:
            why = "in use by another program" if error.errno == errno.EADDRINUSE else f"refused ({error.strerror})"
            raise ConfigError(
                f"Port {port} of {socket.gethostname()}, on which rank 0 is to listen, is {why}; set MASTER_PORT to "
                "another one (torchrun: --master_port, or --standalone; deepspeed: --master_port)."
            ) from None


# Below the ports that Linux gives to outgoing connections (32768 on) and above those of services, Slurm's own among them.
FIRST_PORT, NUM_PORTS = 15_000, 10_000


def num_tasks(variables: Mapping[str, str]) -> tuple[str, int]:
    """Return the name of the variable with the number of tasks of the step, and that number."""
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in variables else "SLURM_NTASKS"
    return name, slurm_number(variables, name)


def tasks_on_this_node(variables: Mapping[str, str]) -> int:
    """Return the number of tasks of the step on this node."""
    of_nodes, node = tasks_per_node(variables), slurm_number(variables, "SLURM_NODEID")
    if not 0 <= node < len(of_nodes):
        raise ConfigError(f"SLURM_NODEID is {node}, but Slurm's list of tasks per node has {len(of_nodes)} nodes.")
    return of_nodes[node]


def tasks_per_node(variables: Mapping[str, str]) -> list[int]:
    """Return the number of tasks of the step on each of its nodes."""
    return expand_counts(variables.get("SLURM_STEP_TASKS_PER_NODE") or needed(variables, "SLURM_TASKS_PER_NODE"))


def slurm_address(variables: Mapping[str, str]) -> str:
    """Return the name of rank 0's node, the first of the step's list."""
    first = first_node(variables.get("SLURM_STEP_NODELIST") or needed(variables, "SLURM_JOB_NODELIST"))
    return first if len(tasks_per_node(variables)) > 1 else "127.0.0.1"


def slurm_port(variables: Mapping[str, str]) -> int:
    """Return the port of rank 0: the same on all ranks, different for each job and for each step of a job."""
    job, step = slurm_number(variables, "SLURM_JOB_ID"), slurm_number(variables, "SLURM_STEP_ID")
    return FIRST_PORT + (job + 1009 * step) % NUM_PORTS


def check_slurm_agrees(variables: Mapping[str, str]) -> None:
    """Raise ConfigError if WORLD_SIZE or RANK, set by hand, contradicts srun's number."""
    name, size = num_tasks(variables)
    for theirs, mine, value in (
        ("WORLD_SIZE", name, size),
        ("RANK", "SLURM_PROCID", slurm_number(variables, "SLURM_PROCID")),
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


def slurm_number(variables: Mapping[str, str], name: str) -> int:
    """Return the number in a variable that srun sets."""
    needed(variables, name)
    return whole_number(variables, name)


# The first is set by Open MPI's mpirun, the second by MPICH's and by `srun --mpi=pmi2`.
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
VISIBLE_DEVICES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def communicators(expected: Sequence[tuple[str, int]]) -> tuple[MPI.Comm, MPI.Comm]:
    """Return the communicator of all ranks and that of the ranks on this node.

    Args:
        expected: variables of the launcher that say how many ranks there are, with their values.

    Raises:
        ConfigError: mpi4py or its MPI library is missing, or the processes were started with another MPI.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"The processes were started with MPI, but mpi4py cannot be used ({error}); build it against the machine's "
            "MPI (pip install --no-binary=mpi4py mpi4py), or start with torchrun or srun."
        ) from None
    world = MPI.COMM_WORLD
    for name, size in expected:
        if size != world.size:
            raise ConfigError(
                f"{name} is {size} but mpi4py sees a world of {world.size}: it is built against another MPI than the one "
                "that started the processes; build it against that (pip install --no-binary=mpi4py mpi4py), or under "
                "srun set MATEY_LAUNCHER=slurm, which needs no MPI."
            )
    return world, world.Split_type(MPI.COMM_TYPE_SHARED)


def each_rank_sees_another_device(node: MPI.Comm, variables: Mapping[str, str]) -> bool:
    """Whether the ranks of this node were shown different devices, as a script around each rank may do.

    All ranks of the node must call.
    """
    mine = next((variables[name] for name in VISIBLE_DEVICES if variables.get(name)), None)
    visible = node.allgather(mine)
    return None not in visible and len(set(visible)) == len(visible)


def finalize() -> None:
    """Leave MPI if this process has taken part in it: ``mpirun`` reports a process that ends without this as an error."""
    if "mpi4py.MPI" in sys.modules:
        sys.modules["mpi4py.MPI"].Finalize()


def address_of_this_node() -> str:
    """Return an address at which other nodes reach this one: its name where the name means this node alone."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        return name
    # Debian and others give a machine's own name the loopback address, which other nodes cannot use.
    return name if address.startswith("127.") else address


def free_port() -> int:
    """Return a free port of this node."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
