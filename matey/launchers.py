"""The launcher above this process, and whether it is still there.

A rank whose launcher was killed would train on unattended, beside the run that takes its place. Some launchers are two
processes, as DeepSpeed's command and the one that starts the ranks, and a script may stand between: all of them are watched,
up to the outermost launcher. A shell above it is not: it may be closed while the run goes on (nohup, tmux, a batch system).

    shell (not watched)  >  deepspeed  >  python -m deepspeed.launcher.launch  >  this process
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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
    """Whether the launcher, or a process between it and this one, has ended since it was found; False where there was none."""
    above = launchers_above()
    return _parents(len(above)) != above


@cache
def launchers_above() -> list[int]:
    """Return the process numbers above this one, up to the outermost launcher, as they are when it is first asked for."""
    above = list(_ancestors())
    return above[: max((place for place, number in enumerate(above, start=1) if _is_launcher(number)), default=0)]


def program_of(command: Sequence[str]) -> str:
    """Return the name of the program that a command line runs; of Python's, that of its script or module."""
    words = [PurePath(word).name for word in command] or [""]
    if words[0].startswith("python"):
        return next((word for word in words[1:] if not word.startswith("-")), words[0])
    return words[0].split(":")[0]  # as slurmstepd calls itself "slurmstepd: [7.0]"


def _parents(count: int) -> list[int]:
    """Return the process numbers of the nearest ancestors, fewer than ``count`` where there are no more."""
    return [number for number, _ in zip(_ancestors(), range(count), strict=False)]


def _ancestors() -> Iterator[int]:
    number = os.getppid()
    while number > 0:
        yield number
        try:
            number = psutil.Process(number).ppid()
        except psutil.Error:  # it ends at this moment, or is hidden from us
            return


def _is_launcher(number: int) -> bool:
    try:
        return program_of(psutil.Process(number).cmdline()) in LAUNCHERS
    except psutil.Error:
        return False
