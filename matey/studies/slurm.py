"""Submits jobs to Slurm."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from matey.checkpoints.durable import replace_text
from matey.config import ConfigError


def submit_once(name: str, number: Path, arguments: Sequence[str], folder: Path, say: Callable[[str], None]) -> str:
    """Submit a point's job by `sbatch`, unless the file ``number`` shows that it was submitted; return the job's number.

    Raises:
        ConfigError: Slurm is missing, or refuses the job.
    """
    if number.exists():
        job = number.read_text(encoding="utf-8").strip()
        say(f"{name}: submitted before as job {job}; remove {number} to submit it again")
        return job
    command = ["sbatch", "--parsable", *arguments]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError("There is no sbatch here; submit on a login node of the cluster.") from None
    if result.returncode:
        raise ConfigError(f"sbatch did not take {arguments[-1]}: {result.stderr.strip() or result.stdout.strip()}")
    if not result.stdout.strip():
        raise ConfigError(f"sbatch gave no number of a job for {name}: {shlex.join(command)}")
    job = result.stdout.strip().splitlines()[-1].split(";")[0]
    replace_text(number, f"{job}\n")
    say(f"{name}: job {job}")
    return job
