"""Rank and number of ranks, read from environment variables alone, for mistakes found before PyTorch is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping

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
    if "SLURM_PROCID" not in variables or (step.isdigit() and int(step) >= FIRST_SPECIAL_STEP):
        return False  # a step that is no number is reported later, when the ranks are counted
    return not _is_typed()


def _is_typed() -> bool:
    """Whether this process was typed into a shell of `srun --pty`, of tmux or of a notebook server in a step.

    The task is then the shell, or the program that it runs in. A shell gives each command that is typed a process group of its
    own. A script or program that is the task leads its terminal, or belongs to the group that does; and a step started from the
    shell has no terminal.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return os.getpgrp() != os.getsid(0)
