"""Started by test_second_run.py: runs that lose their folder, or a process that reads, near the save of their third step.

Prints a line for each, with what is left of it; of the checkpoints of a run two are kept.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

from torch.utils.data import DataLoader

from matey.checkpoints import run_files
from matey.checkpoints.run_files import LATEST, LOCK
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.train.checkpoint import RunError
from tests.support.engine_cases import Training

READER = "its reading process killed"
MOMENTS = ("while it writes", "as latest moves", "moved", "its lock removed", READER)


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
        elif moment == READER:
            reading = iter(DataLoader(range(9), num_workers=1))
            next(reading)
            lose_in_a_save(run_files, "free_name", kill_reader)
        elif moment == "while it writes":
            lose_in_a_save(training.average, "save", (path / LOCK).unlink)
        else:
            lose_in_a_save(run_files, "replace_text", (path / LOCK).unlink)
        try:
            training.save(3)
        except (RunError, RuntimeError) as error:
            checkpoints = path / training.folder.checkpoints.name
            entries = sorted(entry.name for entry in checkpoints.iterdir() if entry.suffix != ".py")
            found = {"moment": moment, "refusal": str(error), "entries": entries}
            found["latest"] = (checkpoints / LATEST).read_text()
            sys.stdout.write(f"case {json.dumps(found)}\n")
    training.engine.destroy()


def lose_in_a_save(owner: object, name: str, lose: Callable[[], None]) -> None:
    """Arrange that something is lost in the next call of what writes then."""
    write = getattr(owner, name)

    def write_and_lose(*args: object) -> object:
        setattr(owner, name, write)
        found = write(*args)
        lose()
        return found

    setattr(owner, name, write_and_lose)


def kill_reader() -> None:
    (worker,) = active_children()
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # until the signal of its end was sent


def main(folder: Path) -> None:
    start_processes(find_environment(), timeout=60, threads=1)
    for moment in MOMENTS:
        lose(moment, folder / moment)
    stop_processes()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
