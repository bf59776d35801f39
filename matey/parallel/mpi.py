"""MPI through mpi4py, for processes started with MPI: rank 0 tells its address and port; training never uses it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from matey.config import ConfigError

if TYPE_CHECKING:
    from mpi4py import MPI

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
