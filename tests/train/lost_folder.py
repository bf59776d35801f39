"""Started by test_second_run.py: a run whose folder another one takes while it saves its third step, of which two are kept."""

import json
import sys
from pathlib import Path

from matey.checkpoints.run_files import LATEST, LOCK
from matey.parallel.environment import find_environment, start_processes, stop_processes
from matey.train import checkpoint
from matey.train.resume import RunError
from tests.support.engine_cases import Training


def main(moment: str, path: Path) -> None:
    start_processes(find_environment(), timeout=60, threads=1)
    training = Training("zero1", path)
    with training.folder.in_use():
        for step in (1, 2):
            training.step(step)
            training.save(step)
        owner, name = {
            "while it writes": (training.average, "save"),
            "as latest moves": (checkpoint, "replace_text"),
        }[moment]
        write = getattr(owner, name)

        def write_and_lose(*args: object) -> None:
            write(*args)
            (path / LOCK).unlink()

        setattr(owner, name, write_and_lose)
        try:
            training.save(3)
        except RunError as error:
            entries = sorted(entry.name for entry in training.folder.checkpoints.iterdir() if entry.suffix != ".py")
            latest = (training.folder.checkpoints / LATEST).read_text()
            sys.stdout.write(f"case {json.dumps({'refusal': str(error), 'entries': entries, 'latest': latest})}\n")
    stop_processes()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
