"""Hands jobs to Slurm."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from matey.config import ConfigError


def sbatch(arguments: Sequence[str], folder: Path) -> str:
    """Submit a job from a folder and return its number.

    Raises:
        ConfigError: there is no Slurm, or it does not take the job.
    """
    command = ["sbatch", "--parsable", *arguments]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ConfigError("There is no sbatch here; submit on a login node of the cluster.") from None
    if result.returncode:
        raise ConfigError(f"sbatch did not take {arguments[-1]}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout.strip().splitlines()[-1].split(";")[0]
