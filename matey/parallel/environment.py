"""How this process was started, and the process group it belongs to: the same on GPUs and CPUs, on one rank and on many.

What Slurm, MPI or a person says of ranks and devices is checked before torch uses the numbers and addresses. MPI through mpi4py
tells rank 0's address and port to processes that were started with MPI; training never uses it.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import re
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from matey.config import ConfigError
from matey.config.flags import FlagError
from matey.mistakes import nearest_name, one_line
from matey.parallel.collectives import deepspeed
from matey.parallel.failure import end_with_launcher, look_out, meeting, name_failures, set_timeouts, stop_looking
from matey.parallel.meter import cores_of_rank, note_cores
from matey.process.ending import end_process
from matey.process.launchers import is_task, likely_place
from matey.process.signals import listen, stop_listening

if TYPE_CHECKING:
    from mpi4py import MPI

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
    find = {"torch": _from_torch, "mpi": _from_mpi, "slurm": _from_slurm}.get(launcher)
    if num_devices is None:
        num_devices = _count_devices(variables)
    found = find(variables) if find else Environment("none", 0, 1, 0, 1, "127.0.0.1", free_port())
    if not 0 <= found.rank < found.world_size:
        raise ConfigError(f"This process is rank {found.rank} of {found.world_size}, which count from 0; correct RANK.")
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
    if environment.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        check_port_is_free(environment.port)
    package = deepspeed()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that newer PyTorch deprecates, and binds no device to a single rank on a GPU.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated|barrier\(\): using the device")
    os.environ.update(variables_for_deepspeed(environment, os.environ))
    if environment.device.type == "cuda":
        torch.cuda.set_device(environment.device)
        keep_all_bits()
    # This collective for inference on CPUs is never called here, compiles for minutes on first use, and leaves 66 MiB of
    # shared memory for each rank after the run.
    package.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    set_timeouts(timedelta(seconds=timeout))
    with meeting(environment.rank, environment.world_size):
        package.init_distributed(environment.backend, timeout=timedelta(seconds=timeout), verbose=False)
    name_failures(environment.rank, environment.world_size)
    look_out()
    note_cores(cores := cores_of_rank())
    torch.set_num_threads(threads or max(1, int(cores)))
    forget_tiny_numbers()
    listen() if can_save else end_with_launcher(environment.rank, environment.world_size)


def forget_tiny_numbers() -> None:
    """Let the CPU take numbers below 1e-38 for zero, in this thread and those it starts.

    Gradients of fields that decay reach them, and a step with them takes three times as long.
    """
    torch.set_flush_denormal(True)


TIMEOUT = 3600.0  # seconds that ranks wait for another that still reads, writes or forecasts


def run_on_ranks_or_here(work: Callable[[torch.device], None], device: str, threads: int | None) -> int:
    """Do work that saves nothing on each rank that a launcher has started or, without one, in this process; return 0.

    Args:
        work: function of the device.
        device: name of the device of a single process; ``auto`` is the first GPU, if there is one.
        threads: CPU threads; by default as many as a rank has cores to itself, and in one process PyTorch's choice.

    Raises:
        FlagError: a single process has no such device.
    """
    if likely_place()[1] > 1:
        environment = find_environment()
        start_processes(environment, TIMEOUT, threads)
        work(environment.device)
        return stop_processes()
    if threads is not None:
        torch.set_num_threads(threads)
    forget_tiny_numbers()
    keep_all_bits()
    found = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise FlagError(f"--device {device} does not exist: PyTorch sees {torch.cuda.device_count()} GPUs; use cpu.")
    work(found)
    return 0


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
        if "mpi4py.MPI" in sys.modules:  # mpirun reports a process that ends without this as an error
            sys.modules["mpi4py.MPI"].Finalize()
        end_process(code)
    return code


def _from_torch(variables: Mapping[str, str]) -> Environment:
    missing = [name for name in TORCH_VARIABLES if name not in variables]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not set, as torchrun and deepspeed do; start with one of them, mpirun or srun, or unset "
            "RANK, WORLD_SIZE and MATEY_LAUNCHER for a single process."
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
    first = first_node(variables.get("SLURM_STEP_NODELIST") or needed(variables, "SLURM_JOB_NODELIST"))
    job, step = slurm_number(variables, "SLURM_JOB_ID"), slurm_number(variables, "SLURM_STEP_ID")
    port = FIRST_PORT + (job + 1009 * step) % NUM_PORTS  # the same on all ranks, another for each job and step
    return Environment(
        "slurm",
        slurm_number(variables, "SLURM_PROCID"),
        num_tasks(variables)[1],
        slurm_number(variables, "SLURM_LOCALID"),
        tasks_on_this_node(variables),
        # Set by a job script where the nodes' names do not lead to the right network.
        variables.get("MASTER_ADDR") or (first if len(tasks_per_node(variables)) > 1 else "127.0.0.1"),
        whole_number(variables, "MASTER_PORT", str(port)),
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
    given, found = variables.get("SLURM_GPUS_ON_NODE", "0"), torch.cuda.device_count()
    if is_task(variables) and found == 0 and given.isdigit() and int(given) > 0:
        raise ConfigError(
            f"SLURM_GPUS_ON_NODE is {given} but torch sees no device; install the torch of this machine (CUDA or ROCm), "
            "or set DS_ACCELERATOR=cpu to leave the devices idle."
        )
    return found


def keep_all_bits() -> None:
    """Have this process's float32 convolutions on GPUs use all bits of their inputs.

    By default (TF32) they use 10 bits of a mantissa, too few for differences between neighbouring cells.
    """
    torch.backends.cudnn.allow_tf32 = False


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


def check_address(address: str) -> None:
    """Raise ConfigError if the name of rank 0's node cannot be resolved: torch would try it until its timeout."""
    try:
        socket.getaddrinfo(address, None)
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == socket.EAI_AGAIN:
            return  # the name server is busy, perhaps with the other ranks: torch goes on trying
        raise ConfigError(
            f"The address of rank 0, {address!r}, cannot be resolved on {socket.gethostname()} ({error}); set MASTER_ADDR to a "
            "name or number at which every node reaches that of rank 0."
        ) from None


