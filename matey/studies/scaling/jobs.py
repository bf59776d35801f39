"""Makes the job of a point: a command for this machine, or a job script based on one of those in launch/."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from shlex import quote

from matey.checkpoints.run_files import DS_CONFIG
from matey.config import ConfigError
from matey.studies.scaling.study import RUN, Point, Study

# Options that a point sets itself; the script's other options are kept.
OWN_OPTIONS = ("-J", "--job-name", "-N", "--nodes", "-t", "--time", "-o", "--output", "--open-mode", "--signal")


def local_job(study: Study, point: Point) -> str:
    """Return a script that starts the ranks of a point on this machine."""
    folder = study.folder_of(point)
    return (
        f"#!/usr/bin/env bash\n# A {study.mode} study at {point}, on this machine; from the repository.\n"
        f"RANKS={point.ranks} DEEPSPEED_CONFIG={quote(str(folder / DS_CONFIG))} "
        f'exec launch/local.sh {quote(str(folder / RUN))} "$@"\n'
    )


def slurm_job(study: Study, point: Point, script: Path, minutes: int) -> str:
    """Return a job script that runs another job script with the nodes, the time and the configuration of a point.

    Args:
        study: the study of the point.
        point: the point to measure.
        script: a job script such as launch/slurm/pretrain.sbatch, relative to the repository: its `#SBATCH` lines are
            copied, and it is run with CONFIG, DEEPSPEED_CONFIG and MAX_JOBS set.
        minutes: time limit of the job in minutes.

    Raises:
        ConfigError: the script is missing, or is not a job script.
    """
    lines = [line for line in _read(script).splitlines() if line.startswith("#SBATCH")]
    if not lines:
        raise ConfigError(f"{script} has no #SBATCH lines; take launch/slurm/pretrain.sbatch or one made from it.")
    folder = study.folder_of(point)
    log = study.folder.absolute() / "logs" / f"{point.name}.txt"
    own = (
        f"--job-name=matey-{study.mode}-{point.name}",
        f"--nodes={point.nodes}",
        f"--time={minutes}",
        f"--output={quote(str(log))}",  # Slurm interprets quotes like a shell
    )
    kept = [line for line in lines if _option(line) not in OWN_OPTIONS]
    return "\n".join(
        [
            "#!/usr/bin/env bash",
            f"# A {study.mode} study at {point}; submit from the repository.",
            *(f"#SBATCH {option}" for option in own),
            *kept,
            f"export CONFIG={quote(str(folder / RUN))}",
            f"export DEEPSPEED_CONFIG={quote(str(folder / DS_CONFIG))}",
            f"export VENV=${{VENV:-{quote(sys.prefix)}}}",
            "export MAX_JOBS=1 # a job that does not finish in time is left as it is",
            f"exec bash {quote(str(script))}",
            "",
        ]
    )


def tasks_per_node(script: Path) -> int | None:
    """Return the tasks per node in the options of a job script; None if the script's commands set them."""
    found = re.search(r"^#SBATCH\s+--ntasks-per-node=(\d+)", _read(script), re.MULTILINE)
    return int(found[1]) if found else None


def _read(script: Path) -> str:
    try:
        return script.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot read the job script {script}: {error.strerror}.") from None


def _option(line: str) -> str:
    """Return the name of the option on a line such as `#SBATCH --nodes=4  # nodes`."""
    return re.split(r"[\s=]+", line.removeprefix("#SBATCH").strip(), maxsplit=1)[0]
