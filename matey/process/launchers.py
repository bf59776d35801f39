"""What launched this process: its likely rank, from environment variables alone, and the launcher above it, if it still runs.

A rank whose launcher was killed would train on, beside the run that takes its place. Some launchers are two processes, such as
DeepSpeed's command and the one that starts the ranks, perhaps with a script between them. All processes up to the outermost
launcher are watched, but no shell above: it may be closed while the run goes on (nohup, tmux, a batch system).

    shell (not watched)  >  deepspeed  >  python -m deepspeed.launcher.launch  >  this process
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import PurePath

import psutil

LAUNCHERS = {
    *("torchrun", "torch.distributed.run", "torch.distributed.launch"),
    *("deepspeed", "deepspeed.pt", "ds", "deepspeed.launcher.runner", "deepspeed.launcher.launch"),
    *("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"),  # Open MPI
    *("mpiexec.hydra", "hydra_pmi_proxy", "hydra_bstrap_proxy"),  # MPICH and Intel MPI
    "slurmstepd",
}


def launcher_has_gone() -> bool:
    """Whether the launcher, or a process between it and this one, has ended since it was found; False if there was none."""
    above = launchers_above()
    return bool(above) and _ancestors()[: len(above)] != above


@cache
def launchers_above() -> list[int]:
    """Return the process numbers above this one, up to the outermost launcher, as they are at the first call."""
    above, last = _ancestors(), 0
    for place, number in enumerate(above, start=1):
        with suppress(psutil.Error):  # it has just ended
            if program_of(psutil.Process(number).cmdline()) in LAUNCHERS:
                last = place
    return above[:last]


def program_of(command: Sequence[str]) -> str:
    """Return the name of the program that a command line runs; for Python, that of the script or module."""
    words = [PurePath(word).name for word in command] or [""]
    if words[0].startswith("python"):
        return next((word for word in words[1:] if not word.startswith("-")), words[0])
    return words[0].split(":")[0]  # as slurmstepd calls itself "slurmstepd: [7.0]"


def _ancestors() -> list[int]:
    return [process.pid for process in psutil.Process().parents()]


RANKS_AND_SIZES = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)
# Parts of a job that are no steps, such as the batch script and the shell of salloc, have step numbers from here on.
FIRST_SPECIAL_STEP = 0xFFFFFFF0
# Set by torchrun, by DeepSpeed's launcher, by Open MPI's mpirun and by MPICH's, each of which may run under srun itself.
STARTERS = ("TORCHELASTIC_RUN_ID", "CROSS_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")


def likely_place(variables: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return rank and number of ranks as a launcher set them, unchecked, which is enough to report an early error."""
    if variables.get("MATEY_LAUNCHER") == "none":
        return 0, 1
    for rank, size in RANKS_AND_SIZES:
        if rank == "SLURM_PROCID" and not is_task(variables):
            continue
        if variables.get(rank, "").isdigit() and size in variables:
            number = int(variables[rank])
            # If the size is wrong, there is still one rank, the first, to report it.
            return number, max(number + 1, int(variables[size]) if variables[size].isdigit() else 1)
    return 0, 1


def looks_for_all() -> bool:
    """Whether this process checks disks for all ranks before they connect: it is alone, or rank 0 of ranks that end together.

    Tasks of srun end together only if srun is told so. They check disks once they are connected, so that none waits for a rank
    that has ended.
    """
    rank, world_size = likely_place()
    return rank == 0 and (world_size == 1 or not is_task(os.environ))


def is_task(variables: Mapping[str, str]) -> bool:
    """Whether srun itself started this process, and not a shell or a launcher below srun."""
    if any(name in variables for name in STARTERS):
        return False
    step = variables.get("SLURM_STEP_ID", str(FIRST_SPECIAL_STEP))
    # A step that is no number is reported later, when the ranks are counted.
    return "SLURM_PROCID" in variables and not (step.isdigit() and int(step) >= FIRST_SPECIAL_STEP)
