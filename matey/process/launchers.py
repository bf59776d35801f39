"""Finds the launcher above this process, and whether it still runs.

A rank whose launcher was killed would train on, beside the run that takes its place. Some launchers are two processes, such as
DeepSpeed's command and the one that starts the ranks, perhaps with a script between them. All processes up to the outermost
launcher are watched, but no shell above: it may be closed while the run goes on (nohup, tmux, a batch system).

    shell (not watched)  >  deepspeed  >  python -m deepspeed.launcher.launch  >  this process
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import PurePath

import psutil

STEP_DAEMON = "slurmstepd"
LAUNCHERS = {
    *("torchrun", "torch.distributed.run", "torch.distributed.launch"),
    *("deepspeed", "deepspeed.pt", "ds", "deepspeed.launcher.runner", "deepspeed.launcher.launch"),
    *("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"),  # Open MPI
    *("mpiexec.hydra", "hydra_pmi_proxy", "hydra_bstrap_proxy"),  # MPICH and Intel MPI
    STEP_DAEMON,
}


def launcher_has_gone() -> bool:
    """Whether the launcher, or a process between it and this one, has ended since it was found; False if there was none."""
    above = launchers_above()
    return [*islice(_ancestors(), len(above))] != above


@cache
def launchers_above() -> list[int]:
    """Return the process numbers above this one, up to the outermost launcher, as they are at the first call."""
    above, last, is_typed = list(_ancestors()), 0, _is_typed(os.getpid())
    for place, number in enumerate(above, start=1):
        name = _program(number)
        # slurmstepd above an interactive terminal did not launch the commands that are typed into it.
        if name in LAUNCHERS and not (is_typed and name == STEP_DAEMON):
            last = place
        is_typed = is_typed or _is_typed(number)
    return above[:last]


def program_of(command: Sequence[str]) -> str:
    """Return the name of the program that a command line runs; for Python, that of the script or module."""
    words = [PurePath(word).name for word in command] or [""]
    if words[0].startswith("python"):
        return next((word for word in words[1:] if not word.startswith("-")), words[0])
    return words[0].split(":")[0]  # as slurmstepd calls itself "slurmstepd: [7.0]"


def _ancestors() -> Iterator[int]:
    number = os.getppid()
    while number > 0:
        yield number
        try:
            number = psutil.Process(number).ppid()
        except psutil.Error:  # the process has just ended, or is hidden from this user
            return


def _program(number: int) -> str:
    try:
        return program_of(psutil.Process(number).cmdline())
    except psutil.Error:
        return ""


def _is_typed(number: int) -> bool:
    """Whether a process was typed into a shell, which gives it a process group of its own in the shell's terminal."""
    try:
        return psutil.Process(number).terminal() is not None and os.getpgid(number) != os.getsid(number)
    except (psutil.Error, OSError):
        return False
