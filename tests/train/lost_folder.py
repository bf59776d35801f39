"""Started by test_second_run.py: runs whose folder another takes before or while they save their third step.

Prints a line for each, with what is left of it; of the checkpoints of a run two are kept.
"""

import json
import sys
from pathlib import Path

from matey.checkpoints.run_files import LATEST, LOCK
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.train import checkpoint
from matey.train.resume import RunError
from tests.support.engine_cases import Training

MOMENTS = ("while it writes", "as latest moves", "moved", "its lock removed")


def lose(moment: str, path: Path) -> None:
    training = Training("zero1", path)
    with training.folder.in_use():
        for step in (1, 2):
            training.step(step)
            training.save(step)
        if moment == "moved":
            path = path.rename(path.with_name("elsewhere"))
        elif moment == "its lock removed":
            (path / LOCK).unlink()
        else:
            lose_in_a_save(moment, training, path)
        try:
            training.save(3)
        except RunError as error:
            checkpoints = path / training.folder.checkpoints.name
            entries = sorted(entry.name for entry in checkpoints.iterdir() if entry.suffix != ".py")
            found = {"moment": moment, "refusal": str(error), "entries": entries}
            found["latest"] = (checkpoints / LATEST).read_text()
            sys.stdout.write(f"case {json.dumps(found)}\n")
    training.engine.destroy()


def lose_in_a_save(moment: str, training: Training, path: Path) -> None:
    """Arrange that the lock goes in the next call of what writes then."""
    writers = {"while it writes": (training.average, "save"), "as latest moves": (checkpoint, "replace_text")}
    owner, name = writers[moment]
    write = getattr(owner, name)

    def write_and_lose(*args: object) -> None:
        setattr(owner, name, write)
        write(*args)
        (path / LOCK).unlink()

    setattr(owner, name, write_and_lose)


def main(folder: Path) -> None:
    start_processes(find_environment(), timeout=60, threads=1)
    for moment in MOMENTS:
        lose(moment, folder / moment)
    stop_processes()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
