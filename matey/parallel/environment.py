"""How this process was started, and the process group it belongs to: the same on GPUs and CPUs, on one rank and on many."""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
from torch.distributed import DistNetworkError

from matey.config import ConfigError
from matey.mistakes import nearest_name
from matey.parallel.agreement import note_place
from matey.parallel.failure import end_with_launcher, look_out, meeting, name_failures, set_timeouts, stop_looking
from matey.parallel.launchers import (
    FIRST_PORT,
    NUM_PORTS,
    SIZES,
    address_of_this_node,
    check_address,
    check_devices,
    check_numbers,
    check_port_is_free,
    check_slurm_agrees,
    communicators,
    each_rank_sees_another_device,
    finalize,
    free_port,
    has_device_of_its_own,
    num_tasks,
    slurm_address,
    slurm_number,
    slurm_port,
    tasks_on_this_node,
    whole_number,
)
from matey.parallel.meter import cores_of_rank, note_cores
from matey.parallel.package import deepspeed
from matey.process.ending import end_process
from matey.process.launchers import is_task
from matey.process.signals import listen, stop_listening

# DeepSpeed's launcher gives every run this port, so two runs on one machine would meet; its process number gives another port.
DEEPSPEED_PORT = 29500
LAUNCHERS = ("torch", "mpi", "slurm", "none")
TORCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Environment:
    """This process among all processes of the run.

    Attributes:
        launcher: ``torch`` (also DeepSpeed's), ``mpi``, ``slurm`` or ``none``.
        rank: number of this process among all processes.
        world_size: number of processes.
        local_rank: number of this process on its node.
        local_world_size: number of processes on this node.
        address: network address of rank 0.
        port: the port on which rank 0 listens.
        sees_own_device: whether this process was shown a device that no other process of its node sees.
        device: the device of this process: a GPU (``cuda`` for NVIDIA and AMD alike) where there is one, else the CPU.
    """

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int
    sees_own_device: bool = False
    device: torch.device = torch.device("cpu")

    @property
    def backend(self) -> str:
        """The library of the collectives: nccl (on AMD, torch gives RCCL this name) or gloo."""
        return "nccl" if self.device.type == "cuda" else "gloo"

    def __str__(self) -> str:
        """Return the line that opens a run's log."""
        return (
            f"rank {self.rank} of {self.world_size} by {self.launcher}; {self.local_rank} of {self.local_world_size} on "
            f"its node; {self.device}, {self.backend}; rank 0 at {self.address}:{self.port}"
        )


def find_environment(variables: Mapping[str, str] = os.environ, num_devices: int | None = None) -> Environment:
    """Find out how this process was started: by DeepSpeed's or torch's launcher, ``mpirun``, ``srun``, or by hand.

    Args:
        variables: environment variables of the process.
        num_devices: number of GPUs that this process sees; by default what torch counts.

    Raises:
        ConfigError: a launcher's variables are incomplete, no numbers, out of range or contradictory, or devices too few.
    """
    launcher = find_launcher(variables)
    if is_task(variables) and launcher != "none":
        check_slurm_agrees(variables)
    find = {"torch": _from_torch, "mpi": _from_mpi, "slurm": _from_slurm, "none": _alone}[launcher]
    if num_devices is None:
        num_devices = _count_devices(variables)
    found = find(variables)
    check_numbers(found.rank, found.world_size, found.local_rank, found.local_world_size, found.port)
    return replace(found, device=_device(found, variables, num_devices))


def find_launcher(variables: Mapping[str, str]) -> str:
    """Return the launcher whose variables count; MATEY_LAUNCHER decides if several launchers set theirs."""
    chosen = variables.get("MATEY_LAUNCHER")
    if chosen and chosen not in LAUNCHERS:
        raise ConfigError(f"MATEY_LAUNCHER is {chosen!r}, not one of {LAUNCHERS}.{nearest_name(chosen, LAUNCHERS)}")
    if chosen:
        return chosen
    if "WORLD_SIZE" in variables and "RANK" in variables:
        return "torch"
    if is_task(variables):
        return "slurm"
    return "mpi" if any(whole_number(variables, name, "1") > 1 for name in SIZES) else "none"


