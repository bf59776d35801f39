"""How this process was started, and the process group it belongs to: the same on GPUs and CPUs, on one rank and on many."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch

from matey.config import ConfigError

# DeepSpeed would otherwise search for an accelerator, which takes seconds and prints; torch knows already.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

MPI_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")


@dataclass(frozen=True)
class Environment:
    """This process among all processes of the run.

    Attributes:
        launcher: ``torch`` (also DeepSpeed's), ``mpi`` or ``none``.
        rank: of this process among all.
        world_size: number of processes.
        local_rank: of this process on its node.
        local_world_size: processes on this node.
        address: of rank 0.
        port: on which rank 0 listens.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int

    @property
    def device(self) -> torch.device:
        """The device of this process: a GPU (NVIDIA or AMD) if torch sees one, else the CPU."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")


def find_environment(variables: Mapping[str, str] = os.environ) -> Environment:
    """Find out how this process was started: by DeepSpeed's or torch's launcher, by ``mpirun``, or by hand.

    Raises:
        ConfigError: a launcher set a part of its variables only.
    """
    if "WORLD_SIZE" in variables and "RANK" in variables:
        return _from_torch(variables)
    if any(int(variables.get(name, "1")) > 1 for name in MPI_SIZE_VARIABLES):
        return _from_mpi()
    return Environment("none", 0, 1, 0, 1, "127.0.0.1", _free_port())


def start_processes(environment: Environment, timeout: float, threads: int | None = None) -> None:
    """Join the process group that DeepSpeed will use.

    Args:
        environment: of this process.
        timeout: seconds after which a collective that hangs fails.
        threads: CPU threads of this process; by default the cores over the processes of this node.
    """
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(threads or max(1, cores // environment.local_world_size))
    os.environ.update(
        RANK=str(environment.rank),
        WORLD_SIZE=str(environment.world_size),
        LOCAL_RANK=str(environment.local_rank),
        LOCAL_SIZE=str(environment.local_world_size),
        MASTER_ADDR=environment.address,
        MASTER_PORT=str(environment.port),
    )
    if environment.device.type == "cuda":
        torch.cuda.set_device(environment.device)
    backend = "nccl" if environment.device.type == "cuda" else "gloo"
    # DeepSpeed's shared-memory all-reduce serves its inference alone. It would be compiled on first use, and leave 66 MiB of
    # /dev/shm behind for each rank of every run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(backend, timeout=timedelta(seconds=timeout), verbose=False)


def stop_processes() -> None:
    """Leave the process group together: a rank that left first would end the others with a connection error."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _from_torch(variables: Mapping[str, str]) -> Environment:
    missing = [name for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in variables]
    if missing:
        raise ConfigError(
            f"RANK and WORLD_SIZE are set but {' and '.join(missing)} not; start with deepspeed, torchrun or mpirun, "
            "or unset RANK and WORLD_SIZE for a single process."
        )
    world_size = int(variables["WORLD_SIZE"])
    local = int(variables.get("LOCAL_WORLD_SIZE") or variables.get("LOCAL_SIZE") or world_size)
    return Environment(
        "torch",
        int(variables["RANK"]),
        world_size,
        int(variables["LOCAL_RANK"]),
        local,
        variables["MASTER_ADDR"],
        int(variables["MASTER_PORT"]),
    )


def _from_mpi() -> Environment:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    is_one_node = node.size == world.size
    here = None
    if world.rank == 0:
        here = ("127.0.0.1" if is_one_node else socket.gethostbyname(socket.gethostname()), _free_port())
    address, port = world.bcast(here, root=0)
    return Environment("mpi", world.rank, world.size, node.rank, node.size, address, port)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return listener.getsockname()[1]