def check_port_is_free(port: int) -> None:
    """Raise ConfigError if rank 0 cannot listen on its port; only rank 0 must call."""
    with socket.socket() as listener:
        # As torch does: a port whose last connections are still winding down is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
            listener.listen()
        except (OSError, OverflowError) as error:
            why = "in use by another program" if errno.EADDRINUSE in error.args else f"refused ({one_line(error)})"
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
    return tasks_per_node(variables)[slurm_number(variables, "SLURM_NODEID")]


def tasks_per_node(variables: Mapping[str, str]) -> list[int]:
    """Return the number of tasks of the step on each of its nodes."""
    return expand_counts(variables.get("SLURM_STEP_TASKS_PER_NODE") or needed(variables, "SLURM_TASKS_PER_NODE"))


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
    first = re.split(r",(?![^[]*\])", text)[0]  # at a comma outside of brackets
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", first)


def expand_counts(text: str) -> list[int]:
    """Return the numbers in a list such as ``8(x91),4``: 91 times 8, then 4."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def needed(variables: Mapping[str, str], name: str) -> str:
    """Return a variable that srun sets."""
    if name not in variables:
        raise ConfigError(
            f"{name} is not set, as srun does for each task; start with srun, or set MATEY_LAUNCHER=none for one process."
        )
    return variables[name]


def slurm_number(variables: Mapping[str, str], name: str) -> int:
    """Return the number in a variable that srun sets."""
    return whole_number({name: needed(variables, name)}, name)


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


if __name__ == "__main__":  # prints the rank, the launcher and the devices that this process finds, and starts nothing
    try:
        sys.stdout.write(f"{find_environment()}\n")
    except ConfigError as error:
        sys.exit(f"error: {error}")