def start_processes(
    environment: Environment, timeout: float, threads: int | None = None, *, can_save: bool = False
) -> None:
    """Join the process group that DeepSpeed will use.

    Args:
        environment: the environment of this process.
        timeout: seconds after which a collective that hangs fails.
        threads: CPU threads of this process; by default as many as it has cores to itself.
        can_save: whether the caller checks `asked_to_leave` and saves; if not, signals and the launcher's end end the process.

    Raises:
        ConfigError: rank 0's address cannot be resolved, or its port is taken.
    """
    check_address(environment.address)
    # torchrun listens itself, on behalf of rank 0. To ranks that it starts again it would tell the addresses of those before.
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
    if listens := environment.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        check_port_is_free(environment.port)
    package = deepspeed()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that newer PyTorch deprecates, and binds no device to a single rank on a GPU.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated|barrier\(\): using the device")
    os.environ.update(variables_for_deepspeed(environment, os.environ))
    note_place(environment.local_rank, environment.local_world_size)
    if environment.device.type == "cuda":
        torch.cuda.set_device(environment.device)
        keep_all_bits()
    # This collective for inference on CPUs is never called here, compiles for minutes on first use, and leaves 66 MiB of
    # shared memory for each rank after the run.
    package.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    set_timeouts(timedelta(seconds=timeout))
    with meeting(environment.rank, environment.world_size):
        try:
            package.init_distributed(environment.backend, timeout=timedelta(seconds=timeout), verbose=False)
        except DistNetworkError:
            if listens:  # another job may have taken the port since, where two start at the same time
                check_port_is_free(environment.port)
            raise
    name_failures(environment.rank, environment.world_size)
    look_out()
    note_cores(cores := cores_of_rank())
    torch.set_num_threads(threads or max(1, int(cores)))
    listen() if can_save else end_with_launcher(environment.rank, environment.world_size)


def variables_for_deepspeed(environment: Environment, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that DeepSpeed reads, for a process that has ``variables``.

    DeepSpeed takes the number of its device from LOCAL_RANK. If each task is shown only one device, that number is 0 for all,
    not the local rank. Open MPI's own variable has to agree, or DeepSpeed's engine refuses to start.
    """
    number = environment.local_rank if environment.device.index is None else environment.device.index
    names = {"LOCAL_RANK"} | ({"OMPI_COMM_WORLD_LOCAL_RANK"} & variables.keys())
    return {
        "RANK": str(environment.rank),
        "WORLD_SIZE": str(environment.world_size),
        "LOCAL_SIZE": str(environment.local_world_size),
        "MASTER_ADDR": environment.address,
        "MASTER_PORT": str(environment.port),
        **dict.fromkeys(names, str(number)),
    }


def stop_processes(code: int = 0) -> int:
    """Leave the process group together and, where there are other ranks, end this process with ``code``; return it if not.

    A rank that left first would end the others with a connection error. The interpreter's normal exit is not used, since
    threads of collectives may still be freeing their tensors: a thread that needs the interpreter then aborts the process.
    """
    torch.distributed.barrier()
    stop_listening()
    stop_looking()
    has_others = torch.distributed.get_world_size() > 1
    torch.distributed.destroy_process_group()
    if has_others:
        atexit._run_exitfuncs()  # monitors write their remaining values there
        finalize()
        end_process(code)
    return code


def _alone(variables: Mapping[str, str]) -> Environment:
    return Environment("none", 0, 1, 0, 1, "127.0.0.1", free_port())


def _from_torch(variables: Mapping[str, str]) -> Environment:
    missing = [name for name in TORCH_VARIABLES if name not in variables]
    if missing:
        said = (
            "RANK and WORLD_SIZE are set"
            if "RANK" in variables and "WORLD_SIZE" in variables
            else "MATEY_LAUNCHER is torch"
        )
        raise ConfigError(
            f"{said} but {' and '.join(missing)} not; start with deepspeed, torchrun, mpirun or srun, or unset RANK, "
            "WORLD_SIZE and MATEY_LAUNCHER for a single process."
        )
    world_size = whole_number(variables, "WORLD_SIZE")
    # Variables that were set by hand under srun do not say how many ranks run on this node.
    on_node = tasks_on_this_node(variables) if is_task(variables) else world_size
    port = whole_number(variables, "MASTER_PORT") + whole_number(variables, "TORCHELASTIC_RESTART_COUNT", "0")
    if variables.get("CROSS_SIZE") == "1" and port == DEEPSPEED_PORT:
        port = FIRST_PORT + os.getppid() % NUM_PORTS
    return Environment(
        "torch",
        whole_number(variables, "RANK"),
        world_size,
        whole_number(variables, "LOCAL_RANK"),
        whole_number(
            variables, "LOCAL_WORLD_SIZE" if variables.get("LOCAL_WORLD_SIZE") else "LOCAL_SIZE", str(on_node)
        ),
        variables["MASTER_ADDR"],
        port,
    )


def _from_slurm(variables: Mapping[str, str]) -> Environment:
    return Environment(
        "slurm",
        slurm_number(variables, "SLURM_PROCID"),
        num_tasks(variables)[1],
        slurm_number(variables, "SLURM_LOCALID"),
        tasks_on_this_node(variables),
        # Set by a job script where the nodes' names do not lead to the right network.
        variables.get("MASTER_ADDR") or slurm_address(variables),
        whole_number(variables, "MASTER_PORT", str(slurm_port(variables))),
    )


def _from_mpi(variables: Mapping[str, str]) -> Environment:
    expected = [num_tasks(variables)] if is_task(variables) else []
    world, node = communicators(
        expected or [(name, whole_number(variables, name)) for name in SIZES if name in variables]
    )
    here = None
    if world.rank == 0:
        here = ("127.0.0.1" if node.size == world.size else address_of_this_node(), free_port())
    address, port = world.bcast(here, root=0)
    own = each_rank_sees_another_device(node, variables)
    return Environment("mpi", world.rank, world.size, node.rank, node.size, address, port, own)


def _device(environment: Environment, variables: Mapping[str, str], num_devices: int) -> torch.device:
    """Return the device of a local rank: the visible device of its number, or the only one that its launcher shows it."""
    if num_devices == 0:
        return torch.device("cpu")
    num_ranks = environment.local_world_size
    if is_task(variables) and has_device_of_its_own(variables, num_devices, num_ranks):
        return torch.device("cuda", 0)
    if num_ranks > num_devices:
        if environment.sees_own_device:
            return torch.device("cuda", 0)
        raise ConfigError(
            f"{num_ranks} ranks run on this node but torch sees {num_devices} device(s); start at "
            f"most {num_devices} ranks a node, or give each rank one of its own (srun --gpus-per-task=1)."
        )
    return torch.device("cuda", environment.local_rank)


def _count_devices(variables: Mapping[str, str]) -> int:
    if variables.get("DS_ACCELERATOR") == "cpu":
        return 0
    if is_task(variables):
        check_devices(variables, torch.cuda.device_count())
    if (found := torch.cuda.device_count()) == 0 and variables.get("DS_ACCELERATOR") == "cuda":
        raise ConfigError(
            "DS_ACCELERATOR is cuda, but torch sees no GPU: install the torch of this machine (CUDA or ROCm), or unset it."
        )
    return found


def main() -> int:
    """Print the rank, the launcher and the devices that this process finds, without starting anything."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--devices", type=int, help="GPUs that it sees; by default what torch counts")
    try:
        environment = find_environment(num_devices=parser.parse_args().devices)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{environment}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())


def keep_all_bits() -> None:
    """Have this process's float32 convolutions on GPUs use all bits of their inputs.

    By default (TF32) they use 10 bits of a mantissa, too few for differences between neighbouring cells.
    """
    torch.backends.cudnn.allow_tf32 = False
